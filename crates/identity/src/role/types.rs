//! What a role wants and is.

use model::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What people want of a role.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleSpec {
    /// What it is for, in people's words; at most 1000 characters.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub description: String,
    /// The privileges it gives: `vm.start`, `vm.*`, `*.read`, `*`. `dvctl api parity` and the docs list them all.
    #[serde(default)]
    #[schemars(length(max = 500), inner(length(min = 1, max = 100)))]
    pub allow: Vec<String>,
    /// The privileges it takes away again, also those that its parents give.
    #[serde(default)]
    #[schemars(length(max = 500), inner(length(min = 1, max = 100)))]
    pub deny: Vec<String>,
    /// Roles whose privileges it has too.
    #[serde(default)]
    #[schemars(length(max = 20), extend("items" = serde_json::json!({ "type": "string", "maxLength": 63, "x-ref": "role" })))]
    pub parents: Vec<String>,
    /// Whether its holders must prove a second factor when they log in.
    #[serde(default)]
    pub mfa: Mfa,
}

/// What a role asks of its holders' logins.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Mfa {
    /// A password is enough, and nobody is reminded.
    Off,
    /// Who has enrolled a second factor must prove it; who has not is reminded.
    #[default]
    Enrolled,
    /// Nobody gets in without a second factor.
    Required,
}

/// What is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RoleStatus {
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}
