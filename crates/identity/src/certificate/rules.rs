//! What is allowed, and what is to be done: pure.

use super::Certificate;
use super::material::{self, Facts};
use super::types::{CertificateSpec, Challenge, Issuer, Level, State};
use crate::ca::sorted;
use model::{Error, Result, Timestamp, Violation};
use runtime::{ActorKind, Draft};
use std::net::IpAddr;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);
/// First wait after a failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_secs(60);
/// Longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(6 * 3600);

/// Checks a draft.
pub(super) fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let mut spec = draft.spec::<Certificate>()?;
    let old = draft.old_spec::<Certificate>()?;
    spec.names = names(&spec.names)?;
    match spec.issuer {
        Issuer::Imported => {
            if !spec.names.is_empty() {
                return Err(Error::field(
                    "spec.names",
                    "those of an imported certificate are in its chain",
                )
                .hint("leave `names` out"));
            }
            let (Some(chain), Some(key)) = (&spec.chain, &spec.private_key) else {
                return Err(missing(&spec));
            };
            let same = |old: &CertificateSpec| {
                old.chain == spec.chain && old.private_key == spec.private_key
            };
            // What was good once may be changed in other fields after its end.
            if !old.as_ref().is_some_and(same) {
                let kept = match key.starts_with(crate::KEPT) {
                    true => draft.cx().get::<Certificate>(None, &draft.meta.name),
                    false => None,
                };
                let kept = kept.as_ref().and_then(|c| c.spec.private_key.as_ref());
                material::check(chain, kept.unwrap_or(key), draft.now())?;
            }
        }
        Issuer::Internal | Issuer::Acme => {
            public(&spec)?;
            if spec.names.is_empty() {
                return Err(Error::field("spec.names", "must have at least one name")
                    .hint("for example `--names panel.example.org`"));
            }
            let before = old
                .map(|old| (old.chain, old.private_key))
                .unwrap_or_default();
            if (&before.0, &before.1) != (&spec.chain, &spec.private_key)
                && draft.actor().kind != ActorKind::System
            {
                return Err(Error::field(
                    "spec.chain",
                    "chain and key of a certificate that is issued here are filled in by us",
                )
                .hint("to bring your own, create it with `--issuer imported`"));
            }
        }
    }
    draft.set_spec::<Certificate>(&spec)
}

/// What only a public CA asks for.
fn public(spec: &CertificateSpec) -> Result<()> {
    if spec.issuer != Issuer::Acme {
        return match &spec.account {
            Some(_) => Err(Error::field(
                "spec.account",
                "is for the issuer `acme` only",
            )),
            None => Ok(()),
        };
    }
    if spec.account.is_none() {
        return Err(
            Error::field("spec.account", "a certificate by ACME needs an account")
                .hint("`dvctl acme-account create letsencrypt --contact YOU --terms-agreed`"),
        );
    }
    for (n, name) in spec.names.iter().enumerate() {
        let field = format!("spec.names[{n}]");
        if name.parse::<IpAddr>().is_ok() {
            return Err(Error::field(
                field,
                format!("`{name}`: public CAs are asked for DNS names only"),
            ));
        }
        if name.starts_with("*.") && spec.challenge != Challenge::Dns01 {
            return Err(Error::field(
                field,
                format!("`{name}` can be shown to be ours only by dns-01"),
            )
            .hint("`--challenge dns-01`"));
        }
    }
    Ok(())
}

fn missing(spec: &CertificateSpec) -> Error {
    let mut wrong = Vec::new();
    for (field, there) in [
        ("spec.chain", spec.chain.is_some()),
        ("spec.private_key", spec.private_key.is_some()),
    ] {
        if !there {
            wrong.push(Violation::new(field, "an imported certificate needs it").hint("PEM"));
        }
    }
    Error::invalid(wrong)
}

