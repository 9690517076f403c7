//! One order: from the names to the chain, as steps of the procedure that renews a certificate.

use super::dns01::{self, Record};
use super::types::{AcmeAccountSpec, DnsProvider};
use super::{AcmeAccount, client, http01, renewal, tls_alpn01};
use crate::certificate::{Certificate, Challenge, issue};
use instant_acme::{
    AuthorizationStatus, ChallengeType, Identifier, NewOrder, OrderStatus, RetryPolicy,
    RevocationReason, RevocationRequest,
};
use model::{Error, Result, What};
use rcgen::{CertificateParams, DistinguishedName};
use runtime::event::Severity;
use runtime::{Cx, Obj, Proc, Undo, setting};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Orders in an hour.
const MOST: usize = 5;
const HOUR: Duration = Duration::from_secs(3600);
const POLL: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(90));

/// Takes TXT records away that an order has made.
pub(crate) static WITHDRAW: Undo = Undo {
    name: "certificate.withdraw",
    run: |cx, args| {
        Box::pin(async move {
            let made: Made = serde_json::from_value(args)
                .map_err(|e| Error::internal("arguments of certificate.withdraw").because(e))?;
            withdraw(&cx, &made).await
        })
    },
};

/// The records of an order and whose DNS they are in.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Made {
    account: String,
    records: Vec<Record>,
}

/// What the provider asks for one name.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Task {
    domain: String,
    token: String,
    /// What http-01 answers.
    answer: String,
    /// What dns-01 shows.
    text: String,
}

pub(super) fn account(cx: &Cx, name: &str) -> Result<Arc<Obj<AcmeAccount>>> {
    cx.get::<AcmeAccount>(None, name)
        .ok_or_else(|| Error::refused(format!("there is no ACME account `{name}`")))
}

/// A new certificate from the account's provider.
pub(crate) async fn run(proc: &Proc, spec: &crate::certificate::CertificateSpec) -> Result<Value> {
    let cx = proc.cx();
    let name = spec.account.clone().unwrap_or_default();
    let owner = account(cx, &name)?.spec.clone();
    let challenge = spec.challenge;
    let url: String = proc.step("order", || order(cx, &name, spec)).await?;
    let tasks: Vec<Task> = proc
        .step("challenges", || tasks(cx, &owner, &url, challenge))
        .await?;
    let mut made = Made {
        account: name.clone(),
        records: Vec::new(),
    };
    if challenge == Challenge::Dns01 {
        made.records = tasks
            .iter()
            .map(|task| Record {
                name: format!("_acme-challenge.{}", task.domain),
                value: task.text.clone(),
            })
            .collect();
        proc.undoable("publish", WITHDRAW.with(&made), || publish(proc, &made))
            .await?;
    }
    proc.step("validate", || validate(cx, &owner, &url, challenge, &tasks))
        .await?;
    if !made.records.is_empty() {
        proc.step("withdraw", || withdraw(cx, &made)).await?;
    }
    proc.step("finish", || finish(proc, &owner, &url)).await
}

/// Places the order, when there were not too many; answers its URL.
async fn order(cx: &Cx, name: &str, spec: &crate::certificate::CertificateSpec) -> Result<String> {
    let account = account(cx, name)?;
    if !account.spec.terms_agreed {
        return Err(Error::refused(format!(
            "nobody agrees any more to the terms of service of {}",
            account.spec.url()
        ))
        .hint(format!(
            "read them, then: dvctl acme-account set {name} --terms-agreed"
        )));
    }
    let now = cx.clock().now();
    // Counted in the write itself and before anything is asked: of many at once, no more than so many get through.
    let mut full = None;
    cx.set_status::<AcmeAccount>(&cx.key::<AcmeAccount>(None, name), |status| {
        let orders = &mut status.orders;
        orders.retain(|at| *at <= now && now.since(*at) < HOUR);
        full = orders.first().copied().filter(|_| orders.len() >= MOST);
        if full.is_none() {
            orders.push(now);
        }
    })
    .await?;
    if let Some(first) = full {
        let wait = HOUR.saturating_sub(now.since(first));
        return Err(Error::new(
            What::Unavailable(wait),
            format!(
                "{MOST} orders were made with the ACME account {name} in the last hour; more would cost us its provider's favour"
            ),
        ));
    }
    let placed = place(cx, &account.spec, spec).await;
    // What never reached the provider costs nothing of its favour.
    if matches!(&placed, Err(error) if matches!(error.what, What::Unavailable(_))) {
        cx.set_status::<AcmeAccount>(&cx.key::<AcmeAccount>(None, name), |status| {
            if let Some(at) = status.orders.iter().position(|at| *at == now) {
                status.orders.remove(at);
            }
        })
        .await?;
    }
    placed
}

