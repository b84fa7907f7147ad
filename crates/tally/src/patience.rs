//! Tells a person at a terminal why nothing happens while a command looks for a cluster.

use std::future::Future;
use std::io::IsTerminal;
use std::pin::pin;
use std::time::Duration;

use tally_client::MemberStatus;

use crate::connection::Connection;

/// A command that takes no longer needs no words.
const SILENT_FOR: Duration = Duration::from_secs(1);
/// Who answers at all answers within this.
const LOOK_WITHIN: Duration = Duration::from_millis(500);

/// Runs a command. When it takes long, and a person looks on, says once whether anybody answers.
pub(crate) async fn patient<T>(connection: &Connection, command: impl Future<Output = T>) -> T {
    if !std::io::stderr().is_terminal() {
        return command.await;
    }
    told_while(connection, command, |line| eprintln!("{line}")).await
}

async fn told_while<T>(
    connection: &Connection,
    command: impl Future<Output = T>,
    tell: impl FnOnce(&str),
) -> T {
    let mut command = pin!(command);
    let look = async {
        tokio::time::sleep(SILENT_FOR).await;
        let client = connection.client().ok()?.with_deadline(LOOK_WITHIN);
        line(connection, &client.statuses().await)
    };
    tokio::select! {
        done = &mut command => return done,
        line = look => {
            if let Some(line) = line {
                tell(&line);
            }
        }
    }
    command.await
}

/// What to say when these answers were found; `None` when somebody leads and the command only takes
/// its time.
fn line(connection: &Connection, members: &[MemberStatus]) -> Option<String> {
    let mut answers = members
        .iter()
        .filter_map(|member| member.status.as_ref().ok());
    let why = if members.iter().all(|member| member.status.is_err()) {
        let asked = members.iter().map(|member| member.endpoint.as_str());
        format!(
            "no member answers yet at {}",
            Vec::from_iter(asked).join(", ")
        )
    } else if answers.all(|status| status.leader == 0) {
        "no member leads yet".to_owned()
    } else {
        return None;
    };
    let within = humantime::format_duration(connection.timeout);
    Some(format!("{why}; waiting up to {within}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_client::{Error, v1};

    fn connection() -> Connection {
        Connection::to(&["http://127.0.0.1:1"], Duration::from_secs(30))
    }

    #[tokio::test]
    async fn a_command_that_finds_nobody_says_so_once_after_a_second() {
        let mut told = Vec::new();
        let command = tokio::time::sleep(Duration::from_secs(4));
        told_while(&connection(), command, |line| told.push(line.to_owned())).await;
        let expected = "no member answers yet at http://127.0.0.1:1; waiting up to 30s";
        assert_eq!(told, [expected]);
    }

    #[tokio::test]
    async fn a_quick_command_says_nothing() {
        let told = told_while(&connection(), async { 7 }, |line| panic!("{line}")).await;
        assert_eq!(told, 7);
    }

    #[test]
    fn members_without_a_leader_are_not_taken_for_dead() {
        let member = |status| MemberStatus {
            endpoint: "http://127.0.0.1:1".to_owned(),
            name: None,
            status,
        };
        let dead = || {
            member(Err(Error::Unreachable {
                endpoints: Vec::new(),
                last: "connection refused".to_owned(),
            }))
        };
        let with = |leader| {
            member(Ok(v1::StatusResponse {
                leader,
                ..Default::default()
            }))
        };
        let told = line(&connection(), &[dead(), with(0)]);
        assert_eq!(
            told.as_deref(),
            Some("no member leads yet; waiting up to 30s")
        );
        assert_eq!(line(&connection(), &[dead(), with(4)]), None);
    }
}
