//! What a secret wants and is.

use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a secret is for. It decides how a new value is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretType {
    /// Password of a database: 32 letters.
    Database,
    /// Key of somebody's API: 32 letters.
    ApiKey,
    /// Certificate with its key; a new one is given, not made.
    TlsCert,
    /// Private SSH key; a new one is given, not made.
    SshKey,
    /// Key of a cipher: 32 bytes as base64.
    EncryptionKey,
    /// Something that a program is configured with: 32 letters.
    #[default]
    AppConfig,
    /// Password of a server's management controller: 16 letters, which all of them take.
    Bmc,
    /// Key that signs DNS updates: 32 bytes as base64.
    Tsig,
    /// Token that is shown to be let in: 32 letters.
    Token,
}

/// What people want of a secret.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretSpec {
    /// What it is for.
    #[serde(default, rename = "type")]
    #[schemars(extend("x-immutable" = true))]
    pub sort: SecretType,
    /// In people's words; at most 1000 characters.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub description: String,
    /// The value; giving one makes the next version. Left out at creation, one is drawn at random. It says what is valid
    /// already; to make a new value valid everywhere, rotate.
    #[serde(default)]
    #[schemars(length(min = 1, max = 65_536), extend("x-secret" = true))]
    pub value: Option<String>,
    /// Keeps the value in this key server instead of here.
    #[serde(default)]
    #[schemars(extend("x-ref" = "secret-backend", "x-immutable" = true))]
    pub backend: Option<String>,
    /// Where it lies there, below the mount: `apps/shop/db`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 512))]
    pub path: Option<String>,
    /// Which of the fields that lie there.
    #[serde(default = "field")]
    #[schemars(length(min = 1, max = 128))]
    pub field: String,
    /// When it is rotated by itself; never when absent.
    #[serde(default)]
    pub rotation: Option<Rotation>,
    /// The version that is valid.
    #[serde(default)]
    #[schemars(extend("x-allocated" = true))]
    pub version: u32,
    /// The newest 5 versions by number.
    #[serde(default)]
    #[schemars(extend("x-allocated" = true))]
    pub versions: BTreeMap<String, Version>,
}

fn field() -> String {
    "value".into()
}

/// One value that the secret has had.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// Sealed for this version of this secret, and never shown.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    pub value: Option<String>,
    /// When it was made.
    #[serde(default)]
    pub created: Option<Timestamp>,
    /// The rotation that made it; absent when somebody gave it.
    #[serde(default)]
    pub made_by: Option<String>,
}

/// When a secret is rotated by itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Days after which a version is too old.
    #[serde(default = "every")]
    #[schemars(range(min = 1, max = 3650))]
    pub every_days: u32,
    /// Days before that in which it is said.
    #[serde(default = "notice")]
    #[schemars(range(min = 0, max = 365))]
    pub notice_days: u32,
    /// From which time of day on, UTC.
    #[serde(default = "from")]
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub window_from: String,
    /// Until which time of day, UTC; before `window_from` it is the next day.
    #[serde(default = "until")]
    #[schemars(regex(pattern = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub window_until: String,
    /// Whether a person must ask for it: then it is only said that it is time.
    #[serde(default)]
    pub approval: bool,
}

fn every() -> u32 {
    90
}
fn notice() -> u32 {
    14
}
fn from() -> String {
    "02:00".into()
}
fn until() -> String {
    "04:00".into()
}

/// How a secret stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecretState {
    /// One version is valid everywhere.
    #[default]
    Current,
    /// A new one is being brought to its users.
    Rotating,
    /// The last rotation failed, and the version before it is still valid.
    Failed,
}

/// What is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SecretStatus {
    /// How it stands.
    pub state: SecretState,
    /// The version that is valid.
    pub version: u32,
    /// When it was made.
    pub since: Option<Timestamp>,
    /// The versions that are kept, newest first.
    pub versions: Vec<VersionStatus>,
    /// How many objects name it. Which, the stream `users` says to who may read them.
    pub used_by: u32,
    /// When the version is too old.
    pub due: Option<Timestamp>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// `Rotated`: how the last rotation ended. `Fresh`: false from the notice on.
    pub conditions: Vec<Condition>,
}

/// One version, without its value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct VersionStatus {
    /// Its number.
    pub number: u32,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether it is the valid one.
    pub valid: bool,
}
