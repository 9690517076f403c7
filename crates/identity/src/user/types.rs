//! What a user wants and is.

use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What people want of a user. It holds no password: that is a factor of his.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserSpec {
    /// What he types to log in: 1 to 80 of `a-z 0-9 . _ -`, beginning and ending with a letter or digit; the object's
    /// name when absent. No two users have names that look alike (`modern` and `modem`).
    #[serde(default)]
    #[schemars(length(max = 80), extend("x-allocated" = true, "x-personal" = true))]
    pub username: String,
    /// E-mail address, at most 120 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 120), email, extend("x-personal" = true))]
    pub email: Option<String>,
    /// His name as people write it, at most 120 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 120), extend("x-personal" = true))]
    pub full_name: Option<String>,
    /// Who proves that it is him: `local` for a password that we keep, else the name of a realm. It cannot be changed.
    #[serde(default = "local")]
    #[schemars(length(min = 1, max = 63), extend("x-immutable" = true))]
    pub realm: String,
    /// Who he is in his realm, for good: of a provider its issuer, a blank and the subject; of a directory the unique id
    /// of his entry. Absent for `local`, and until his first login; then it is never anybody else's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 800), extend("x-personal" = true))]
    pub subject: Option<String>,
    /// Groups that he is in.
    #[serde(default)]
    #[schemars(length(max = 100), extend("items" = serde_json::json!({ "type": "string", "maxLength": 63, "x-ref": "group" })))]
    pub groups: Vec<String>,
    /// Whether he may log in. When it becomes false his sessions and open streams end within seconds.
    #[serde(default = "yes")]
    pub active: bool,
    /// Why his directory lets him in no more; then `active` is false too, until the directory lets him in again. Set by
    /// `dvctl realm sync`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200))]
    pub suspended: Option<String>,
    /// Language and region, such as `de-AT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 35),
        regex(pattern = "^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$")
    )]
    pub locale: Option<String>,
    /// How the panel looks for him.
    #[serde(default)]
    pub theme: Theme,
    /// Wrong tries before this do not delay his login; set by `unlock`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlocked: Option<Timestamp>,
}

/// How the panel looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// As the browser says.
    #[default]
    System,
    /// Dark on light.
    Light,
    /// Light on dark.
    Dark,
}

fn local() -> String {
    super::LOCAL.into()
}

fn yes() -> bool {
    true
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UserStatus {
    /// When he last logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_login: Option<Timestamp>,
    /// When he last did something, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_activity: Option<Timestamp>,
    /// Which sorts of factor he has: `password`, `totp`, `recovery`, `webauthn`.
    pub factors: Vec<String>,
    /// Generation of his spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
