//! What a key may be, what becomes of it, and when a secret of it is worth anything.

use super::types::{ApiKeySpec, KeySecret, Reason, Revoke, Revoked, Rotate, Rotation, State};
use super::{ApiKey, KIND, policy, target};
use crate::access::{self, Pattern, Reach};
use crate::secret::Secret;
use crate::user::User;
use model::{Error, ObjectRef, Owner, Resource, Result, Timestamp, Violation};
use runtime::{ActorKind, Draft, Op};
use serde_json::{Value, json};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a key is good when nothing is said.
const LIFE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long it may be good.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long before its end it is said to end.
const WARN: Duration = Duration::from_secs(14 * 24 * 3600);
/// For how long the old secret works on.
const OVERLAP: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long an ended key is kept for those who look back.
const KEPT: Duration = LONGEST;
/// Keys of one owner that let in.
const SLOTS: usize = 3;

/// The space of the parts that may be known.
const IDS: &str = "api-key-id";

/// The key under which the object of a secret is found.
pub(super) fn id_key(id: &str) -> runtime::Key {
    runtime::unique_key(IDS, id)
}

/// Whether a key lets in at all.
pub(super) fn lives(spec: &ApiKeySpec, now: Timestamp) -> bool {
    spec.revoked.is_none() && spec.expires.is_some_and(|end| now < end)
}

/// When each secret of a living key ends: with the key, or as its rotation says.
pub(super) fn ends(spec: &ApiKeySpec, at: usize) -> Option<Timestamp> {
    let (secret, end) = (spec.secrets.get(at)?, spec.expires?);
    let rotated = spec.rotation.as_ref();
    let rotated = rotated.filter(|rotation| secret.made < rotation.at);
    let ends = [secret.until, rotated.map(|rotation| rotation.old_until)];
    Some(ends.into_iter().flatten().fold(end, Timestamp::min))
}

/// Whether its first or next secret is still to be shown.
pub(super) fn awaits(spec: &ApiKeySpec) -> bool {
    match (&spec.rotation, spec.secrets.last()) {
        (_, None) => true,
        (Some(rotation), Some(last)) => last.made < rotation.at,
        (None, Some(_)) => false,
    }
}

/// Whether it ended so long ago that nobody looks back at it any more.
pub(super) fn is_old(spec: &ApiKeySpec, now: Timestamp) -> bool {
    let ended = spec.expires.is_some_and(|end| now.since(end) >= KEPT);
    ended && !lives(spec, now)
}

/// The rotation of a key for which it is time.
pub(super) fn rotation_due(name: &str) -> Op {
    Op::Act {
        target: target(name),
        verb: "rotate".into(),
        params: json!({ "reason": "scheduled" }),
    }
}

/// Where it is in its life.
pub(super) fn state(spec: &ApiKeySpec, now: Timestamp) -> State {
    let left = spec.expires.map_or(Duration::ZERO, |end| end.since(now));
    match () {
        () if spec.revoked.is_some() => State::Revoked,
        () if left.is_zero() => State::Expired,
        () if awaits(spec) => State::Waiting,
        () if left < WARN => State::Expiring,
        () => State::Active,
    }
}

/// At creation and every change.
pub(super) fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let mut spec = draft.spec::<ApiKey>()?;
    let old = draft.old_spec::<ApiKey>()?;
    let (now, system) = (draft.now(), draft.actor().kind == ActorKind::System);
    if !system {
        // Nobody brings a secret of his own, or takes one away.
        spec.secrets = old
            .as_ref()
            .map_or_else(Vec::new, |old| old.secrets.clone());
    }
    if spec.owner.is_empty() {
        spec.owner = draft.actor().user.clone().ok_or_else(|| {
            Error::field("spec.owner", "is required of who is no user himself").hint("--owner USER")
        })?;
    }
    let key = draft.cx().key::<User>(None, &spec.owner);
    let Some(owner) = draft.cx().cache().row(User::KIND.name, &key) else {
        return Err(Error::field(
            "spec.owner",
            format!("there is no user `{}`", spec.owner),
        ));
    };
    access::manages(draft.cx(), draft.actor(), &spec.owner)?;
    if old.is_none() {
        draft.meta.owner = Some(Owner {
            kind: User::KIND.name.into(),
            name: owner.name.to_string(),
            uid: owner.uid,
        });
        spec.rotation = None;
        spec.revoked = None;
    }
    check(&spec, old.as_ref(), draft, now)?;
    let begun = spec.rotation.as_ref().map_or(draft.meta.created, |r| r.at);
    let end = *spec.expires.get_or_insert(begun.plus(LIFE));
    if end > begun.plus(LONGEST) {
        return Err(Error::field(
            "spec.expires",
            format!("is {end}, and at most 365 days are allowed"),
        )
        .hint(format!("at the latest {}", begun.plus(LONGEST))));
    }
    if let Some(sink) = spec.sink.as_deref()
        && old
            .as_ref()
            .is_none_or(|old| old.sink.as_deref() != Some(sink))
    {
        may_fill(draft, sink)?;
    }
    take_slot(draft, &owner.uid.to_string(), lives(&spec, now))?;
    for secret in &spec.secrets {
        draft.claim_key(IDS, &secret.id);
    }
    for gone in old.iter().flat_map(|old| &old.secrets) {
        if !spec.secrets.iter().any(|secret| secret.id == gone.id) {
            draft.release_key(IDS, &gone.id);
        }
    }
    draft.set_spec::<ApiKey>(&spec)
}

