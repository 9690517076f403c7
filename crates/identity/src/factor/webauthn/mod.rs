//! Security keys, and what stands in for one in a phone or a computer (WebAuthn Level 3): what a browser is asked for, and
//! whether what it brings back is right. Pure: challenges, counters and factors are kept by others.
//!
//! **Invariants.** A key is bound to the name of the panel, and an answer to one challenge, one of our origins and one
//! purpose. Its holder was verified by the authenticator. What is wrong with an answer is a word for the audit trail; who
//! sent it is not told.

mod attest;
mod cbor;
mod cose;
mod data;
#[cfg(test)]
mod tests;

pub use attest::Policy;
pub use cose::Key;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data::Data;
use model::Timestamp;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// How long a person may take, in milliseconds.
pub const PATIENCE: u64 = 300_000;
/// No part of an answer is longer: attestations with long chains are some thousand bytes.
const LONGEST: usize = 32 * 1024;

/// What is wrong with an answer, for the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong(pub &'static str);

/// Whom keys are bound to, and from where they may be used.
#[derive(Clone, Debug)]
pub struct Party {
    /// The host name of the panel, which each key is bound to.
    pub id: String,
    /// From which origins, as browsers write them.
    pub origins: Vec<String>,
    /// How people know this cluster.
    pub name: String,
}

/// What is kept of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// How it is called, in base64url.
    pub id: String,
    /// With what its signatures are checked.
    pub key: Key,
    /// Which make of authenticator it came from.
    #[serde(with = "hex::serde")]
    pub make: [u8; 16],
    /// Whether it may lie in several places at once, as those in a cloud do.
    pub may_be_copied: bool,
    /// How it can be reached, as its browser said: `usb`, `internal`.
    #[serde(default)]
    pub transports: Vec<String>,
}

/// What is asked for a new key.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// Of where it comes from.
    pub policy: Policy,
    /// The makers that are trusted.
    pub roots: &'a [CertificateDer<'a>],
    /// The time.
    pub now: Timestamp,
}

/// Bytes as browsers write them.
pub fn written(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn bytes(value: &Value) -> Result<Vec<u8>, Wrong> {
    let text = value.as_str().filter(|text| text.len() <= LONGEST);
    text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok())
        .ok_or(Wrong("ANSWER"))
}

impl Party {
    /// What a browser is asked for a new key with: `PublicKeyCredentialCreationOptionsJSON`.
    pub fn creation(
        &self,
        challenge: &[u8],
        user: (&[u8], &str, &str),
        have: &[Kept],
        policy: Policy,
    ) -> Value {
        let (id, name, shown) = user;
        let kinds = cose::OFFERED.map(|alg| json!({ "type": "public-key", "alg": alg }));
        json!({
            "rp": { "id": self.id, "name": self.name },
            "user": { "id": written(id), "name": name, "displayName": shown },
            "challenge": written(challenge),
            "pubKeyCredParams": kinds,
            "timeout": PATIENCE,
            "excludeCredentials": descriptors(have),
            "authenticatorSelection": { "residentKey": "preferred", "userVerification": "required" },
            "attestation": policy.word(),
        })
    }

    /// What a browser is asked for a proof with: `PublicKeyCredentialRequestOptionsJSON`.
    pub fn request(&self, challenge: &[u8], have: &[Kept]) -> Value {
        json!({
            "rpId": self.id,
            "challenge": written(challenge),
            "timeout": PATIENCE,
            "allowCredentials": descriptors(have),
            "userVerification": "required",
        })
    }

