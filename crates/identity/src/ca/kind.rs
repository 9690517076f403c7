//! Kind `ca`: the internal certificate authority as people see it. One object, `internal`, made at first start.
//!
//! **Invariant.** Its key never leaves the pki folder, and nothing here signs: certificates are asked for with the kind
//! `certificate`, logins with a code.

use super::federate::{self, FederateParams, OfferParams};
use super::rotate::{self, RetireParams, RotateParams};
use super::{Ca, Reason};
use futures::future::BoxFuture;
use model::{
    Action, Column, Condition, ConditionStatus, Danger, Error, Kind, Resource, Result, Scope,
    Timestamp, Unit, Verb, What, WorkStyle, schema,
};
use runtime::event::Severity;
use runtime::{
    Authority, Controller, Cx, Key, Next, Op, Place, Proc, Run, Seat, Subsystem, normal,
    nothing_to_admit,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The name of the only object.
pub const INTERNAL: &str = "internal";

/// The internal CA.
pub struct CaKind;

impl Resource for CaKind {
    const KIND: &'static Kind = &KIND;
    type Spec = CaSpec;
    type Status = CaStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "ca",
    plural: "cas",
    title: "Certificate authority",
    scope: Scope::Cluster,
    doc: "The internal certificate authority: it signs the certificates of this server, of logins and of services. Its certificate, its revocation list and OCSP are public at /pki/ca.pem, /pki/ca.crl and /pki/ocsp.",
    verbs: Verb::READ,
    spec: schema::of::<CaSpec>,
    status: schema::of::<CaStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("subject", "status.subject"),
        Column::new("not_after", "status.not_after"),
        Column::new("revoked", "status.revoked"),
        Column::new("age", "metadata.created").unit(Unit::Age),
        Column::new("fingerprint", "status.fingerprint").wide(),
    ],
    actions: &[
        Action {
            verb: "revoke",
            doc: "Refuses a certificate of this CA from now on, also on connections that are open: a lost laptop's login, say. It goes onto the revocation list.",
            danger: Danger::Disrupts,
            style: WorkStyle::Procedure,
            input: schema::of::<RevokeParams>,
            claims: &["list"],
            deadline: 300,
            event: "certificate-revoked",
            examples: &[
                "dvctl ca revoke internal --fingerprint 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 --reason key-compromise",
            ],
        },
        Action {
            verb: "verify-log",
            doc: "Reads the issuance log again and names the first line that somebody changed.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::empty,
            claims: &["log"],
            deadline: 3600,
            event: "log-verified",
            examples: &["dvctl ca verify-log internal"],
        },
        Action {
            verb: "rotate",
            doc: "Makes a new CA that takes the place of the present one. The new one is signed by the present one, too, and both are trusted for a while: who trusts the present one goes on without noticing. The server's certificate and those of services are made anew at once, and no connection is dropped. Logins by certificate must be made anew before the time is over.",
            danger: Danger::Disrupts,
            style: WorkStyle::Procedure,
            input: schema::of::<RotateParams>,
            claims: &["authorities"],
            deadline: 900,
            event: "rotated",
            examples: &[
                "dvctl ca rotate internal",
                "dvctl ca rotate internal --overlap-days 0",
            ],
        },
        Action {
            verb: "retire",
            doc: "Ends the trust in the CAs before the present one: what they signed is refused from now on, also on open connections, and their keys are erased. It is done by itself when their time is over.",
            danger: Danger::Disrupts,
            style: WorkStyle::Procedure,
            input: schema::of::<RetireParams>,
            claims: &["authorities"],
            deadline: 300,
            event: "retired",
            examples: &["dvctl ca retire internal"],
        },
        Action {
            verb: "offer",
            doc: "Gives a token for another region: our CA and the DNS names that we speak for, signed by it. There, `ca federate` takes it.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::of::<OfferParams>,
            claims: &[],
            deadline: 60,
            event: "offered",
            examples: &["dvctl ca offer internal --names eu.example.org"],
        },
        Action {
            verb: "federate",
            doc: "Signs the CA of another region below ours, for the DNS names that are given and no others, and for no login. Who trusts our CA then believes that region's servers, for those names.",
            danger: Danger::Disrupts,
            style: WorkStyle::Procedure,
            input: schema::of::<FederateParams>,
            claims: &["authorities"],
            deadline: 60,
            event: "federated",
            examples: &[
                "dvctl ca federate internal --token TOKEN --fingerprint 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 --names us.example.org",
            ],
        },
    ],
    streams: &[],
    examples: &[
        "dvctl ca show internal -o yaml",
        "dvctl ca verify-log internal",
    ],
};

