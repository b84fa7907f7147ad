//! What a command does to Tally's replicated state.
//!
//! Pure: [`apply`] looks at the tables it is shown, the stamp it is given and the request, and at
//! nothing else. Knows nothing of disks, peers, clocks or randomness.

pub mod change;
pub mod claim;
pub mod command;
pub mod explanation;
pub mod history;
pub mod identifier;
pub mod keys;
pub mod lease;
pub mod memory;
pub mod node;
pub mod outcome;
pub mod record_keys;
pub mod refusal;
pub mod session;
pub mod settings;
pub mod storage_state;
pub mod transition;
pub mod view;

mod activate;
mod apply;
mod draft;
mod register;

pub use apply::apply;
pub use change::Change;
pub use claim::Claim;
pub use command::{Actor, Command, Request, Tagged};
pub use history::{Event, HistoryEntry};
pub use identifier::*;
pub use keys::{AtMost, EventId, KeyAnswer, KeyChanged, KeyEvent, KeyOp, KeyRange, KeyValue};
pub use lease::Lease;
pub use node::{Binding, Node, SetBy};
pub use outcome::{Alarm, Answer, Effect, Outcome};
pub use refusal::Refusal;
pub use session::{Session, StoredOutcome};
pub use settings::{Replication, RetryCheck, Scope, Settings};
pub use storage_state::StorageState;
pub use view::{Globals, Tables, View};