    /// The new key in a browser's answer (`RegistrationResponseJSON`), and how often it has signed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn made(
        &self,
        answer: &Value,
        challenge: &[u8],
        demand: &Demand<'_>,
    ) -> Result<(Kept, u32), Wrong> {
        let response = &answer["response"];
        let client = bytes(&response["clientDataJSON"])?;
        self.client(&client, "webauthn.create", challenge)?;
        let object = bytes(&response["attestationObject"])?;
        let object = cbor::whole(&object)?;
        let auth = cbor::field(&object, "authData").and_then(ciborium::Value::as_bytes);
        let auth = auth.ok_or(Wrong("ATTESTATION"))?;
        let data = self.data(auth)?;
        let hash: [u8; 32] = Sha256::digest(&client).into();
        if demand.policy != Policy::None {
            attest::check(&object, auth, &data, &hash, demand.roots, demand.now)?;
        }
        let made = data.made.as_ref().ok_or(Wrong("NO_KEY"))?;
        if bytes(&answer["id"])? != made.id {
            return Err(Wrong("ANSWER"));
        }
        let transports = response["transports"].as_array();
        let transports = transports.into_iter().flatten().filter_map(Value::as_str);
        let plain = |text: &&str| {
            text.len() <= 20 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        };
        let kept = Kept {
            id: written(made.id),
            key: made.key.clone(),
            make: made.make,
            may_be_copied: data.may_be_copied(),
            transports: transports.filter(plain).take(8).map(Into::into).collect(),
        };
        Ok((kept, data.counter))
    }

    /// How often a key has signed, when a browser's answer (`AuthenticationResponseJSON`) proves it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn proved(&self, answer: &Value, challenge: &[u8], kept: &Kept) -> Result<u32, Wrong> {
        let response = &answer["response"];
        let client = bytes(&response["clientDataJSON"])?;
        self.client(&client, "webauthn.get", challenge)?;
        let auth = bytes(&response["authenticatorData"])?;
        let data = self.data(&auth)?;
        let message = [auth.as_slice(), &Sha256::digest(&client)].concat();
        if !kept
            .key
            .has_signed(&message, &bytes(&response["signature"])?)
        {
            return Err(Wrong("SIGNATURE"));
        }
        // A key does not change its mind about that.
        match data.may_be_copied() == kept.may_be_copied {
            true => Ok(data.counter),
            false => Err(Wrong("AUTHENTICATOR_DATA")),
        }
    }

    /// What the browser saw: its page, and what it was asked for.
    fn client(&self, client: &[u8], what: &str, challenge: &[u8]) -> Result<(), Wrong> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Client {
            r#type: String,
            challenge: String,
            origin: String,
            #[serde(default)]
            cross_origin: bool,
        }
        let client: Client = serde_json::from_slice(client).map_err(|_| Wrong("CLIENT_DATA"))?;
        match () {
            () if client.r#type != what => Err(Wrong("PURPOSE")),
            () if client.challenge != written(challenge) => Err(Wrong("CHALLENGE")),
            () if client.cross_origin || !self.origins.contains(&client.origin) => {
                Err(Wrong("ORIGIN"))
            }
            () => Ok(()),
        }
    }

    fn data<'a>(&self, auth: &'a [u8]) -> Result<Data<'a>, Wrong> {
        let data = Data::read(auth)?;
        if *data.party != *Sha256::digest(&self.id) {
            return Err(Wrong("PARTY"));
        }
        data.check()?;
        Ok(data)
    }
}

fn descriptors(keys: &[Kept]) -> Vec<Value> {
    let one = |key: &Kept| {
        let mut one = json!({ "type": "public-key", "id": key.id });
        if !key.transports.is_empty() {
            one["transports"] = json!(key.transports);
        }
        one
    };
    keys.iter().map(one).collect()
}

/// The challenge that an answer says it is for: by it the one that was given out is found.
pub fn challenge(answer: &Value) -> Option<Vec<u8>> {
    #[derive(Deserialize)]
    struct Client {
        challenge: String,
    }
    let client = bytes(&answer["response"]["clientDataJSON"]).ok()?;
    let client: Client = serde_json::from_slice(&client).ok()?;
    let challenge = URL_SAFE_NO_PAD.decode(client.challenge).ok()?;
    (challenge.len() == 32).then_some(challenge)
}

/// Whether a key that signed so often before may say this now. Some do not count and always say 0.
pub fn goes_on(before: u32, now: u32) -> bool {
    now > before || (now == 0 && before == 0)
}
