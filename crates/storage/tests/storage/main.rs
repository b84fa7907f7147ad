//! The stores on real disks: restarts, damage, snapshots.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod counts;
mod damage;
mod directory;
// What the rules are asked is asked of the disk too.
#[path = "../../../model/tests/keys/drawn.rs"]
mod drawn;
mod flips;
mod log;
mod member;
mod properties;
mod restart;
mod script;
mod snapshots;
mod state;
mod versions;