fn check(
    spec: &ApiKeySpec,
    old: Option<&ApiKeySpec>,
    draft: &Draft<'_>,
    now: Timestamp,
) -> Result<()> {
    let mut wrong = Vec::new();
    for (at, text) in spec.privileges.iter().flatten().enumerate() {
        if let Err(mut violation) = Pattern::known(draft.cx(), text) {
            violation.field = format!("spec.privileges[{at}]");
            wrong.push(violation);
        }
    }
    if let Some(old) = old {
        if old.revoked.is_some() && spec.revoked != old.revoked {
            wrong.push(
                Violation::new("spec.revoked", "a key that was revoked stays so")
                    .hint("make a new one"),
            );
        }
        let back = |old: &Rotation| spec.rotation.as_ref().is_none_or(|new| new.at < old.at);
        if old.rotation.as_ref().is_some_and(back) {
            wrong.push(Violation::new("spec.rotation", "cannot be taken back"));
        }
    }
    if spec.auto_rotate && spec.sink.is_none() {
        wrong.push(
            Violation::new(
                "spec.auto_rotate",
                "needs a secret that the new one goes to",
            )
            .hint("--sink PROJECT/NAME"),
        );
    }
    if spec
        .rotation
        .as_ref()
        .is_some_and(|r| r.at > now || r.old_until > r.at.plus(OVERLAP))
    {
        wrong.push(
            Violation::new("spec.rotation", "lies in the future").hint("dvctl api-key rotate NAME"),
        );
    }
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    match &spec.scope {
        Some(scope) => Reach::parse(scope)?.check(draft.cx()),
        None => Ok(()),
    }
}

/// Refuses a sink that whoever names it could not write himself: the key would do it for him.
fn may_fill(draft: &Draft<'_>, sink: &str) -> Result<()> {
    let target = sink_of(sink)?;
    let (kind, project) = (Secret::KIND.name, target.project.as_deref());
    let gate = draft.cx().gate();
    match gate.may(
        draft.actor(),
        None,
        kind,
        "update",
        project,
        Some(&target.name),
    ) {
        true => Ok(()),
        // No more than of one that is not there.
        false => Err(Error::field(
            "spec.sink",
            format!("there is no secret `{sink}` that you may write"),
        )),
    }
}

/// The secret that a sink names.
pub(super) fn sink_of(sink: &str) -> Result<ObjectRef> {
    let (project, name) = sink
        .split_once('/')
        .ok_or_else(|| Error::field("spec.sink", format!("`{sink}` is not `project/name`")))?;
    Ok(ObjectRef {
        kind: Secret::KIND.name.into(),
        project: Some(project.to_owned()),
        name: name.to_owned(),
    })
}

/// The secrets of a key with one more. What has ended meanwhile goes, and the others learn when they end.
pub(super) fn with(spec: &ApiKeySpec, new: KeySecret, now: Timestamp) -> Vec<KeySecret> {
    let mut secrets = spec.secrets.clone();
    for (at, old) in secrets.iter_mut().enumerate() {
        old.until = ends(spec, at);
    }
    secrets.retain(|old| old.until.is_some_and(|end| now < end));
    secrets.push(new);
    secrets
}

