//! The one binary of Tally: `serve`, `dev`, `log-server` and the operator's commands.
//!
//! Knows flags, configuration, tables and exit codes; how anything is done is other crates' business.
//! A library only so that its parsers can be fuzzed; nothing else uses it.

mod answer;
mod cluster;
mod config;
mod connection;
mod dev;
mod exit;
mod explain;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
mod health;
mod kv;
mod listen;
mod log_server;
mod logging;
mod member;
mod node;
mod output;
mod patience;
mod resume;
mod serve;
mod signals;
mod supervisor;
mod usage;

use std::io::Write;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand};

use connection::Connection;
use exit::{Exit, Failure};
use output::{Output, written};
use patience::patient;

/// Keeps which log servers exist and what each may do.
#[derive(Debug, Parser)]
#[command(name = "tally", version, after_help = EXIT_CODES, propagate_version = false)]
struct Cli {
    /// How results are printed.
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t = Output::Table,
        help_heading = "Global"
    )]
    output: Output,
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
With -o json a command that fails also prints one document on standard output,
unless its result, such as a refused answer, tells of the failure already:
  {\"error\": {\"code\", \"found\", \"expected\", \"next\", \"exit\", \"resume\"}}
`expected`, `next` and `resume`, the token for `tally resume`, are null when there is none.

Exit codes:
  0  done, or done before (replayed)
  1  anything else: something is broken, or not found
  2  usage: a flag, a variable or the configuration
  3  refused by the cluster
  4  marker conflict: the node is another one's
  5  no leader, or nobody could be reached; nothing was done
  6  outcome unknown; the command prints how to resume, or where to look";

/// Tasks that are left when a command is done are given up after this time.
const TASKS_END_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::ServeArguments),
    Dev(dev::DevArguments),
    LogServer(log_server::LogServerArguments),
    /// Log servers and their storage states.
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// The members of the cluster itself.
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Who belongs to the cluster.
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Keys, transactions, leases and watches, as etcd has them.
    #[command(subcommand)]
    Kv(kv::KvCommand),
    Resume(resume::ResumeArguments),
    Health(health::HealthArguments),
    Explain(explain::ExplainArguments),
    /// A script for a shell that completes commands and flags.
    Completion {
        shell: clap_complete::Shell,
    },
    /// Tally's version.
    Version,
}

/// Runs the command line of this process and ends the process.
pub fn main() {
    let code = match Cli::try_parse() {
        Ok(cli) => {
            let output = cli.output;
            run(cli).map_or_else(|failure| ended(&failure, output), |()| 0)
        }
        Err(error) => unparsed(&error),
    };
    // Without the C++ destructors of static objects: after a failed write the stores are left open on
    // purpose, and RocksDB aborts the process when its statics go before its databases.
    signal_hook::low_level::exit(code.into());
}

/// Tells of a failure: a text for people and a document for programs.
fn ended(failure: &Failure, output: Output) -> u8 {
    // When standard error or output is gone, the exit code still tells.
    let _ = writeln!(std::io::stderr(), "{failure}");
    if let Some(document) = failure.document().filter(|_| output == Output::Json) {
        let _ = output.print(&document, String::new);
    }
    failure.exit.code()
}

/// The end of a command line that is no command: help, the version, or a mistake.
fn unparsed(error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        // Help and version are results.
        return match written(error.print()) {
            Ok(()) => 0,
            Err(failure) => ended(&failure, Output::Table),
        };
    }
    let output = usage::output_asked(std::env::args_os().skip(1));
    // Printed by clap, which knows about colours; the document is left to us.
    let _ = error.print();
    if output == Output::Json {
        let failure = usage::failure(error);
        let _ = failure
            .document()
            .map(|document| output.print(&document, String::new));
    }
    Exit::Usage.code()
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli {
        output,
        connection,
        command,
    } = cli;
    match command {
        Command::Explain(arguments) => explain::run(&arguments, output),
        Command::Completion { shell } => explain::completion(shell, &mut Cli::command()),
        Command::Version => explain::version(output),
        other => with_runtime(other, &connection, output),
    }
}

/// Threads for tasks: half of the processors. The log's writer, RocksDB and reads of many keys have threads of their
/// own, and a second one that looks for tasks costs more than it does while there are few.
fn worker_threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / 2).max(1)
}

fn with_runtime(command: Command, connection: &Connection, output: Output) -> Result<(), Failure> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // tokio reads the variable when it is not told how many.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        runtime.worker_threads(worker_threads());
    }
    let runtime = runtime.enable_all().build();
    let runtime =
        runtime.map_err(|error| serve::halted(&format!("cannot start threads: {error}")))?;
    let done = runtime.block_on(async {
        match command {
            Command::Serve(arguments) => serve::run(arguments).await,
            Command::Dev(arguments) => dev::run(arguments, connection, output).await,
            Command::LogServer(arguments) => log_server::run(arguments, connection, output).await,
            Command::Node(command) => {
                patient(connection, node::run(command, connection, output)).await
            }
            Command::Cluster(command) => {
                patient(connection, cluster::run(command, connection, output)).await
            }
            Command::Member(command) => {
                patient(connection, member::run(command, connection, output)).await
            }
            Command::Kv(command) => patient(connection, kv::run(command, connection, output)).await,
            Command::Resume(arguments) => {
                patient(connection, resume::run(arguments, connection, output)).await
            }
            Command::Health(arguments) => health::run(arguments, output).await,
            // Answered before, without a runtime.
            Command::Explain(_) | Command::Completion { .. } | Command::Version => Ok(()),
        }
    });
    // What is still under way may close its files; a call that hangs, as on a broken disk, must not
    // keep the process.
    runtime.shutdown_timeout(TASKS_END_WITHIN);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_follow_the_command() {
        let line = [
            "tally",
            "node",
            "show",
            "ls1",
            "--stale",
            "-o",
            "json",
            "--timeout",
            "1s",
        ];
        let cli = Cli::try_parse_from(line).expect("a command line");
        assert_eq!(cli.output, Output::Json);
        assert_eq!(cli.connection.timeout.as_secs(), 1);
        let line = ["tally", "dev", "kill", "leader", "--data-dir", "d"];
        Cli::try_parse_from(line).expect("a command line");
    }
}
