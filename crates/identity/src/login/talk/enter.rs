//! In, on and out: `login`, `refresh`, `logout`, `passwd`.

use super::super::administrators;
use super::super::{delay, people};
use super::directory::{self, Asked};
use super::second::{self, Shown};
use super::{apart, find, given, keys, letters, me, optional, row, said, text};
use crate::factor::{self, Sort, breached, password};
use crate::login::risk::{self, Level};
use crate::mail;
use crate::realm::oidc;
use crate::role::Mfa;
use crate::session::{self, Begin, Refreshed};
use crate::user::{LOCAL, User, UserStatus};
use model::{Error, Result, Timestamp, Uid};
use runtime::audit::{
    LOGIN_FAILED, LOGIN_LOCKED, LOGIN_REFUSED, LOGIN_RISKY, LOGIN_SUCCEEDED, LOGOUT,
    PASSWORD_CHANGED, SESSION_CREATED, TOKEN_ISSUED, TOKEN_REUSED, note,
};
use runtime::{Cx, Obj, Said, Talk};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

/// `login`.
pub(super) async fn login(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (typed, password) = (text(talk, "user")?, text(talk, "password")?);
    let before = find(cx, typed).map(|user| (user.metadata.uid, passwords(cx, &user)));
    let user = apart(|| prove(cx, talk, optional(talk, "realm"), typed, password)).await?;
    let begin = Begin {
        from: talk.from,
        agent: talk.agent.clone(),
        factors: vec![Sort::Password.word()],
        remember: given(talk, "remember"),
        browser: given(talk, "cookie"),
        realm: Some(user.spec.realm.clone()).filter(|realm| realm != LOCAL),
        ..Begin::default()
    };
    let said = apart(|| proceed(cx, talk, &user, begin)).await?;
    // A new password ends all sessions, and this one may have begun just after that with the old one.
    let overtaken =
        before.is_some_and(|(uid, old)| uid == user.metadata.uid && old != passwords(cx, &user));
    if overtaken {
        if let Some(session) = said.body["session"].as_str() {
            session::end(cx, session).await?;
        }
        return Err(wrong());
    }
    Ok(said)
}

/// Whether somebody whose first proof is in `begin` is in by that alone.
pub(super) fn is_enough(cx: &Cx, user: &Obj<User>, begin: &Begin) -> bool {
    let must = administrators::mfa(cx, &user.metadata.name) == Mfa::Required;
    begin.mfa || !(factor::has_second(cx, user) || must)
}

/// Goes on with somebody whose first proof is in `begin`: asks for his second factor, if he has one and nobody who is
/// believed has asked for one already, and lets him in.
pub(super) async fn proceed(
    cx: &Cx,
    talk: &Talk,
    user: &Arc<Obj<User>>,
    mut begin: Begin,
) -> Result<Said> {
    if factor::has_second(cx, user) && !begin.mfa {
        let Some(shown) = second::shown(talk) else {
            let webauthn = keys::request(cx, user).await?;
            return Ok(Said {
                body: json!({ "state": "second_factor", "factors": second::of(cx, user), "webauthn": webauthn }),
                ..Said::default()
            });
        };
        let proved = second::prove(cx, talk, user, shown).await?;
        begin.factors.push(proved);
        begin.mfa = true;
    }
    let policy = administrators::mfa(cx, &user.metadata.name);
    begin.pending = !begin.mfa && policy == Mfa::Required;
    let remind = !begin.mfa && !begin.pending && policy != Mfa::Off;
    enter(cx, talk, user, begin, remind).await
}

/// The passwords that somebody has, so that another one is told from them.
fn passwords(cx: &Cx, user: &Obj<User>) -> Vec<(Uid, u64)> {
    let found = factor::of_sort(cx, user, Sort::Password);
    let which = |f: &Arc<Obj<factor::Factor>>| (f.metadata.uid, f.metadata.generation);
    found.iter().map(which).collect()
}

