//! Who did what: a row before every change (`intent`, on disk before the change begins) and one after it (`outcome`).
//!
//! A change whose intent cannot be kept is refused. Each commit leaves the name of its attempt in the store, so that after
//! a crash the outcomes that are missing can be written and are true. No secret is in a row. What happens to security
//! without a change of an object ([`CATALOGUE`]) comes in by [`note`](fn@note).

mod catalogue;
mod note;
mod row;

pub use catalogue::*;
pub(crate) use note::refused;
pub use note::{Note, note};
pub use row::{Phase, Row};

use crate::cx::store_error;
use crate::gate::{Op, Request};
use crate::registry::Declared;
use crate::{ActorKind, Cx};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::schema::{self, SECRET, property};
use model::{Error, Result};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::Path;
use std::sync::Arc;
use store::streams::{Limits, Stream};
use store::{Key, Page, Prefix};
use tokio::sync::mpsc;

/// Longest params that a row holds, in bytes.
const PARAMS: usize = 4096;
/// Keys in which commits leave the names of their attempts: enough for all that can be under way at once.
const SLOTS: u64 = 1024;
/// How many rows are looked through after a restart for intents without outcome.
const LOOKED_AT: usize = 10_000;
/// Where the slots lie in the store.
const PREFIX: &str = "a/";

