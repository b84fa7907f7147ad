//! What clients of etcd ask over plain HTTP before anything else: which version this is, and whether it serves.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tally_consensus::Consistency;
use tally_model::View;

use super::maintenance::FOLLOWED;
use crate::member::{Member, said};

/// A member that cannot read within this time is not healthy. Who asks seldom waits longer.
const HEALTH_WITHIN: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct Version {
    etcdserver: &'static str,
    etcdcluster: &'static str,
}

#[derive(Deserialize)]
struct Asked {
    /// `true` when what this member has applied is enough, though nobody may lead.
    serializable: Option<String>,
}

#[derive(Serialize)]
struct Health {
    health: &'static str,
    reason: String,
}

pub(super) fn routes(member: Arc<Member>) -> Router {
    Router::new()
        .route("/version", get(version))
        .route("/health", get(health))
        .with_state(member)
}

async fn version() -> Json<Version> {
    // Clients see by the cluster's what all members can do.
    Json(Version {
        etcdserver: FOLLOWED,
        etcdcluster: "3.5.0",
    })
}

/// 200 when this member can read, which takes a leader unless `?serializable=true` is asked for.
async fn health(State(member): State<Arc<Member>>, asked: Query<Asked>) -> impl IntoResponse {
    let consistency = match asked.serializable.as_deref() {
        Some("true") => Consistency::Stale,
        _ => Consistency::Linearizable,
    };
    match reads(&member, consistency).await {
        Ok(()) => (
            StatusCode::OK,
            Json(Health {
                health: "true",
                reason: String::new(),
            }),
        ),
        Err(reason) => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(Health {
                health: "false",
                reason,
            }),
        ),
    }
}

/// Reads as a client would; gives why it cannot.
pub(super) async fn reads(member: &Member, consistency: Consistency) -> Result<(), String> {
    let replica = member.may_serve().map_err(|fault| said(&fault))?;
    let reader = replica.read(consistency, Instant::now() + HEALTH_WITHIN);
    let Some(reader) = member.ending.unless_refusing(reader).await else {
        return Err("the member is ending".to_owned());
    };
    // What stands in the way of readiness says more, where something does.
    let why = |error: String| member.not_ready().map_or(error, |fault| said(&fault));
    let reader = reader.map_err(|error| why(error.to_string()))?;
    let read = reader.with_view(|view| view.globals());
    read.map(drop).map_err(|error| why(error.to_string()))
}
