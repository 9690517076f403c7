//! Rows about security that are no change of an object: logins, refusals. Who must not come in can make as many of them
//! as he likes, so refusals are counted: the first of a caller, action and minute is written as it comes, the others are
//! one more row at the end of the minute, with their number.

use super::catalogue::{Happening, PERMISSION_DENIED};
use super::row::{Phase, Row};
use super::{AuditTrail, Durable, PARAMS, Trail, digest};
use crate::gate::{Request, Surface};
use crate::key::PERSON;
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
        // Whose rights counted: what a key does is found, and goes, with its owner.
        note.row.user = actor.user.clone().filter(|user| *user != actor.name);
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
    row.is_person = row.kind.as_deref() == Some(PERSON);
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
    on_record(cx, &part, note);
}

/// Puts on record that somebody lacks a privilege for what is no operation on objects. Never waits.
pub(crate) fn lacks(cx: &Cx, actor: &Actor, from: Option<IpAddr>, kind: &str, verb: &str) {
    let Some(part) = cx.try_part::<AuditTrail>() else {
        return;
    };
    let note = Note::by(&PERMISSION_DENIED, actor)
        .from(from)
        .failed("DENIED")
        .with("needs", format!("{kind}.{verb}"));
    on_record(cx, &part, note);
}

/// As [`note`](fn@note) for what has failed, where nobody can wait: it is written a moment later.
pub fn refusal(cx: &Cx, note: Note) {
    if let Some(part) = cx.try_part::<AuditTrail>() {
        on_record(cx, &part, note);
    }
}

fn on_record(cx: &Cx, part: &AuditTrail, note: Note) {
    if !part.repeats.is_first(&note, cx.clock().now()) {
        return;
    }
    let who = Who::of(&note);
    if part.refusals.try_send(note).is_err() {
        part.repeats.count(&who);
        tracing::warn!("more refusals than the audit trail takes: some are only counted");
    }
}

/// Who did what, as repeats are counted.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Who {
    action: &'static str,
    actor: String,
    /// His network: whoever has one address of a /64 has them all.
    address: Option<String>,
}

impl Who {
    fn of(note: &Note) -> Who {
        let address = note.row.address.as_deref();
        Who {
            action: note.happening.action,
            actor: note.row.actor.clone(),
            address: address.map(|text| match text.parse() {
                Ok(ip) => crate::limit::network(ip).to_string(),
                Err(_) => text.to_owned(),
            }),
        }
    }
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
        let who = Who::of(note);
        if let Some((_, more)) = minute.seen.get_mut(&who) {
            *more += 1;
            return false;
        }
        // Strangers fill their half only, so that who is known is told apart also then.
        let most = match note.row.actor_kind {
            ActorKind::Anonymous => APART,
            _ => 2 * APART,
        };
        let full = minute.seen.len() >= most;
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

    /// Counts one that was first and could not be written.
    fn count(&self, who: &Who) {
        if let Some((_, more)) = self.0.lock().seen.get_mut(who) {
            *more += 1;
        }
    }

    /// What came again in a minute that is over, as rows; all of it with `now` absent.
    fn over(&self, now: Option<Timestamp>) -> Vec<Note> {
        let mut minute = self.0.lock();
        let over = match (minute.began, now) {
            (None, _) => false,
            // A clock that was set back ends it too.
            (Some(began), Some(now)) => now < began || now.since(began) >= MINUTE,
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

#[cfg(test)]
mod tests {
    use super::super::LOGIN_FAILED;
    use super::*;

    fn from(address: &str) -> Note {
        let note = Note::new(&LOGIN_FAILED, "anna").failed("WRONG_PASSWORD");
        note.from(Some(address.parse().unwrap()))
    }

    #[test]
    fn repeats_are_of_a_network_and_end_with_the_minute_whatever_the_clock_does() {
        let repeats = Repeats::default();
        let at = |seconds: i64| Timestamp::from_millis(1_700_000_000_000 + seconds * 1000);
        assert!(repeats.is_first(&from("2001:db8::1"), at(0)));
        for n in 2..1000 {
            let other = from(&format!("2001:db8::{n:x}"));
            assert!(!repeats.is_first(&other, at(1)), "{n}");
        }
        // A targeted guess is told apart from what somebody makes noise with.
        assert!(repeats.is_first(&from("2001:db8:7::1"), at(2)));
        assert!(repeats.over(Some(at(59))).is_empty());
        let back = repeats.over(Some(at(-86_400)));
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].row.repeats, 998);
        assert!(repeats.is_first(&from("2001:db8::1"), at(-86_400)));
        // What could not be written is counted.
        repeats.count(&Who::of(&from("2001:db8::9")));
        assert_eq!(repeats.over(None)[0].row.repeats, 1);
    }

    #[test]
    fn strangers_do_not_hide_who_is_known() {
        let repeats = Repeats::default();
        let now = Timestamp::from_millis(0);
        for n in 0..2 * APART {
            repeats.is_first(&from(&format!("10.1.{}.{}", n / 256, n % 256)), now);
        }
        assert!(!repeats.is_first(&from("192.0.2.1"), now));
        let known = Note::by(&PERMISSION_DENIED, &Actor::user("bob", None, None)).failed("DENIED");
        assert!(repeats.is_first(&known, now));
    }

    #[test]
    fn what_a_key_does_is_its_owners() {
        let note = Note::by(&PERMISSION_DENIED, &Actor::key("ci", "s1", "anna"));
        assert_eq!(note.row.user.as_deref(), Some("anna"));
        let own = Note::by(&PERMISSION_DENIED, &Actor::user("anna", None, None));
        assert_eq!(own.row.user, None);
    }
}
