//! Issues, renews and revokes. Chain and key are stored in one write, so that there is never one without the other.

use super::material;
use super::types::{CertificateSpec, Issuer, KeyType, OrderParams, Profile, RevokeParams};
use super::{Certificate, KIND, rules};
use crate::acme::ByHand;
use crate::ca::{Ask, Reason, kind};
use model::{Error, ObjectRef, Result};
use rcgen::{KeyPair, PublicKeyData as _};
use runtime::{Cx, Obj, Op, Proc};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Whether the key stays when a certificate is renewed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Key,
    Nothing,
}

/// The object that a procedure is about.
pub(super) fn subject(proc: &Proc) -> Result<Arc<Obj<Certificate>>> {
    let name = &proc.target().name;
    proc.cx()
        .get::<Certificate>(None, name)
        .ok_or_else(|| Error::not_found(format!("certificate {name} is gone")))
}

/// A new certificate, for the same key or a new one.
pub(super) async fn renew(proc: Proc, keep: Keep) -> Result<Value> {
    let certificate = subject(&proc)?;
    match certificate.spec.issuer {
        // The key is always new: an order that was cut short must not leave one in a journal.
        Issuer::Acme => crate::acme::order::run(&proc, &certificate.spec).await,
        Issuer::Internal => proc.step("issue", || internal(&proc, keep)).await,
        Issuer::Imported => Err(Error::refused(format!(
            "certificate {} was imported: who signed it signs the next one too",
            proc.target().name
        ))
        .hint("when you have it, `dvctl certificate set NAME --chain FILE --private-key FILE`")),
    }
}

/// A new one from its public CA, when that is due or wanted in any case.
pub(super) async fn order(proc: Proc) -> Result<Value> {
    let params: OrderParams = proc.params()?;
    let certificate = subject(&proc)?;
    let name = &proc.target().name;
    if certificate.spec.issuer != Issuer::Acme {
        return Err(Error::refused(format!(
            "certificate {name} is not of a public CA: there is nobody to order it from"
        ))
        .hint(format!("`dvctl certificate renew {name}`")));
    }
    let due: Option<String> = proc.step("due", || due(&proc)).await?;
    if due.is_none() && !params.force {
        return Ok(json!({
            "ordered": false,
            "why": "it is not due: `--force` orders it all the same",
        }));
    }
    let mut made = crate::acme::order::run(&proc, &certificate.spec).await?;
    made["ordered"] = true.into();
    Ok(made)
}

/// Lets an order go on that waits for a person.
pub(super) async fn proceed(proc: &Proc) -> Result<Value> {
    let waiting = proc.cx().try_part::<ByHand>();
    if waiting.is_some_and(|all| all.go_on(proc.target_uid())) {
        return Ok(json!({}));
    }
    Err(Error::refused(format!(
        "no order of certificate {} waits for a person",
        proc.target().name
    )))
}

/// Why the certificate is to be issued now.
async fn due(proc: &Proc) -> Result<Option<String>> {
    let certificate = subject(proc)?;
    let facts = match &certificate.spec.chain {
        Some(chain) => Some(material::read(chain)?.1),
        None => None,
    };
    let ca = kind::of(proc.cx())?;
    let revoked = facts
        .as_ref()
        .is_some_and(|facts| ca.revocation(&facts.fingerprint).is_some());
    let status = certificate.status.as_ref();
    let said = status.filter(|s| {
        facts
            .as_ref()
            .is_some_and(|f| f.fingerprint == s.fingerprint)
    });
    let other = rules::Other {
        internal: None,
        suggested: said.and_then(|s| s.suggested),
    };
    let now = proc.cx().clock().now();
    let due = rules::due(&certificate.spec, facts.as_ref(), revoked, other, now);
    Ok(due.map(str::to_owned))
}

async fn internal(proc: &Proc, keep: Keep) -> Result<Value> {
    let certificate = subject(proc)?;
    let ca = kind::of(proc.cx())?;
    let spec = certificate.spec.clone();
    let (chain, key) = kind::off(move || {
        let key = match present_key(&ca, &spec, keep) {
            Some(key) => key,
            None => new_key(spec.key_type)?,
        };
        let ask = Ask {
            names: &spec.names,
            server: spec.profile != Profile::Client,
            client: spec.profile != Profile::Server,
            life: Duration::from_secs(u64::from(spec.days) * 86_400),
        };
        Ok((ca.issue(&ask, &key)?, key.serialize_pem()))
    })
    .await?;
    store(proc.cx(), proc.target(), chain, key).await
}

