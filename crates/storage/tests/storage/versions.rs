//! Keys as of an earlier revision are those of then, whatever has become of them since.

use bytes::Bytes;
use tally_model::keys::{DeleteRange, LeaseOf, Put};
use tally_model::{Command, KeyOp, KeyRange, Settings};

use crate::member::Member;
use crate::restart::keys_at;
use crate::script::{MARKER_A, found, open_session, proposal, tagged, untagged};

/// Each is the beginning of the next, or sorts beside it only as it should.
const KEYS: [&[u8]; 6] = [b"\0", b"\0\0", b"a", b"a\0", b"a\0\xff", b"b"];

fn put(key: &'static [u8], value: &'static [u8]) -> KeyOp {
    KeyOp::Put(Put {
        key: Bytes::from_static(key),
        value: Some(Bytes::from_static(value)),
        lease: LeaseOf::Given(None),
        want_previous: false,
    })
}

fn delete(key: &'static [u8]) -> KeyOp {
    KeyOp::Delete(DeleteRange {
        keys: KeyRange::One(Bytes::from_static(key)),
        want_previous: false,
    })
}

#[test]
fn what_was_changed_deleted_or_made_since_is_shown_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let member = Member::open(directory.path());
    let mut index = 0;
    let mut apply = |command: Option<KeyOp>| {
        let request = match (command, index) {
            (Some(op), _) => tagged(1, index - 1, index - 1, MARKER_A, Command::Keys(op)),
            (None, 0) => untagged(found(Settings::default())),
            (None, _) => untagged(open_session(MARKER_A)),
        };
        member.state.apply(&proposal(index, 0, request)).unwrap();
        index += 1;
    };
    apply(None);
    apply(None);
    for key in KEYS {
        apply(Some(put(key, b"then")));
    }
    let then = member
        .state
        .with_view(|view| (view.revision(), keys_at(view, None)));
    let (revision, expected) = then.unwrap();
    assert_eq!(expected.len(), KEYS.len());
    for later in [
        put(b"\0\0", b"now"),
        delete(b"a"),
        delete(b"a\0\xff"),
        put(b"a\0\xff", b"again"),
        put(b"aa", b"new"),
        delete(b"b"),
    ] {
        apply(Some(later));
        let shown = member.state.with_view(|view| keys_at(view, Some(revision)));
        assert_eq!(shown.unwrap(), expected);
    }
}
