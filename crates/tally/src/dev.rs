//! `tally dev`: a whole cluster in one process, to try things and to break them.

mod control;
mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod members;
mod run;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::connection::Connection;
use crate::exit::Failure;
use crate::logging::Logging;
use crate::output::{Output, table};
use control::{Ask, Reply, ask};

/// Most members that one process runs.
const NODES_MAX: u16 = 9;
/// Least time that a running `dev` has for an order, whatever `--timeout` says.
const ORDER_WITHIN_MIN: Duration = Duration::from_secs(1);

/// Runs a whole cluster in one process until Ctrl-C, or orders a running one about.
#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// Where the members keep their data.
    #[arg(long, global = true, value_name = "DIR", default_value = "./tally-dev")]
    data_dir: PathBuf,
    #[command(flatten)]
    start: StartArguments,
    #[command(subcommand)]
    command: Option<DevCommand>,
}

#[derive(Debug, Args)]
struct StartArguments {
    /// How many members [default: 3, or as before on a directory that was used].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    nodes: Option<u16>,
    /// Written when there is a leader: endpoints and members, as JSON.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// First of three consecutive ports for each member; free ones are taken without it.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port_base: Option<u16>,
    #[command(flatten)]
    logging: Logging,
}

#[derive(Debug, Subcommand)]
enum DevCommand {
    /// Kills a member: its listeners, tasks and connections are gone at once. It hands nothing over and
    /// flushes nothing; what it had synced is what it finds when it starts again.
    Kill {
        /// A member's name, or `leader`.
        member: String,
    },
    /// Starts a member that was killed, on its old ports and its old directory.
    Start {
        /// A member's name.
        member: String,
    },
    /// Makes all members swallow their answers to storage-state changes, after the commit.
    DropReplies {
        #[arg(value_enum)]
        switch: Switch,
    },
    /// What each member is doing.
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

pub(crate) async fn run(
    arguments: DevArguments,
    connection: &Connection,
    output: Output,
) -> Result<(), Failure> {
    let Some(command) = arguments.command else {
        return run::run(arguments.data_dir, arguments.start).await;
    };
    let order = match command {
        DevCommand::Kill { member } => Ask::Kill { member },
        DevCommand::Start { member } => Ask::Start { member },
        DevCommand::DropReplies { switch } => Ask::DropReplies {
            on: switch == Switch::On,
        },
        DevCommand::Status => Ask::Status,
    };
    let within = connection.timeout.max(ORDER_WITHIN_MIN);
    let reply = ask(&arguments.data_dir, &order, within).await?;
    if let Reply::Failed {
        code,
        found,
        expected,
        next,
    } = reply
    {
        let failure = Failure::fault(&code, found);
        return Err(failure.expected(expected).next(next));
    }
    output.print(&reply, || told(&reply))
}

/// A command about this directory that works wherever it is typed.
fn command(dir: &Path, order: &str) -> String {
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let dir = dir.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+@".contains(c);
    let dir = if dir.chars().all(plain) {
        dir
    } else {
        format!("'{}'", dir.replace('\'', r"'\''"))
    };
    let order = if order.is_empty() {
        String::new()
    } else {
        format!(" {order}")
    };
    format!("tally dev{order} --data-dir {dir}")
}

fn told(reply: &Reply) -> String {
    match reply {
        Reply::Killed { member, role } => format!("killed {member}, {role} until now"),
        Reply::Started { member } => format!("started {member}"),
        Reply::DropReplies { on: true } => {
            "members swallow their answers to storage-state changes from now on".to_owned()
        }
        Reply::DropReplies { on: false } => "members answer again".to_owned(),
        Reply::Status {
            drop_replies,
            members,
        } => {
            let rows = members.iter().map(|member| {
                [
                    member.name.clone(),
                    member.role.clone(),
                    member.id.clone().unwrap_or_else(|| "-".to_owned()),
                    member.client.clone(),
                    member.http.clone(),
                ]
            });
            let mut text = table(["NAME", "ROLE", "ID", "CLIENT", "HTTP"], rows);
            for member in members {
                if let Some(failure) = &member.failure {
                    text += &format!("\n{} failed: {failure}", member.name);
                }
            }
            if *drop_replies {
                text += "\nmembers swallow their answers to storage-state changes";
            }
            text
        }
        Reply::Failed { found, .. } => found.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_about_a_directory_can_be_typed_anywhere() {
        assert_eq!(
            command(Path::new("/tmp/d"), "status"),
            "tally dev status --data-dir /tmp/d"
        );
        assert_eq!(
            command(Path::new("/my dir"), ""),
            "tally dev --data-dir '/my dir'"
        );
        let relative = command(Path::new("d"), "start n2");
        assert!(
            relative.starts_with("tally dev start n2 --data-dir /"),
            "{relative}"
        );
    }
}
