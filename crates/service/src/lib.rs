//! Carries calls: gRPC for clients and for members, HTTP for operators. Forms the cluster.
//!
//! Knows addresses, deadlines, limits and status codes. Knows nothing of how an order is agreed on,
//! how bytes reach a disk, or how a command is decided.

mod catching_up;
mod client;
mod deadline;
mod ending;
mod etcd;
mod fault;
mod formation;
mod http;
mod hub;
mod lease_time;
mod member;
mod metrics;
mod peer;
mod ports;
mod reclaiming;
mod removal;
mod server;
mod system;

#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use etcd::fuzzing;
pub use server::{Faults, Listeners, Server, ServerConfig, StartError, Tuning};
pub use tally_model::Settings;
