//! What a session is.

use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a session was begun with. Only DebVisor writes it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionSpec {
    /// Whose.
    #[schemars(extend("x-ref" = "user", "x-immutable" = true))]
    pub user: String,
    /// From which address it was begun; absent on the local socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-personal" = true))]
    pub address: Option<String>,
    /// With which program it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-personal" = true))]
    pub agent: Option<String>,
    /// How he proved that it is him: `password`, `totp`, `recovery`; `realm` when another one has proved it, `realm-mfa`
    /// when that one has asked for a second factor and is believed.
    #[serde(default)]
    pub factors: Vec<String>,
    /// When he last proved a second factor in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mfa: Option<Timestamp>,
    /// Whether he must enrol a second factor before it lets him in anywhere.
    #[serde(default)]
    pub pending: bool,
    /// By which realm it was begun; absent for `local`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub realm: Option<String>,
    /// SHA-256 of the provider's session that it goes with: when that one ends, so does this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_session: Option<String>,
    /// Whether it lasts a week, and not a day.
    #[serde(default)]
    pub remember: bool,
    /// It ends then, whatever he does.
    pub expires: Timestamp,
    /// How unlike earlier logins of his it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// Hashes of its tokens.
    #[schemars(extend("x-secret" = true))]
    pub material: Option<String>,
}

/// How unlike earlier logins of its user one was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Risk {
    /// 0 to 100: from 40 on somebody may want to look, from 60 on another proof was asked for.
    #[schemars(range(max = 100))]
    pub score: u8,
    /// Why: `travel`, `burst`, `new_device`, `new_place`.
    #[serde(default)]
    pub signs: Vec<String>,
    /// Whether places were looked at: `known`, `unknown`, `local`, or `skipped` and why.
    #[serde(default)]
    pub places: String,
}

/// How it is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SessionStatus {
    /// When it was last used, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What is kept of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Material {
    /// Hashes of the tokens for requests, with their ends.
    pub access: Vec<(String, Timestamp)>,
    /// Hash of the token for the next pair.
    pub refresh: Option<String>,
    /// Hashes of those before: whoever shows one has copied it, or the owner was copied.
    pub spent: Vec<String>,
    /// Hash of a browser's cookie.
    pub cookie: Option<String>,
}
