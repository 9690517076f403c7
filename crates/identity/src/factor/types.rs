//! What a factor holds and is.

use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which sort of proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// A password.
    Password,
    /// A code from an app, new every 30 seconds (RFC 6238).
    Totp,
    /// A security key, or what stands in for one in a phone or a computer (WebAuthn).
    Webauthn,
    /// Ten codes on paper, each good once.
    Recovery,
    /// A code that an administrator gave out, for setting a password.
    Reset,
}

impl Sort {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Sort::Password => "password",
            Sort::Totp => "totp",
            Sort::Webauthn => "webauthn",
            Sort::Recovery => "recovery",
            Sort::Reset => "reset",
        }
    }

    /// Whether it proves more than a password does.
    pub fn is_second(self) -> bool {
        self.stands_alone() || self == Sort::Recovery
    }

    /// Whether it is a second factor by itself. Codes on paper are none: they stand in for one.
    pub fn stands_alone(self) -> bool {
        matches!(self, Sort::Totp | Sort::Webauthn)
    }
}

/// What a factor is. Only DebVisor writes it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FactorSpec {
    /// Whose.
    #[schemars(extend("x-ref" = "user", "x-immutable" = true))]
    pub user: String,
    /// Which sort.
    pub sort: Sort,
    /// What its owner calls it, at most 80 characters.
    #[serde(default)]
    #[schemars(length(max = 80))]
    pub label: String,
    /// What it is checked against: a hash, for `totp` the shared key, for `webauthn` the public key.
    #[schemars(extend("x-secret" = true))]
    pub material: Option<String>,
    /// It is worth nothing after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

/// What was done with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FactorStatus {
    /// When it last let somebody in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
    /// The number of 30 seconds whose code was used last: no code of this or an earlier one is good any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// How often a security key said it had signed when it was used last; 0 for one that does not count. One that says
    /// less is a copy and refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counter: Option<u32>,
    /// Which codes are used up, by their place in the list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub used: Vec<usize>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
