//! Second factors: proving one, and enrolling an app or codes on paper.

use super::super::people::People;
use super::super::{delay, people};
use super::{Somebody, keys, letters, me, optional, row, text};
use crate::factor::{self, Sort, codes, totp};
use crate::session::tokens::{self, Use};
use crate::session::{self, Session};
use crate::user::User;
use model::{Error, Result, Timestamp, Violation};
use runtime::audit::{FACTOR_ENROLLED, FACTOR_FAILED, LOGIN_LOCKED, note};
use runtime::tally::{self, Becomes};
use runtime::{Cx, Obj, Said, Talk};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// How fresh a second factor must be for changing factors.
const FRESH: Duration = Duration::from_secs(300);
/// Keys of apps that wait for their first code.
const BEGUN: &str = "totp-begun";
/// How long they do.
const ENROLS: Duration = Duration::from_secs(600);

/// What somebody shows for a second factor.
#[derive(Clone, Copy)]
pub(super) enum Shown<'a> {
    /// A code of an app, or one on paper.
    Code(&'a str),
    /// What a browser answers for a security key.
    Key(&'a Value),
    /// A code that came by mail.
    Mail(&'a str),
}

/// What a word shows for a second factor.
pub(super) fn shown(talk: &Talk) -> Option<Shown<'_>> {
    match talk.body.get("credential") {
        Some(answer @ Value::Object(_)) => Some(Shown::Key(answer)),
        _ => optional(talk, "code")
            .map(Shown::Code)
            .or_else(|| optional(talk, "mail_code").map(Shown::Mail)),
    }
}

/// The sorts of second factors that a user has.
pub(super) fn of(cx: &Cx, user: &Obj<User>) -> Vec<&'static str> {
    let mut sorts: Vec<&'static str> = factor::of(cx, user)
        .iter()
        .filter(|factor| factor.spec.sort.is_second())
        .map(|factor| factor.spec.sort.word())
        .collect();
    sorts.sort_unstable();
    sorts.dedup();
    sorts
}

/// Which factor of a user is proved. A code or a challenge is used up by that.
pub(super) async fn prove(
    cx: &Cx,
    talk: &Talk,
    user: &Obj<User>,
    shown: Shown<'_>,
) -> Result<&'static str> {
    let name = user.metadata.name.as_str();
    if let Err(error) = delay::second(cx, name, user.spec.unlocked).await {
        note(cx, row(&LOGIN_LOCKED, name, talk).failed("LOCKED")).await?;
        return Err(error);
    }
    let code = match shown {
        Shown::Code(code) => code,
        Shown::Mail(code) => {
            if letters::prove(cx, talk, user, code).await? {
                delay::second_right(cx, name).await?;
                return Ok(letters::WORD);
            }
            return Err(Error::unauthenticated("the code is not accepted")
                .hint("a code by mail is good for 15 minutes and three tries, and not for who has a second factor"));
        }
        Shown::Key(answer) => {
            if keys::prove(cx, talk, user, answer).await? {
                delay::second_right(cx, name).await?;
                return Ok(Sort::Webauthn.word());
            }
            return Err(Error::unauthenticated("the security key is not accepted")
                .hint("begin again: each challenge is good once and for 5 minutes"));
        }
    };
    // Of apps and papers the newest: one that was to go when its successor came, and did not, counts no more.
    for sort in [Sort::Totp, Sort::Recovery] {
        let Some(factor) = factor::newest(cx, user, sort) else {
            continue;
        };
        let Some(material) = factor.spec.material.as_deref() else {
            continue;
        };
        let ours = match factor.spec.sort {
            Sort::Totp => {
                let Ok(key) = hex::decode(material) else {
                    continue;
                };
                let now = cx.clock().now().millis();
                match totp::check(&key, code, now, None) {
                    Some(step) => {
                        factor::claim(cx, &factor, |status| {
                            let fresh = status.step.is_none_or(|last| step > last);
                            status.step = status.step.max(Some(step));
                            fresh
                        })
                        .await?
                    }
                    None => false,
                }
            }
            Sort::Recovery => match codes::find(material, code) {
                Some(at) => {
                    factor::claim(cx, &factor, |status| {
                        let fresh = !status.used.contains(&at);
                        if fresh {
                            status.used.push(at);
                        }
                        fresh
                    })
                    .await?
                }
                None => false,
            },
            Sort::Password | Sort::Webauthn | Sort::Reset => false,
        };
        if ours {
            delay::second_right(cx, name).await?;
            return Ok(factor.spec.sort.word());
        }
    }
    note(cx, row(&FACTOR_FAILED, name, talk).failed("WRONG_CODE")).await?;
    Err(
        Error::unauthenticated("the code of the second factor is not accepted")
            .hint("each code works once; is the clock of the device right?"),
    )
}

