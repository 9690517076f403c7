//! Kind `acme-account`: an account with a public CA that speaks ACME (RFC 8555), and the orders made with it.
//!
//! **Invariants.** Nothing is sent to a provider before a person agreed to its terms. At most five orders are made in an
//! hour. Port 80 is open only while an order is validated, and answers nothing but its tokens. A failed order leaves
//! the present certificate as it is, and no TXT record.

mod by_hand;
mod client;
mod dns;
mod dns01;
mod hook;
mod http01;
pub(crate) mod order;
pub(crate) mod renewal;
mod rfc2136;
#[cfg(test)]
mod tests;
mod tls_alpn01;
mod types;

pub use by_hand::ByHand;
pub use hook::Hook;
pub use types::{AccountState, AcmeAccountSpec, AcmeAccountStatus, Dns, DnsProvider, Provider};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::future::BoxFuture;
use instant_acme::{ExternalAccountKey, NewAccount};
use model::{
    Action, Column, Danger, Error, Kind, Resource, Result, Scope, Unit, Verb, WorkStyle, schema,
};
use runtime::task::{Task, TaskState};
use runtime::{
    Controller, Cx, Draft, Key, Next, Obj, Op, Place, Proc, Run, Seat, Subsystem, Watch, normal,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Ties the kind to its types.
pub struct AcmeAccount;

impl Resource for AcmeAccount {
    const KIND: &'static Kind = &KIND;
    type Spec = AcmeAccountSpec;
    type Status = AcmeAccountStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "acme-account",
    plural: "acme-accounts",
    title: "ACME account",
    scope: Scope::Cluster,
    doc: "An account with a public CA that speaks ACME, such as Let's Encrypt. Certificates with the issuer `acme` are ordered with it.",
    verbs: Verb::ALL,
    spec: schema::of::<AcmeAccountSpec>,
    status: schema::of::<AcmeAccountStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("state", "status.state"),
        Column::new("provider", "spec.provider"),
        Column::new("contact", "spec.contact"),
        Column::new("age", "metadata.created").unit(Unit::Age),
        Column::new("message", "status.message").wide(),
    ],
    actions: &[Action {
        verb: "register",
        doc: "Registers the account with its provider. It is done by itself as soon as the terms are agreed to.",
        danger: Danger::None,
        style: WorkStyle::Procedure,
        input: schema::empty,
        claims: &["account"],
        deadline: 300,
        event: "registered",
        examples: &["dvctl acme-account register letsencrypt"],
    }],
    streams: &[],
    examples: &[
        "dvctl acme-account create letsencrypt --contact admin@example.org --terms-agreed",
        "dvctl certificate create panel --issuer acme --account letsencrypt --names panel.example.org",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<AcmeAccount>,
    admit,
    runs: &[(
        "register",
        Run::Procedure(|proc| {
            Box::pin(async move { proc.step("register", || register(&proc)).await })
        }),
    )],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: |_| vec![Arc::new(Accounts)],
};

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let spec = draft.spec::<AcmeAccount>()?;
    let wrong = |field: &str, why: &str| Err(Error::field(format!("spec.{field}"), why));
    match (spec.provider, &spec.directory) {
        (Provider::Custom, None) => {
            return wrong(
                "directory",
                "a custom provider needs the URL of its directory",
            );
        }
        (Provider::Custom, Some(url)) if !url.starts_with("https://") => {
            return wrong("directory", "must begin with https://");
        }
        (Provider::Custom, _) | (_, None) => {}
        (_, Some(_)) => return wrong("directory", "only a custom provider takes it"),
    }
    if spec.directory_ca.is_some() {
        if spec.provider != Provider::Custom {
            return wrong("directory_ca", "only a custom provider takes it");
        }
        client::http(draft.cx(), spec.directory_ca.as_deref())
            .map_err(|e| Error::field("spec.directory_ca", e.to_string()))?;
    }
    for (n, contact) in spec.contact.iter().enumerate() {
        let parts = contact.split_once('@');
        let good = parts.is_some_and(|(who, at)| !who.is_empty() && at.contains('.'))
            && !contact.contains(|c: char| c.is_whitespace() || c.is_control() || "?,".contains(c));
        if !good {
            return wrong(&format!("contact[{n}]"), "is not a mail address");
        }
    }
    let wants_eab = matches!(spec.provider, Provider::Zerossl | Provider::Google);
    match (&spec.eab_key_id, &spec.eab_hmac) {
        (None, None) if wants_eab => {
            return wrong(
                "eab_key_id",
                "this provider wants an external account: its key id and `eab_hmac`",
            );
        }
        (Some(_), None) => return wrong("eab_hmac", "belongs to eab_key_id and is missing"),
        (None, Some(_)) => return wrong("eab_key_id", "belongs to eab_hmac and is missing"),
        (Some(_), Some(hmac)) if !hmac.starts_with(crate::KEPT) && hmac_key(hmac).is_none() => {
            return wrong("eab_hmac", "is not base64url");
        }
        _ => {}
    }
    if let Some(dns) = &spec.dns {
        dns01::check(dns)?;
    }
    Ok(())
}

/// Whether a person makes the TXT records of its orders.
pub(crate) fn is_by_hand(cx: &Cx, spec: &crate::certificate::CertificateSpec) -> bool {
    let account = spec.account.as_deref();
    let account = account.and_then(|name| cx.get::<AcmeAccount>(None, name));
    let dns = account.and_then(|a| a.spec.dns.as_ref().map(|dns| dns.provider));
    spec.challenge == crate::certificate::Challenge::Dns01 && dns == Some(DnsProvider::Manual)
}

