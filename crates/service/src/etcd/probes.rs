//! `/livez` and `/readyz` as the later releases of etcd 3.5 have them on the client port: named checks in plain text.
//! The HTTP port has its own, which say more of this member.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tally_consensus::{Consistency, Replica, Role};

use super::about::reads;
use crate::member::{Member, said};

/// What is looked at, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// That no other member has come to another state. A member that finds damage on its own disk stops.
    DataCorruption,
    /// That this member reads what it has applied.
    SerializableRead,
    /// That it reads the latest, which takes a leader.
    LinearizableRead,
    /// That it votes.
    NonLearner,
}

const LIVE: &[Check] = &[Check::SerializableRead];
const READY: &[Check] = &[
    Check::DataCorruption,
    Check::SerializableRead,
    Check::LinearizableRead,
    Check::NonLearner,
];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::DataCorruption => "data_corruption",
            Self::SerializableRead => "serializable_read",
            Self::LinearizableRead => "linearizable_read",
            Self::NonLearner => "non_learner",
        }
    }

    async fn passes(self, member: &Member) -> Result<(), String> {
        match self {
            Self::DataCorruption => match replica(member)?.hash_mismatches().as_slice() {
                [] => Ok(()),
                [..] => Err("another member has another state: tally cluster status".to_owned()),
            },
            Self::NonLearner => match replica(member)?.status().role {
                Role::Learner => Err("this member does not vote yet".to_owned()),
                Role::Follower | Role::Candidate | Role::Leader | Role::Stopped => Ok(()),
            },
            Self::SerializableRead => reads(member, Consistency::Stale).await,
            Self::LinearizableRead => reads(member, Consistency::Linearizable).await,
        }
    }
}

fn replica(member: &Member) -> Result<Replica, String> {
    member.may_serve().map_err(|fault| said(&fault))
}

/// Names and values of the query, of which some may come several times.
type Asked = Query<Vec<(String, String)>>;

pub(super) fn routes(member: Arc<Member>) -> Router {
    let of = |path: &str, checks: &'static [Check]| {
        let all = move |State(member): State<Arc<Member>>, asked: Asked| async move {
            let excluded = asked.iter().filter(|(name, _)| name == "exclude");
            let excluded: BTreeSet<&str> = excluded.map(|(_, value)| value.as_str()).collect();
            let checks = checks.iter().copied();
            let checks = checks.filter(|check| !excluded.contains(check.name()));
            answer(&member, checks, &asked).await
        };
        let one = move |State(member): State<Arc<Member>>, name: Path<String>, asked: Asked| async move {
            match checks.iter().copied().find(|check| check.name() == *name) {
                Some(check) => answer(&member, [check].into_iter(), &asked).await,
                None => no_such_check(&name, checks),
            }
        };
        Router::new()
            .route(path, get(all))
            .route(&format!("{path}/{{check}}"), get(one))
    };
    of("/livez", LIVE)
        .merge(of("/readyz", READY))
        .with_state(member)
}

/// 200 and `ok` when all checks pass; 503 with a line for each otherwise, as for `?verbose`.
async fn answer(
    member: &Member,
    checks: impl Iterator<Item = Check> + Send,
    asked: &Asked,
) -> Response {
    let (mut lines, mut status) = (String::new(), StatusCode::OK);
    for check in checks {
        let name = check.name();
        // Writing to a string does not fail.
        let _ = match check.passes(member).await {
            Ok(()) => writeln!(lines, "[+]{name} ok"),
            Err(why) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                writeln!(lines, "[-]{name} failed: {why}")
            }
        };
    }
    let verbose = asked.iter().any(|(name, _)| name == "verbose");
    let body = match (status, verbose) {
        (StatusCode::OK, false) => "ok\n".to_owned(),
        (StatusCode::OK, true) => lines + "ok\n",
        (_, _) => lines,
    };
    (status, body).into_response()
}

fn no_such_check(name: &str, checks: &[Check]) -> Response {
    let names: Vec<_> = checks.iter().map(|check| check.name()).collect();
    let found = format!(
        "there is no check {name:?} here, only {}\n",
        names.join(", ")
    );
    (StatusCode::NOT_FOUND, found).into_response()
}