/// Asks the provider for an order, and says which certificate it takes the place of.
async fn place(
    cx: &Cx,
    account: &AcmeAccountSpec,
    spec: &crate::certificate::CertificateSpec,
) -> Result<String> {
    let said = client::said(account);
    let known = client::open(cx, account).await?;
    let identifiers: Vec<Identifier> = spec.names.iter().cloned().map(Identifier::Dns).collect();
    let present = spec.chain.as_deref().and_then(renewal::identifier);
    if let Some(present) = present {
        let order = NewOrder::new(&identifiers).replaces(present);
        match known.new_order(&order).await {
            Ok(order) => return Ok(order.url().to_owned()),
            // Down is down: that is an error of ours.
            Err(instant_acme::Error::Other(cause)) if cause.is::<Error>() => {
                return Err(said(instant_acme::Error::Other(cause)));
            }
            // It has been replaced already, is another provider's, or nobody here knows of such things.
            Err(error) => tracing::info!(%error, "the order replaces nothing"),
        }
    }
    let order = known
        .new_order(&NewOrder::new(&identifiers))
        .await
        .map_err(said)?;
    Ok(order.url().to_owned())
}

fn sort(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::Dns01 => ChallengeType::Dns01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

/// What is still to be shown.
async fn tasks(
    cx: &Cx,
    owner: &AcmeAccountSpec,
    url: &str,
    challenge: Challenge,
) -> Result<Vec<Task>> {
    let said = client::said(owner);
    let known = client::open(cx, owner).await?;
    let mut order = known.order(url.to_owned()).await.map_err(&said)?;
    let mut all = order.authorizations();
    let mut out = Vec::new();
    while let Some(one) = all.next().await {
        let mut one = one.map_err(&said)?;
        if one.status == AuthorizationStatus::Valid {
            continue;
        }
        let domain = match one.identifier().identifier {
            Identifier::Dns(name) => name.clone(),
            other => return Err(Error::refused(format!("the provider asks for {other:?}"))),
        };
        let found = one.challenge(sort(challenge)).ok_or_else(|| {
            Error::refused(format!(
                "the provider does not offer this challenge for {domain}"
            ))
            .hint("set `challenge` to another one")
        })?;
        let proof = found.key_authorization();
        out.push(Task {
            token: found.token.clone(),
            answer: proof.as_str().to_owned(),
            text: proof.dns_value(),
            domain,
        });
    }
    Ok(out)
}

async fn publish(proc: &Proc, made: &Made) -> Result<()> {
    let cx = proc.cx();
    let account = account(cx, &made.account)?;
    let Some(dns) = &account.spec.dns else {
        return Err(Error::refused(format!(
            "the ACME account {} does not say how TXT records are made: `dns`",
            made.account
        )));
    };
    if dns.provider == DnsProvider::Manual {
        let records = &made.records;
        if records.is_empty() {
            return Ok(());
        }
        for record in records {
            let line = format!("waits until somebody has made: {}", record.line());
            proc.log(line.clone()).await;
            let wanted = "certificate.record-wanted";
            cx.event(proc.target(), wanted, &line, Severity::Warning)
                .await;
        }
        return dns01::by_hand(cx, dns, proc.target(), proc.target_uid(), records).await;
    }
    let published = dns01::publish(cx, dns, &made.records).await;
    if published.is_err() {
        // A step that fails leaves nothing.
        let _ = dns01::withdraw(cx, dns, &made.records).await;
    }
    published
}

async fn withdraw(cx: &Cx, made: &Made) -> Result<()> {
    let dns = account(cx, &made.account)
        .ok()
        .and_then(|a| a.spec.dns.clone());
    match dns {
        Some(dns) => dns01::withdraw(cx, &dns, &made.records).await,
        None => Ok(()),
    }
}

/// What is open while the provider looks; closed when dropped.
#[allow(dead_code, reason = "they are held, not used")]
enum Listener {
    Http(http01::Listener),
    Tls(tls_alpn01::Listener),
    None,
}

/// Tells the provider to look, and waits until it has.
async fn validate(
    cx: &Cx,
    owner: &AcmeAccountSpec,
    url: &str,
    challenge: Challenge,
    tasks: &[Task],
) -> Result<()> {
    let said = client::said(owner);
    let known = client::open(cx, owner).await?;
    let _listener = match challenge {
        Challenge::Http01 if !tasks.is_empty() => {
            let answers: HashMap<String, String> = tasks
                .iter()
                .map(|task| (task.token.clone(), task.answer.clone()))
                .collect();
            let at = setting::ACME_HTTP_ADDRESS.text(cx);
            Listener::Http(http01::open(&at, answers).await?)
        }
        Challenge::TlsAlpn01 if !tasks.is_empty() => {
            let answers: HashMap<String, String> = tasks
                .iter()
                .map(|task| (task.domain.clone(), task.answer.clone()))
                .collect();
            let at = setting::ACME_TLS_ADDRESS.text(cx);
            Listener::Tls(tls_alpn01::open(&at, &answers).await?)
        }
        _ => Listener::None,
    };
    let mut order = known.order(url.to_owned()).await.map_err(&said)?;
    let mut all = order.authorizations();
    while let Some(one) = all.next().await {
        let mut one = one.map_err(&said)?;
        if one.status == AuthorizationStatus::Pending
            && let Some(mut found) = one.challenge(sort(challenge))
        {
            found.set_ready().await.map_err(&said)?;
        }
    }
    if matches!(
        order.state().status,
        OrderStatus::Valid | OrderStatus::Ready
    ) {
        return Ok(());
    }
    match order.poll_ready(&POLL).await.map_err(&said)? {
        OrderStatus::Invalid => Err(Error::refused(why(&mut order).await)
            .hint("the provider must reach what the challenge shows: port 80 of every name (443 for tls-alpn-01), or the TXT record")),
        _ => Ok(()),
    }
}

/// What the provider says was wrong with an order.
async fn why(order: &mut instant_acme::Order) -> String {
    let mut all = order.authorizations();
    while let Some(Ok(mut one)) = all.next().await {
        let _ = one.refresh().await;
        let problem = one.challenges.iter().find_map(|c| c.error.as_ref());
        if let Some(problem) = problem {
            return format!(
                "{} was not believed to be ours: {problem}",
                one.identifier()
            );
        }
    }
    "the provider refused the order and does not say why".into()
}

/// Makes a key, hands its request in and fetches the chain. The key is in nobody's journal.
async fn finish(proc: &Proc, owner: &AcmeAccountSpec, url: &str) -> Result<Value> {
    let said = client::said(owner);
    let name = &proc.target().name;
    let certificate = proc
        .cx()
        .get::<Certificate>(None, name)
        .ok_or_else(|| Error::not_found(format!("certificate {name} is gone")))?;
    let spec = &certificate.spec;
    let key = issue::new_key(spec.key_type)?;
    let broken = |e: rcgen::Error| Error::internal("cannot make a signing request").because(e);
    let mut params = CertificateParams::new(spec.names.clone()).map_err(broken)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(broken)?;
    let known = client::open(proc.cx(), owner).await?;
    let mut order = known.order(url.to_owned()).await.map_err(&said)?;
    order.finalize_csr(request.der()).await.map_err(&said)?;
    let chain = order.poll_certificate(&POLL).await.map_err(&said)?;
    if super::is_public(proc.cx(), spec) {
        let (_, facts) = crate::certificate::material::read(&chain)?;
        let life = facts.not_after.since(facts.not_before);
        crate::certificate::enough(&facts.promises, life, proc.cx().clock().now())?;
    }
    issue::store(proc.cx(), proc.target(), chain, key.serialize_pem()).await
}

/// Has the provider revoke the present certificate.
pub(crate) async fn revoke(
    cx: &Cx,
    spec: &crate::certificate::CertificateSpec,
    reason: crate::ca::Reason,
) -> Result<()> {
    use crate::ca::Reason;
    let owner = account(cx, spec.account.as_deref().unwrap_or_default())?;
    let known = client::open(cx, &owner.spec).await?;
    let chain = spec.chain.as_deref().unwrap_or_default();
    let (ders, _) = crate::certificate::material::read(chain)?;
    let der = ders.into_iter().next().unwrap_or_default();
    let request = RevocationRequest {
        certificate: &der.into(),
        reason: Some(match reason {
            Reason::Unspecified => RevocationReason::Unspecified,
            Reason::KeyCompromise => RevocationReason::KeyCompromise,
            Reason::AffiliationChanged => RevocationReason::AffiliationChanged,
            Reason::Superseded => RevocationReason::Superseded,
            Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
            Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
        }),
    };
    match known.revoke(&request).await {
        Ok(()) => Ok(()),
        // Asked twice: it is done.
        Err(instant_acme::Error::Api(problem))
            if problem
                .r#type
                .as_deref()
                .is_some_and(|t| t.ends_with(":alreadyRevoked")) =>
        {
            Ok(())
        }
        Err(error) => Err(client::said(&owner.spec)(error)),
    }
}
