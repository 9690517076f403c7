//! What an ACME account wants and is.

use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who runs the CA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// Let's Encrypt.
    #[default]
    Letsencrypt,
    /// Let's Encrypt's try-out service, whose certificates no browser trusts.
    LetsencryptStaging,
    /// ZeroSSL; it wants an external account.
    Zerossl,
    /// Buypass.
    Buypass,
    /// Google Trust Services; it wants an external account.
    Google,
    /// Another one, by the URL of its directory.
    Custom,
}

/// Who answers for the zones of dns-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DnsProvider {
    /// A name server that takes dynamic updates (RFC 2136), signed by TSIG with HMAC-SHA256.
    Rfc2136,
    /// Cloudflare.
    Cloudflare,
    /// A person makes the records: the order says which, and waits until `server` shows them, or until somebody says that
    /// it goes on.
    Manual,
    /// A program that the configuration file of the node names (`[acme] dns_hook`).
    Hook,
}

/// How TXT records are made for dns-01.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Who answers for the zone.
    pub provider: DnsProvider,
    /// The zone, such as `example.org`.
    #[schemars(length(min = 1, max = 253))]
    pub zone: String,
    /// Address and port of a name server of the zone; for `rfc2136`, `manual` and `hook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub server: Option<String>,
    /// Name of the TSIG key; for `rfc2136`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub key_name: Option<String>,
    /// The TSIG key in base 64, or Cloudflare's API token with the right to edit the zone, or what the program is to be
    /// given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), extend("x-secret" = true))]
    pub secret: Option<String>,
}

/// What people want of an ACME account.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcmeAccountSpec {
    /// Who runs the CA.
    #[serde(default)]
    #[schemars(extend("x-immutable" = true))]
    pub provider: Provider,
    /// URL of the directory; for `custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), extend("x-immutable" = true))]
    pub directory: Option<String>,
    /// Certificates (PEM) that a provider with a CA of its own is trusted by, besides those of the system; for `custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536), extend("x-cli" = {"flag": "directory-ca", "from_file": true}))]
    pub directory_ca: Option<String>,
    /// Mail addresses that the provider may write to.
    #[serde(default)]
    #[schemars(length(max = 5))]
    pub contact: Vec<String>,
    /// Whether a person has read the provider's terms of service and agrees. Before that nothing is sent to it.
    #[serde(default)]
    pub terms_agreed: bool,
    /// Key id of the external account, when the provider wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub eab_key_id: Option<String>,
    /// Its HMAC key, base64url as the provider shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024), extend("x-secret" = true))]
    pub eab_hmac: Option<String>,
    /// The account with its key. Filled in by us when it is registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8192), extend("x-secret" = true))]
    pub credentials: Option<String>,
    /// How TXT records are made for dns-01.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
}

/// Where an account stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AccountState {
    /// It is not registered yet.
    #[default]
    Pending,
    /// Certificates can be ordered.
    Ready,
    /// It could not be registered.
    Error,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AcmeAccountStatus {
    /// Where it stands.
    pub state: AccountState,
    /// URL of the directory.
    pub directory: String,
    /// Why it stands there.
    pub message: String,
    /// The last task that registered it or tried to.
    pub task: String,
    /// How often in a row that failed.
    pub failures: u32,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
    /// When the orders of the last hour were made; at most five are.
    pub orders: Vec<Timestamp>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

impl AcmeAccountSpec {
    /// URL of the directory; empty for a custom one without.
    pub fn url(&self) -> &str {
        match self.provider {
            Provider::Letsencrypt => "https://acme-v02.api.letsencrypt.org/directory",
            Provider::LetsencryptStaging => {
                "https://acme-staging-v02.api.letsencrypt.org/directory"
            }
            Provider::Zerossl => "https://acme.zerossl.com/v2/DV90",
            Provider::Buypass => "https://api.buypass.com/acme/directory",
            Provider::Google => "https://dv.acme-v02.api.pki.goog/directory",
            Provider::Custom => self.directory.as_deref().unwrap_or_default(),
        }
    }
}