/// Nothing is chosen about it.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CaSpec {}

/// Which certificate, and why.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeParams {
    /// SHA-256 of the certificate: 64 hex digits, colons do not count.
    #[schemars(length(min = 64, max = 95))]
    pub fingerprint: String,
    /// Why, as revocation lists say it.
    #[serde(default)]
    pub reason: Reason,
}

/// How one generation stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It signs.
    #[default]
    Current,
    /// It is trusted on beside the present one.
    Trusted,
    /// What it signed is refused.
    Retired,
}

/// One generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AuthorityStatus {
    /// What its documents are called: `/pki/ca-2.crt`, `/pki/ca-2.crl`.
    pub id: String,
    /// Its name.
    pub subject: String,
    /// SHA-256 of its certificate, hex.
    pub fingerprint: String,
    /// How it stands.
    pub state: Standing,
    /// Until when it is, or was, trusted.
    pub until: Option<Timestamp>,
}

/// A region whose CA is below ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FederatedStatus {
    /// What it calls itself.
    pub region: String,
    /// The DNS names that it may speak for, with all below them.
    pub names: Vec<String>,
    /// SHA-256 of its CA, hex.
    pub fingerprint: String,
    /// SHA-256 of its CA as ours has signed it, hex: `ca revoke` this one to end it.
    pub signed: String,
}

/// What the CA is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CaStatus {
    /// Its name.
    pub subject: String,
    /// SHA-256 of its certificate, hex: what people compare.
    pub fingerprint: String,
    /// Its certificate, PEM.
    pub certificate: String,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// All generations, the present one first.
    pub authorities: Vec<AuthorityStatus>,
    /// Regions whose CA is below ours.
    pub federated: Vec<FederatedStatus>,
    /// How many certificates are refused before their time.
    pub revoked: u64,
    /// How many lines the issuance log has.
    pub log_lines: u64,
    /// Hash of its last line: whoever notes it can tell later whether what was there is still the same.
    pub log_head: String,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// `LogIntact`: what the last look at the issuance log found. `Rotated`: until when the one before is trusted.
    pub conditions: Vec<Condition>,
}

/// The kind `ca`.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<CaKind>,
    admit: nothing_to_admit,
    runs: &[
        (
            "revoke",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("revoke", || revoke(&proc)).await })
            }),
        ),
        (
            "verify-log",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("verify", || verify(&proc)).await })
            }),
        ),
        (
            "rotate",
            Run::Procedure(|proc| Box::pin(rotate::rotate(proc))),
        ),
        (
            "offer",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("offer", || federate::offer(&proc)).await })
            }),
        ),
        (
            "federate",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("federate", || federate::federate(&proc)).await })
            }),
        ),
        (
            "retire",
            Run::Procedure(|proc| {
                Box::pin(async move {
                    let params: RetireParams = proc.params()?;
                    let retire = || rotate::retire(proc.cx(), params.due);
                    proc.step("retire", retire).await
                })
            }),
        ),
    ],
    undos: &[&rotate::ABANDON],
    streams: &[],
    finalizes: false,
    controllers: |_| vec![Arc::new(Look)],
};

/// Makes the object of the CA. For the api, at its start.
///
/// # Errors
/// When the store refuses.
pub async fn make(cx: &Cx) -> Result<()> {
    if cx.get::<CaKind>(None, INTERNAL).is_some() {
        return Ok(());
    }
    let op = Op::Create {
        kind: KIND.name.into(),
        project: None,
        body: json!({ "metadata": { "name": INTERNAL }, "spec": {} }),
    };
    match cx.submit(op, "ca").await {
        Err(error) if error.what != What::Exists => Err(error),
        _ => Ok(()),
    }
}

/// The CA of this process.
pub(crate) fn of(cx: &Cx) -> Result<Arc<Ca>> {
    cx.try_part::<Ca>()
        .ok_or_else(|| Error::refused("this process has no certificate authority"))
}

/// Runs what reads and writes files off the async threads.
pub(crate) async fn off<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal("work with the pki folder broke off").because(e))?
}

async fn revoke(proc: &Proc) -> Result<Value> {
    let params: RevokeParams = proc.params()?;
    let ca = of(proc.cx())?;
    let who = format!("by {} in {}", proc.actor(), proc.name());
    let (fingerprint, reason) = (params.fingerprint.clone(), params.reason);
    off(move || ca.revoke(&fingerprint, reason, &who)).await?;
    wake(proc.cx());
    Ok(json!({ "fingerprint": params.fingerprint, "reason": reason }))
}

