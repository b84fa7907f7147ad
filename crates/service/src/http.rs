//! HTTP for operators: is it alive, does it serve, what has it done.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tally_listener::Served;
use tokio::net::TcpListener;

use crate::member::{Member, said};
use crate::metrics;
use crate::ports::{Ports, http_bounds};

/// Serves operators until the server ends.
pub(crate) async fn serve(
    member: Arc<Member>,
    listener: TcpListener,
    ports: Ports,
) -> Result<(), String> {
    let ended = member.ending.ended.clone();
    let port = ports.http(&member.metrics);
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(member);
    let served = Served {
        router,
        ..Served::default()
    };
    tally_listener::serve(listener, port, served, http_bounds(), ended).await;
    Ok(())
}

/// 200 unless the process must be replaced.
async fn livez(State(member): State<Arc<Member>>) -> Response {
    match &*member.broken.borrow() {
        None => (StatusCode::OK, "alive\n".to_owned()).into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("halted: {why}\n")).into_response(),
    }
}

/// 200 when the member takes requests; otherwise the code, what was found and what to run.
async fn readyz(State(member): State<Arc<Member>>) -> Response {
    match member.not_ready() {
        None => (StatusCode::OK, "ready\n".to_owned()).into_response(),
        Some(fault) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", said(&fault)),
        )
            .into_response(),
    }
}

async fn scrape(State(member): State<Arc<Member>>) -> Response {
    match metrics::render(&member) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
