//! The commands of a golden script. Each becomes one entry; sessions and markers have names.

use std::collections::BTreeMap;
use std::error::Error;

use goldenscript::{ArgumentConsumer, Command as Line, Context, Runner};
use tally_model::command::{
    ActivateNode, Force, Found, OpenSession, RegisterNode, SetStorageState,
};
use tally_model::memory::MemoryState;
use tally_model::{
    Actor, Answer, ClusterId, Command, Effect, Incarnation, Location, Marker, NodeId, NodeName,
    Outcome, Request, Revision, SessionId, Settings, Stamp, Tag, Tagged, View, apply,
};

use crate::keys;
use crate::render::Names;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One run of a script.
#[derive(Default)]
pub(crate) struct Script {
    state: MemoryState,
    index: u64,
    unix_ms: u64,
    sessions: BTreeMap<String, (SessionId, Marker)>,
}

impl Runner for Script {
    type Command = Line;

    fn run(&mut self, line: &Line, _context: &Context) -> Result<String> {
        let mut args = line.consume_args();
        let output = match line.name.as_str() {
            "clock" => self.clock(&mut args)?,
            "found" => self.found(&mut args)?,
            "open" => self.open(&mut args)?,
            "close" => self.tagged(&mut args, |_, _| Ok(Command::CloseSession))?,
            "settle" => self.tagged(&mut args, |_, _| Ok(Command::SettleRequest))?,
            "register" => self.tagged(&mut args, register)?,
            "activate" => self.tagged(&mut args, activate)?,
            "set-state" => self.tagged(&mut args, set_state)?,
            "put" => self.tagged(&mut args, keys::put)?,
            "delete" => self.tagged(&mut args, keys::delete)?,
            "swap" => self.tagged(&mut args, keys::swap)?,
            "compact" => self.tagged(&mut args, keys::compact)?,
            "grant" => self.tagged(&mut args, keys::grant)?,
            "revoke" => self.tagged(&mut args, keys::revoke)?,
            "renew" => {
                let command = keys::renew(&mut args)?;
                self.untagged(command)
            }
            "pass" => {
                let command = keys::pass(&self.state, &mut args)?;
                self.untagged(command)
            }
            "reclaim" => self.untagged(Command::ReclaimVersions),
            "get" => {
                let op = keys::get(&mut args)?;
                self.names().read(&self.state, &op)
            }
            "show" => self.names().state(&self.state),
            "history" => self.names().history(&self.state),
            "sessions" => self.names().sessions(&self.state),
            other => return Err(format!("no such command: {other}").into()),
        };
        args.reject_next()?;
        Ok(output)
    }
}

