//! How a provider of OpenID Connect is asked, and what it is believed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a provider is asked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OidcSpec {
    /// Its issuer, exactly as its tokens have it: `https://login.example.org/realms/corp`. What else must be known is
    /// read from `/.well-known/openid-configuration` under it. Plain `http` only to this machine.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https?://[^?#@\s]+$"))]
    pub issuer: String,
    /// What DebVisor is called there.
    #[schemars(length(min = 1, max = 256))]
    pub client_id: String,
    /// The secret that proves it, kept by DebVisor: `project/name`. Absent for a public client, which PKCE alone protects.
    #[serde(default)]
    #[schemars(extend("x-ref" = "secret"))]
    pub client_secret: Option<String>,
    /// The certificate authority that it is trusted by and no other, as PEM. Those of this machine when absent.
    #[serde(default)]
    #[schemars(length(max = 65_536))]
    pub ca: Option<String>,
    /// What is asked for.
    #[serde(default = "scopes")]
    #[schemars(
        length(min = 1, max = 20),
        inner(
            length(min = 1, max = 64),
            regex(pattern = r"^[\x21\x23-\x5B\x5D-\x7E]+$")
        )
    )]
    pub scopes: Vec<String>,
    /// The claim that holds the user name.
    #[serde(default = "username_claim")]
    #[schemars(length(min = 1, max = 128))]
    pub username_claim: String,
    /// The claim that holds the groups; dots lead into objects.
    #[serde(default = "group_claim")]
    #[schemars(length(min = 1, max = 128))]
    pub group_claim: String,
    /// A claim that holds roles, which are mapped as groups are: `realm_access.roles`.
    #[serde(default)]
    #[schemars(length(min = 1, max = 128))]
    pub role_claim: Option<String>,
    /// Whether a second factor that the provider has asked for is one here. Otherwise the user's own is asked for as after
    /// a password.
    #[serde(default)]
    pub trust_mfa: bool,
    /// Values of `amr` or `acr` that say that a second factor was asked for.
    #[serde(default = "mfa_values")]
    #[schemars(length(max = 50), inner(length(min = 1, max = 256)))]
    pub mfa_values: Vec<String>,
    /// Audiences of access tokens with which programs come in without a login (client credentials). None when absent:
    /// then no such token is taken. Each program is a user of this realm that an administrator made, with its `subject`.
    #[serde(default)]
    #[schemars(length(max = 20), inner(length(min = 1, max = 256)))]
    pub machine_audiences: Vec<String>,
    /// Where the provider sends browsers back to, when it is not `/api/v1/auth/oidc/callback` of the address that the
    /// browser has asked.
    #[serde(default)]
    #[schemars(length(max = 512), regex(pattern = r"^https:/{2}[^?#@\s]+$"))]
    pub redirect_uri: Option<String>,
}

fn scopes() -> Vec<String> {
    ["openid", "profile", "email"].map(String::from).to_vec()
}

fn username_claim() -> String {
    "preferred_username".into()
}

fn group_claim() -> String {
    "groups".into()
}

/// Those of RFC 8176 that only a second factor gives.
fn mfa_values() -> Vec<String> {
    ["mfa", "otp", "hwk", "sc"].map(String::from).to_vec()
}