/// Names in lower case without doubles; refuses what is neither a DNS name nor an address.
fn names(names: &[String]) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut out: Vec<String> = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let plain = name.trim_end_matches('.').to_ascii_lowercase();
        let plain = match plain.parse::<IpAddr>() {
            Ok(ip) => ip.to_string(),
            Err(_) => plain,
        };
        if !is_name(&plain) {
            wrong.push(
                Violation::new(
                    format!("spec.names[{n}]"),
                    format!("`{name}` is neither a DNS name nor an IP address"),
                )
                .hint("an IDN is given in its xn-- form; `*` may only be the whole first label"),
            );
        } else if !out.contains(&plain) {
            out.push(plain);
        }
    }
    match wrong.is_empty() {
        true => Ok(out),
        false => Err(Error::invalid(wrong)),
    }
}

/// Whether a text is a DNS name, also `*.example.org`, or an address.
pub(crate) fn is_name(name: &str) -> bool {
    if name.parse::<IpAddr>().is_ok() {
        return true;
    }
    let host = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    // Digits and dots alone are a mistyped address.
    host.len() <= 253
        && host.split('.').all(label)
        && !host.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && (host.len() == name.len() || host.contains('.'))
}

/// How near the end is.
pub(super) fn level(not_after: Timestamp, now: Timestamp) -> Level {
    match left(not_after, now) {
        None => Level::Expired,
        Some(left) if left <= 7 * DAY => Level::Critical,
        Some(left) if left <= 30 * DAY => Level::Warning,
        Some(left) if left <= 90 * DAY => Level::Notice,
        Some(_) => Level::None,
    }
}

/// Time until the end; `None`: it is over.
pub(super) fn left(not_after: Timestamp, now: Timestamp) -> Option<Duration> {
    (not_after > now).then(|| not_after.since(now))
}

/// Where it stands.
pub(super) fn state(facts: Option<&Facts>, revoked: bool, failures: u32, now: Timestamp) -> State {
    match facts {
        None if failures > 0 => State::Error,
        None => State::Pending,
        Some(_) if revoked => State::Revoked,
        Some(facts) => match level(facts.not_after, now) {
            Level::Expired => State::Expired,
            Level::Critical | Level::Warning => State::Expiring,
            Level::Notice | Level::None => State::Valid,
        },
    }
}

/// From when on it is renewed: when its provider suggests it, but at the latest a week, or a tenth of its life, before the
/// end; without a suggestion 30 days before the end, or when a third of its life is left.
pub(super) fn renew_at(facts: &Facts, suggested: Option<Timestamp>) -> Timestamp {
    let life = facts.not_after.since(facts.not_before);
    let before =
        |left: Duration| Timestamp::from_millis(facts.not_after.millis() - left.as_millis() as i64);
    match suggested {
        Some(at) => at.min(before((7 * DAY).min(life / 10))),
        None => before((30 * DAY).min(life / 3)),
    }
}

/// What others say of a certificate.
#[derive(Clone, Copy, Default)]
pub(super) struct Other<'a> {
    /// The name of the CA that signs here now.
    pub internal: Option<&'a str>,
    /// When its provider suggests to renew it.
    pub suggested: Option<Timestamp>,
}

/// Why a new one is to be issued now; `None`: it is not.
pub(super) fn due(
    spec: &CertificateSpec,
    facts: Option<&Facts>,
    revoked: bool,
    other: Other<'_>,
    now: Timestamp,
) -> Option<&'static str> {
    if spec.issuer == Issuer::Imported || revoked {
        return None;
    }
    match facts {
        None => Some("there is none yet"),
        Some(facts) if facts.names != sorted(&spec.names) => Some("its names have changed"),
        Some(facts) if renew_at(facts, other.suggested) <= now => match other.suggested {
            Some(at) if at <= now => Some("its provider suggests to renew it"),
            _ => Some("it ends soon"),
        },
        Some(facts)
            if spec.issuer == Issuer::Internal
                && other.internal.is_some_and(|name| name != facts.issued_by) =>
        {
            Some("another CA has taken the place of its own")
        }
        Some(_) => None,
    }
}