/// Begins the session of somebody who has proved that it is him.
pub(super) async fn enter(
    cx: &Cx,
    talk: &Talk,
    user: &Arc<Obj<User>>,
    mut begin: Begin,
    remind: bool,
) -> Result<Said> {
    let name = user.metadata.name.as_str();
    let pending = begin.pending;
    let seen = match weigh(cx, talk, user, &mut begin).await? {
        Weighed::Good(seen) => seen,
        Weighed::Asked(said) => return Ok(said),
    };
    begin.risk = Some(seen.kept());
    let entered = row(&LOGIN_SUCCEEDED, name, talk).with("factors", json!(begin.factors));
    note(cx, seen.with(entered)).await?;
    risk::entered(cx, user, &seen).await?;
    let given = session::begin(cx, user, begin).await?;
    note(
        cx,
        row(&SESSION_CREATED, name, talk).with("session", given.session.as_str()),
    )
    .await?;
    let now = cx.clock().now();
    let key = cx.key::<User>(None, name);
    cx.set_status::<User>(&key, |status: &mut UserStatus| {
        status.last_login = Some(now);
        status.last_activity = Some(now);
    })
    .await?;
    tracing::info!(
        request_id = talk.request_id,
        user = name,
        pending,
        "somebody logged in"
    );
    let state = if pending { "enrol" } else { "in" };
    Ok(said(
        user,
        given,
        json!({ "state": state, "remind": remind }),
    ))
}

/// What became of a login that was looked at.
enum Weighed {
    /// It may go on.
    Good(risk::Seen),
    /// A code was sent to its user.
    Asked(Said),
}

/// How unlike its user a login is. Refuses one that is too unlike, and asks for more proof than was shown.
async fn weigh(cx: &Cx, talk: &Talk, user: &Obj<User>, begin: &mut Begin) -> Result<Weighed> {
    let name = user.metadata.name.as_str();
    let seen = risk::look(cx, talk, user).await?;
    let level = seen.risk.level();
    if level == Level::High && !begin.mfa && letters::may_stand_in(cx, user) {
        let Some(code) = optional(talk, "mail_code") else {
            letters::send(cx, user).await?;
            let asked = row(&LOGIN_RISKY, name, talk);
            risk::tell(cx, asked, user, &seen, "a code was sent by mail").await?;
            return Ok(Weighed::Asked(Said {
                body: json!({ "state": "mail_code" }),
                ..Said::default()
            }));
        };
        begin
            .factors
            .push(second::prove(cx, talk, user, Shown::Mail(code)).await?);
        begin.mfa = true;
    }
    let (happening, done, refused) = match level {
        Level::Low => return Ok(Weighed::Good(seen)),
        Level::Critical => (&LOGIN_REFUSED, "refused", true),
        Level::High if !begin.mfa => (&LOGIN_RISKY, "refused, for want of a second factor", true),
        Level::High => (&LOGIN_RISKY, "let in with a second factor", false),
        Level::Medium => (&LOGIN_RISKY, "let in", false),
    };
    let note = row(happening, name, talk);
    let note = if refused { note.failed("RISK") } else { note };
    risk::tell(cx, note, user, &seen, done).await?;
    if !refused {
        return Ok(Weighed::Good(seen));
    }
    let text = "Somebody who knows your password tried to log in from where and with what you never do, and was refused.\n\nIf it was not you, change your password: dvctl passwd\n";
    mail::warn(cx, user, "A login was refused", text.into());
    Err(
        Error::unauthenticated("this login is too unlike those before and is refused").hint(
            "come again later from where and with what you mostly do, or ask an administrator",
        ),
    )
}

/// Refuses a password that is none, or that others have lost, and says whether that was looked at.
pub(super) async fn fit(cx: &Cx, field: &str, password: &str, user: &str) -> Result<&'static str> {
    password::check(field, password, user)?;
    breached::check(cx, field, password).await
}

/// Whose name and password these are; in one realm, when that is named.
async fn prove(
    cx: &Cx,
    talk: &Talk,
    realm: Option<&str>,
    typed: &str,
    password: &str,
) -> Result<Arc<Obj<User>>> {
    let begun = tokio::time::Instant::now();
    let proved = prove_at_once(cx, talk, realm, typed, password).await;
    if proved.is_err() {
        directory::hold(cx, begun).await;
    }
    proved
}

/// Names that nobody has cost the same work and count the same.
async fn prove_at_once(
    cx: &Cx,
    talk: &Talk,
    realm: Option<&str>,
    typed: &str,
    password: &str,
) -> Result<Arc<Obj<User>>> {
    let account: String = typed
        .chars()
        .take(100)
        .collect::<String>()
        .to_ascii_lowercase();
    let user = find(cx, typed);
    let unlocked = user.as_ref().and_then(|user| user.spec.unlocked);
    if let Err(error) = delay::attempt(cx, &account, talk.from, unlocked).await {
        note(cx, row(&LOGIN_LOCKED, &account, talk).failed("LOCKED")).await?;
        return Err(error);
    }
    let asked = directory::asked(cx, realm, user.as_deref());
    let hash = match (&user, &asked) {
        (Some(user), Asked::Here) if user.spec.realm == LOCAL => hash_of(cx, user),
        _ => None,
    };
    let right = password::verify(password.to_owned(), hash).await?;
    if let Asked::There(realm) = asked {
        let typed = (account.as_str(), typed);
        let asking = || directory::prove(cx, talk, &realm, user.as_deref(), typed, password);
        return apart(asking).await;
    }
    let why = match &user {
        Some(user) if right && user.spec.active => {
            delay::forgive(cx, &account, talk.from).await?;
            return Ok(user.clone());
        }
        Some(_) if right => "DISABLED",
        Some(_) => "WRONG_PASSWORD",
        None => "UNKNOWN_USER",
    };
    note(cx, row(&LOGIN_FAILED, &account, talk).failed(why)).await?;
    directory::pretend(cx, realm, typed).await?;
    Err(wrong())
}

