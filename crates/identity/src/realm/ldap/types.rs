//! How a directory is asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the way to a directory is kept secret. There is no third way: passwords never go in the clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LdapTls {
    /// TLS from the first byte, `ldaps://`, port 636.
    #[default]
    Ldaps,
    /// `ldap://`, port 389, and TLS before anything else is said. A server that does not want to is left.
    Starttls,
}

/// A directory: OpenLDAP, 389, FreeIPA or the like with realm type `ldap`, Active Directory or Samba with `ad`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LdapSpec {
    /// Its servers, `ldaps://dc1.example.org`, the first that answers is asked. At most 8.
    #[schemars(length(min = 1, max = 8), inner(length(min = 1, max = 512)))]
    pub urls: Vec<String>,
    /// How the way there is kept secret: `ldaps`, or `starttls` with `ldap://`.
    #[serde(default)]
    pub tls: LdapTls,
    /// The certificate authority that its servers are trusted by and no other, as PEM. Those of this machine when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536))]
    pub ca: Option<String>,
    /// The entry below which people and groups are, `dc=example,dc=org`.
    #[schemars(length(min = 1, max = 1024))]
    pub base_dn: String,
    /// As whom DebVisor searches; as nobody when absent. In Active Directory also `name@domain`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub bind_dn: Option<String>,
    /// The secret that holds the password of `bind_dn`: `project/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-ref" = "secret"))]
    pub secret: Option<String>,
    /// Finds a person; `{username}` is what he typed, as a value. `(uid={username})` when absent, in Active Directory
    /// `(&(objectCategory=person)(objectClass=user)(sAMAccountName={username}))`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2000))]
    pub user_filter: Option<String>,
    /// The attribute that holds a person's user name; `uid` when absent, in Active Directory `sAMAccountName`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub name_attribute: Option<String>,
    /// The attribute that is a person's own for ever, by which he is known again when his name has changed; `entryUUID`
    /// when absent, in Active Directory `objectGUID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub id_attribute: Option<String>,
    /// The entry below which groups are; `base_dn` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub group_base: Option<String>,
    /// Finds groups. When absent: `groupOfNames`, `groupOfUniqueNames` and `posixGroup`, in Active Directory `group`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2000))]
    pub group_filter: Option<String>,
    /// The attribute of a group that names its members: by their names with `memberUid`, else by their entries.
    #[serde(default = "member")]
    #[schemars(length(min = 1, max = 128))]
    pub member_attribute: String,
    /// Whether who is in a group is also in the groups that this one is in.
    #[serde(default = "yes")]
    pub nested_groups: bool,
    /// For how long an answer is waited for.
    #[serde(default = "timeout")]
    #[schemars(range(min = 1, max = 60), extend("x-unit" = "s"))]
    pub timeout_seconds: u32,
    /// For how long it is remembered in which groups a group is; who is in a group himself is asked at each login.
    #[serde(default = "cache")]
    #[schemars(range(min = 0, max = 86_400), extend("x-unit" = "s"))]
    pub cache_seconds: u32,
    /// How often its people are looked up again; 0 for only when asked with `sync`.
    #[serde(default = "sync")]
    #[schemars(range(min = 0, max = 10_080), extend("x-unit" = "min"))]
    pub sync_minutes: u32,
}

fn member() -> String {
    "member".into()
}
fn yes() -> bool {
    true
}
fn timeout() -> u32 {
    10
}
fn cache() -> u32 {
    3600
}
fn sync() -> u32 {
    60
}
