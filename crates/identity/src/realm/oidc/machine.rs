//! A program that comes in with an access token of its provider (client credentials), without a login and without a secret
//! of ours.
//!
//! **Invariants.** It is a user of the realm whom an administrator made with the subject `machine ISSUER SUB`: no ID
//! token and no login ever gives that one, so that the access token of a person lets nobody in. Answered from memory: a key
//! that is not known is asked for beside it.

use super::super::{Realm, known};
use super::kept::{Providers, may_ask};
use super::spec;
use super::token::{self, Wrong};
use crate::login::refused;
use model::{Error, Result, Timestamp};
use runtime::{Actor, Cx, Obj};
use std::sync::Arc;

/// Whose access token this is.
///
/// # Errors
/// `Unauthenticated`; `Unavailable` while the keys of the provider are being asked for.
pub(crate) fn machine(cx: &Cx, text: &str) -> Result<Actor> {
    let issuer = token::issuer(text).ok_or_else(refused)?;
    for realm in cx.list::<Realm>(None) {
        let ours = spec(&realm).is_ok_and(|spec| {
            spec.issuer == issuer && !spec.machine_audiences.is_empty() && realm.spec.enabled
        });
        if ours && let Some(actor) = of(cx, &realm, text)? {
            return Ok(actor);
        }
    }
    Err(refused())
}

fn of(cx: &Cx, realm: &Arc<Obj<Realm>>, text: &str) -> Result<Option<Actor>> {
    let Ok(token) = token::parse(text) else {
        return Ok(None);
    };
    let (spec, providers) = (spec(realm)?, Providers::of(cx)?);
    let known_now = providers.known(realm);
    let checked = match &known_now {
        Some(known) => known.keys.check(&token),
        None => Err(Wrong::UnknownKey),
    };
    if checked == Err(Wrong::UnknownKey)
        && known_now.is_none_or(|known| may_ask(cx, &known))
        && providers.may_wake(cx)
    {
        cx.wake(&cx.key::<Realm>(None, &realm.metadata.name));
        return Err(
            Error::unavailable("the keys of this token's provider are being asked for")
                .hint("try again"),
        );
    }
    let now = cx.clock().now().millis() / 1000;
    let issuer = &spec.issuer;
    let good = checked.and_then(|()| token.for_machine(issuer, &spec.machine_audiences, now));
    if let Err(wrong) = good {
        tracing::debug!(why = wrong.word(), "an access token was refused");
        return Ok(None);
    }
    let name = realm.metadata.name.as_str();
    let sub = token.claims.sub.as_deref().unwrap_or_default();
    let user = known(cx, name, &format!("machine {issuer} {sub}"));
    let user = user.filter(|user| user.spec.active && user.metadata.deletion_requested.is_none());
    let end = (token.claims.exp.unwrap_or_default() as i64).saturating_add(token::SKEW);
    Ok(user.map(|user| {
        let credential = format!("token/{end}/{name}");
        Actor::user(&user.metadata.name, Some(credential), None)
    }))
}

/// Whether somebody who came in with one may stay: until it ends, he is disabled, or the realm is.
pub(crate) fn stands(cx: &Cx, user: &str, credential: &str) -> bool {
    let Some((end, realm)) = credential.split_once('/') else {
        return false;
    };
    let end = end.parse::<i64>().unwrap_or_default();
    let on = cx
        .get::<Realm>(None, realm)
        .is_some_and(|realm| realm.spec.enabled);
    let active = cx
        .get::<crate::user::User>(None, user)
        .is_some_and(|user| user.spec.active && user.spec.realm == realm);
    on && active && cx.clock().now() < Timestamp::from_millis(end.saturating_mul(1000))
}