/// `mfa`: proves a second factor again, for what asks for a fresh one.
pub(super) async fn step_up(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, session) = me(cx, talk)?;
    let factor = prove(
        cx,
        talk,
        &user,
        shown(talk).map_or_else(|| text(talk, "code").map(Shown::Code), Ok)?,
    )
    .await?;
    session::proved(cx, &session.metadata.name, factor).await?;
    Ok(Said {
        body: json!({ "state": "in", "factor": factor }),
        ..Said::default()
    })
}

/// Who enrols: somebody who is logged in, or whose login waits for it and who says its token.
pub(super) fn enrolling(cx: &Cx, talk: &Talk) -> Result<Somebody> {
    let Some(token) = optional(talk, "token") else {
        return me(cx, talk);
    };
    let now = cx.clock().now();
    let hash = tokens::hash(token);
    let session = tokens::session(Use::Access, token)
        .and_then(|name| cx.get::<Session>(None, &name))
        .filter(|session| session::is_open(session, now))
        .filter(|session| {
            let material = session::material(session);
            let same = |known: &str| totp::same(known.as_bytes(), hash.as_bytes());
            material
                .access
                .iter()
                .any(|(known, end)| same(known) && now < *end)
        })
        .ok_or_else(people::refused)?;
    let user = cx
        .get::<User>(None, &session.spec.user)
        .filter(|user| user.spec.active)
        .ok_or_else(people::refused)?;
    Ok((user, session))
}

/// Who has a second factor shows it before he changes his factors.
pub(super) fn fresh(cx: &Cx, user: &Obj<User>, session: &Obj<Session>) -> Result<()> {
    let has = factor::has_second(cx, user);
    let now = cx.clock().now();
    let proved = session
        .spec
        .mfa
        .is_some_and(|at| now.since(at) < FRESH && at <= now);
    match !has || proved {
        true => Ok(()),
        false => Err(
            Error::denied("this needs a second factor proved within the last 5 minutes")
                .hint("prove it again: dvctl mfa"),
        ),
    }
}

/// A key that was given to an app and waits for its first code. It comes from here only: a page that could choose it
/// would have its own app enrolled.
#[derive(Debug, Serialize, Deserialize)]
struct Begun {
    user: String,
    /// Sealed.
    key: String,
    made: Timestamp,
}

impl Begun {
    fn is_open(&self, now: Timestamp) -> bool {
        self.made <= now && now.since(self.made) < ENROLS
    }
}

/// Forgets keys of apps that have shown no code.
pub(in crate::login) async fn sweep(cx: &Cx) -> Result<()> {
    let now = cx.clock().now();
    tally::sweep::<Begun>(cx, BEGUN, |begun| begun.is_open(now))
        .await
        .map(drop)
}

/// `totp/begin`: a key for the app. One for each login: the last one counts.
pub(super) async fn begin(people: &People, cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, session) = enrolling(cx, talk)?;
    fresh(cx, &user, &session)?;
    let mut key = [0; totp::KEY];
    cx.clock().fill(&mut key);
    let at = session.metadata.name.as_str();
    let begun = Begun {
        user: user.metadata.name.to_string(),
        key: tally::sealed(cx, BEGUN, at, &hex::encode(key))?,
        made: cx.clock().now(),
    };
    let mut begun = Some(begun);
    tally::edit::<Begun, ()>(cx, BEGUN, at, |_| match begun.take() {
        Some(begun) => (Becomes::New(begun), ()),
        None => (Becomes::Same, ()),
    })
    .await?;
    let issuer = format!("DebVisor {}", people.ca()?.cluster());
    Ok(Said {
        body: json!({ "secret": hex::encode(key), "base32": totp::base32(&key), "uri": totp::uri(&issuer, &user.spec.username, &key) }),
        ..Said::default()
    })
}

