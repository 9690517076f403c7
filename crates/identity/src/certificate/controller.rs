//! Sees to it that every certificate is issued and renewed in time, and says how it stands. The work is the procedures'.

use super::material::{self, Facts};
use super::types::{CertificateStatus, Issuer, Level};
use super::{Certificate, KIND, panel, rules, sct};
use crate::acme::ByHand;
use crate::ca::kind;
use futures::future::BoxFuture;
use model::{Condition, ConditionStatus, Kind, ObjectRef, Result, Timestamp};
use parking_lot::Mutex;
use runtime::event::Severity;
use runtime::task::{Task, TaskState, TaskStatus};
use runtime::{Controller, Cx, Key, Next, Obj, Op, Watch};
use serde_json::json;
use std::time::Duration;

/// Longest time between two looks.
const LOOK: Duration = Duration::from_secs(3600);
/// Shortest and longest time between two questions when to renew (RFC 9773 4.3.3).
const ASK_SOONEST: Duration = Duration::from_secs(60);
const ASK_LATEST: Duration = Duration::from_secs(86_400);
/// And after an answer that was none.
const ASK_ANEW: Duration = Duration::from_secs(3600);

/// The conditions that it writes.
const OURS: [&str; 4] = ["Usable", "Expiring", "Renewed", "Shown"];

/// Sole writer of the status of certificates.
#[derive(Default)]
pub(super) struct Certificates {
    /// Why the panel does not show what it should, as it was said last.
    told: Mutex<Option<String>>,
}

impl Controller for Certificates {
    fn name(&self) -> &'static str {
        "certificate"
    }

    fn owns(&self) -> &'static Kind {
        &KIND
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::Map("task", |cx, key| {
                let task = cx.get_key::<Task>(key);
                let target = task.as_ref().map(|task| &task.spec.target);
                target
                    .filter(|target| target.kind == KIND.name)
                    .map(|target| cx.key::<Certificate>(None, &target.name))
                    .into_iter()
                    .collect()
            }),
            Watch::Map("setting", |cx, key| {
                let named = runtime::object_ref(key);
                if named.is_none_or(|s| s.name != runtime::setting::TLS_CERTIFICATE.name) {
                    return Vec::new();
                }
                let rows = cx.cache().rows(KIND.name, None);
                rows.iter().map(|row| row.key.clone()).collect()
            }),
        ]
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let not_shown = self.show(cx).await;
            let Some(certificate) = cx.get_key::<Certificate>(key) else {
                return Ok(Next::Settled);
            };
            let named = panel::named(cx).as_deref() == Some(certificate.metadata.name.as_str());
            if certificate.metadata.deletion_requested.is_some() {
                if named {
                    return Ok(Next::WaitingFor(
                        "the panel shows it: set the setting tls-certificate to another one, or reset it".into(),
                    ));
                }
                cx.release(key).await?;
                return Ok(Next::Settled);
            }
            let Some(target) = runtime::object_ref(key) else {
                return Ok(Next::Settled);
            };
            look(cx, key, &target, &certificate, not_shown.filter(|_| named)).await
        })
    }
}

impl Certificates {
    /// Shows what is to be shown; answers why it cannot.
    async fn show(&self, cx: &Cx) -> Option<String> {
        kind::of(cx).ok()?;
        let problem = panel::apply(cx).err().map(|e| e.to_string());
        let fresh = {
            let mut told = self.told.lock();
            let fresh = *told != problem;
            told.clone_from(&problem);
            fresh
        };
        if let (true, Some(problem)) = (fresh, &problem) {
            let about = ObjectRef {
                kind: "setting".into(),
                project: None,
                name: runtime::setting::TLS_CERTIFICATE.name.into(),
            };
            tracing::warn!(problem, "the panel shows on what it showed before");
            cx.event(&about, "certificate.not-shown", problem, Severity::Warning)
                .await;
        }
        problem
    }
}