pub(super) fn wrong() -> Error {
    Error::unauthenticated("the user name or the password is not accepted")
        .hint("an administrator can give you a code for a new one: dvctl user reset NAME")
}

fn hash_of(cx: &Cx, user: &Obj<User>) -> Option<String> {
    factor::newest(cx, user, Sort::Password)?
        .spec
        .material
        .clone()
}

/// `refresh`.
pub(super) async fn refresh(cx: &Cx, talk: &Talk) -> Result<Said> {
    match session::refresh(cx, text(talk, "refresh")?).await? {
        Refreshed::Given(given, session) => {
            let Some(user) = cx.get::<User>(None, &session.spec.user) else {
                return Err(people::refused());
            };
            if !user.spec.active {
                session::end(cx, &session.metadata.name).await?;
                return Err(people::refused());
            }
            note(
                cx,
                row(&TOKEN_ISSUED, &session.spec.user, talk)
                    .with("session", given.session.as_str()),
            )
            .await?;
            let state = if session.spec.pending { "enrol" } else { "in" };
            Ok(said(&user, given, json!({ "state": state })))
        }
        Refreshed::Reused(user) => {
            tracing::warn!(user, "a token came a second time; its session was ended");
            note(cx, row(&TOKEN_REUSED, &user, talk).failed("REUSED")).await?;
            Err(people::refused())
        }
        Refreshed::Unknown => Err(people::refused()),
    }
}

/// `logout`. Whoever is out already is out.
pub(super) async fn logout(cx: &Cx, talk: &Talk) -> Result<Said> {
    let mut body = json!({ "state": "out" });
    if let Ok((user, session)) = me(cx, talk) {
        let realm = session.spec.realm.as_deref();
        if let Some(url) = realm.and_then(|realm| oidc::leaving(cx, realm)) {
            // A browser that goes there is logged out of the provider too.
            body["provider_logout"] = url.into();
        }
        session::end(cx, &session.metadata.name).await?;
        note(cx, row(&LOGOUT, &user.metadata.name, talk)).await?;
    }
    Ok(Said {
        body,
        cookie: Some((String::new(), Duration::ZERO)),
        ..Said::default()
    })
}

/// `passwd`.
pub(super) async fn passwd(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, session) = me(cx, talk)?;
    let (old, new) = (text(talk, "old")?, text(talk, "new")?);
    if user.spec.realm != LOCAL {
        return Err(Error::refused(format!(
            "your password is kept by realm `{}`",
            user.spec.realm
        ))
        .hint("change it there"));
    }
    let breached = fit(cx, "new", new, &user.spec.username).await?;
    prove(cx, talk, Some(LOCAL), &user.spec.username, old).await?;
    set(cx, &user, new).await?;
    let but = session.metadata.name.as_str();
    let ended = session::end_all(cx, &user.metadata.name, Some(but)).await?;
    note(
        cx,
        row(&PASSWORD_CHANGED, &user.metadata.name, talk).with("sessions_ended", ended as u64),
    )
    .await?;
    Ok(Said {
        body: json!({ "state": "in", "sessions_ended": ended, "breached": breached }),
        ..Said::default()
    })
}

/// Gives a user a password.
pub(super) async fn set(cx: &Cx, user: &Obj<User>, password: &str) -> Result<()> {
    let hash = hashed(cx, password).await?;
    put(cx, user, hash).await
}

/// What is kept of a password.
pub(super) async fn hashed(cx: &Cx, password: &str) -> Result<String> {
    let mut salt = [0; 16];
    cx.clock().fill(&mut salt);
    password::hash(password.to_owned(), salt).await
}

/// Puts a password in the place of the one before.
pub(super) async fn put(cx: &Cx, user: &Obj<User>, hash: String) -> Result<()> {
    let name = factor::fresh_name(cx, Sort::Password);
    factor::replace(cx, user, &name, Sort::Password, hash, None::<Timestamp>)
        .await
        .map(drop)
}
