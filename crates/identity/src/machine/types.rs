//! What a machine wants and is.

use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What people want of a machine.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineSpec {
    /// Which one it is, in people's words; at most 200 characters.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub description: String,
    /// The CA certificates of those who may have made its TPM, PEM: the certificate of its endorsement key must lead to one of
    /// them.
    #[schemars(length(min = 1, max = 65_536), extend("x-cli" = {"flag": "makers", "from_file": true}))]
    pub makers: String,
    /// The registers (PCRs, SHA-256) that must hold each time what they held the first time: firmware (0), code of cards
    /// (2) and Secure Boot (7) unless something else is said. None: it may boot what it likes.
    #[serde(default = "registers")]
    #[schemars(length(max = 24), inner(range(min = 0, max = 23)))]
    pub registers: Vec<u8>,
    /// How many days a proof is good: from then on its keys let nobody in until it has proven itself again.
    #[serde(default = "week")]
    #[schemars(range(min = 1, max = 90))]
    pub days: u32,
    /// SHA-256 of its endorsement key (the whole SubjectPublicKeyInfo), hex: which TPM it is. Taken from the first one that
    /// proves itself when absent, and fixed from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), extend("x-allocated" = true))]
    pub endorsement: Option<String>,
    /// What its registers must hold, by number, hex. Taken from the next proof when absent; `remeasure` takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allocated" = true))]
    pub measured: Option<BTreeMap<String, String>>,
    /// The challenge that waits for its answer; written by DebVisor only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allocated" = true))]
    pub challenge: Option<Open>,
    /// How it has proven itself last; written by DebVisor only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allocated" = true))]
    pub proof: Option<Proof>,
    /// Its keys let nobody in any more; set by `revoke`, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allocated" = true))]
    pub revoked: Option<Revoked>,
}

fn registers() -> Vec<u8> {
    vec![0, 2, 7]
}

fn week() -> u32 {
    7
}

/// A challenge that was given out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Open {
    /// SHA-256 of the secret in it, hex; empty once it was answered.
    pub secret: String,
    /// SHA-256 of the endorsement key that it is for, hex.
    pub endorsement: String,
    /// The key that must vouch, as the TPM describes it, base64.
    pub voucher: String,
    /// The key that shall stand for the machine, as the TPM describes it, base64.
    pub key: String,
    /// It is worth nothing from then on.
    pub expires: Timestamp,
}

/// That a machine has proven itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// SHA-256 of the key in its TPM that stands for it (the whole SubjectPublicKeyInfo), hex.
    pub key: String,
    /// The certificate for that key and those that lead to our CA, PEM.
    pub certificate: String,
    /// SHA-256 of that certificate, hex.
    pub fingerprint: String,
    /// When.
    pub at: Timestamp,
    /// It is worth nothing from then on.
    pub until: Timestamp,
    /// The task that has taken it.
    pub task: String,
    /// Certificates from before whose time is not over, by SHA-256, and when it is: they are revoked with it.
    #[serde(default)]
    pub older: BTreeMap<String, Timestamp>,
}

/// That a machine is trusted no longer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// The parameters of `challenge`; `dvctl tpm enrol` sends them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChallengeParams {
    /// The certificate of the TPM's endorsement key, DER in base64.
    #[schemars(length(min = 1, max = 8192))]
    pub certificate: String,
    /// The certificates that lead from it to its maker, DER one after the other, in base64.
    #[serde(default)]
    #[schemars(length(max = 32_768))]
    pub chain: String,
    /// The key that vouches (`TPMT_PUBLIC`), base64.
    #[schemars(length(min = 1, max = 2048))]
    pub voucher: String,
    /// The key that shall stand for the machine (`TPMT_PUBLIC`), base64.
    #[schemars(length(min = 1, max = 2048))]
    pub key: String,
}

/// The parameters of `prove`; `dvctl tpm enrol` sends them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProveParams {
    /// The quote over the registers (`TPMS_ATTEST`), with the secret of the challenge as its nonce, base64.
    #[schemars(length(min = 1, max = 8192))]
    pub quote: String,
    /// Its signature (`TPMT_SIGNATURE`), base64.
    #[schemars(length(min = 1, max = 2048))]
    pub quote_signature: String,
    /// That the TPM holds the key (`TPMS_ATTEST`), with the same nonce, base64.
    #[schemars(length(min = 1, max = 8192))]
    pub certified: String,
    /// Its signature (`TPMT_SIGNATURE`), base64.
    #[schemars(length(min = 1, max = 2048))]
    pub certified_signature: String,
    /// The secret of the challenge, base64.
    #[schemars(length(min = 1, max = 128))]
    pub secret: String,
    /// What the registers hold, by number, hex.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 24))]
    pub registers: BTreeMap<String, String>,
}

/// The parameters of `revoke`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeParams {
    /// Why, at most 200 characters.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub reason: String,
}

/// Where a machine stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has not proven itself yet.
    #[default]
    Waiting,
    /// It has proven itself, and its keys let in.
    Proven,
    /// So it is, and less than a third of the time is left.
    Expiring,
    /// Its proof is too old: its keys let nobody in.
    Expired,
    /// It is trusted no longer.
    Revoked,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MachineStatus {
    /// Where it stands.
    pub state: State,
    /// Until when its last proof is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
