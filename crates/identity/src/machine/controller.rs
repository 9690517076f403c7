//! Says how machines stand, warns before their proofs are too old, and has the certificates of those revoked that are trusted
//! no longer.

use super::types::{MachineStatus, State};
use super::{KIND, Machine, rules};
use crate::ca::{Reason, kind};
use futures::future::BoxFuture;
use model::{Kind, Result};
use runtime::event::Severity;
use runtime::{Controller, Cx, Key, Next, Obj};

/// Sole writer of the status of machines.
pub(super) struct Machines;

impl Controller for Machines {
    fn name(&self) -> &'static str {
        "machine"
    }

    fn owns(&self) -> &'static Kind {
        &KIND
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let (Some(machine), Some(target)) =
                (cx.get_key::<Machine>(key), runtime::object_ref(key))
            else {
                return Ok(Next::Settled);
            };
            if machine.metadata.deletion_requested.is_some() {
                if let Some(waiting) = revoke(cx, &machine).await? {
                    return Ok(waiting);
                }
                cx.release(key).await?;
                return Ok(Next::Settled);
            }
            let (spec, now) = (&machine.spec, cx.clock().now());
            let state = rules::state(spec, now);
            let was = machine.status.as_ref().map(|status| status.state);
            if was != Some(state) {
                let told = match state {
                    State::Expiring => Some(("machine.expiring", Severity::Warning)),
                    State::Expired => Some(("machine.expired", Severity::Error)),
                    _ => None,
                };
                if let Some((event, severity)) = told {
                    let remedy = format!("on it: dvctl tpm enrol {}", target.name);
                    let until = spec.proof.as_ref().map(|proof| proof.until.to_string());
                    let text = format!(
                        "its proof is good until {}; {remedy}",
                        until.unwrap_or_default()
                    );
                    cx.event(&target, event, &text, severity).await;
                }
            }
            let generation = machine.metadata.generation;
            cx.set_status::<Machine>(key, |status: &mut MachineStatus| {
                status.state = state;
                status.until = spec.proof.as_ref().map(|proof| proof.until);
                status.observed_generation = generation;
            })
            .await?;
            if state == State::Revoked
                && let Some(waiting) = revoke(cx, &machine).await?
            {
                return Ok(waiting);
            }
            Ok(rules::next_look(spec, now).map_or(Next::Settled, Next::Again))
        })
    }
}

/// Has its certificate refused everywhere; answers what that waits for.
async fn revoke(cx: &Cx, machine: &Obj<Machine>) -> Result<Option<Next>> {
    let Some(proof) = &machine.spec.proof else {
        return Ok(None);
    };
    let Ok(ca) = kind::of(cx) else {
        let why = "this process has no certificate authority to revoke its certificate";
        return Ok(Some(Next::WaitingFor(why.into())));
    };
    let all = proof.older.keys().chain([&proof.fingerprint]);
    let open: Vec<String> = all
        .filter(|one| ca.revocation(one).is_none())
        .cloned()
        .collect();
    if !open.is_empty() {
        let why = format!("machine {} is trusted no longer", machine.metadata.name);
        kind::off(move || {
            let mut each = open.iter();
            each.try_for_each(|one| ca.revoke(one, Reason::PrivilegeWithdrawn, &why))
        })
        .await?;
        kind::wake(cx);
    }
    Ok(None)
}