/// A living key holds one of its owner's slots; an ended one gives it back.
fn take_slot(draft: &mut Draft<'_>, owner: &str, lives: bool) -> Result<()> {
    let space = format!("{}-slot-{owner}", KIND.name);
    let slots: Vec<String> = (0..SLOTS).map(|n| n.to_string()).collect();
    let held = slots.iter().find(|slot| draft.holds_key(&space, slot));
    match (held, lives) {
        (Some(slot), false) => draft.release_key(&space, slot),
        (None, true) => {
            let Some(slot) = slots.iter().find(|slot| !draft.key_taken(&space, slot)) else {
                return Err(Error::quota(format!(
                    "its owner has {SLOTS} API keys that let in, and that is the most"
                ))
                .hint("rotate one of them, or revoke one: dvctl api-key list"));
            };
            draft.claim_key(&space, slot);
        }
        _ => {}
    }
    Ok(())
}

/// `rotate`.
pub(super) fn rotate(draft: &mut Draft<'_>, params: &Value) -> Result<()> {
    let asked: Rotate = serde_json::from_value(params.clone())
        .map_err(|_| Error::field("reason", "is not one that is known"))?;
    let spec = draft.spec::<ApiKey>()?;
    let now = draft.now();
    if !lives(&spec, now) {
        return Err(Error::refused("a key that has ended is not rotated").hint("make a new one"));
    }
    let at_once = matches!(
        asked.reason,
        Reason::SecurityIncident | Reason::KeyCompromise
    );
    let overlap = match asked.overlap_seconds {
        Some(seconds) => Duration::from_secs(seconds).min(OVERLAP),
        None if at_once => Duration::ZERO,
        None => Duration::from_secs(3600 * u64::from(policy::in_force(draft.cx()).overlap_hours)),
    };
    if awaits(&spec) && !overlap.is_zero() {
        return Err(Error::refused("its next secret was not fetched yet")
            .hint(format!("dvctl api-key secret {}", draft.meta.name)));
    }
    draft.spec["rotation"] = json!(Rotation {
        id: draft.cx().clock().uid().to_string(),
        at: now,
        reason: asked.reason,
        old_until: now.plus(overlap),
    });
    let end = spec.expires.map_or(now, |end| end.max(now.plus(LIFE)));
    draft.spec["expires"] = json!(end);
    Ok(())
}

/// `revoke`. Doing it again changes nothing.
pub(super) fn revoke(draft: &mut Draft<'_>, params: &Value) -> Result<()> {
    if draft.spec["revoked"].is_null() {
        let asked: Revoke = serde_json::from_value(params.clone()).unwrap_or_default();
        draft.spec["revoked"] = json!(Revoked {
            at: draft.now(),
            reason: asked.reason,
        });
    }
    Ok(())
}

/// How long until something about it changes by the time alone.
pub(super) fn next_look(spec: &ApiKeySpec, now: Timestamp) -> Duration {
    let left = spec.expires.map_or(DAY, |end| end.since(now));
    left.clamp(Duration::from_secs(1), Duration::from_secs(3600))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).plus(DAY * days as u32)
    }

    fn secret(made: u64) -> KeySecret {
        KeySecret {
            id: format!("{made:08}"),
            material: None,
            made: at(made),
            until: None,
        }
    }

    #[test]
    fn a_life_from_waiting_to_its_end() {
        let mut spec: ApiKeySpec =
            serde_json::from_value(json!({ "owner": "a", "expires": at(90) })).unwrap();
        assert_eq!(state(&spec, at(0)), State::Waiting);
        spec.secrets.push(secret(0));
        for (day, is) in [
            (1, State::Active),
            (77, State::Expiring),
            (90, State::Expired),
        ] {
            assert_eq!(state(&spec, at(day)), is, "day {day}");
        }
        assert_eq!(ends(&spec, 0), Some(at(90)));
        // Both work for a week, then only the new one.
        spec.rotation = Some(Rotation {
            id: "r".into(),
            at: at(10),
            reason: Reason::Manual,
            old_until: at(17),
        });
        assert!(awaits(&spec));
        spec.secrets.push(secret(11));
        assert!(!awaits(&spec));
        assert_eq!(
            (ends(&spec, 0), ends(&spec, 1)),
            (Some(at(17)), Some(at(90)))
        );
        spec.revoked = Some(Revoked {
            at: at(12),
            reason: String::new(),
        });
        assert_eq!(state(&spec, at(12)), State::Revoked);
        assert!(!lives(&spec, at(12)));
    }
}
