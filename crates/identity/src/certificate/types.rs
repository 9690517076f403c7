//! What a certificate wants and is.

use crate::ca::Reason;
use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who signs it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Issuer {
    /// The CA of this cluster. Only who trusts that CA accepts it.
    #[default]
    Internal,
    /// A public CA, by ACME: everybody accepts it.
    Acme,
    /// Somebody else signed it, and it is renewed by hand: set `chain` and `private_key` again.
    Imported,
}

/// What it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A server shows it.
    #[default]
    Server,
    /// A client shows it. It is no login.
    Client,
    /// Both.
    Peer,
}

/// What sort of key it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    /// ECDSA on P-256.
    #[default]
    Ec256,
    /// ECDSA on P-384.
    Ec384,
}

/// How it is shown to a public CA that the names are ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Challenge {
    /// By an answer on port 80 of each name.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// By a TXT record below each name; the only way to a `*`.
    #[serde(rename = "dns-01")]
    Dns01,
    /// By a certificate that is shown on port 443 of each name.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
}

/// What people want of a certificate.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateSpec {
    /// DNS names (also `*.example.org`) and IP addresses that it is for. Those of an imported one are in its chain.
    #[serde(default)]
    #[schemars(length(max = 100))]
    pub names: Vec<String>,
    /// Who signs it.
    #[serde(default)]
    #[schemars(extend("x-immutable" = true))]
    pub issuer: Issuer,
    /// The ACME account that it is ordered with; for the issuer `acme`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-ref" = "acme-account"))]
    pub account: Option<String>,
    /// How it is shown to a public CA that the names are ours; for the issuer `acme`.
    #[serde(default)]
    pub challenge: Challenge,
    /// What it is for. A public CA and an importer decide that themselves.
    #[serde(default)]
    pub profile: Profile,
    /// What sort of key is made for it.
    #[serde(default)]
    pub key_type: KeyType,
    /// How many days one of the internal CA is good. It is renewed when less than 30 days, or a third of its life, are
    /// left.
    #[serde(default = "ninety")]
    #[schemars(range(min = 1, max = 365))]
    pub days: u32,
    /// The certificate and those that lead to its CA, PEM, leaf first. Filled in by us unless it is imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536), extend("x-allocated" = true, "x-cli" = {"flag": "chain", "from_file": true}))]
    pub chain: Option<String>,
    /// Its private key, PEM. Filled in by us unless it is imported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16_384), extend("x-secret" = true, "x-cli" = {"flag": "private-key", "from_file": true}))]
    pub private_key: Option<String>,
}

fn ninety() -> u32 {
    90
}

/// Where a certificate stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It was not issued yet.
    #[default]
    Pending,
    /// It is good.
    Valid,
    /// It is good for 30 days or less.
    Expiring,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
    /// There is none, and it could not be issued.
    Error,
}

/// How near its end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// More than 90 days, or there is none.
    #[default]
    None,
    /// 90 days or less.
    Notice,
    /// 30 days or less.
    Warning,
    /// 7 days or less.
    Critical,
    /// It is over.
    Expired,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CertificateStatus {
    /// Where it stands.
    pub state: State,
    /// How near its end is.
    pub level: Level,
    /// Names in the certificate.
    pub names: Vec<String>,
    /// Who signed it.
    pub issued_by: String,
    /// Serial number, hex.
    pub serial: String,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// When it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// When it ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-expires" = true))]
    pub not_after: Option<Timestamp>,
    /// Whether the panel and the API show it to who asks for one of its names.
    pub shown: bool,
    /// The last task that issued it or tried to.
    pub task: String,
    /// How often in a row it could not be issued.
    pub failures: u32,
    /// When that is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_try: Option<Timestamp>,
    /// When its provider suggests to renew it (RFC 9773); a time within the window that it names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested: Option<Timestamp>,
    /// Where the provider explains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explained: Option<String>,
    /// When the provider is asked for that again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask_again: Option<Timestamp>,
    /// How many public logs have promised to list it, as it says itself (SCTs, RFC 6962); absent for those of the internal
    /// CA. One of a public provider that browsers would refuse for want of them is not taken at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<u32>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// `Usable`, `Expiring`, `Renewed`, `Shown`, `Waiting`.
    pub conditions: Vec<Condition>,
}

/// Whether it is ordered in any case.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderParams {
    /// Also when the present one is good for long.
    #[serde(default)]
    pub force: bool,
}

/// Why it is revoked, and which one.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeParams {
    /// Why, as revocation lists say it.
    #[serde(default)]
    pub reason: Reason,
    /// SHA-256 of one that this object had before; absent: the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 95))]
    pub fingerprint: Option<String>,
}
