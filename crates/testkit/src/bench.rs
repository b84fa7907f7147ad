//! What a cluster of real processes does in a second, how long it is silent when its leader goes, and what
//! many keys take.
//!
//! Measures from outside: answers as a client gets them, counters as `/metrics` tells them, the
//! members' CPU and memory as the system counts them. What the load itself costs is not counted,
//! though it shares the machine.

mod again;
mod etcd;
pub mod failover;
mod key_caller;
pub mod keys;
mod load;
mod machine;
mod operation;
mod row;
mod store;
mod usage;
mod watching;
mod writer;

pub use etcd::Etcd;
pub use load::{Load, Span, To};
pub use machine::Machine;
pub use operation::Operation;
pub use row::Row;
pub use store::{Store, Whose};
pub use watching::Watchers;
pub use writer::Writer;
