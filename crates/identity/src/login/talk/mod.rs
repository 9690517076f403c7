//! The conversations by which somebody becomes known: `POST /api/v1/auth/{step}`.
//!
//! | step | says | gets |
//! |---|---|---|
//! | `login` | user, password, the realm when it is not clear, then a code of his second factor or the answer of a security key | tokens or a cookie |
//! | `refresh` | the token for the next pair | the next pair |
//! | `logout` | - | the session is gone |
//! | `passwd` | old and new password | - |
//! | `code` | a code | what it is for |
//! | `first` | the code of a first start, user, password | the first administrator, and tokens |
//! | `reset` | a code, a password | tokens |
//! | `forgot` | a name or an e-mail address | a link for a new password, by mail |
//! | `mfa/mail` | - | a code by mail, for `mfa` |
//! | `mfa/begin`, `mfa` | -, then a code of a second factor or the answer of a security key | the session counts as fresh |
//! | `totp/begin`, `totp/confirm` | -, then the first code of the app | a key for the app, then codes on paper |
//! | `webauthn/begin`, `webauthn/confirm` | -, then the key that the browser made | what to make it with, then codes on paper |
//! | `factors`, `factors/remove` | -, the name of one | one's second factors, one less |
//! | `recovery` | - | new codes on paper |
//! | `realms` | - | by which realms one may log in, and which is offered first |
//! | `oidc/begin`, `oidc/callback`, `oidc/finish` | a realm; what the provider says; a ticket | a browser goes there and comes back |
//! | `oidc/backchannel-logout` | a logout token of the provider | sessions end |
//! | `access/...` | questions about rights | answers ([`crate::access`]) |
//!
//! **Invariant.** Nothing here says whether a user exists, nor by how long it takes. Secrets that are given out are in the
//! answer and nowhere else.

mod codes;
mod directory;
mod enter;
pub(in crate::login) mod keys;
pub(in crate::login) mod letters;
pub(in crate::login) mod second;
mod sso;

pub(super) use sso::sweep;

use super::people::People;
use crate::session::{Given, Session};
use crate::user::{self, User};
use futures::future::BoxFuture;
use model::{Error, Result, Violation};
use runtime::audit::Note;
use runtime::{Cx, Obj, Said, Surface, Talk, Trace};
use serde_json::{Value, json};
use std::sync::Arc;

/// Answers one word.
pub(super) async fn answer(people: &People, cx: &Cx, talk: Talk) -> Result<Said> {
    let talk = &talk;
    if let Some(said) = crate::access::talk(cx, talk) {
        return said;
    }
    let said = match talk.step.as_str() {
        "login" => apart(|| enter::login(cx, talk)),
        "refresh" => apart(|| enter::refresh(cx, talk)),
        "logout" => apart(|| enter::logout(cx, talk)),
        "passwd" => apart(|| enter::passwd(cx, talk)),
        "code" => apart(|| codes::ask(people, cx, talk)),
        "first" => apart(|| codes::first(people, cx, talk)),
        "reset" => apart(|| codes::reset(people, cx, talk)),
        "mfa" => apart(|| second::step_up(cx, talk)),
        "forgot" => return letters::forgot(people, cx, talk),
        "mfa/mail" => apart(|| letters::ask(cx, talk)),
        "mfa/begin" => apart(|| keys::offer(cx, talk)),
        "webauthn/begin" => apart(|| keys::begin(cx, talk)),
        "webauthn/confirm" => apart(|| keys::confirm(cx, talk)),
        "factors" => return keys::list(cx, talk),
        "factors/remove" => apart(|| keys::remove(cx, talk)),
        "totp/begin" => apart(|| second::begin(people, cx, talk)),
        "totp/confirm" => apart(|| second::confirm(cx, talk)),
        "realms" => return Ok(sso::realms(cx)),
        "oidc/begin" => apart(|| sso::begin(cx, talk)),
        "oidc/callback" => apart(|| sso::callback(cx, talk)),
        "oidc/finish" => apart(|| sso::finish(cx, talk)),
        "oidc/backchannel-logout" => apart(|| sso::backchannel(cx, talk)),
        "recovery" => apart(|| second::recovery(cx, talk)),
        step => {
            return Err(Error::not_found(format!(
                "there is no step `{}` of a login",
                step.chars().take(40).collect::<String>().escape_debug()
            )));
        }
    };
    said.await
}

/// Makes a future on the heap. A conversation goes deep, and what is awaited in place has a place on the stack of each
/// level above it: without optimisation together more than a thread has.
fn apart<'a, T, F: Future<Output = T> + Send + 'a>(make: impl FnOnce() -> F) -> BoxFuture<'a, T> {
    Box::pin(make())
}

/// A text of the body; an error never shows what came instead.
fn text<'a>(talk: &'a Talk, name: &str) -> Result<&'a str> {
    match talk.body.get(name).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => Err(Error::invalid(vec![Violation::new(
            name,
            "is required and must be a text",
        )])),
    }
}

fn optional<'a>(talk: &'a Talk, name: &str) -> Option<&'a str> {
    let text = talk.body.get(name).and_then(Value::as_str);
    text.filter(|text| !text.is_empty())
}

fn given(talk: &Talk, name: &str) -> bool {
    talk.body.get(name) == Some(&Value::Bool(true))
}

/// A row for the trail about who talks.
fn row(happening: &'static runtime::audit::Happening, who: &str, talk: &Talk) -> Note {
    Note::new(happening, who)
        .via(Surface::Rest)
        .from(talk.from)
        .user_agent(talk.agent.as_deref())
        .request(&talk.request_id, &Trace::default())
}

/// The local user of a name that somebody typed.
fn find(cx: &Cx, typed: &str) -> Option<Arc<Obj<User>>> {
    let name = user::names::parse(typed).ok()?;
    let key = cx.cache().unique(&user::unique_key(&name))?;
    // What looks like it is not it.
    cx.get_key::<User>(&key)
        .filter(|user| user.spec.username == name)
}

/// A user and the session that he is in.
type Somebody = (Arc<Obj<User>>, Arc<Obj<Session>>);

/// The user and session of somebody who is logged in.
fn me(cx: &Cx, talk: &Talk) -> Result<Somebody> {
    let needs =
        || Error::unauthenticated("this is for users who are logged in").hint("dvctl login URL");
    let user = talk.actor.user.as_deref().ok_or_else(needs)?;
    let credential = talk.actor.credential.as_deref().ok_or_else(needs)?;
    let session = credential.strip_prefix("session/").ok_or_else(needs)?;
    let user = cx.get::<User>(None, user).ok_or_else(needs)?;
    let session = cx.get::<Session>(None, session).ok_or_else(needs)?;
    Ok((user, session))
}

/// What somebody gets who is in.
fn said(user: &Obj<User>, given: Given, more: Value) -> Said {
    let mut body = json!({
        "state": "in", "user": user.metadata.name, "session": given.session, "expires": given.expires,
    });
    if let Some((access, until)) = given.access {
        body["access"] = access.into();
        body["access_expires"] = json!(until);
    }
    if let Some(refresh) = given.refresh {
        body["refresh"] = refresh.into();
    }
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    let life = std::time::Duration::from_secs(7 * 24 * 3600);
    Said {
        body,
        // The session itself says when it ends; a browser may keep the cookie for longer.
        cookie: given.cookie.map(|cookie| (cookie, life)),
        ..Said::default()
    }
}