/// How long to wait after so many failures in a row.
pub(crate) fn wait(failures: u32) -> Duration {
    FIRST_WAIT
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_names_or_addresses() {
        for good in [
            "a",
            "a.example.org",
            "*.example.org",
            "192.0.2.1",
            "2001:db8::1",
            "xn--bcher-kva.example",
        ] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            "a b",
            "*",
            "*.org.",
            "a.*.org",
            "-a.org",
            "a..b",
            "bücher.example",
            "192.0.2.300",
            "*.a",
            "a/b",
            "a\0b",
        ] {
            assert!(!is_name(bad) || bad == "*.a" && !is_name(bad), "{bad}");
        }
        let tidy = names(&[
            "A.Example.org.".into(),
            "a.example.org".into(),
            "::0001".into(),
        ])
        .unwrap();
        assert_eq!(tidy, ["a.example.org", "::1"]);
        let error = names(&["ok.org".into(), "no good".into()]).unwrap_err();
        assert!(format!("{error:?}").contains("spec.names[1]"), "{error:?}");
    }

    fn facts(from: i64, to: i64) -> Facts {
        let day = |n: i64| Timestamp::from_millis(n * 86_400_000);
        Facts {
            names: vec!["a.example.org".into()],
            not_before: day(from),
            not_after: day(to),
            fingerprint: String::new(),
            serial: String::new(),
            issued_by: String::new(),
            public_key: Vec::new(),
            promises: Ok(Vec::new()),
        }
    }

    #[test]
    fn when_it_is_renewed_and_how_loud_it_is() {
        let day = |n: i64| Timestamp::from_millis(n * 86_400_000);
        let spec = CertificateSpec {
            names: vec!["a.example.org".into()],
            ..CertificateSpec::default()
        };
        // 90 days: with 30 left. 9 days: with 3 left.
        for (life, last_quiet, first_due) in [(90, 59, 60), (9, 5, 6), (365, 334, 335)] {
            let facts = facts(0, life);
            assert_eq!(
                due(
                    &spec,
                    Some(&facts),
                    false,
                    Other::default(),
                    day(last_quiet)
                ),
                None,
                "{life}"
            );
            assert!(
                due(&spec, Some(&facts), false, Other::default(), day(first_due)).is_some(),
                "{life}"
            );
            assert_eq!(
                due(&spec, Some(&facts), true, Other::default(), day(first_due)),
                None
            );
        }
        let imported = CertificateSpec {
            issuer: Issuer::Imported,
            ..spec.clone()
        };
        assert_eq!(
            due(
                &imported,
                Some(&facts(0, 1)),
                false,
                Other::default(),
                day(5)
            ),
            None
        );
        // Who signs it knows better: earlier and later than by the rule, but never so late that it ends meanwhile.
        for (suggested, last_quiet, first_due) in
            [(10, 9, 10), (75, 74, 75), (200, 82, 83), (0, -1, 0)]
        {
            let facts = facts(0, 90);
            let other = Other {
                suggested: Some(day(suggested)),
                ..Other::default()
            };
            let due = |now| due(&spec, Some(&facts), false, other, day(now));
            assert_eq!(due(last_quiet), None, "{suggested}");
            assert!(due(first_due).is_some(), "{suggested}");
        }
        let renamed = CertificateSpec {
            names: vec!["b".into()],
            ..spec
        };
        assert!(
            due(
                &renamed,
                Some(&facts(0, 90)),
                false,
                Other::default(),
                day(1)
            )
            .is_some()
        );
        for (at, wanted) in [
            (0, Level::None),
            (10, Level::Notice),
            (70, Level::Warning),
            (93, Level::Critical),
            (100, Level::Expired),
        ] {
            assert_eq!(level(day(100), day(at)), wanted, "day {at}");
        }
    }

    #[test]
    fn waits_grow_and_end() {
        assert_eq!(wait(1), Duration::from_secs(60));
        assert_eq!(wait(3), Duration::from_secs(240));
        assert_eq!(wait(40), Duration::from_secs(21_600));
    }
}
