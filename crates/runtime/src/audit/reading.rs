//! The streams of a chain: rows for people who look for something, and the whole of it for auditors.

use super::catalogue::EXPORTED;
use super::format::{Link, Sort, tag};
use super::kind::trail;
use super::row::{Phase, Row};
use super::subjects::Search;
use super::{FileTrail, Note, note};
use crate::{Cx, StreamIo, StreamRequest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use model::{Error, Result, Seconds, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;
use store::streams::Record;

/// Rows that are read in one go.
const PART: u64 = 1000;
/// Who lists more rows than this reads the trail out, and that is on record.
const MUCH: u64 = 1000;
/// Most rows that one list shows.
const MOST: u64 = 100_000;

/// Which rows are wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Wanted {
    /// Only what this actor did, or a key of this user; `root` is also found as `root@unix`.
    pub actor: Option<String>,
    /// Only what was done from this address.
    pub address: Option<String>,
    /// Only about this object: `KIND/NAME`, `KIND/PROJECT/NAME`, or its identity.
    pub object: Option<String>,
    /// Only this action, or the actions that begin with it: `vm.start`, `vm`, `auth.login`.
    pub action: Option<String>,
    /// Only the rows of this request.
    pub request: Option<String>,
    /// Only what failed or was refused.
    pub failures: bool,
    /// Not older than this: a time, or how long ago (`2h`).
    pub since: Option<String>,
    /// Not younger than this: a time, or how long ago.
    pub until: Option<String>,
    /// At most so many, the newest ones: 1 to 100,000.
    #[schemars(range(min = 1, max = 100_000))]
    pub limit: Option<u64>,
    /// Go on with each row as it comes.
    pub follow: bool,
}

/// What is exported.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Exported {
    /// With what is personal, as far as its keys are there.
    pub decrypt: bool,
    /// Not older than this: a time, or how long ago (`30d`).
    pub since: Option<String>,
    /// Not younger than this: a time, or how long ago.
    pub until: Option<String>,
}

fn params<T: for<'d> Deserialize<'d>>(request: &StreamRequest) -> Result<T> {
    let given = match request.params.clone() {
        Value::Null => json!({}),
        given => given,
    };
    serde_json::from_value(given).map_err(|e| Error::field("params", e.to_string()))
}

fn time(field: &str, word: &str, now: Timestamp) -> Result<Timestamp> {
    if let Some(time) = Timestamp::parse(word) {
        return Ok(time);
    }
    let ago: Seconds = word.parse().map_err(|e| {
        Error::field(field, format!("`{word}`: {e}"))
            .hint("give a time such as 2026-01-31T12:00:00Z, or how long ago, such as 2h")
    })?;
    let ms = i64::try_from(ago.duration().as_millis()).unwrap_or(i64::MAX);
    Ok(Timestamp::from_millis(now.millis().saturating_sub(ms)))
}

/// The numbers of the rows between two times: first, and the one after the last.
async fn between(
    cx: &Cx,
    trail: &FileTrail,
    since: Option<&str>,
    until: Option<&str>,
) -> Result<(u64, u64)> {
    let (first, next) = trail.stream().range();
    let now = cx.clock().now();
    let number = async |field: &str, word: Option<&str>, none: u64| -> Result<u64> {
        let Some(word) = word else { return Ok(none) };
        let at = time(field, word, now)?;
        let at = Duration::from_millis(u64::try_from(at.millis()).unwrap_or(0));
        let found = trail.stream().since(at).await;
        found.map_err(|e| Error::unavailable(e.to_string()).because(e))
    };
    if let (Some(since), Some(until)) = (since, until)
        && time("since", since, now)? > time("until", until, now)?
    {
        return Err(Error::field(
            "since",
            format!("`{since}` is after `{until}`"),
        ));
    }
    let from = number("since", since, first).await?.max(first);
    let to = number("until", until, next).await?.min(next);
    Ok((from, to.max(from)))
}

