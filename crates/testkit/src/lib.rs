//! Clusters of real `tally serve` processes, and what goes wrong between them: killed and stopped
//! members, wiped directories, answers and requests that get lost on the way.
//!
//! Sees the product from outside only: its command line, its public calls and its files' existence.
//! Every wait has a deadline and says what it waited for.

mod answer;
pub mod bench;
mod binary;
mod bulk;
mod call;
mod clock;
mod cluster;
mod command;
mod compose;
mod deadline;
mod disk;
mod host;
mod http;
pub mod json;
pub mod keys;
mod lacking;
pub mod leader_loss;
mod linear;
mod load;
mod log_server;
pub mod many;
mod member;
mod port;
mod process;
mod proxy;
mod read;
mod requester;
mod rounds;
mod search;
mod trap;

pub use answer::AnswerExt;
pub use bulk::grow;
pub use call::{Call, send, send_unhurried, send_until_answered};
pub use clock::Clocks;
pub use cluster::Cluster;
pub use command::{Finished, Operator};
pub use compose::{Compose, Engine};
pub use deadline::{until, while_observing};
pub use disk::{Copy, Disk};
pub use host::Hosts;
pub use http::{HttpAnswer, get};
pub use lacking::lacking;
pub use linear::Searched;
pub use load::{Checked, Load, LoadOptions, Recorded, Seen, Sent};
pub use log_server::{LogServer, LogServerProcess};
pub use member::Member;
pub use port::Port;
pub use process::Process;
pub use proxy::{Mode, Proxy};
pub use read::{Reader, activations, registrations};
pub use requester::{Requester, channel, fresh_marker, lazy_channel};
pub use rounds::{rounds, seed};
pub use trap::{Calls, Failed, Trap};