async fn look(
    cx: &Cx,
    key: &Key,
    target: &ObjectRef,
    certificate: &Obj<Certificate>,
    not_shown: Option<String>,
) -> Result<Next> {
    let Ok(ca) = kind::of(cx) else {
        return Ok(Next::WaitingFor(
            "this process has no certificate authority".into(),
        ));
    };
    let now = cx.clock().now();
    let spec = &certificate.spec;
    let facts = match &spec.chain {
        Some(chain) => Some(material::read(chain)?.1),
        None => None,
    };
    let revoked = facts
        .as_ref()
        .is_some_and(|facts| ca.revocation(&facts.fingerprint).is_some());
    let before = certificate.status.clone().unwrap_or_default();
    let last = last_task(cx, certificate);
    let running = last
        .as_ref()
        .is_some_and(|(_, status)| !status.state.ended());
    let mut after = before.clone();
    // A task that ended is counted once.
    let ended = last
        .as_ref()
        .filter(|(name, status)| status.state.ended() && *name != before.task);
    if let Some((name, status)) = ended {
        after.task.clone_from(name);
        match status.state {
            TaskState::Succeeded => {
                after.failures = 0;
                after.next_try = None;
            }
            _ => {
                after.failures += 1;
                after.next_try = Some(now.plus(rules::wait(after.failures)));
            }
        }
    }
    suggestion(cx, certificate, facts.as_ref(), &mut after, now).await;
    after.state = rules::state(facts.as_ref(), revoked, after.failures, now);
    describe(&mut after, facts.as_ref(), spec.issuer, now);
    let usable = matches!(
        after.level,
        Level::None | Level::Notice | Level::Warning | Level::Critical
    ) && facts.is_some()
        && !revoked;
    let reason = word(&after);
    say(&mut after, "Usable", usable, reason, "", now);
    let level = after.level;
    let message = match after.not_after {
        Some(end) if level != Level::None => format!("it ends at {end}"),
        _ => String::new(),
    };
    say(
        &mut after,
        "Expiring",
        level != Level::None,
        &format!("{level:?}"),
        &message,
        now,
    );
    if after.failures > 0 {
        let why = last
            .as_ref()
            .map(|(_, s)| s.message.as_str())
            .unwrap_or_default();
        let next = after
            .next_try
            .map(|t| format!("; next try at {t}"))
            .unwrap_or_default();
        let message = match facts {
            Some(_) => format!("{why}; the present one is kept{next}"),
            None => format!("{why}{next}"),
        };
        say(&mut after, "Renewed", false, "Failed", &message, now);
    } else if spec.issuer != Issuer::Imported && facts.is_some() {
        say(&mut after, "Renewed", true, "Issued", "", now);
    }
    after.shown = facts
        .as_ref()
        .is_some_and(|facts| panel::shown(cx).as_ref() == Some(&facts.fingerprint));
    match not_shown {
        Some(why) => say(&mut after, "Shown", false, "Kept", &why, now),
        None if after.shown => say(&mut after, "Shown", true, "Shown", "", now),
        None => {
            Condition::clear(&mut after.conditions, "Shown");
        }
    }
    tell(cx, target, &before, &after).await;
    let due = rules::due(
        spec,
        facts.as_ref(),
        revoked,
        rules::Other {
            internal: Some(&ca.name()),
            suggested: after.suggested,
        },
        now,
    )
    .filter(|_| !running);
    let begin = due.filter(|_| after.next_try.is_none_or(|at| at <= now));
    write(cx, key, after.clone()).await?;
    if let Some(why) = begin {
        tracing::info!(certificate = target.name, why, "a certificate is issued");
        // A person needs the time that only an order has.
        let (verb, params) = match crate::acme::is_by_hand(cx, spec) {
            true => ("order", json!({ "force": true })),
            false => ("renew", json!({})),
        };
        let op = Op::Act {
            target: target.clone(),
            verb: verb.to_owned(),
            params,
        };
        cx.submit(op, KIND.name).await?;
        return Ok(Next::Again(LOOK));
    }
    // People read it as the condition `Waiting`.
    let wanted = cx.try_part::<ByHand>();
    let wanted = wanted.map(|all| all.wanted(certificate.metadata.uid));
    if let Some(lines) = wanted.filter(|lines| !lines.is_empty()) {
        return Ok(Next::WaitingFor(format!(
            "make {}; when the zone's server shows that, it goes on, or by `dvctl certificate proceed {}`",
            lines.join("  and  "),
            target.name
        )));
    }
    let next = [
        after.next_try.filter(|_| due.is_some()),
        after.ask_again,
        facts.as_ref().map(|f| rules::renew_at(f, after.suggested)),
        after.not_after,
    ];
    let soonest = next.into_iter().flatten().filter(|at| *at > now).min();
    let wait = soonest.map_or(LOOK, |at| at.since(now)).min(LOOK);
    Ok(Next::Again(wait.max(Duration::from_secs(1))))
}