/// Lets everybody look who shows what is revoked.
pub(crate) fn wake(cx: &Cx) {
    cx.wake(&cx.key::<CaKind>(None, INTERNAL));
    for row in cx.cache().rows(crate::certificate::KIND.name, None) {
        cx.wake(&row.key);
    }
}

async fn verify(proc: &Proc) -> Result<Value> {
    let cx = proc.cx();
    let ca = of(cx)?;
    let (lines, broken) = off(move || ca.verify_log()).await?;
    say(cx, broken).await?;
    match broken {
        None => Ok(json!({ "lines": lines, "intact": true })),
        Some(line) => Err(Error::refused(format!(
            "the issuance log was changed by somebody: line {line} of {lines} does not fit"
        ))
        .hint("compare pki/issued.log with a backup; what was signed after that line must be looked at by hand")),
    }
}

async fn say(cx: &Cx, broken: Option<u64>) -> Result<()> {
    let key = cx.key::<CaKind>(None, INTERNAL);
    let now = cx.clock().now();
    let (holds, reason, message) = match broken {
        None => (ConditionStatus::True, "Verified", String::new()),
        Some(line) => (
            ConditionStatus::False,
            "Changed",
            format!("line {line} of the issuance log does not fit"),
        ),
    };
    let mut fresh = false;
    cx.set_status::<CaKind>(&key, |status| {
        fresh = Condition::set(
            &mut status.conditions,
            "LogIntact",
            holds,
            reason,
            &message,
            now,
        );
    })
    .await?;
    if let (true, Some(_), Some(about)) = (fresh, broken, runtime::object_ref(&key)) {
        cx.event(&about, "ca.log-changed", &message, Severity::Error)
            .await;
    }
    Ok(())
}

/// Says what the CA is.
struct Look;

impl Controller for Look {
    fn name(&self) -> &'static str {
        "ca"
    }
    fn owns(&self) -> &'static Kind {
        &KIND
    }
    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Ok(ca) = of(cx) else {
                return Ok(Next::Settled);
            };
            let public = Authority::ca(&*ca);
            let log = ca.clone();
            let (lines, head, broken) = off(move || Ok(log.log_standing())).await?;
            if broken.is_some() {
                say(cx, broken).await?;
            }
            let authorities = ca.authorities();
            let (subject, not_after) = match authorities.first() {
                Some(first) => (first.subject.clone(), first.until),
                None => (String::new(), None),
            };
            let revoked = ca.revoked_count() as u64;
            let known = ca.clone();
            let federated = off(move || known.federated()).await?;
            let revoked_ones = |signed: &str| ca.revocation(signed).is_some();
            let federated: Vec<_> = federated
                .into_iter()
                .filter(|one| !revoked_ones(&one.signed))
                .map(|one| FederatedStatus {
                    region: one.region,
                    names: one.names,
                    fingerprint: one.fingerprint,
                    signed: one.signed,
                })
                .collect();
            let now = cx.clock().now();
            let overlap = authorities
                .iter()
                .filter(|a| a.state == Standing::Trusted)
                .filter_map(|a| a.until)
                .max();
            let due = authorities
                .iter()
                .any(|a| a.state == Standing::Trusted && a.until.is_some_and(|at| at <= now));
            cx.set_status::<CaKind>(key, |status| {
                status.subject.clone_from(&subject);
                status.fingerprint.clone_from(&public.fingerprint);
                status.certificate.clone_from(&public.pem);
                status.not_after = not_after;
                status.authorities.clone_from(&authorities);
                status.federated.clone_from(&federated);
                match overlap {
                    Some(until) => {
                        let message = format!(
                            "the CA before this one is trusted until {until}; logins by certificate that it signed must be made anew before: `dvctl login`"
                        );
                        let kept = ConditionStatus::True;
                        Condition::set(&mut status.conditions, "Rotated", kept, "Overlap", &message, now);
                    }
                    None => {
                        Condition::clear(&mut status.conditions, "Rotated");
                    }
                }
                status.revoked = revoked;
                status.log_lines = lines;
                status.log_head.clone_from(&head);
            })
            .await?;
            if let (true, Some(target)) = (due, runtime::object_ref(key)) {
                let op = Op::Act {
                    target,
                    verb: "retire".into(),
                    params: json!({ "due": true }),
                };
                match cx.submit(op, KIND.name).await {
                    // Another task works on it and may have done it when it ends.
                    Err(error) if error.retryable() => {}
                    other => drop(other?),
                }
            }
            Ok(Next::Again(Duration::from_secs(60)))
        })
    }
}
