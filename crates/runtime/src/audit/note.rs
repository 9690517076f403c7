//! Rows about security that are no change of an object: logins, refusals. Who must not come in can make as many of them
//! as he likes, so refusals are counted: the first of a caller, action and minute is written as it comes, the others are
//! one more row at the end of the minute, with their number.

use super::catalogue::{Happening, PERMISSION_DENIED};
use super::row::{Phase, Row};
use super::{AuditTrail, Durable, PARAMS, Trail, digest};
use crate::gate::{Request, Surface};
use crate::{Actor, ActorKind, Cx, Trace};
use model::{Error, ObjectRef, Result, Timestamp};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How many refusals wait to be written; what comes beyond is counted with the next.
const WAITING: usize = 256;
/// How many callers and actions are told apart in a minute. All others are one row, without a name.
const APART: usize = 512;
/// How long repeats are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// What is to be said of one happening.
#[derive(Clone, Debug)]
pub struct Note {
    happening: &'static Happening,
    row: Row,
}

impl Note {
    /// It happened, and somebody of this name did it or tried to: a user, a key, an address; what he calls himself is
    /// not proven by a row.
    pub fn new(happening: &'static Happening, actor: impl Into<String>) -> Note {
        let row = Row {
            phase: Phase::Outcome,
            level: happening.level,
            tags: happening.tags.to_vec(),
            actor: actor.into(),
            actor_kind: ActorKind::Anonymous,
            action: happening.action.into(),
            result: Some("ok".into()),
            ..Row::default()
        };
        Note { happening, row }
    }

    /// By an actor that is known.
    pub fn by(happening: &'static Happening, actor: &Actor) -> Note {
        let mut note = Note::new(happening, actor.name.clone());
        note.row.actor_kind = actor.kind;
        note
    }

    /// Through which surface.
    pub fn via(mut self, surface: Surface) -> Note {
        self.row.surface = surface;
        self
    }

    /// From which address.
    pub fn from(mut self, address: Option<IpAddr>) -> Note {
        self.row.address = address.map(|a| a.to_string());
        self
    }

    /// With which program.
    pub fn user_agent(mut self, agent: Option<&str>) -> Note {
        self.row.user_agent = agent.map(|text| text.chars().take(256).collect());
        self
    }

    /// In which request.
    pub fn request(mut self, id: &str, trace: &Trace) -> Note {
        self.row.request_id = id.into();
        self.row.trace = trace.clone();
        self
    }

    /// About which object.
    pub fn about(mut self, object: &ObjectRef) -> Note {
        self.row.kind = Some(object.kind.clone());
        self.row.project = object.project.clone();
        self.row.name = Some(object.name.clone());
        self
    }

    /// It failed, and why: a word in capitals, such as `WRONG_PASSWORD`. Never told to the caller by this.
    pub fn failed(mut self, why: &str) -> Note {
        self.row.result = Some(why.into());
        self
    }

    /// One more thing to be known about it. Never a secret.
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Note {
        if !self.row.params.is_object() {
            self.row.params = Value::Object(Map::new());
        }
        self.row.params[name] = value.into();
        self
    }

    /// What could be repeated at will by somebody who is let in nowhere.
    fn is_bounded(&self) -> bool {
        self.row.result.as_deref() != Some("ok")
    }
}

/// Puts a happening on record, on disk when this returns. What has failed is written once for each actor, address and
/// action in a minute, and what comes again is counted.
///
/// # Errors
/// [`model::What::Unavailable`] when the trail cannot be written. Then whatever gives somebody rights must be refused.
pub async fn note(cx: &Cx, note: Note) -> Result<()> {
    let Some(part) = cx.try_part::<AuditTrail>() else {
        return Ok(());
    };
    let now = cx.clock().now();
    if note.is_bounded() && !part.repeats.is_first(&note, now) {
        return Ok(());
    }
    keep(&*part.trail, note, now).await
}

async fn keep(trail: &dyn Trail, note: Note, now: Timestamp) -> Result<()> {
    let mut row = note.row;
    row.time = now;
    row.asked = digest(&row.params);
    if row.params.to_string().len() > PARAMS {
        row.params = Value::Null;
    }
    trail.keep(row, Durable::Now).await
}