async fn read(trail: &FileTrail, from: u64, to: u64) -> Result<Vec<Record>> {
    let mut out: Vec<Record> = Vec::new();
    let mut at = from;
    while at < to {
        let count = usize::try_from(to - at).unwrap_or(usize::MAX);
        let part = trail.stream().read(at, count).await;
        let part = part.map_err(|e| Error::unavailable(e.to_string()).because(e))?;
        let Some(last) = part.last() else { break };
        at = last.seq + 1;
        // Where rows are damaged, the next sound ones may lie behind what was asked for.
        out.extend(part.into_iter().filter(|record| record.seq < to));
    }
    Ok(out)
}

/// A wish, made ready to be compared with bytes: nothing is opened that is not shown.
struct Sieve {
    wanted: Wanted,
    actor: Option<Vec<(u8, Search)>>,
    address: Option<Search>,
    name: Option<Search>,
    kind: Option<String>,
    object: Option<String>,
}

impl Sieve {
    fn of(trail: &FileTrail, wanted: &Wanted) -> Result<Sieve> {
        let keys = trail.subjects();
        // As rows have it: an address has many spellings, and a misspelt one would find nothing and say so of all.
        let address =
            match wanted.address.as_deref() {
                Some(text) => Some(text.parse::<IpAddr>().map_err(|_| {
                    Error::field("address", format!("`{text}` is not an IP address"))
                })?),
                None => None,
            };
        let (kind, object) = match wanted.object.as_deref() {
            None => (None, None),
            Some(word) => match word.split_once('/') {
                Some((kind, rest)) => (Some(kind.to_owned()), Some(rest.to_owned())),
                None => (None, Some(word.to_owned())),
            },
        };
        let name = |object: &String| {
            let name = object.rsplit('/').next().unwrap_or(object);
            keys.search(tag::SEALED_NAME, name)
        };
        let by = |actor: &String| {
            vec![
                (tag::SEALED_ACTOR, keys.search(tag::SEALED_ACTOR, actor)),
                (tag::SEALED_USER, keys.search(tag::SEALED_USER, actor)),
                // Whom the machine vouches for.
                (
                    tag::SEALED_ACTOR,
                    keys.search(tag::SEALED_ACTOR, &format!("{actor}@unix")),
                ),
            ]
        };
        Ok(Sieve {
            actor: wanted.actor.as_ref().map(by),
            address: address.map(|a| keys.search(tag::SEALED_ADDRESS, &a.to_string())),
            name: object.as_ref().map(name),
            kind,
            object,
            wanted: wanted.clone(),
        })
    }

    /// Whether a record is wanted.
    fn takes(&self, payload: &[u8]) -> bool {
        let Some(link) = Link::read(payload).filter(|l| l.sort == Sort::Row) else {
            return false;
        };
        let clear = |tag: u8, wanted: &str| link.field(tag) == Some(wanted.as_bytes());
        let sealed = |tag: u8, search: &Search| link.field(tag).is_some_and(|f| search.finds(f));
        let actor = match (&self.wanted.actor, &self.actor) {
            (Some(actor), Some(names)) => {
                let known_as = |field: &[u8]| {
                    let id = field.get(..8).map(hex::encode).unwrap_or_default();
                    actor.strip_prefix("subject-") == Some(&*id)
                };
                clear(tag::ACTOR, actor)
                    || names.iter().any(|(tag, search)| sealed(*tag, search))
                    || link.field(tag::SEALED_ACTOR).is_some_and(known_as)
            }
            _ => true,
        };
        let address = self
            .address
            .as_ref()
            .is_none_or(|search| sealed(tag::SEALED_ADDRESS, search));
        let kind = self.kind.as_ref().is_none_or(|kind| clear(tag::KIND, kind));
        let object = match (&self.object, &self.name) {
            (Some(object), Some(search)) => {
                let (project, name) = match object.split_once('/') {
                    Some((project, name)) => (Some(project), name),
                    None => (None, &**object),
                };
                let named = clear(tag::NAME, name) || sealed(tag::SEALED_NAME, search);
                let here = project.is_none_or(|project| clear(tag::PROJECT, project));
                (named && here) || clear(tag::UID, object)
            }
            _ => true,
        };
        let action = self.wanted.action.as_deref().is_none_or(|wanted| {
            let action = link.field(tag::ACTION).unwrap_or_default();
            let rest = action.strip_prefix(wanted.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'.')
        });
        let request = self.wanted.request.as_deref();
        let request = request.is_none_or(|request| clear(tag::REQUEST, request));
        let failed = !self.wanted.failures
            || link
                .field(tag::RESULT)
                .is_some_and(|result| result != b"ok");
        actor && address && kind && object && action && request && failed
    }
}

