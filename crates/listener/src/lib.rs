//! Lets connections in, for members and log servers: how many there may be, what each must open with,
//! what a caller at the wrong port is told, and why a connection is closed.
//!
//! Knows sockets, HTTP versions and bounds. Knows nothing of what is served behind them.
//!
//! hyper is driven from here and not by tonic's own server, which bounds neither connections nor the time
//! of their first bytes, tries again without a pause when none can be accepted, and tells nobody why one
//! ended, nor whose it was.

mod at_once;
mod connection;
mod direct;
mod door;
mod files;
mod notes;
mod opening;
mod port;
mod reason;
mod status;
mod stray;

pub use direct::Direct;
pub use door::{Bounds, Served, explained, serve};
pub use files::raise_limit;
pub use port::{Counts, Elsewhere, Port, Speaks};