impl Script {
    fn names(&self) -> Names<'_> {
        Names {
            sessions: &self.sessions,
        }
    }

    /// Moves the leader's clock; it may go backwards, as a new leader's may.
    fn clock(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let text = args.next_pos().ok_or("clock needs seconds")?;
        let seconds: i64 = text.parse()?;
        self.unix_ms = self.unix_ms.saturating_add_signed(seconds * 1000);
        Ok(String::new())
    }

    fn found(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let mut settings = Settings::default();
        if let Some(check) = args.take_key("retry-check") {
            settings.retry_check = check.parse()?;
        }
        if let Some(replication) = args.take_key("replication") {
            settings.replication = Some(replication.parse()?);
        }
        if let Some(seconds) = args.take_key("idle-seconds") {
            settings.session_idle_ms = seconds.parse::<u64>()? * 1000;
        }
        if let Some(max) = args.take_key("sessions-max") {
            settings.sessions_max = max.parse()?;
        }
        if let Some(max) = args.take_key("outcomes-max") {
            settings.outcomes_per_session_max = max.parse()?;
        }
        let command = Command::Found(Found {
            cluster: ClusterId(0xc1),
            settings,
        });
        Ok(self
            .enter(&Request {
                tagged: None,
                command,
            })
            .1)
    }

    fn open(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<String> {
        let name = args
            .next_pos()
            .ok_or("open needs the session's name")?
            .to_owned();
        let marker = marker(args.take_key("marker").ok_or("open needs marker=")?)?;
        let command = Command::OpenSession(OpenSession { marker });
        self.sessions
            .insert(name, (SessionId(self.index + 1), marker));
        let (answer, output) = self.enter(&Request {
            tagged: None,
            command,
        });
        if !matches!(
            answer.outcome,
            Outcome::Applied {
                effect: Effect::SessionOpened { .. },
                ..
            }
        ) {
            return Ok(output);
        }
        Ok(output)
    }

    fn tagged(
        &mut self,
        args: &mut ArgumentConsumer<'_>,
        parse: fn(&MemoryState, &mut ArgumentConsumer<'_>) -> Result<Command>,
    ) -> Result<String> {
        let text = args
            .take_key("tag")
            .ok_or("a tag is needed: tag=SESSION/SEQUENCE")?;
        let (name, sequence) = text
            .split_once('/')
            .ok_or("expected tag=SESSION/SEQUENCE")?;
        let (session, own) = *self.sessions.get(name).ok_or("no such session")?;
        let shown = args.take_key("as-marker").map(marker).transpose()?;
        let acknowledged = args.take_key("ack").map_or(Ok(1), str::parse)?;
        let command = parse(&self.state, args)?;
        let tagged = Tagged {
            tag: Tag {
                session,
                sequence: sequence.parse()?,
            },
            marker: Some(shown.unwrap_or(own)),
            acknowledged,
            digest: digest(&command),
        };
        Ok(self
            .enter(&Request {
                tagged: Some(tagged),
                command,
            })
            .1)
    }

    fn untagged(&mut self, command: Command) -> String {
        let request = Request {
            tagged: None,
            command,
        };
        self.enter(&request).1
    }

    fn enter(&mut self, request: &Request) -> (Answer, String) {
        self.index += 1;
        let stamp = Stamp {
            index: self.index,
            unix_ms: self.unix_ms,
        };
        let (answer, changes) = apply(&self.state, stamp, request);
        for change in &changes {
            change.write_to(&mut self.state);
        }
        let output = self.names().answer(&answer, &changes);
        (answer, output)
    }
}

fn register(_: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    Ok(Command::RegisterNode(RegisterNode {
        name: NodeName::new(args.take_key("n").ok_or("register needs n=")?)?,
        marker: args.take_key("marker").map(marker).transpose()?,
        address: String::new(),
        location: Location::new(args.take_key("at").unwrap_or_default())?,
    }))
}

fn activate(state: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    let (node, current) = node(state, args)?;
    Ok(Command::ActivateNode(ActivateNode {
        node,
        marker: marker(args.take_key("marker").ok_or("activate needs marker=")?)?,
        incarnation: incarnation(args, current)?,
        attempt: args.take_key("attempt").map_or(Ok(1), str::parse)?,
    }))
}

fn set_state(state: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<Command> {
    let to = args
        .next_pos()
        .ok_or("set-state needs the state")?
        .parse()?;
    let (node, current) = node(state, args)?;
    let actor = match args.take_key("by") {
        Some("node") => Actor::Node {
            marker: marker(args.take_key("marker").ok_or("by=node needs marker=")?)?,
            incarnation: incarnation(args, current)?,
        },
        Some("op") => Actor::Operator {
            expected_revision: args
                .take_key("expect")
                .map(|text| text.trim_start_matches('r').parse().map(Revision))
                .transpose()?,
            force: args.take_key("force").map(|name| Force {
                confirm_name: name.to_owned(),
            }),
        },
        _ => return Err("set-state needs by=node or by=op".into()),
    };
    let reason = args.take_key("reason").unwrap_or_default().to_owned();
    Ok(Command::SetStorageState(SetStorageState {
        node,
        to,
        actor,
        reason,
    }))
}

/// `n=1` names an id, `n=ls1` a known name.
fn node(state: &MemoryState, args: &mut ArgumentConsumer<'_>) -> Result<(NodeId, Incarnation)> {
    let text = args.take_key("n").ok_or("n= is needed")?;
    if let Ok(id) = text.parse() {
        let current = state
            .node(NodeId(id))
            .map_or(Incarnation(1), |node| node.incarnation);
        return Ok((NodeId(id), current));
    }
    let node = state
        .node_by_name(&NodeName::new(text)?)
        .ok_or("no node of this name")?;
    Ok((node.id, node.incarnation))
}

/// The current incarnation unless `boot=` names another.
fn incarnation(args: &mut ArgumentConsumer<'_>, current: Incarnation) -> Result<Incarnation> {
    Ok(args
        .take_key("boot")
        .map(str::parse)
        .transpose()?
        .map_or(current, Incarnation))
}

/// Markers are single letters in scripts.
fn marker(letter: &str) -> Result<Marker> {
    match letter.as_bytes() {
        [byte @ b'A'..=b'Z'] => Ok(Marker {
            bits: u128::from(*byte),
            created_unix_ms: 0,
        }),
        _ => Err(format!("a marker is one capital letter, found {letter}").into()),
    }
}

/// Any function that tells commands apart will do here; members use the encoded bytes.
fn digest(command: &Command) -> u128 {
    let text = format!("{command:?}");
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u128, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x1_0000_01b3)
        })
}