/// The key that is there, when it may be used again: it fits, its certificate was not revoked, and none of it for having
/// been lost.
fn present_key(ca: &crate::Ca, spec: &CertificateSpec, keep: Keep) -> Option<KeyPair> {
    if keep == Keep::Nothing {
        return None;
    }
    let (_, facts) = material::read(spec.chain.as_deref()?).ok()?;
    if ca.revocation(&facts.fingerprint).is_some() {
        return None;
    }
    let key = KeyPair::from_pem(spec.private_key.as_deref()?).ok()?;
    if ca.is_compromised(&key.subject_public_key_info()) {
        return None;
    }
    (key.algorithm() == algorithm(spec.key_type)).then_some(key)
}

fn algorithm(sort: KeyType) -> &'static rcgen::SignatureAlgorithm {
    match sort {
        KeyType::Ec256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        KeyType::Ec384 => &rcgen::PKCS_ECDSA_P384_SHA384,
    }
}

/// A new key.
pub(crate) fn new_key(sort: KeyType) -> Result<KeyPair> {
    KeyPair::generate_for(algorithm(sort))
        .map_err(|e| Error::internal("cannot make a key for a certificate").because(e))
}

/// Stores chain and key, in one write.
pub(crate) async fn store(
    cx: &Cx,
    target: &ObjectRef,
    chain: String,
    key: String,
) -> Result<Value> {
    let (_, facts) = material::read(&chain)?;
    material::identity(&chain, &key)?;
    cx.submit(
        Op::Patch {
            target: target.clone(),
            body: json!({ "spec": { "chain": chain, "private_key": key } }),
        },
        KIND.name,
    )
    .await?;
    Ok(json!({
        "fingerprint": facts.fingerprint,
        "serial": facts.serial,
        "not_after": facts.not_after,
    }))
}

/// Refuses the present certificate, or one before it, from now on.
pub(super) async fn revoke(proc: &Proc) -> Result<Value> {
    let params: RevokeParams = proc.params()?;
    let certificate = subject(proc)?;
    let present = match &certificate.spec.chain {
        Some(chain) => Some(material::read(chain)?.1.fingerprint),
        None => None,
    };
    // However it is written: what is compared below is what is revoked.
    let asked = params
        .fingerprint
        .as_deref()
        .map(crate::ca::plain)
        .transpose()?;
    let Some(fingerprint) = asked.or(present.clone()) else {
        return Err(Error::refused(format!(
            "certificate {} was not issued yet: there is nothing to revoke",
            proc.target().name
        )));
    };
    let ca = kind::of(proc.cx())?;
    // Where a key was lost, all its certificates go.
    let hits_present = match (&present, params.reason) {
        (Some(present), Reason::KeyCompromise) if *present != fingerprint => {
            let (ca, present, one) = (ca.clone(), present.clone(), fingerprint.clone());
            kind::off(move || Ok(ca.share_key(&one, &present))).await?
        }
        (present, _) => present.as_ref() == Some(&fingerprint),
    };
    if hits_present
        && super::panel::named(proc.cx()).as_deref() == Some(proc.target().name.as_str())
    {
        return Err(Error::refused(format!(
            "the panel shows certificate {}: revoked, nobody could reach it",
            proc.target().name
        ))
        .hint(format!(
            "`dvctl certificate rotate {0}` first, then `dvctl certificate revoke {0} --fingerprint {fingerprint}`",
            proc.target().name
        )));
    }
    if Some(&fingerprint) != present.as_ref() {
        let (ca, older) = (ca.clone(), fingerprint.clone());
        let was_its = kind::off(move || ca.names_of(&older)).await?;
        let names = crate::ca::sorted(&certificate.spec.names);
        if was_its.is_none_or(|was| crate::ca::sorted(&was) != names) {
            return Err(Error::refused(format!(
                "{fingerprint} is no certificate that {} has or had: none with its names was issued so",
                proc.target().name
            ))
            .hint("any certificate of the CA is revoked with `dvctl ca revoke internal --fingerprint FINGERPRINT`"));
        }
    }
    // The provider first: when it is down, nothing has happened and it can be asked again.
    if certificate.spec.issuer == Issuer::Acme && Some(&fingerprint) == present.as_ref() {
        crate::acme::order::revoke(proc.cx(), &certificate.spec, params.reason).await?;
    }
    let who = format!("by {} in {}", proc.actor(), proc.name());
    let revoked = fingerprint.clone();
    kind::off(move || ca.revoke(&revoked, params.reason, &who)).await?;
    kind::wake(proc.cx());
    Ok(json!({ "fingerprint": fingerprint, "reason": params.reason }))
}
