//! What a realm wants and is.

use super::ldap::{LdapSpec, SyncStatus};
use super::oidc::OidcSpec;
use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who proves there who somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RealmType {
    /// DebVisor itself, by a password that it keeps. There is one, `local`, and it stays.
    Local,
    /// A provider that speaks OpenID Connect: Keycloak, Kanidm, Entra ID and others.
    Oidc,
    /// A directory that speaks LDAP.
    Ldap,
    /// Active Directory.
    Ad,
}

impl RealmType {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            RealmType::Local => "local",
            RealmType::Oidc => "oidc",
            RealmType::Ldap => "ldap",
            RealmType::Ad => "ad",
        }
    }
}

/// What people want of a realm.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RealmSpec {
    /// Who proves there who somebody is.
    #[serde(rename = "type")]
    #[schemars(extend("x-immutable" = true))]
    pub sort: RealmType,
    /// Whether login pages offer this realm first. At most one is; `local` when none is.
    #[serde(default)]
    pub default: bool,
    /// Whether somebody may log in by it. When it becomes false the sessions begun by it end within seconds.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Whether somebody whom the realm knows and DebVisor does not becomes a user with his first login. Otherwise an
    /// administrator makes the user first, with `realm` and the user name that he has there.
    #[serde(default)]
    pub auto_create: bool,
    /// Which groups of the realm are which of ours, besides what groups say themselves with `directory`.
    #[serde(default)]
    #[schemars(length(max = 500))]
    pub group_map: Vec<GroupMap>,
    /// Whether a group of the realm whose name begins with `debvisor-` is our group of the same name, when there is one.
    #[serde(default = "yes")]
    pub same_names: bool,
    /// How the provider is asked; for `oidc`.
    #[serde(default)]
    pub oidc: Option<OidcSpec>,
    /// How the directory is asked; for `ldap` and `ad`.
    #[serde(default)]
    pub ldap: Option<LdapSpec>,
}

fn yes() -> bool {
    true
}

/// A group of the realm and which of ours it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupMap {
    /// What the realm calls it: the value of a claim, or the name or the distinguished name of a directory's group.
    #[schemars(length(min = 1, max = 512))]
    pub from: String,
    /// Our group.
    #[schemars(extend("x-ref" = "group"))]
    pub to: String,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RealmStatus {
    /// When it was last asked with success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reached: Option<Timestamp>,
    /// How many keys its tokens may be signed with; for `oidc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<u32>,
    /// How the last look at all its people ended; for `ldap` and `ad`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncStatus>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// `Reachable`: it answers as it is declared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
