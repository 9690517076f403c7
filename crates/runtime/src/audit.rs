//! Who did what: a row before every change (`intent`, on disk before the change begins) and one after it (`outcome`).
//!
//! A change whose intent cannot be kept is refused. Rows never hold bodies, only their hash: what a body says stands in
//! the object. Chaining and sealing come with the identity crate.

use crate::gate::{Actor, Request, Surface};
use crate::{ActorKind, Cx, Trace};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::path::Path;
use store::streams::{Limits, Stream};

/// Before or after the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The change is about to be tried.
    Intent,
    /// How it ended.
    Outcome,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// When.
    pub time: Timestamp,
    /// Before or after.
    pub phase: Phase,
    /// Who.
    pub actor: String,
    /// Through which surface.
    pub surface: Surface,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Follows the request through every log.
    pub request_id: String,
    /// Where the request stands among others.
    #[serde(default, skip_serializing_if = "Trace::is_empty")]
    pub trace: Trace,
    /// `vm.start`.
    pub action: String,
    /// Project of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// SHA-256 of what was asked, without its secrets: a short secret could be guessed from its hash.
    pub asked: String,
    /// `ok`, or the code of the error; only in outcomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// How long it took; only in outcomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// Where rows are kept.
pub trait Trail: Send + Sync {
    /// Keeps a row; durable when it returns if `durable`.
    fn keep(&self, row: Row, durable: bool) -> BoxFuture<'_, Result<()>>;
    /// The last rows, oldest first.
    fn last(&self, limit: usize) -> BoxFuture<'_, Vec<Row>>;
}

/// Rows in a folder, kept for a year.
pub struct FileTrail(Stream);

impl FileTrail {
    /// Opens the folder.
    pub async fn open(dir: &Path) -> Result<FileTrail> {
        let dir = dir.to_owned();
        let limits = Limits {
            keep_bytes: 4 << 30,
            keep_age: std::time::Duration::from_secs(366 * 24 * 3600),
            ..Limits::default()
        };
        tokio::task::spawn_blocking(move || Stream::open(dir, limits))
            .await
            .map_err(|e| Error::internal("open the audit trail").because(e))?
            .map(FileTrail)
            .map_err(|e| {
                Error::unavailable(format!("the audit trail cannot be opened: {e}")).because(e)
            })
    }
}

impl Trail for FileTrail {
    fn keep(&self, row: Row, durable: bool) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let bytes = Bytes::from(
                serde_json::to_vec(&row).map_err(|e| Error::internal("audit row").because(e))?,
            );
            let kept = match durable {
                true => self.0.append_durable(vec![bytes]).await,
                false => self.0.append(vec![bytes]).await,
            };
            kept.map(|_| ()).map_err(|e| {
                Error::unavailable("changes are refused, because the audit trail cannot be written")
                    .hint(e.to_string())
                    .because(e)
            })
        })
    }

    fn last(&self, limit: usize) -> BoxFuture<'_, Vec<Row>> {
        Box::pin(async move {
            let from = self.0.range().1.saturating_sub(limit as u64);
            let records = self.0.read(from, limit).await.unwrap_or_default();
            records
                .iter()
                .filter_map(|r| serde_json::from_slice(&r.payload).ok())
                .collect()
        })
    }
}

/// An open pair of rows.
pub(crate) struct Pair {
    row: Row,
    begun: tokio::time::Instant,
}

/// Writes the intent of a request that changes something; `None` when it changes nothing or there is no trail.
pub(crate) async fn intent(cx: &Cx, request: &Request) -> Result<Option<Pair>> {
    let Some(trail) = cx.trail() else {
        return Ok(None);
    };
    let declared = cx.registry().need(request.op.kind())?;
    if request.dry_run || request.op.reads(declared) {
        return Ok(None);
    }
    let row = Row {
        time: cx.clock().now(),
        phase: Phase::Intent,
        actor: named(&request.actor),
        surface: request.surface,
        address: request.from.map(|a| a.to_string()),
        request_id: request.id.clone(),
        trace: request.trace.clone(),
        action: format!("{}.{}", request.op.kind(), request.op.privilege_verb()),
        project: request.op.project().map(str::to_owned),
        name: request.op.name().map(str::to_owned),
        asked: hex::encode(Sha256::digest(
            format!("{:?}", declared.masked(&request.op)).as_bytes(),
        )),
        result: None,
        duration_ms: None,
    };
    // Our own loops repeat what they do until it is done: their rows need not be on disk first.
    trail
        .keep(row.clone(), request.actor.kind != ActorKind::System)
        .await?;
    Ok(Some(Pair {
        row,
        begun: tokio::time::Instant::now(),
    }))
}

/// Writes how it ended.
pub(crate) async fn outcome(cx: &Cx, pair: Option<Pair>, error: Option<&Error>) {
    let (Some(pair), Some(trail)) = (pair, cx.trail()) else {
        return;
    };
    let row = Row {
        time: cx.clock().now(),
        phase: Phase::Outcome,
        result: Some(error.map_or("ok", |e| e.code()).to_owned()),
        duration_ms: Some(pair.begun.elapsed().as_millis() as u64),
        ..pair.row
    };
    if let Err(error) = trail.keep(row, false).await {
        tracing::error!(?error, "the outcome of a change could not be kept");
    }
}

fn named(actor: &Actor) -> String {
    actor.name.clone()
}

/// The trail of this process, as a part: `CxBuilder::part(Arc::new(AuditTrail(..)))`.
pub struct AuditTrail(pub std::sync::Arc<dyn Trail>);
