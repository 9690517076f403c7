//! Decides, without asking anybody, what a request makes of a secret.

use super::Secret;
use super::types::{Rotation, SecretSpec, SecretType, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use model::{Error, Result, Timestamp, Violation};
use runtime::{ActorKind, Draft};
use std::time::Duration;

/// How many versions are kept.
pub(super) const KEPT: usize = 5;
/// 64 of them, so that each is as likely: six bits choose one.
const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";
const DAY: u64 = 24 * 3600;

/// At creation and update: a value that is given becomes the next version, and nobody but a rotation touches versions.
pub(super) fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let mut spec = draft.spec::<Secret>()?;
    let old = draft.old_spec::<Secret>()?;
    let wrong = check(&spec);
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    in_its_own_part(draft, &spec, old.as_ref())?;
    if draft.actor().kind != ActorKind::System {
        if spec.value.is_some() && !draft.meta.claims.is_empty() {
            return Err(Error::refused(format!(
                "secret `{}` is being rotated: its value cannot change now",
                draft.meta.name
            ))
            .hint("wait for the task, or cancel it"));
        }
        let before = old.as_ref();
        spec.version = before.map_or(0, |old| old.version);
        spec.versions = before.map(|old| old.versions.clone()).unwrap_or_default();
    }
    let stored = old.as_ref().is_some_and(|old| !old.versions.is_empty());
    let given = match spec.value.take() {
        Some(value) => Some(value),
        None if stored || spec.backend.is_some() => None,
        None => Some(draw(spec.sort, &draft.random_bytes())?),
    };
    if let Some(value) = given {
        let number = add(&mut spec, value, draft.now(), None);
        spec.version = number;
    }
    prune(&mut spec);
    draft.set_spec::<Secret>(&spec)
}

/// One token of ours reads all of a key server, for every project. So a project names values below its own name there, and
/// what lies elsewhere is named by who may change the key server itself.
fn in_its_own_part(draft: &Draft<'_>, spec: &SecretSpec, old: Option<&SecretSpec>) -> Result<()> {
    let (Some(backend), Some(path)) = (&spec.backend, &spec.path) else {
        return Ok(());
    };
    let same = |old: &SecretSpec| {
        (&old.backend, &old.path, &old.field) == (&spec.backend, &spec.path, &spec.field)
    };
    let project = draft.meta.project.as_ref().map(ToString::to_string);
    let project = project.unwrap_or_default();
    let own = path
        .strip_prefix(&*project)
        .is_some_and(|rest| rest.starts_with('/'));
    if own || old.is_some_and(same) {
        return Ok(());
    }
    let kind = crate::secret_backend::KIND.name;
    let (cx, actor) = (draft.cx(), draft.actor());
    match cx.gate().may(actor, None, kind, "update", None, Some(backend)) {
        true => Ok(()),
        false => Err(Error::denied(format!(
            "secrets of project `{project}` lie below `{project}/` in key server `{backend}`; `{path}` may be named only by who may change the key server"
        ))
        .hint(format!("--path {project}/..., or ask for secret-backend.update on secret-backend/{backend}"))),
    }
}

fn check(spec: &SecretSpec) -> Vec<Violation> {
    let mut wrong = Vec::new();
    match (&spec.backend, &spec.path) {
        (Some(_), None) => wrong.push(
            Violation::new("spec.path", "is required with `backend`")
                .hint("say where the value lies: `--path apps/shop/db`"),
        ),
        (None, Some(_)) => wrong.push(Violation::new("spec.path", "needs a `backend`")),
        (Some(_), Some(path)) if !is_path(path) => wrong.push(Violation::new(
            "spec.path",
            "may hold letters, digits, `_`, `-`, `.` and single `/` between them",
        )),
        _ => {}
    }
    if spec.backend.is_some() && spec.value.is_some() {
        wrong.push(
            Violation::new("spec.value", "is not kept here: `backend` keeps it")
                .hint("write it there, or leave `backend` out"),
        );
    }
    // Stored, it would be taken for a sealed one.
    if spec
        .value
        .as_ref()
        .is_some_and(|v| v.starts_with("$sealed:"))
    {
        wrong.push(Violation::new(
            "spec.value",
            "must not begin with `$sealed:`",
        ));
    }
    if let Some(rotation) = &spec.rotation {
        if spec.backend.is_some() || drawn(spec.sort).is_none() {
            wrong.push(Violation::new(
                "spec.rotation",
                "is for values that DebVisor makes and keeps",
            ));
        }
        if rotation.notice_days >= rotation.every_days {
            wrong.push(Violation::new(
                "spec.rotation.notice_days",
                "must be less than `every_days`",
            ));
        }
        if rotation.window_from == rotation.window_until {
            wrong.push(Violation::new(
                "spec.rotation.window_until",
                "must differ from `window_from`",
            ));
        }
    }
    wrong
}

/// Whether a path is one that needs no escaping and leads nowhere else.
pub(crate) fn is_path(path: &str) -> bool {
    path.split('/').all(|part| {
        let letters = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(letters)
    })
}

/// Adds a version and answers its number.
pub(super) fn add(
    spec: &mut SecretSpec,
    value: String,
    now: Timestamp,
    made_by: Option<String>,
) -> u32 {
    let number = next(spec);
    let version = Version {
        value: Some(value),
        created: Some(now),
        made_by,
    };
    spec.versions.insert(number.to_string(), version);
    number
}

