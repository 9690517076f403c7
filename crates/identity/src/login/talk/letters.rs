//! What goes to people by mail: a link for a new password, and codes of six digits that stand in for a second factor.
//!
//! Whoever asks for a link is told the same, at once, whether or not there is such a user; it is looked for and sent aside.
//! A code is good for 15 minutes and three tries, and only for who has no better factor.

use super::super::people::People;
use super::{find, me, row, text};
use crate::factor;
use crate::factor::totp::same;
use crate::mail;
use crate::user::{self, LOCAL, User};
use model::{Error, Result, Timestamp, What};
use runtime::audit::{FACTOR_FAILED, RESET_ASKED, note};
use runtime::tally::{self, Becomes};
use runtime::{Cx, Obj, Said, Talk};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const CODE: &str = "login-mail-code";
const LETTERS: &str = "login-letters";
/// How long a code is good.
const LIFE: Duration = Duration::from_secs(15 * 60);
/// How often a code may be typed wrong.
const TRIES: u32 = 3;
/// So many letters go to one person in an hour.
const MOST: u32 = 5;
const HOUR: Duration = Duration::from_secs(3600);

/// A code that is open.
#[derive(Clone, Serialize, Deserialize)]
struct Open {
    /// Six digits, sealed: their hash would be guessed.
    code: String,
    made: Timestamp,
    tries: u32,
}

/// How many letters went to somebody.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Sent {
    count: u32,
    since: Timestamp,
}

/// Forgets what is of no use any more.
pub(in crate::login) async fn sweep(cx: &Cx) -> Result<()> {
    let now = cx.clock().now();
    tally::sweep::<Open>(cx, CODE, |open| now.since(open.made) < LIFE).await?;
    tally::sweep::<Sent>(cx, LETTERS, |sent| now.since(sent.since) < HOUR)
        .await
        .map(drop)
}

/// Whether one more letter may go to somebody.
async fn may_send(cx: &Cx, user: &Obj<User>) -> Result<bool> {
    let now = cx.clock().now();
    let uid = user.metadata.uid.to_string();
    tally::edit::<Sent, bool>(cx, LETTERS, &uid, |old| {
        let old = old.filter(|old| old.since <= now && now.since(old.since) < HOUR);
        match old {
            Some(old) if old.count >= MOST => (Becomes::Same, false),
            Some(old) => (
                Becomes::New(Sent {
                    count: old.count + 1,
                    ..old
                }),
                true,
            ),
            None => (
                Becomes::New(Sent {
                    count: 1,
                    since: now,
                }),
                true,
            ),
        }
    })
    .await
}

/// `forgot`: a link for a new password, to whom the name or address belongs.
pub(super) fn forgot(people: &People, cx: &Cx, talk: &Talk) -> Result<Said> {
    let typed: String = text(talk, "user")?.chars().take(120).collect();
    if !mail::works(cx) {
        return Err(Error::refused("no mail is sent from here")
            .hint("an administrator gives you a code for a new password: dvctl user reset NAME"));
    }
    people.may_ask(cx, talk.from)?;
    let (from, id) = (talk.from, talk.request_id.clone());
    let away = cx.clone();
    mail::aside(cx, async move {
        let cx = away;
        let user = find(&cx, &typed).or_else(|| by_address(&cx, &typed));
        let Some(user) = user.filter(|user| user.spec.active && user.spec.realm == LOCAL) else {
            return Ok(());
        };
        let Some(to) = mail::reaches(&cx, &user) else {
            return Ok(());
        };
        if !may_send(&cx, &user).await? {
            return Ok(());
        }
        let name = user.metadata.name.as_str();
        let asked = runtime::audit::Note::new(&RESET_ASKED, name)
            .from(from)
            .request(&id, &runtime::Trace::default());
        note(&cx, asked.with("by", "mail")).await?;
        let code = user::make_reset(&cx, &user).await?;
        let place = mail::panel(&cx);
        let link = place.as_ref().map_or(String::new(), |place| {
            format!("Open {place}/#reset={code} and choose a new one.\n\n")
        });
        let url = place.unwrap_or_else(|| "URL".into());
        let letter = format!(
            "Somebody, hopefully you, has asked for a new password for `{}`.\n\n{link}Or, in a terminal:\n\n  dvctl login {url} --code {code}\n\n\
             This works once and for an hour, and ends all logins of yours. If it was not you, do nothing.\n",
            user.spec.username
        );
        mail::send(&cx, to, "A new password", letter).await
    });
    Ok(Said {
        body: json!({ "state": "asked" }),
        ..Said::default()
    })
}

