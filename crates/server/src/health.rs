//! Probes that tell the truth: alive, ready, started, and in detail.
//!
//! `live` asks nothing. `ready` is yes when every check passes and the process takes requests. What there is to check
//! beyond the store is handed in by the program that wires the parts (disk, agent, clock).

use crate::app::Call;
use crate::reply::{self, Failure, Outcome};
use axum::response::Response;
use futures::future::{BoxFuture, join_all};
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A check that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "message", rename_all = "snake_case")]
pub enum Finding {
    /// As it should be.
    Ok,
    /// Somebody should look; still ready.
    Warn(String),
    /// Not ready, and why.
    Error(String),
    /// Not checked, and why.
    Skipped(String),
}

/// One check of `/health/ready` and `/health/detail`.
#[derive(Clone)]
pub struct Check {
    /// Its name: `store`, `disk`, `agent`, `clock`.
    pub name: &'static str,
    /// Does it. It is given two seconds.
    pub run: Arc<dyn Fn() -> BoxFuture<'static, Finding> + Send + Sync>,
}

#[derive(Serialize)]
struct Checked {
    name: &'static str,
    #[serde(flatten)]
    finding: Finding,
    ms: f64,
}

/// `/health/live`.
pub(crate) fn live(method: &Method) -> Outcome {
    match *method {
        Method::GET | Method::HEAD => Ok(said(StatusCode::OK, "alive")),
        _ => Err(Failure::Method(vec![Method::GET])),
    }
}

fn said(status: StatusCode, word: &str) -> Response {
    reply::json(status, &json!({ "status": word }))
}

/// The other probes.
pub(crate) async fn answer(call: &Call, path: &str) -> Outcome {
    call.need("health", "read")?;
    let taking = call.app.ready.load(Ordering::Relaxed);
    if path == "/health/startup" {
        // A server that answers has read its store.
        return Ok(said(StatusCode::OK, "started"));
    }
    let checked = join_all(call.app.checks.iter().map(|check| async move {
        let begun = Instant::now();
        let finding = tokio::time::timeout(PATIENCE, (check.run)())
            .await
            .unwrap_or_else(|_| {
                Finding::Error(format!("no answer within {} s", PATIENCE.as_secs()))
            });
        Checked {
            name: check.name,
            finding,
            ms: begun.elapsed().as_secs_f64() * 1000.0,
        }
    }))
    .await;
    let failed = checked
        .iter()
        .any(|one| matches!(one.finding, Finding::Error(_)));
    let status = match taking && !failed {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let word = match (taking, failed) {
        (false, _) => "draining",
        (true, true) => "not ready",
        (true, false) => "ready",
    };
    if path == "/health/ready" {
        return Ok(said(status, word));
    }
    Ok(reply::json(
        status,
        &json!({ "status": word, "checks": checked, "dependencies": call.app.cx.dependencies().standings() }),
    ))
}