/// What the provider of a public one says of its renewal, asked as often as it wants to be.
async fn suggestion(
    cx: &Cx,
    certificate: &Obj<Certificate>,
    facts: Option<&Facts>,
    after: &mut CertificateStatus,
    now: Timestamp,
) {
    let spec = &certificate.spec;
    let fresh = facts.is_none_or(|facts| facts.fingerprint != after.fingerprint);
    if spec.issuer != Issuer::Acme || fresh {
        // What was said of the one before.
        (after.suggested, after.explained, after.ask_again) = (None, None, None);
    }
    let (Issuer::Acme, Some(facts)) = (spec.issuer, facts) else {
        return;
    };
    if after.ask_again.is_some_and(|at| now < at) || facts.not_after <= now {
        return;
    }
    let shutdown = cx.shutdown();
    let asked = tokio::select! {
        () = shutdown.cancelled() => return,
        asked = crate::acme::renewal::suggestion(cx, spec, facts) => asked,
    };
    after.ask_again = Some(now.plus(match asked {
        Ok(told) => {
            (after.suggested, after.explained) = (told.at, told.explained);
            told.again.clamp(ASK_SOONEST, ASK_LATEST)
        }
        // A renewal does not depend on it: what was said last holds.
        Err(error) => {
            tracing::info!(%error, "the provider does not say when to renew");
            ASK_ANEW
        }
    }));
}

/// Everything but conditions and generation, which have their own writers too.
async fn write(cx: &Cx, key: &Key, after: CertificateStatus) -> Result<()> {
    cx.set_status::<Certificate>(key, |status| {
        let generation = status.observed_generation;
        let mut conditions = std::mem::take(&mut status.conditions);
        for ours in OURS {
            Condition::clear(&mut conditions, ours);
        }
        let ours = after
            .conditions
            .iter()
            .filter(|c| OURS.contains(&c.kind.as_str()));
        conditions.extend(ours.cloned());
        *status = after.clone();
        status.conditions = conditions;
        status.observed_generation = generation;
    })
    .await
    .map(|_| ())
}

fn describe(status: &mut CertificateStatus, facts: Option<&Facts>, issuer: Issuer, now: Timestamp) {
    let Some(facts) = facts else {
        status.level = Level::None;
        return;
    };
    status.level = rules::level(facts.not_after, now);
    status.names.clone_from(&facts.names);
    status.issued_by.clone_from(&facts.issued_by);
    status.serial.clone_from(&facts.serial);
    status.fingerprint.clone_from(&facts.fingerprint);
    let promises = facts.promises.as_deref().unwrap_or_default();
    status.logs = (issuer != Issuer::Internal).then(|| sct::logs(promises) as u32);
    status.not_before = Some(facts.not_before);
    status.not_after = Some(facts.not_after);
}

fn word(status: &CertificateStatus) -> &'static str {
    use super::types::State;
    match status.state {
        State::Pending => "Pending",
        State::Valid => "Valid",
        State::Expiring => "Expiring",
        State::Expired => "Expired",
        State::Revoked => "Revoked",
        State::Error => "Error",
    }
}

fn say(
    status: &mut CertificateStatus,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let holds = match holds {
        true => ConditionStatus::True,
        false => ConditionStatus::False,
    };
    Condition::set(&mut status.conditions, kind, holds, reason, message, now);
}

/// Events of what is new.
async fn tell(cx: &Cx, target: &ObjectRef, before: &CertificateStatus, after: &CertificateStatus) {
    if after.failures > before.failures {
        let message = after
            .conditions
            .iter()
            .find(|c| c.kind == "Renewed")
            .map(|c| c.message.as_str())
            .unwrap_or_default();
        cx.event(
            target,
            "certificate.not-renewed",
            message,
            Severity::Warning,
        )
        .await;
    }
    if after.level != before.level {
        let end = after.not_after.map(|t| t.to_string()).unwrap_or_default();
        let (event, severity) = match after.level {
            Level::Warning => ("certificate.expiring", Severity::Warning),
            Level::Critical => ("certificate.expiring", Severity::Error),
            Level::Expired => ("certificate.expired", Severity::Error),
            Level::None | Level::Notice => return,
        };
        cx.event(target, event, &format!("it ends at {end}"), severity)
            .await;
    }
}

/// The newest task that issued this very object, or tried to.
fn last_task(cx: &Cx, certificate: &Obj<Certificate>) -> Option<(String, TaskStatus)> {
    let tasks = cx.list::<Task>(None);
    let last = tasks
        .iter()
        .filter(|task| {
            task.spec.target_uid == certificate.metadata.uid
                && match task.spec.action.as_str() {
                    "certificate.renew" | "certificate.rotate" => true,
                    // Refused of any other: nothing was tried.
                    "certificate.order" => certificate.spec.issuer == Issuer::Acme,
                    _ => false,
                }
        })
        .max_by_key(|task| task.metadata.uid)?;
    Some((
        last.metadata.name.to_string(),
        last.status.clone().unwrap_or_default(),
    ))
}
