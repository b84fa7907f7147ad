//! Tally's messages on the wire and on disk, and their conversion to and from the model.
//!
//! Knows how things are written down; knows nothing of what they do, and nothing of disks or
//! sockets.

pub mod codec;
pub mod convert;
pub mod fault;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod metadata;

/// The generated code, nested as the protobuf packages are because it refers to itself that way.
mod generated {
    #![allow(
        clippy::all,
        clippy::allow_attributes_without_reason,
        unreachable_pub,
        reason = "generated code is not ours to style"
    )]

    pub mod tally {
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
    pub mod mvccpb {
        tonic::include_proto!("mvccpb");
        #[cfg(feature = "json")]
        include!(concat!(env!("OUT_DIR"), "/mvccpb.serde.rs"));
    }
    pub mod etcdserverpb {
        tonic::include_proto!("etcdserverpb");
        #[cfg(feature = "json")]
        include!(concat!(env!("OUT_DIR"), "/etcdserverpb.serde.rs"));
    }
}

/// The etcd v3 API as of etcd 3.5, without its Auth service, `etcdserverpb`.
pub use generated::etcdserverpb as etcd;
/// What etcd stores and what its watchers are told, `mvccpb`.
pub use generated::mvccpb as mvcc;
/// The small log server's messages, `tally.logserver.v1`.
pub use generated::tally::logserver::v1 as logserver;
/// Messages between members, `tally.peer.v1`.
pub use generated::tally::peer::v1 as peer;
/// Messages on disk, `tally.storage.v1`.
pub use generated::tally::storage::v1 as storage;
/// Public messages and services, `tally.v1`.
pub use generated::tally::v1;

/// The public package, `tally.v1`, as a serialized `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// etcd's packages, `etcdserverpb` and `mvccpb`, as a serialized `FileDescriptorSet`, for gRPC
/// reflection where they are served.
pub const ETCD_DESCRIPTORS: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/etcd_descriptors.bin"));
