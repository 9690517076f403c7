//! Realms that are providers of OpenID Connect: authorization code with PKCE for people, access tokens of the provider
//! for programs. No implicit flow, no password that passes through us.

mod client;
mod kept;
mod keys;
mod login;
mod logout;
mod machine;
mod rules;
mod token;
mod types;

pub use kept::Providers;
pub(crate) use login::{Going, Proved, away, back, leaving};
pub(crate) use logout::{logged_out, sweep};
pub(crate) use machine::{machine, stands};
pub(super) use rules::check;
pub(crate) use token::is_token;
pub use types::OidcSpec;

use super::Realm;
use model::{Error, Result};
use runtime::{Cx, Obj};
use serde_json::{Value, json};

/// What a logout token says has happened: a name, and no address that is asked.
const LOGOUT_EVENT: &str = concat!("http:", "//schemas.openid.net/event/backchannel-logout");

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

#[cfg(test)]
mod tests;
