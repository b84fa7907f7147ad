//! Watches through the etcd API, on a member that follows: what they are told, and what they are not.

mod answers;
mod bounds;
mod history;
mod leader;
mod snapshot;
mod watching;
