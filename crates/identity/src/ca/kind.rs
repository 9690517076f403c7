//! Kind `ca`: the internal certificate authority as people see it. One object, `internal`, made at first start.
//!
//! **Invariant.** Its key never leaves the pki folder, and nothing here signs: certificates are asked for with the kind
//! `certificate`, logins with a code.

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
    /// How many certificates are refused before their time.
    pub revoked: u64,
    /// How many lines the issuance log has.
    pub log_lines: u64,
    /// Hash of its last line: whoever notes it can tell later whether what was there is still the same.
    pub log_head: String,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// `LogIntact`: what the last look at the issuance log found.
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
    ],
    undos: &[],
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
            let (lines, head, broken) = ca.log_standing();
            if broken.is_some() {
                say(cx, broken).await?;
            }
            let (subject, not_after) = match x509_parser::parse_x509_certificate(&public.der) {
                Ok((_, parsed)) => (
                    parsed.subject().to_string(),
                    Some(Timestamp::from_millis(
                        parsed.validity().not_after.timestamp() * 1000,
                    )),
                ),
                Err(_) => (String::new(), None),
            };
            let revoked = ca.revoked_count() as u64;
            cx.set_status::<CaKind>(key, |status| {
                status.subject.clone_from(&subject);
                status.fingerprint.clone_from(&public.fingerprint);
                status.certificate.clone_from(&public.pem);
                status.not_after = not_after;
                status.revoked = revoked;
                status.log_lines = lines;
                status.log_head.clone_from(&head);
            })
            .await?;
            Ok(Next::Again(Duration::from_secs(60)))
        })
    }
}
