//! What `dev` reads, as arbitrary text; see [`crate::fuzzing`].

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::control::{Ask, MemberReport, Order, Reply};
use super::file::{Control, DevFile, MemberAddresses};

/// An order, a reply to one, or `dev.json`.
pub(crate) fn json(text: &str) {
    same::<Order>(text);
    same::<Reply>(text);
    same::<DevFile>(text);
}

fn same<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(text: &str) {
    if let Ok(read) = serde_json::from_str::<T>(text) {
        let written = serde_json::to_string(&read).unwrap_or_default();
        assert_eq!(serde_json::from_str(&written).ok(), Some(read));
    }
}

/// Real texts for [`json`].
pub(crate) fn seeds() -> impl Iterator<Item = String> {
    let order = |ask| Order {
        secret: "00000000000000000000000000000001".to_owned(),
        ask,
    };
    let report = MemberReport {
        name: "n1".to_owned(),
        role: "leader".to_owned(),
        running: true,
        id: Some("0000000000000007".to_owned()),
        term: 1,
        applied_index: 9,
        client: "127.0.0.1:1".to_owned(),
        peer: "127.0.0.1:2".to_owned(),
        http: "127.0.0.1:3".to_owned(),
        failure: None,
    };
    let file = DevFile {
        control: Some(Control {
            port: 7,
            secret: "1".to_owned(),
        }),
        members: vec![MemberAddresses {
            name: "n1".to_owned(),
            client: "127.0.0.1:1".to_owned(),
            peer: "127.0.0.1:2".to_owned(),
            http: "127.0.0.1:3".to_owned(),
        }],
    };
    let reply = Reply::Status {
        drop_replies: false,
        members: vec![report],
    };
    let kill = order(Ask::Kill {
        member: "leader".to_owned(),
    });
    let texts = [
        serde_json::to_string(&kill),
        serde_json::to_string(&order(Ask::DropReplies { on: true })),
        serde_json::to_string(&reply),
        serde_json::to_string(&file),
    ];
    texts.into_iter().flatten()
}
