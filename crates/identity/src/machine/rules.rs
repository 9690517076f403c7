//! What a machine may be, and whether somebody is at it.

use super::types::{MachineSpec, RevokeParams, Revoked, State};
use super::{KIND, Machine, endorsement};
use model::{Error, Result, Timestamp, Violation};
use runtime::{ActorKind, Cx, Draft, Whence};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Where it stands.
pub(super) fn state(spec: &MachineSpec, now: Timestamp) -> State {
    match &spec.proof {
        _ if spec.revoked.is_some() => State::Revoked,
        None => State::Waiting,
        Some(proof) if now >= proof.until => State::Expired,
        Some(proof) if now >= warn_at(proof.at, proof.until) => State::Expiring,
        Some(_) => State::Proven,
    }
}

/// From when on a third of the time is left.
pub(super) fn warn_at(at: Timestamp, until: Timestamp) -> Timestamp {
    at.plus(until.since(at) / 3 * 2)
}

/// How long until something about it changes by the time alone.
pub(super) fn next_look(spec: &MachineSpec, now: Timestamp) -> Option<Duration> {
    let proof = spec.proof.as_ref()?;
    let next = [warn_at(proof.at, proof.until), proof.until];
    let next = next.into_iter().find(|at| *at > now)?;
    Some(next.since(now).max(Duration::from_secs(1)))
}

/// Whether somebody comes from this machine: he holds the key in its TPM, whose proof is still good.
pub(crate) fn is_at(cx: &Cx, machine: &str, from: Whence<'_>) -> bool {
    let Some(shown) = from.certificate else {
        return false;
    };
    let key = cx.key::<Machine>(None, machine);
    let row = cx.cache().row(KIND.name, &key);
    if row.is_none_or(|row| row.deleting) {
        return false;
    }
    let Some(machine) = cx.get_key::<Machine>(&key) else {
        return false;
    };
    let (Some(proof), None) = (&machine.spec.proof, &machine.spec.revoked) else {
        return false;
    };
    let Ok((_, shown)) = X509Certificate::from_der(shown) else {
        return false;
    };
    // By the key, not by the certificate: a machine whose renewal got lost on the way has the one before.
    let shown = hex::encode(Sha256::digest(shown.public_key().raw));
    shown == proof.key && cx.clock().now() < proof.until
}

/// At creation and every change.
pub(super) fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let mut spec = draft.spec::<Machine>()?;
    let old = draft.old_spec::<Machine>()?;
    endorsement::makers(&spec.makers)?;
    let mut wrong = Vec::new();
    if draft.actor().kind != ActorKind::System {
        // Nobody says for a machine that it has proven itself.
        spec.challenge = old.as_ref().and_then(|old| old.challenge.clone());
        spec.proof = old.as_ref().and_then(|old| old.proof.clone());
        let fixed = old.as_ref().filter(|old| old.proof.is_some());
        if fixed.is_some_and(|old| old.endorsement != spec.endorsement) {
            wrong.push(
                Violation::new(
                    "spec.endorsement",
                    "a machine that has proven itself keeps its TPM",
                )
                .hint("make a new machine, and new keys for it"),
            );
        }
    }
    spec.registers.sort_unstable();
    spec.registers.dedup();
    if let Some(hash) = &mut spec.endorsement {
        *hash = hash.to_ascii_lowercase();
        if !is_hash(hash) {
            wrong.push(Violation::new(
                "spec.endorsement",
                "is not a SHA-256: 64 hex digits",
            ));
        }
    }
    for (register, value) in spec.measured.iter_mut().flatten() {
        value.make_ascii_lowercase();
        let known = register.parse::<u8>().is_ok_and(|n| n < tpm::REGISTERS);
        if !known || !is_hash(value) {
            let field = format!("spec.measured.{register}");
            wrong.push(Violation::new(
                field,
                "is not a register from 0 to 23 with 64 hex digits",
            ));
        }
    }
    let back = old.as_ref().and_then(|old| old.revoked.as_ref());
    if back.is_some() && spec.revoked.as_ref() != back {
        wrong.push(
            Violation::new("spec.revoked", "a machine that was revoked stays so")
                .hint("make a new one"),
        );
    }
    if old.is_none() && spec.revoked.is_some() {
        wrong.push(Violation::new("spec.revoked", "is set by `revoke`"));
    }
    match wrong.is_empty() {
        true => draft.set_spec::<Machine>(&spec),
        false => Err(Error::invalid(wrong)),
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `remeasure`.
pub(super) fn remeasure(draft: &mut Draft<'_>, _: &Value) -> Result<()> {
    draft.spec["measured"] = Value::Null;
    Ok(())
}

/// `revoke`. Doing it again changes nothing.
pub(super) fn revoke(draft: &mut Draft<'_>, params: &Value) -> Result<()> {
    if draft.spec["revoked"].is_null() {
        let asked: RevokeParams = serde_json::from_value(params.clone()).unwrap_or_default();
        draft.spec["revoked"] = json!(Revoked {
            at: draft.now(),
            reason: asked.reason,
        });
    }
    Ok(())
}
