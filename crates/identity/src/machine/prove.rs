//! `challenge` and `prove`: how a machine proves itself, the first time and each time after.

use super::types::{ChallengeParams, MachineSpec, Open, Proof, ProveParams};
use super::{KIND, Machine, endorsement};
use crate::ca::kind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, ObjectRef, Result, What};
use runtime::event::Severity;
use runtime::{Obj, Op, Proc};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tpm::attest::{self, Registers};
use tpm::public::Signer;

/// How long a challenge waits for its answer: making keys takes a slow TPM a minute.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// Certificates of one machine that are good at a time.
const MOST_OLDER: usize = 100;
const DAY: Duration = Duration::from_secs(86_400);

/// The machine that a procedure is about, while it is trusted.
fn subject(proc: &Proc) -> Result<Arc<Obj<Machine>>> {
    let name = &proc.target().name;
    let machine = proc.cx().get::<Machine>(None, name);
    let machine = machine.ok_or_else(|| Error::not_found(format!("machine {name} is gone")))?;
    match machine.spec.revoked {
        None => Ok(machine),
        Some(_) => Err(Error::refused(format!(
            "machine {name} was revoked and is trusted no longer"
        ))
        .hint("make a new machine, and new keys for it")),
    }
}

fn bytes(field: &str, text: &str) -> Result<Vec<u8>> {
    let bytes = STANDARD.decode(text);
    bytes.map_err(|_| Error::field(field, "is not base64"))
}

fn signer(field: &str, text: &str) -> Result<Signer> {
    Signer::read(&bytes(field, text)?).map_err(|e| Error::field(field, e.to_string()))
}

fn hash(of: &[u8]) -> String {
    hex::encode(Sha256::digest(of))
}

/// Whether this is the TPM that the machine has had from the first time on.
fn same_tpm(name: &str, spec: &MachineSpec, shown: &str) -> Result<()> {
    match &spec.endorsement {
        Some(known) if known != shown => Err(Error::refused(format!(
            "machine {name} has another TPM: its endorsement key is {known}, and this one is {shown}"
        ))
        .hint("this is another machine, or its board was replaced: make a new machine, and new keys for it")),
        _ => Ok(()),
    }
}

/// Gives a challenge.
pub(super) async fn challenge(proc: &Proc) -> Result<Value> {
    let asked: ChallengeParams = proc.params()?;
    let machine = subject(proc)?;
    let (cx, spec, name) = (proc.cx(), &machine.spec, &proc.target().name);
    let certificate = bytes("certificate", &asked.certificate)?;
    let between = bytes("chain", &asked.chain)?;
    let makers = endorsement::makers(&spec.makers)?;
    let now = cx.clock().now();
    let endorsed = endorsement::check(&certificate, &between, &makers, now)?;
    same_tpm(name, spec, &endorsed.hash)?;
    let voucher = signer("voucher", &asked.voucher)?;
    if !voucher.vouches() {
        return Err(Error::field(
            "voucher",
            "is not a key that stays in its TPM and signs the TPM's own statements only",
        ));
    }
    let key = signer("key", &asked.key)?;
    if !key.stands() {
        return Err(Error::field(
            "key",
            "is not a key that was made in its TPM, stays there and signs",
        ));
    }
    let mut secret = [0; 32];
    cx.clock().fill(&mut secret);
    let made = tpm::credential::challenge(&endorsed.key, &voucher.name(), &secret)
        .map_err(|e| Error::field("certificate", e.to_string()))?;
    let open = Open {
        secret: hash(&secret),
        endorsement: endorsed.hash,
        voucher: asked.voucher,
        key: asked.key,
        expires: now.plus(PATIENCE),
    };
    store(proc, &machine, json!({ "challenge": open })).await?;
    Ok(json!({
        "credential": STANDARD.encode(made.credential),
        "seed": STANDARD.encode(made.seed),
        "registers": spec.registers,
        "expires": open.expires,
    }))
}

