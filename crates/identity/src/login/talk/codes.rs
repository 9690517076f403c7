//! Codes that are typed once: the one of a first start, which makes the first administrator, and those that let a user
//! set a password.

use super::super::administrators;
use super::super::people::People;
use super::{enter, given, row, text};
use crate::ca::kind::off;
use crate::role::Mfa;
use crate::session::{self, Begin};
use crate::user::{self, Reset, User};
use crate::{ADMINISTRATOR, factor};
use model::{Error, Name, Result, What};
use runtime::audit::{LOGIN_FAILED, PASSWORD_CHANGED, note};
use runtime::{Cx, Op, Said, Talk};
use serde_json::json;

fn unknown() -> Error {
    Error::unauthenticated("the code is not accepted")
        .hint("a code works once and not for long; an administrator makes a new one")
}

/// Whose a code is. Beside the async threads: the codes are held while a certificate is signed and written down.
async fn whose(people: &People, code: &str, talk: &Talk) -> Result<String> {
    let (ca, code, from) = (people.ca()?.clone(), code.to_owned(), talk.from);
    off(move || ca.check_code(&code, from)).await
}

/// `code`: what a code is for. Does not use it up.
pub(super) async fn ask(people: &People, cx: &Cx, talk: &Talk) -> Result<Said> {
    let code = text(talk, "code")?;
    let body = match Reset::find(cx, code) {
        Some(reset) => json!({ "for": "reset", "user": reset.user.metadata.name }),
        None => {
            let account = whose(people, code, talk).await?;
            match account == ADMINISTRATOR && !administrators::exist(cx) {
                true => json!({ "for": "first" }),
                false => json!({ "for": "certificate", "account": account }),
            }
        }
    };
    Ok(Said {
        body,
        ..Said::default()
    })
}

/// `first`: the code of a first start makes the first administrator, and is dead then.
pub(super) async fn first(people: &People, cx: &Cx, talk: &Talk) -> Result<Said> {
    let (code, typed, secret) = (
        text(talk, "code")?,
        text(talk, "user")?,
        text(talk, "password")?,
    );
    let _alone = people.first.lock().await;
    if whose(people, code, talk).await? != ADMINISTRATOR {
        return Err(unknown());
    }
    if administrators::exist(cx) {
        return Err(Error::refused("there is an administrator already")
            .hint("he makes other users: dvctl user create NAME; or log in with a certificate: dvctl login URL --certificate"));
    }
    let username = user::names::parse(typed)?;
    let name = Name::suggest(&username).ok_or_else(unknown)?;
    let breached = enter::fit(cx, "password", secret, &username).await?;
    administrators::may_make(cx, &name)?;
    let op = Op::Create {
        kind: user::KIND.name.into(),
        project: None,
        body: json!({ "metadata": { "name": name }, "spec": { "username": username } }),
    };
    match cx.submit(op, "first administrator").await {
        // An earlier try was cut off after this.
        Ok(_)
        | Err(Error {
            what: What::Exists, ..
        }) => {}
        Err(error) => return Err(error),
    }
    let user = cx
        .get::<User>(None, &name)
        .filter(|user| user.spec.username == username && user.spec.active)
        .ok_or_else(|| Error::exists(format!("there is a user `{name}` already")))?;
    enter::set(cx, &user, secret).await?;
    administrators::make(cx, &name).await?;
    let (ca, spent) = (people.ca()?.clone(), code.to_owned());
    off(move || ca.spend_code(&spent)).await?;
    tracing::info!(user = %name, "the first administrator was made");
    entered(cx, talk, user, breached).await
}

/// `reset`: a code of an administrator lets a user set a password, once.
pub(super) async fn reset(people: &People, cx: &Cx, talk: &Talk) -> Result<Said> {
    let (code, secret) = (text(talk, "code")?, text(talk, "password")?);
    let Some(reset) = Reset::find(cx, code) else {
        // Counts the wrong try by its address, like any other code.
        whose(people, code, talk).await?;
        return Err(unknown());
    };
    let user = reset.user.clone();
    let breached = enter::fit(cx, "password", secret, &user.spec.username).await?;
    // Before the code is spent: this may be refused for want of room.
    let hash = enter::hashed(cx, secret).await?;
    if !user::spend_reset(cx, &reset).await? {
        note(
            cx,
            row(&LOGIN_FAILED, &user.metadata.name, talk).failed("CODE_USED"),
        )
        .await?;
        return Err(unknown());
    }
    enter::put(cx, &user, hash).await?;
    // One that came by mail has ended nothing when it was asked for, and until now the old password was good.
    session::end_all(cx, &user.metadata.name, None).await?;
    note(cx, row(&PASSWORD_CHANGED, &user.metadata.name, talk)).await?;
    if factor::has_second(cx, &user) {
        // The code stands for the password only: now he logs in with both.
        return Ok(Said {
            body: json!({ "state": "login", "user": user.metadata.name, "breached": breached }),
            ..Said::default()
        });
    }
    entered(cx, talk, user, breached).await
}

/// In with a password that was just set.
async fn entered(
    cx: &Cx,
    talk: &Talk,
    user: std::sync::Arc<runtime::Obj<User>>,
    breached: &'static str,
) -> Result<Said> {
    let policy = administrators::mfa(cx, &user.metadata.name);
    let begin = Begin {
        from: talk.from,
        agent: talk.agent.clone(),
        factors: vec![factor::Sort::Password.word()],
        pending: policy == Mfa::Required,
        browser: given(talk, "cookie"),
        ..Begin::default()
    };
    let remind = policy == Mfa::Enrolled;
    let mut said = enter::enter(cx, talk, &user, begin, remind).await?;
    said.body["breached"] = breached.into();
    Ok(said)
}
