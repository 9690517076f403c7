//! Realms that are providers of OpenID Connect: authorization code with PKCE for people, access tokens of the provider
//! for programs. No implicit flow, no password that passes through us.

mod client;
#[allow(dead_code, reason = "the login that uses all of it follows")]
mod kept;
#[allow(dead_code, reason = "the login that uses all of it follows")]
mod keys;
mod rules;
#[allow(dead_code, reason = "the login that uses all of it follows")]
mod token;
mod types;

pub use kept::Providers;
pub(super) use rules::check;
pub use types::OidcSpec;

use super::Realm;
use model::{Error, Result};
use runtime::{Cx, Obj};
use serde_json::{Value, json};

fn spec(realm: &Obj<Realm>) -> Result<&OidcSpec> {
    let name = &realm.metadata.name;
    let spec = realm.spec.oidc.as_ref();
    spec.ok_or_else(|| Error::refused(format!("realm `{name}` is no provider of OpenID Connect")))
}

/// Asks the provider for what must be known of it.
///
/// # Errors
/// When it does not answer, or not as a provider that we can use.
pub(super) async fn test(cx: &Cx, realm: &Obj<Realm>) -> Result<Value> {
    let known = Providers::of(cx)?.ask(cx, realm).await?;
    let logout = known.facts.end_session_endpoint.is_some();
    Ok(json!({ "issuer": known.facts.issuer, "keys": known.keys.len(), "logout": logout }))
}
