//! What a pin wants and is.

use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What of a peer is pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PinType {
    /// The public key of its certificate: it survives a renewal for the same key.
    #[default]
    PublicKey,
    /// Its certificate.
    Certificate,
    /// The CA that its certificate leads to.
    Ca,
}

/// How what is pinned is hashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Hash {
    /// SHA-256: 64 hex digits.
    #[default]
    Sha256,
    /// SHA-512: 128 hex digits.
    Sha512,
}

/// What people want of a pin.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinSpec {
    /// Whom we call: a DNS name or an IP address, as it stands in the URL, without a port.
    #[schemars(length(min = 1, max = 253), extend("x-immutable" = true))]
    pub peer: String,
    /// What of it is pinned.
    #[serde(default, rename = "type")]
    pub sort: PinType,
    /// How it is hashed.
    #[serde(default)]
    pub algorithm: Hash,
    /// The hash of the DER of what it shows now, hex; colons do not count. Of a public key it is the hash of the whole
    /// SubjectPublicKeyInfo.
    #[schemars(length(min = 64, max = 191))]
    pub primary: String,
    /// Hashes of what it may show instead: a key in a safe, the next CA.
    #[serde(default)]
    #[schemars(length(max = 10))]
    pub backups: Vec<String>,
    /// From when on nobody is held to it: at most a year from now, which is the default. So a forgotten pin does not cut
    /// the peer off for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-expires" = true))]
    pub expires: Option<Timestamp>,
}

/// What takes the place of the present pin.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// The hash that is expected from now on; the present one becomes the first backup.
    #[schemars(length(min = 64, max = 191))]
    pub primary: String,
}

/// Where a pin stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The peer is held to it.
    #[default]
    Active,
    /// It ends in 30 days or less.
    Expiring,
    /// It is over and nobody is held to it.
    Expired,
}

/// One connection that was refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Violation {
    /// When.
    pub time: Timestamp,
    /// SHA-256 of the certificate that was shown, hex.
    pub shown: String,
    /// Who had signed it.
    pub issued_by: String,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PinStatus {
    /// Where it stands.
    pub state: State,
    /// How many connections were refused because of it.
    pub violations: u64,
    /// The last ten of them, newest first. Each is an event `pin.violated`, too.
    #[schemars(length(max = 10))]
    pub last: Vec<Violation>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// `Kept`: whether the peer showed what is pinned when it was asked last.
    pub conditions: Vec<Condition>,
}