/// The number that the next version gets.
pub(super) fn next(spec: &SecretSpec) -> u32 {
    numbers(spec).first().copied().unwrap_or(0) + 1
}

/// The numbers of the versions, newest first.
pub(super) fn numbers(spec: &SecretSpec) -> Vec<u32> {
    let mut numbers: Vec<u32> = spec
        .versions
        .keys()
        .filter_map(|n| n.parse().ok())
        .collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers
}

/// Forgets the oldest versions, but never the valid one.
fn prune(spec: &mut SecretSpec) {
    for number in numbers(spec).into_iter().skip(KEPT) {
        if number != spec.version {
            spec.versions.remove(&number.to_string());
        }
    }
}

/// How many letters a value of this sort has, or 0 for 32 bytes as base64; `None` when none is made.
fn drawn(sort: SecretType) -> Option<usize> {
    match sort {
        SecretType::Database | SecretType::ApiKey | SecretType::AppConfig | SecretType::Token => {
            Some(32)
        }
        SecretType::Bmc => Some(16),
        SecretType::EncryptionKey | SecretType::Tsig => Some(0),
        SecretType::TlsCert | SecretType::SshKey => None,
    }
}

/// A new value out of random bytes.
pub(super) fn draw(sort: SecretType, random: &[u8; 32]) -> Result<String> {
    match drawn(sort) {
        Some(0) => Ok(BASE64.encode(random)),
        Some(letters) => Ok(random
            .iter()
            .take(letters)
            .map(|byte| char::from(LETTERS[usize::from(byte % 64)]))
            .collect()),
        None => Err(Error::field(
            "spec.value",
            "is required: keys of this type are given, not made",
        )),
    }
}

/// When a version of this age is too old.
pub(super) fn due(rotation: &Rotation, created: Timestamp) -> Timestamp {
    created.plus(Duration::from_secs(u64::from(rotation.every_days) * DAY))
}

/// When people are told.
pub(super) fn notice(rotation: &Rotation, due: Timestamp) -> Timestamp {
    let before = i64::from(rotation.notice_days) * DAY as i64 * 1000;
    Timestamp::from_millis(due.millis() - before)
}

/// How long until the window is open: nothing when it is.
pub(super) fn opens_in(rotation: &Rotation, now: Timestamp) -> Duration {
    let day = DAY as i64;
    let at = |text: &str| {
        let mut parts = text.split(':').filter_map(|p| p.parse::<i64>().ok());
        parts.next().unwrap_or(0) * 3600 + parts.next().unwrap_or(0) * 60
    };
    let (from, until) = (at(&rotation.window_from), at(&rotation.window_until));
    let now = now.millis().div_euclid(1000).rem_euclid(day);
    // Counted from the beginning of the window, which may go over midnight.
    let into = (now - from).rem_euclid(day);
    let length = (until - from).rem_euclid(day);
    match into < length {
        true => Duration::ZERO,
        false => Duration::from_secs((day - into).unsigned_abs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_open_and_close() {
        let rotation = |from: &str, until: &str| Rotation {
            every_days: 90,
            notice_days: 14,
            window_from: from.into(),
            window_until: until.into(),
            approval: false,
        };
        for (from, until, at, wait) in [
            ("02:00", "04:00", "02:00", 0),
            ("02:00", "04:00", "03:59", 0),
            ("02:00", "04:00", "04:00", 22 * 3600),
            ("02:00", "04:00", "01:00", 3600),
            ("23:00", "01:00", "00:30", 0),
            ("23:00", "01:00", "23:30", 0),
            ("23:00", "01:00", "01:00", 22 * 3600),
        ] {
            let now = Timestamp::parse(&format!("2026-03-01T{at}:00Z")).unwrap();
            let opens = opens_in(&rotation(from, until), now);
            assert_eq!(opens.as_secs(), wait, "{from}-{until} at {at}");
        }
        let made = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let due = due(&rotation("02:00", "04:00"), made);
        assert_eq!(due, Timestamp::parse("2026-04-01T00:00:00Z").unwrap());
        let told = notice(&rotation("02:00", "04:00"), due);
        assert_eq!(told, Timestamp::parse("2026-03-18T00:00:00Z").unwrap());
    }

    #[test]
    fn paths_lead_nowhere_else() {
        for good in ["a", "apps/shop/db", "a.b/c_d-e"] {
            assert!(is_path(good), "{good}");
        }
        for bad in [
            "", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", "a?b", "a b", "a%2fb", "ä",
        ] {
            assert!(!is_path(bad), "{bad}");
        }
    }

    #[test]
    fn drawn_values_have_their_length() {
        let random = std::array::from_fn(|i| i as u8 * 7);
        assert_eq!(draw(SecretType::Database, &random).unwrap().len(), 32);
        assert_eq!(draw(SecretType::Bmc, &random).unwrap().len(), 16);
        assert_eq!(draw(SecretType::Tsig, &random).unwrap().len(), 44);
        assert!(draw(SecretType::SshKey, &random).is_err());
    }

    #[test]
    fn five_versions_are_kept_and_the_valid_one() {
        let mut spec = SecretSpec::default();
        for _ in 0..3 {
            spec.version = add(&mut spec, "v".into(), Timestamp::from_millis(0), None);
        }
        let valid = spec.version;
        for _ in 0..9 {
            add(&mut spec, "v".into(), Timestamp::from_millis(0), None);
            prune(&mut spec);
        }
        assert_eq!(numbers(&spec), [12, 11, 10, 9, 8, valid]);
    }
}
