//! A provider says that somebody is logged out there (OpenID Connect Back-Channel Logout 1.0): his sessions here end.

use super::super::{Realm, known};
use super::kept::Providers;
use super::token::{self, Wrong};
use super::{login, spec};
use crate::session::{self, Session};
use model::{Result, Timestamp};
use runtime::Cx;
use runtime::tally::{self, Becomes};
use std::time::Duration;

/// The space of logout tokens that were used.
const USED: &str = "oidc-logout";
/// For how long a used one is remembered: none is good for longer.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Ends the sessions that a logout token names. Says whose, how many, or why the token is refused.
///
/// # Errors
/// When the provider's keys or the store cannot be had.
pub(crate) async fn logged_out(
    cx: &Cx,
    text: &str,
) -> Result<Result<Vec<(String, String)>, &'static str>> {
    let Some(issuer) = token::issuer(text) else {
        return Ok(Err(Wrong::Malformed.word()));
    };
    // Two realms may be two clients of one provider: the audience tells them apart.
    let mut refused = Wrong::Issuer;
    for realm in cx.list::<Realm>(None) {
        let Ok(spec) = spec(&realm) else { continue };
        if spec.issuer != issuer {
            continue;
        }
        let token = match Providers::of(cx)?.signed(cx, &realm, text).await? {
            Ok(token) => token,
            Err(wrong) => {
                refused = wrong;
                continue;
            }
        };
        let now = cx.clock().now();
        if let Err(wrong) = token.for_logout(&issuer, &spec.client_id, now.millis() / 1000) {
            refused = wrong;
            continue;
        }
        let claims = &token.claims;
        let jti = format!("{issuer}\n{}", claims.jti.as_deref().unwrap_or_default());
        let used =
            tally::edit::<Timestamp, _>(cx, USED, &jti, |old| (Becomes::Same, old.is_some()));
        if used.await? {
            return Ok(Err(Wrong::Replayed.word()));
        }
        let name = realm.metadata.name.as_str();
        let whose = claims.sub.as_deref().map(|sub| {
            let user = known(cx, name, &login::subject(&issuer, sub));
            user.map(|user| user.metadata.name.to_string())
        });
        let provided = claims
            .sid
            .as_deref()
            .map(|sid| login::session(&issuer, sid));
        let mut ended = Vec::new();
        for session in cx.list::<Session>(None) {
            let spec = &session.spec;
            let ours = spec.realm.as_deref() == Some(name);
            let his = whose
                .as_ref()
                .is_none_or(|user| user.as_ref() == Some(&spec.user));
            // One that was begun without a word about the provider's session goes with the person.
            let any = provided.is_none() || (spec.provider_session.is_none() && whose.is_some());
            let this = any || spec.provider_session == provided;
            if ours && his && this {
                session::end(cx, &session.metadata.name).await?;
                ended.push((session.metadata.name.to_string(), spec.user.clone()));
            }
        }
        // Only now: a token that came to nothing half-way is good again.
        tally::edit::<Timestamp, _>(cx, USED, &jti, |_| (Becomes::New(now), ())).await?;
        return Ok(Ok(ended));
    }
    Ok(Err(refused.word()))
}

/// Forgets used tokens that are too old to be good again.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn sweep(cx: &Cx) -> Result<()> {
    let now = cx.clock().now();
    tally::sweep::<Timestamp>(cx, USED, |used| now.since(*used) < KEPT)
        .await
        .map(drop)
}
