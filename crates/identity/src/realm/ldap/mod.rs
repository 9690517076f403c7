//! Realms that are directories: LDAP and Active Directory.

use super::Realm;
use model::{Error, Result, Violation};
use runtime::{Cx, Obj};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a directory is asked.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LdapSpec {
    /// Its servers, asked in this order: `ldaps://dc1.example.org`, or `ldap://` with STARTTLS.
    #[schemars(length(min = 1, max = 10), inner(length(min = 1, max = 512)))]
    pub urls: Vec<String>,
    /// Where its people are: `dc=example,dc=org`.
    #[schemars(length(min = 1, max = 512))]
    pub base_dn: String,
}

/// What is wrong with it, by the rules alone.
pub(super) fn check(_spec: &LdapSpec) -> Vec<Violation> {
    Vec::new()
}

/// Asks the directory, for the action `test`.
///
/// # Errors
/// When it does not answer.
pub(super) async fn test(_cx: &Cx, realm: &Obj<Realm>) -> Result<Value> {
    Err(Error::refused(format!(
        "realm `{}`: this version does not ask directories",
        realm.metadata.name
    )))
}