/// `totp/confirm`: the first code shows that the app has the key. Answers codes on paper when there were none.
pub(super) async fn confirm(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, session) = enrolling(cx, talk)?;
    fresh(cx, &user, &session)?;
    let code = text(talk, "code")?;
    let now = cx.clock().now();
    let name = user.metadata.name.as_str();
    let at = session.metadata.name.as_str();
    delay::second(cx, name, user.spec.unlocked).await?;
    // Taken out by the code that fits: of two that show it one enrols.
    let shown = tally::edit::<Begun, Option<Option<(String, u64)>>>(cx, BEGUN, at, |begun| {
        let begun = begun.filter(|begun| begun.user == name && begun.is_open(now));
        let key = begun.and_then(|begun| tally::opened(cx, BEGUN, at, &begun.key));
        let Some(key) = key else {
            return (Becomes::Same, None);
        };
        let bytes = hex::decode(&key).unwrap_or_default();
        match totp::check(&bytes, code, now.millis(), None) {
            Some(step) => (Becomes::Forgotten, Some(Some((key, step)))),
            None => (Becomes::Same, Some(None)),
        }
    })
    .await?;
    let (key, step) = match shown {
        Some(Some(shown)) => shown,
        Some(None) => {
            return Err(Error::invalid(vec![
                Violation::new("code", "is not the code that the app should show now")
                    .hint("is the clock of the device right?"),
            ]));
        }
        None => {
            return Err(
                Error::refused("no app waits for its first code in this login")
                    .hint("begin again: a key that was given to an app waits 10 minutes for its first code"),
            );
        }
    };
    delay::second_right(cx, name).await?;
    note(
        cx,
        row(&FACTOR_ENROLLED, name, talk).with("sort", Sort::Totp.word()),
    )
    .await?;
    let fresh = factor::fresh_name(cx, Sort::Totp);
    let factor = factor::replace(cx, &user, &fresh, Sort::Totp, key, None).await?;
    if let Some(factor) = cx.get::<factor::Factor>(None, &factor) {
        // This first code is used up as well.
        factor::claim(cx, &factor, |status| {
            status.step = Some(step);
            true
        })
        .await?;
    }
    enrolled(cx, &user, &session, Sort::Totp).await
}

/// A second factor is enrolled, and its session counts as fresh. Answers codes on paper when there were none.
pub(super) async fn enrolled(
    cx: &Cx,
    user: &Obj<User>,
    session: &Obj<Session>,
    sort: Sort,
) -> Result<Said> {
    let recovery = match factor::of_sort(cx, user, Sort::Recovery).is_empty() {
        true => Some(paper(cx, user).await?),
        false => None,
    };
    session::proved(cx, &session.metadata.name, sort.word()).await?;
    Ok(Said {
        body: json!({ "state": "in", "recovery": recovery }),
        ..Said::default()
    })
}

/// `recovery`: new codes on paper; the old ones are good no more.
pub(super) async fn recovery(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, session) = me(cx, talk)?;
    if !factor::has_second(cx, &user) {
        return Err(Error::refused(
            "codes on paper stand in for an app or a security key, and you have none",
        )
        .hint("enrol one first: dvctl totp"));
    }
    fresh(cx, &user, &session)?;
    let name = user.metadata.name.as_str();
    note(
        cx,
        row(&FACTOR_ENROLLED, name, talk).with("sort", Sort::Recovery.word()),
    )
    .await?;
    Ok(Said {
        body: json!({ "recovery": paper(cx, &user).await? }),
        ..Said::default()
    })
}

async fn paper(cx: &Cx, user: &Obj<User>) -> Result<Vec<String>> {
    let mut random = [[0; codes::LETTERS]; codes::COUNT];
    for code in &mut random {
        cx.clock().fill(code);
    }
    let mut salt = [0; 16];
    cx.clock().fill(&mut salt);
    let (shown, stored) = codes::make(&random, salt);
    let name = factor::fresh_name(cx, Sort::Recovery);
    factor::replace(cx, user, &name, Sort::Recovery, stored, None).await?;
    Ok(shown)
}