/// The only user with an address; two with the same are nobody.
fn by_address(cx: &Cx, typed: &str) -> Option<Arc<Obj<User>>> {
    if !typed.contains('@') {
        return None;
    }
    let is = |user: &Arc<Obj<User>>| {
        user.spec
            .email
            .as_deref()
            .is_some_and(|email| email.eq_ignore_ascii_case(typed))
    };
    let mut all = cx.list::<User>(None).into_iter().filter(is);
    match (all.next(), all.next()) {
        (Some(user), None) => Some(user),
        _ => None,
    }
}

/// Whether a code by mail may stand in for a second factor of a user: he has none, and mail reaches him.
pub(super) fn may_stand_in(cx: &Cx, user: &Obj<User>) -> bool {
    !factor::has_second(cx, user) && mail::reaches(cx, user).is_some()
}

/// Sends a code to somebody who has proved who he is by a password.
pub(super) async fn send(cx: &Cx, user: &Obj<User>) -> Result<()> {
    let to = mail::reaches(cx, user).filter(|_| may_stand_in(cx, user));
    let to = to.ok_or_else(|| {
        Error::refused(
            "a code by mail is for who has no second factor and an address that mail reaches",
        )
        .hint("prove your second factor: dvctl mfa")
    })?;
    if !may_send(cx, user).await? {
        return Err(Error::new(
            What::Quota(Some(HOUR)),
            "too many letters in an hour",
        ));
    }
    let code = digits(cx);
    let uid = user.metadata.uid.to_string();
    let sealed = tally::sealed(cx, CODE, &uid, &code)?;
    let made = cx.clock().now();
    let open = || Open {
        code: sealed.clone(),
        made,
        tries: 0,
    };
    tally::edit::<Open, ()>(cx, CODE, &uid, |_| (Becomes::New(open()), ())).await?;
    let letter = format!(
        "{code} is your code for DebVisor.\n\nIt is good for 15 minutes and once. If you are not logging in, somebody knows your password: change it.\n"
    );
    mail::send(cx, to, "Your code", letter).await
}

/// Six random digits, each as likely as any other.
fn digits(cx: &Cx) -> String {
    loop {
        let mut random = [0; 4];
        cx.clock().fill(&mut random);
        let number = u32::from_be_bytes(random);
        // The largest multiple of a million that fits.
        if number < 4_294_000_000 {
            return format!("{:06}", number % 1_000_000);
        }
    }
}

/// `mfa/mail`: a code by mail, for who is logged in.
pub(super) async fn ask(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, _) = me(cx, talk)?;
    send(cx, &user).await?;
    Ok(Said {
        body: json!({ "state": "mailed" }),
        ..Said::default()
    })
}

/// Whether a code is the one that was sent. Counted before it is looked at, and used up when it is right.
pub(super) async fn prove(cx: &Cx, talk: &Talk, user: &Obj<User>, typed: &str) -> Result<bool> {
    let uid = user.metadata.uid.to_string();
    let now = cx.clock().now();
    let typed: String = typed
        .chars()
        .filter(|c| !c.is_whitespace())
        .take(7)
        .collect();
    let right = tally::edit::<Open, bool>(cx, CODE, &uid, |open| {
        let open = open
            .filter(|open| open.made <= now && now.since(open.made) < LIFE && open.tries < TRIES);
        let Some(open) = open else {
            return (Becomes::Forgotten, false);
        };
        let code = tally::opened(cx, CODE, &uid, &open.code);
        match code.is_some_and(|code| same(code.as_bytes(), typed.as_bytes())) {
            true => (Becomes::Forgotten, true),
            false => (
                Becomes::New(Open {
                    tries: open.tries + 1,
                    ..open
                }),
                false,
            ),
        }
    })
    .await?;
    let right = right && may_stand_in(cx, user);
    if !right {
        let name = user.metadata.name.as_str();
        note(
            cx,
            row(&FACTOR_FAILED, name, talk).failed("WRONG_MAIL_CODE"),
        )
        .await?;
    }
    Ok(right)
}

/// The word for a code by mail among the factors of a session.
pub(super) const WORD: &str = "mail";
