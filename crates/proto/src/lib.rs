//! Tally's messages on the wire and on disk, and their conversion to and from the model.
//!
//! Knows how things are written down; knows nothing of what they do, and nothing of disks or
//! sockets.

pub mod convert;
pub mod fault;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;

/// The generated code, nested as the protobuf packages are because it refers to itself that way.
mod tally {
    #![allow(
        clippy::all,
        clippy::allow_attributes_without_reason,
        unreachable_pub,
        reason = "generated code is not ours to style"
    )]

    pub mod v1 {
        tonic::include_proto!("tally.v1");
    }
    pub mod peer {
        pub mod v1 {
            tonic::include_proto!("tally.peer.v1");
        }
    }
    pub mod storage {
        pub mod v1 {
            tonic::include_proto!("tally.storage.v1");
        }
    }
    pub mod logserver {
        pub mod v1 {
            tonic::include_proto!("tally.logserver.v1");
        }
    }
}

/// The small log server's messages, `tally.logserver.v1`.
pub use tally::logserver::v1 as logserver;
/// Messages between members, `tally.peer.v1`.
pub use tally::peer::v1 as peer;
/// Messages on disk, `tally.storage.v1`.
pub use tally::storage::v1 as storage;
/// Public messages and services, `tally.v1`.
pub use tally::v1;

/// The public package, `tally.v1`, as a serialized `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
