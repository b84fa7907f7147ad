#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    start: StartArguments,
}

fn bound(
    line: &[&str],
    remembered: Option<Vec<MemberAddresses>>,
) -> Result<Vec<MemberAddresses>, Failure> {
    let line = Line::parse_from(["dev"].iter().chain(line));
    let bound = addresses(Path::new("d"), &line.start, remembered)?;
    Ok(bound.into_iter().map(|(addresses, _)| addresses).collect())
}

#[test]
fn members_take_free_ports_and_keep_them() {
    let first = bound(&["--nodes", "2"], None).unwrap();
    let ports: BTreeSet<_> = first
        .iter()
        .flat_map(|member| [&member.client, &member.peer, &member.http])
        .collect();
    assert_eq!(ports.len(), 6);
    assert_eq!(first[1].name, "n2");
    let again = bound(&[], Some(first.clone())).unwrap();
    assert_eq!(again, first);
}

#[test]
fn another_number_of_members_needs_another_directory() {
    let first = bound(&["--nodes", "1"], None).unwrap();
    let failure = bound(&["--nodes", "3"], Some(first.clone())).unwrap_err();
    assert_eq!(failure.exit.code(), 2);
    let failure = bound(&["--port-base", "1"], Some(first)).unwrap_err();
    assert_eq!(failure.exit.code(), 2);
}

#[test]
fn given_ports_follow_one_another() {
    assert_eq!(port(0, 0, Some(7000)).unwrap(), 7000);
    assert_eq!(port(2, 1, Some(7000)).unwrap(), 7007);
    assert_eq!(port(2, 1, None).unwrap(), 0);
    assert_eq!(port(8, 2, Some(u16::MAX)).unwrap_err().exit.code(), 2);
}

#[test]
fn a_ready_file_has_endpoints_and_members() {
    let member = MemberAddresses {
        name: "n1".to_owned(),
        client: "127.0.0.1:1".to_owned(),
        peer: "127.0.0.1:2".to_owned(),
        http: "127.0.0.1:3".to_owned(),
    };
    let ready = Ready {
        endpoints: vec!["http://127.0.0.1:1".to_owned()],
        members: vec![&member],
    };
    let expected = serde_json::json!({
        "endpoints": ["http://127.0.0.1:1"],
        "members": [{
            "name": "n1",
            "client": "127.0.0.1:1",
            "peer": "127.0.0.1:2",
            "http": "127.0.0.1:3",
        }],
    });
    assert_eq!(serde_json::to_value(ready).unwrap(), expected);
}