fn line(row: &Row) -> Result<Bytes> {
    let mut line = serde_json::to_vec(row).map_err(|e| Error::internal("audit row").because(e))?;
    line.push(b'\n');
    Ok(line.into())
}

/// The stream `rows`.
pub(super) fn rows(cx: Cx, request: StreamRequest, io: StreamIo) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let wanted: Wanted = params(&request)?;
        let trail = trail(&cx, &request.target.name)?;
        trail.flush().await;
        let sieve = Sieve::of(&trail, &wanted)?;
        let (from, to) = between(
            &cx,
            &trail,
            wanted.since.as_deref(),
            wanted.until.as_deref(),
        )
        .await?;
        let limit = wanted.limit.unwrap_or(50).clamp(1, MOST) as usize;
        if limit as u64 > MUCH {
            // As much is an export by another name.
            let read_out = Note::by(&EXPORTED, &request.actor)
                .request(&request.request_id, &crate::Trace::default())
                .about(&request.target)
                .with("decrypt", true)
                .with("limit", limit);
            note(&cx, read_out).await?;
        }
        let mut found: VecDeque<Bytes> = VecDeque::new();
        let mut at = to;
        // The newest are wanted: backwards, part by part.
        while at > from && found.len() < limit {
            let begin = at.saturating_sub(PART).max(from);
            for record in read(&trail, begin, at).await?.iter().rev() {
                if found.len() < limit && sieve.takes(&record.payload) {
                    found.push_front(record.payload.clone());
                }
            }
            at = begin;
        }
        for payload in found {
            if let Some(row) = trail.decode(&payload) {
                io.data(line(&row)?).await?;
            }
        }
        if !wanted.follow {
            return Ok(());
        }
        let mut coming = trail.stream().follow(to);
        loop {
            let record = tokio::select! {
                () = io.closed() => return Ok(()),
                record = coming.next() => record,
            };
            let Some(record) = record else { return Ok(()) };
            let record = record.map_err(|e| Error::gone(e.to_string()).because(e))?;
            if sieve.takes(&record.payload)
                && let Some(row) = trail.decode(&record.payload)
            {
                io.data(line(&row)?).await?;
            }
        }
    })
}

/// The stream `export`.
pub(super) fn export(
    cx: Cx,
    request: StreamRequest,
    io: StreamIo,
) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let wanted: Exported = params(&request)?;
        let trail = trail(&cx, &request.target.name)?;
        // Before the first row goes out.
        let read_out = Note::by(&EXPORTED, &request.actor)
            .request(&request.request_id, &crate::Trace::default())
            .about(&request.target)
            .with("decrypt", wanted.decrypt);
        note(&cx, read_out).await?;
        let (mut at, to) = between(
            &cx,
            &trail,
            wanted.since.as_deref(),
            wanted.until.as_deref(),
        )
        .await?;
        while at < to {
            let end = (at + PART).min(to);
            for record in read(&trail, at, end).await? {
                let Some(link) = Link::read(&record.payload) else {
                    continue;
                };
                let row = match wanted.decrypt {
                    true => trail.decode(&record.payload),
                    false => super::format::decode(&record.payload, &|_, _| None),
                };
                let mut out = json!({
                    "seq": record.seq,
                    "sort": if link.sort == Sort::Seal { "seal" } else { "row" },
                    "hash": hex::encode(link.hash),
                    "previous": hex::encode(link.prev),
                    "payload": BASE64.encode(&record.payload),
                });
                if let Some(row) = row {
                    out["row"] = serde_json::to_value(row)
                        .map_err(|e| Error::internal("audit row").because(e))?;
                }
                io.data(format!("{out}\n")).await?;
            }
            at = end;
        }
        Ok(())
    })
}

impl Row {
    /// Whether it says that something did not come about.
    pub fn is_failure(&self) -> bool {
        self.phase == Phase::Outcome && self.result.as_deref().is_some_and(|r| r != "ok")
    }
}