/// Whether a certificate comes from a CA that everybody trusts: then it must be in public logs.
pub(crate) fn is_public(cx: &Cx, spec: &crate::certificate::CertificateSpec) -> bool {
    let account = spec.account.as_deref();
    let account = account.and_then(|name| cx.get::<AcmeAccount>(None, name));
    account.is_some_and(|a| {
        !matches!(
            a.spec.provider,
            Provider::Custom | Provider::LetsencryptStaging
        )
    })
}

fn hmac_key(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

async fn register(proc: &Proc) -> Result<Value> {
    let name = &proc.target().name;
    let account = proc
        .cx()
        .get::<AcmeAccount>(None, name)
        .ok_or_else(|| Error::not_found(format!("ACME account {name} is gone")))?;
    let spec = &account.spec;
    if spec.credentials.is_some() {
        return Ok(json!({ "registered": true }));
    }
    if !spec.terms_agreed {
        return Err(
            Error::refused("nobody has agreed to the provider's terms of service").hint(format!(
                "read them, then `dvctl acme-account set {name} --terms-agreed`"
            )),
        );
    }
    let contact: Vec<String> = spec.contact.iter().map(|c| format!("mailto:{c}")).collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let external = match (
        &spec.eab_key_id,
        spec.eab_hmac.as_deref().and_then(hmac_key),
    ) {
        (Some(id), Some(key)) => Some(ExternalAccountKey::new(id.clone(), &key)),
        _ => None,
    };
    let wanted = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (made, credentials) = client::builder(proc.cx(), spec)?
        .create(&wanted, spec.url().to_owned(), external.as_ref())
        .await
        .map_err(client::said(spec))?;
    let credentials = serde_json::to_string(&credentials)
        .map_err(|e| Error::internal("credentials of an ACME account as JSON").because(e))?;
    let op = Op::Patch {
        target: proc.target().clone(),
        body: json!({ "spec": { "credentials": credentials } }),
    };
    proc.cx().submit(op, KIND.name).await?;
    Ok(json!({ "registered": true, "account": made.id() }))
}

/// Registers accounts and says how they stand.
struct Accounts;

impl Controller for Accounts {
    fn name(&self) -> &'static str {
        "acme-account"
    }
    fn owns(&self) -> &'static Kind {
        &KIND
    }
    fn watches(&self) -> Vec<Watch> {
        vec![Watch::Map("task", |cx, key| {
            let task = cx.get_key::<Task>(key);
            let target = task.as_ref().map(|task| &task.spec.target);
            target
                .filter(|target| target.kind == KIND.name)
                .map(|target| cx.key::<AcmeAccount>(None, &target.name))
                .into_iter()
                .collect()
        })]
    }
    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let (Some(account), Some(target)) =
                (cx.get_key::<AcmeAccount>(key), runtime::object_ref(key))
            else {
                return Ok(Next::Settled);
            };
            let now = cx.clock().now();
            let mut status = account.status.clone().unwrap_or_default();
            let last = last_task(cx, &account);
            let running = last.as_ref().is_some_and(|t| !ended(t));
            if let Some(task) = last.filter(|t| ended(t) && *t.metadata.name != status.task) {
                status.task = task.metadata.name.to_string();
                let end = task.status.clone().unwrap_or_default();
                if end.state == TaskState::Succeeded {
                    (status.failures, status.next_try) = (0, None);
                } else {
                    status.failures += 1;
                    status.next_try = Some(now.plus(crate::certificate::wait(status.failures)));
                    status.message = end.message;
                }
            }
            let spec = &account.spec;
            spec.url().clone_into(&mut status.directory);
            let waits = spec.credentials.is_none() && !spec.terms_agreed;
            if spec.credentials.is_some() {
                status.state = AccountState::Ready;
                status.message.clear();
            } else if status.failures > 0 {
                status.state = AccountState::Error;
            } else {
                status.state = AccountState::Pending;
                status.message.clear();
            }
            let next = status.next_try;
            cx.set_status::<AcmeAccount>(key, |stored| {
                stored.state = status.state;
                stored.directory.clone_from(&status.directory);
                stored.message.clone_from(&status.message);
                stored.task.clone_from(&status.task);
                stored.failures = status.failures;
                stored.next_try = status.next_try;
            })
            .await?;
            if status.state == AccountState::Ready || running {
                return Ok(Next::Settled);
            }
            if waits {
                return Ok(Next::WaitingFor(format!(
                    "a person must read the terms of service of {} and set terms_agreed",
                    status.directory
                )));
            }
            if let Some(at) = next.filter(|at| *at > now) {
                return Ok(Next::Again(at.since(now).max(Duration::from_secs(1))));
            }
            let op = Op::Act {
                target,
                verb: "register".into(),
                params: json!({}),
            };
            cx.submit(op, KIND.name).await?;
            Ok(Next::Settled)
        })
    }
}

fn ended(task: &Obj<Task>) -> bool {
    task.status.as_ref().is_some_and(|s| s.state.ended())
}

/// The newest task that registered this very account, or tried to.
fn last_task(cx: &Cx, account: &Obj<AcmeAccount>) -> Option<Arc<Obj<Task>>> {
    let tasks = cx.list::<Task>(None);
    tasks
        .into_iter()
        .filter(|task| {
            task.spec.target_uid == account.metadata.uid
                && task.spec.action == "acme-account.register"
        })
        .max_by_key(|task| task.metadata.uid)
}