/// The key in which a commit leaves the name of its attempt.
pub(crate) fn slot(n: u64) -> Key {
    Key::new(format!("{PREFIX}{:04}", n % SLOTS))
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
    let params = asked(declared, &request.op);
    let (kind, project, name) = (request.op.kind(), request.op.project(), request.op.name());
    let object = name
        .map(|name| crate::object_key(kind, project, name))
        .and_then(|key| cx.cache().row(kind, &key));
    let row = Row {
        time: cx.clock().now(),
        phase: Phase::Intent,
        actor: request.actor.name.clone(),
        actor_kind: request.actor.kind,
        surface: request.surface,
        address: request.from.map(|a| a.to_string()),
        request_id: request.id.clone(),
        trace: request.trace.clone(),
        action: format!("{kind}.{}", request.op.privilege_verb()),
        kind: Some(kind.to_owned()),
        uid: object.map(|row| row.uid),
        project: project.map(str::to_owned),
        name: name.map(str::to_owned),
        change: request.change,
        asked: digest(&params),
        params: match params.to_string().len() {
            ..=PARAMS => params,
            _ => Value::Null,
        },
        tags: vec![Tag::Soc2, Tag::Iso27001],
        ..Row::default()
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

/// What a request asks for, fit to be kept.
fn asked(declared: &Declared, op: &Op) -> Value {
    let file = |body: &Value| {
        let mut out = json!({});
        if let Some(meta) = body.get("metadata") {
            out["metadata"] = meta.clone();
        }
        if let Some(spec) = body.get("spec") {
            out["spec"] = masked(&declared.spec, spec);
        }
        out
    };
    let input = |verb: &str, params: &Value| match declared.input(verb) {
        Some(schema) => masked(schema, params),
        None => Value::Null,
    };
    match op {
        Op::Create { body, .. } | Op::Update { body, .. } | Op::Patch { body, .. } => file(body),
        Op::Delete { keep, .. } if keep.is_empty() => Value::Null,
        Op::Delete { keep, .. } => json!({ "keep": keep }),
        Op::Act { verb, params, .. } => input(verb, params),
        Op::Batch { verb, body, .. } => {
            let mut body = body.clone();
            if let Some(params) = body.get_mut("params") {
                *params = input(verb, params);
            }
            body
        }
        Op::Stream { .. } | Op::Get { .. } | Op::List { .. } | Op::Watch { .. } => Value::Null,
    }
}

/// Only what a schema knows, and of its secrets only that they are there: a misspelt secret stands under a name that
/// nobody knows to be secret.
fn masked(schema: &Value, value: &Value) -> Value {
    if mentions(schema, SECRET) {
        return match value {
            Value::Null => Value::Null,
            _ => Value::String("***".into()),
        };
    }
    match value {
        Value::Object(map) => {
            let more = schema.get("additionalProperties").filter(|s| s.is_object());
            let known = map.iter().filter_map(|(name, value)| {
                let part = property(schema, name).or(more)?;
                Some((name.clone(), masked(part, value)))
            });
            // A schema without properties takes anything: nothing in it is declared secret.
            match has_properties(schema) || more.is_some() {
                true => Value::Object(known.collect()),
                false => value.clone(),
            }
        }
        Value::Array(list) => {
            let items = schema::items(schema).unwrap_or(&Value::Null);
            Value::Array(list.iter().map(|value| masked(items, value)).collect())
        }
        value => value.clone(),
    }
}

/// Whether a schema itself, or a branch of it, is marked.
fn mentions(schema: &Value, word: &str) -> bool {
    schema::flagged(schema, word) || branches(schema).any(|part| mentions(part, word))
}

fn has_properties(schema: &Value) -> bool {
    schema.get("properties").is_some() || branches(schema).any(has_properties)
}

fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf", "allOf"]
        .into_iter()
        .filter_map(|word| schema.get(word).and_then(Value::as_array))
        .flatten()
}

/// Writes the outcomes that the last run of this process did not come to: what a commit has left its name in was done,
/// anything else was not.
async fn recover(cx: &Cx) -> Result<usize> {
    let Some(trail) = cx.trail() else {
        return Ok(0);
    };
    let mut open: Vec<Row> = Vec::new();
    for row in trail.last(LOOKED_AT).await {
        match row.phase {
            Phase::Intent if row.change.is_some() => open.push(row),
            Phase::Intent => {}
            Phase::Outcome => open.retain(|intent| intent.change != row.change),
        }
    }
    if open.is_empty() {
        return Ok(0);
    }
    let listing = cx.store().list(&Prefix::new(PREFIX), Page::ALL).await;
    let done = listing.map_err(store_error)?.entries;
    let missing = open.len();
    for intent in open {
        let name = intent.change.map(|c| c.to_string()).unwrap_or_default();
        let was_done = done.iter().any(|entry| entry.value == name.as_bytes());
        let word = if was_done { "ok" } else { "INTERRUPTED" };
        let row = Row {
            time: cx.clock().now(),
            phase: Phase::Outcome,
            result: Some(word.into()),
            recovered: true,
            ..intent
        };
        trail.keep(row, true).await?;
    }
    tracing::info!(
        missing,
        "outcomes that a crash had kept from the audit trail were added"
    );
    Ok(missing)
}

/// SHA-256 of what was asked, in hexadecimal.
fn digest(params: &Value) -> String {
    hex::encode(Sha256::digest(params.to_string().as_bytes()))
}

/// The trail of this process, as a part: `CxBuilder::part(Arc::new(AuditTrail::new(..)))`.
pub struct AuditTrail {
    trail: Arc<dyn Trail>,
    repeats: note::Repeats,
    refusals: mpsc::Sender<Note>,
    to_write: Mutex<Option<mpsc::Receiver<Note>>>,
}

impl AuditTrail {
    /// Over what keeps the rows.
    pub fn new(trail: Arc<dyn Trail>) -> AuditTrail {
        let (refusals, to_write) = note::queue();
        AuditTrail {
            trail,
            repeats: note::Repeats::default(),
            refusals,
            to_write: Mutex::new(Some(to_write)),
        }
    }

    /// What keeps the rows.
    pub fn trail(&self) -> &Arc<dyn Trail> {
        &self.trail
    }
}

/// Ends what the last run of this process has begun, and begins to write what the gate refuses.
pub(crate) async fn start(cx: &Cx) -> Result<()> {
    let Some(part) = cx.try_part::<AuditTrail>() else {
        return Ok(());
    };
    recover(cx).await?;
    let to_write = part.to_write.lock().take();
    if let Some(to_write) = to_write {
        let work = note::write_refusals(cx.clone(), part, to_write);
        cx.life().spawn("audit of refusals", work);
    }
    Ok(())
}