/// Takes the answer, and signs a certificate for the key.
pub(super) async fn prove(proc: &Proc) -> Result<Value> {
    let said: ProveParams = proc.params()?;
    let machine = subject(proc)?;
    let (cx, spec, name) = (proc.cx(), &machine.spec, &proc.target().name);
    let now = cx.clock().now();
    // It was taken already, and we died before it was written down that this task has done it.
    if let Some(proof) = spec.proof.as_ref().filter(|p| p.task == proc.name()) {
        return Ok(told(proof));
    }
    let open = spec.challenge.as_ref().filter(|open| now < open.expires);
    let Some(open) = open else {
        return Err(Error::refused(format!(
            "no challenge waits for an answer of machine {name}: each is good for 10 minutes and one answer"
        ))
        .hint(format!("ask for another: dvctl tpm enrol {name}")));
    };
    same_tpm(name, spec, &open.endorsement)?;
    let secret = bytes("secret", &said.secret)?;
    let wrong = |e: &dyn std::fmt::Display| {
        Error::refused(format!("machine {name} has not proven itself: {e}")).hint(format!(
            "ask for another challenge, on that machine: dvctl tpm enrol {name}"
        ))
    };
    if hash(&secret) != open.secret {
        return Err(wrong(&"the answer is not to the last challenge"));
    }
    let (voucher, key) = (signer("voucher", &open.voucher)?, signer("key", &open.key)?);
    let certified = bytes("certified", &said.certified)?;
    let signature = bytes("certified_signature", &said.certified_signature)?;
    attest::check_certified(&voucher, &certified, &signature, &secret, &key)
        .map_err(|e| wrong(&e))?;
    let registers = registers(spec, &said.registers)?;
    let quote = bytes("quote", &said.quote)?;
    let signature = bytes("quote_signature", &said.quote_signature)?;
    attest::check_quote(&voucher, &quote, &signature, &secret, &registers)
        .map_err(|e| wrong(&e))?;
    let holds = registers
        .iter()
        .map(|(register, value)| (register.to_string(), hex::encode(value)))
        .collect();
    let measured = match measured(name, spec, holds) {
        Ok(measured) => measured,
        Err(error) => {
            let text = error.to_string();
            cx.event(proc.target(), "machine.changed", &text, Severity::Error)
                .await;
            return Err(error);
        }
    };
    let mut older = spec.proof.as_ref().map_or_else(BTreeMap::new, |proof| {
        let mut older = proof.older.clone();
        older.insert(proof.fingerprint.clone(), proof.until);
        older
    });
    older.retain(|_, until| now < *until);
    if older.len() > MOST_OLDER {
        return Err(Error::refused(format!(
            "machine {name} has {MOST_OLDER} certificates that are still good"
        ))
        .hint("it need not prove itself that often: dvctl machine list says until when its proof is good"));
    }
    let life = DAY * spec.days;
    let spki = key.spki();
    let (ca, subject, public) = (kind::of(cx)?, name.clone(), spki.clone());
    let issued = kind::off(move || ca.issue_machine(&subject, &public, life)).await?;
    let (certificate, fingerprint) = issued;
    let proof = Proof {
        older,
        key: hash(&spki),
        certificate,
        fingerprint,
        at: now,
        until: now.plus(life),
        task: proc.name().to_owned(),
    };
    let change = json!({
        // Spent. Taking it away would keep it: that is what leaving out an allocated field means.
        "challenge": { "secret": "", "expires": now },
        "endorsement": open.endorsement,
        "measured": measured,
        "proof": proof,
    });
    store(proc, &machine, change).await?;
    Ok(told(&proof))
}

/// What whoever has proven himself is told.
fn told(proof: &Proof) -> Value {
    json!({
        "certificate": proof.certificate,
        "fingerprint": proof.fingerprint,
        "until": proof.until,
    })
}

/// The registers as they were sent, when they are those that were asked for.
fn registers(spec: &MachineSpec, said: &BTreeMap<String, String>) -> Result<Registers> {
    let mut found = Registers::new();
    for (register, value) in said {
        let field = format!("registers.{register}");
        let mut bytes = [0; 32];
        let number = register.parse::<u8>().ok().filter(|n| *n < tpm::REGISTERS);
        let read = hex::decode_to_slice(value, &mut bytes).ok();
        let (Some(number), Some(())) = (number, read) else {
            return Err(Error::field(
                field,
                "is not a register from 0 to 23 with 64 hex digits",
            ));
        };
        found.insert(number, bytes);
    }
    match found.keys().eq(&spec.registers) {
        true => Ok(found),
        false => Err(Error::field(
            "registers",
            format!("are not those that were asked for: {:?}", spec.registers),
        )),
    }
}

/// What is kept of the registers: what they hold now the first time, and what they held from then on.
fn measured(
    name: &str,
    spec: &MachineSpec,
    holds: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let Some(known) = &spec.measured else {
        return Ok(holds);
    };
    let other = |(register, value): &(&String, &String)| {
        known.get(*register).is_some_and(|known| known != *value)
    };
    let changed: Vec<&str> = holds
        .iter()
        .filter(other)
        .map(|(r, _)| r.as_str())
        .collect();
    match changed.is_empty() {
        true => Ok(holds),
        false => Err(Error::refused(format!(
            "machine {name} has booted something else: register {} has changed",
            changed.join(", ")
        ))
        .hint(format!(
            "find out why (a new firmware, another Secure Boot key, somebody at it); when it is right: dvctl machine remeasure {name}"
        ))),
    }
}

/// Writes what was found, unless the machine has changed meanwhile.
async fn store(proc: &Proc, machine: &Obj<Machine>, spec: Value) -> Result<()> {
    let op = Op::Patch {
        target: ObjectRef::clone(proc.target()),
        body: json!({ "metadata": { "revision": machine.metadata.revision }, "spec": spec }),
    };
    match proc.cx().submit(op, KIND.name).await {
        Err(error) if matches!(error.what, What::PreconditionFailed(_)) => Err(Error::refused(
            format!("machine {} was changed meanwhile", proc.target().name),
        )
        .hint("try again")),
        done => done.map(drop),
    }
}