/// Puts on record that the gate has refused somebody. Never waits: it is written a moment later.
pub(crate) fn refused(cx: &Cx, request: &Request, error: &Error) {
    let Some(part) = cx.try_part::<AuditTrail>() else {
        return;
    };
    if !super::catalogue::is_refusal(error) || request.actor.kind == ActorKind::System {
        return;
    }
    let op = &request.op;
    let mut note = Note::by(&PERMISSION_DENIED, &request.actor)
        .via(request.surface)
        .from(request.from)
        .request(&request.id, &request.trace)
        .failed(error.code())
        .with(
            "needs",
            format!("{}.{}", op.privilege_kind(), op.privilege_verb()),
        );
    note.row.kind = Some(op.kind().to_owned());
    note.row.project = op.project().map(str::to_owned);
    note.row.name = op.name().map(str::to_owned);
    if part.repeats.is_first(&note, cx.clock().now()) && part.refusals.try_send(note).is_err() {
        tracing::warn!("more refusals than the audit trail takes: some are only counted");
    }
}

/// Who did what, as repeats are counted.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Who {
    action: &'static str,
    actor: String,
    address: Option<String>,
}

/// What has come again in this minute.
#[derive(Default)]
pub(super) struct Repeats(Mutex<Minute>);

#[derive(Default)]
struct Minute {
    began: Option<Timestamp>,
    /// The first of each, and how many came after it.
    seen: HashMap<Who, (Note, u64)>,
}

impl Repeats {
    /// Whether it is to be written at once; else it is counted.
    fn is_first(&self, note: &Note, now: Timestamp) -> bool {
        let mut minute = self.0.lock();
        minute.began.get_or_insert(now);
        let who = Who {
            action: note.happening.action,
            actor: note.row.actor.clone(),
            address: note.row.address.clone(),
        };
        if let Some((_, more)) = minute.seen.get_mut(&who) {
            *more += 1;
            return false;
        }
        let full = minute.seen.len() >= APART;
        match full {
            false => {
                minute.seen.insert(who, (note.clone(), 0));
                true
            }
            true => {
                let who = Who {
                    action: note.happening.action,
                    actor: "*".into(),
                    address: None,
                };
                let mut many = Note::new(note.happening, "*").failed("TOO_MANY");
                many.row.surface = note.row.surface;
                let (_, more) = minute.seen.entry(who).or_insert((many, 0));
                *more += 1;
                false
            }
        }
    }

    /// What came again in a minute that is over, as rows; all of it with `now` absent.
    fn over(&self, now: Option<Timestamp>) -> Vec<Note> {
        let mut minute = self.0.lock();
        let over = match (minute.began, now) {
            (None, _) => false,
            (Some(began), Some(now)) => now.since(began) >= MINUTE,
            (Some(_), None) => true,
        };
        if !over {
            return Vec::new();
        }
        minute.began = None;
        let seen = std::mem::take(&mut minute.seen);
        let mut again: Vec<Note> = seen
            .into_values()
            .filter(|(_, more)| *more > 0)
            .map(|(mut note, more)| {
                note.row.repeats = more;
                note
            })
            .collect();
        again.sort_by(|a, b| a.row.actor.cmp(&b.row.actor));
        again
    }
}

/// The sender of refusals that the gate uses, and what writes them.
pub(super) fn queue() -> (mpsc::Sender<Note>, mpsc::Receiver<Note>) {
    mpsc::channel(WAITING)
}

/// Writes refusals as they come, and once a minute what came again.
pub(super) async fn write_refusals(
    cx: Cx,
    part: Arc<AuditTrail>,
    mut refusals: mpsc::Receiver<Note>,
) {
    let stop = cx.shutdown();
    let mut timer = tokio::time::interval(MINUTE / 4);
    loop {
        let mut ready = Vec::new();
        let ends = tokio::select! {
            () = stop.cancelled() => true,
            note = refusals.recv() => { ready.extend(note); false }
            _ = timer.tick() => false,
        };
        while let (true, Ok(note)) = (ends, refusals.try_recv()) {
            ready.push(note);
        }
        let now = cx.clock().now();
        ready.extend(part.repeats.over((!ends).then_some(now)));
        for note in ready {
            if let Err(error) = keep(&*part.trail, note, now).await {
                tracing::error!(?error, "a refusal could not be put on record");
            }
        }
        if ends {
            return;
        }
    }
}
