//! What a key server wants and is.

use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which software it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackendType {
    /// HashiCorp Vault or OpenBao, by their HTTP API.
    #[default]
    Vault,
}

/// How DebVisor is let in there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// With a token that the secret holds.
    #[default]
    Token,
    /// With a role id and the secret id that the secret holds.
    Approle,
    /// With a user name and the password that the secret holds; rotating that secret changes the password there.
    Userpass,
}

/// What people want of a key server.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendSpec {
    /// Which software it is.
    #[serde(default, rename = "type")]
    pub sort: BackendType,
    /// Where it answers: `https://vault.example.org:8200`. Plain `http` only to this machine.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^/?#@\s]+$"))]
    pub address: String,
    /// The certificate authority that it is trusted by and no other, as PEM. Those of this machine when absent.
    #[serde(default)]
    #[schemars(length(max = 65_536))]
    pub ca: Option<String>,
    /// Its namespace.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub namespace: Option<String>,
    /// Where its key-value store (version 2) is mounted.
    #[serde(default = "mount")]
    #[schemars(length(min = 1, max = 256))]
    pub mount: String,
    /// How DebVisor is let in.
    pub auth: Auth,
}

fn mount() -> String {
    "secret".into()
}

/// How DebVisor is let in there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// How.
    #[serde(default)]
    pub method: AuthMethod,
    /// Where that method is mounted; `approle` or `userpass` when absent.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub mount: Option<String>,
    /// The role id of `approle`, the user name of `userpass`.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub name: Option<String>,
    /// The secret that proves it, kept by DebVisor itself: `project/name`.
    #[schemars(extend("x-ref" = "secret"))]
    pub secret: String,
}

/// What is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct BackendStatus {
    /// The version that it says it is.
    pub version: String,
    /// When the token ends that DebVisor has; absent when it never does.
    pub token_expires: Option<Timestamp>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// `Reachable`: it answers and is not sealed. `Authenticated`: it lets us in.
    pub conditions: Vec<Condition>,
}
