//! What an API key wants and is.

use ipnet::IpNet;
use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What people want of an API key.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySpec {
    /// The user whose rights it has at most; who makes it when absent.
    #[serde(default)]
    #[schemars(length(max = 63), extend("x-ref" = "user", "x-immutable" = true, "x-allocated" = true))]
    pub owner: String,
    /// What it is for, in people's words; at most 200 characters.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub description: String,
    /// Only these of its owner's privileges: `vm.start`, `vm.*`, `*.read`; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 100)))]
    pub privileges: Option<Vec<String>>,
    /// Only there: `project/NAME`, `KIND/NAME` or `KIND/PROJECT/NAME`; everywhere when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    pub scope: Option<String>,
    /// Only from these networks, such as `192.0.2.0/24`; from everywhere when empty. A key with networks is not accepted
    /// on the local socket.
    #[serde(default)]
    #[schemars(with = "Vec<String>", length(max = 50))]
    pub networks: Vec<IpNet>,
    /// Only from this machine, which proves that it is the one by its TPM: a copy of the key is worth nothing elsewhere.
    /// Said when it is made, and never taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("x-ref" = "machine", "x-immutable" = true))]
    pub machine: Option<String>,
    /// Most requests in a minute, in each api process; the limit of every caller when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub rate: Option<u32>,
    /// It is worth nothing from then on: at most 365 days after it was made or rotated; 90 days after when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allocated" = true))]
    pub expires: Option<Timestamp>,
    /// The secret, as `project/name`, that each new secret of this key is written to, in the place of showing it once:
    /// whatever reads that secret has the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-ref" = "secret"))]
    pub sink: Option<String>,
    /// Rotated by itself when it ends within 14 days; needs `sink`.
    #[serde(default)]
    pub auto_rotate: bool,
    /// Its last rotation; set by `rotate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allocated" = true))]
    pub rotation: Option<Rotation>,
    /// It lets nobody in any more; set by `revoke`, for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-allocated" = true))]
    pub revoked: Option<Revoked>,
    /// What it is known by; written by DebVisor only.
    #[serde(default)]
    #[schemars(extend("x-allocated" = true))]
    pub secrets: Vec<KeySecret>,
}

/// One secret of a key: during a rotation it has two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeySecret {
    /// The first 8 digits: they may be known, and stand in logs.
    pub id: String,
    /// A salt and what HMAC-SHA-256 makes of the whole under it.
    #[schemars(extend("x-secret" = true))]
    pub material: Option<String>,
    /// When it was shown.
    pub made: Timestamp,
    /// It is worth nothing from then on, because there is a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// That a new secret takes the place of the old one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Names it in the audit trail.
    pub id: String,
    /// When it was asked for.
    pub at: Timestamp,
    /// Why.
    pub reason: Reason,
    /// The old secret is worth nothing from then on.
    pub old_until: Timestamp,
}

/// Why a key is rotated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It was time.
    Scheduled,
    /// Somebody wanted it.
    #[default]
    Manual,
    /// Something has happened: the old secret ends at once.
    SecurityIncident,
    /// The rules have changed.
    PolicyChange,
    /// Somebody else has it: the old secret ends at once.
    KeyCompromise,
}

/// The parameters of `rotate`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// Why.
    #[serde(default)]
    pub reason: Reason,
    /// For how many seconds the old secret works on, at most 7 days, which is what it is when absent; 0 for
    /// `security_incident` and `key_compromise`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 604_800))]
    pub overlap_seconds: Option<u64>,
}

/// The parameters of `revoke`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoke {
    /// Why, at most 200 characters.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub reason: String,
}

/// That a key was taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its secret, or the next one, was not fetched yet.
    #[default]
    Waiting,
    /// It lets in.
    Active,
    /// It lets in, and ends within 14 days.
    Expiring,
    /// It has ended by its age.
    Expired,
    /// It was taken back.
    Revoked,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ApiKeyStatus {
    /// Where it is in its life.
    pub state: State,
    /// When it was last used, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// From which address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_address: Option<String>,
    /// How often it let somebody in.
    pub uses: u64,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
