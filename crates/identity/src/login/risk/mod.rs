//! How risky a login is: what a user's logins were like before, what this one is like, and what is done about it.
//!
//! What is remembered of a user lies sealed in the store, for a year after his last login. Without a database of places
//! these are not looked at, nor when it cannot be read: nobody is locked out by that, but it is said with each result.

#[cfg(test)]
mod made;
mod places;
mod rules;

pub use rules::{Level, Risk};

use crate::session;
use crate::user::User;
use model::{Error, ObjectRef, Resource, Result, Timestamp};
use rules::{History, Login};
use runtime::audit::{Note, note};
use runtime::event::Severity;
use runtime::setting::GEOIP_FILE;
use runtime::tally::{self, Becomes};
use runtime::{Cx, Obj, Talk};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::time::Duration;

const SPACE: &str = "login-history";
/// What is said when there is no database of places.
pub const SKIPPED: &str = "skipped: no data";
/// What is said when there is one that cannot be read.
pub const FAILED: &str = "skipped: the database cannot be read";
/// After so long without a login nothing of a user is remembered.
const REMEMBERED: Duration = Duration::from_secs(365 * 24 * 3600);

/// What is kept of a user.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// A [`History`], sealed.
    history: String,
    last: Timestamp,
}

/// A login that was looked at.
pub struct Seen {
    /// How risky it is.
    pub risk: Risk,
    /// Whether places were looked at.
    pub places: &'static str,
    login: Login,
}

impl Seen {
    /// As a session keeps it.
    pub fn kept(&self) -> session::Risk {
        session::Risk {
            score: self.risk.score,
            signs: self.risk.signs.iter().map(|sign| (*sign).into()).collect(),
            places: self.places.into(),
        }
    }

    /// With what is to be known of it in the trail.
    pub fn with(&self, row: Note) -> Note {
        row.with("risk", self.risk.score)
            .with("signs", self.risk.signs.clone())
            .with("places", self.places)
    }
}

/// Looks at a login of somebody who has shown all that he was asked for, and counts it.
///
/// # Errors
/// When the store does not answer.
pub async fn look(cx: &Cx, talk: &Talk, user: &Obj<User>) -> Result<Seen> {
    let path = GEOIP_FILE.text(cx);
    let (place, places) = match (path.is_empty(), talk.from) {
        (true, _) => (None, SKIPPED),
        (false, None) => (None, "local"),
        (false, Some(from)) => match places::find(path, from).await {
            Ok(Some(place)) => (Some(place), "known"),
            Ok(None) => (None, "unknown"),
            Err(error) => {
                tracing::error!(?error, "the place of a login cannot be told");
                (None, FAILED)
            }
        },
    };
    let uid = user.metadata.uid.to_string();
    let program = talk.agent.as_deref().unwrap_or_default();
    let login = Login {
        now: cx.clock().now(),
        // Only whether it is the same again is ever asked.
        program: hex::encode(&Sha256::digest(format!("{uid} {program}"))[..8]),
        place,
    };
    let risk = edit(cx, &uid, login.now, |history| {
        let risk = history.risk(&login);
        history.tried(login.now);
        risk
    })
    .await?;
    Ok(Seen {
        risk,
        places,
        login,
    })
}

/// Remembers a login that has let somebody in.
///
/// # Errors
/// When the store does not answer.
pub async fn entered(cx: &Cx, user: &Obj<User>, seen: &Seen) -> Result<()> {
    let uid = user.metadata.uid.to_string();
    edit(cx, &uid, seen.login.now, |history| {
        history.entered(&seen.login);
    })
    .await
}

async fn edit<T>(
    cx: &Cx,
    uid: &str,
    now: Timestamp,
    with: impl Fn(&mut History) -> T,
) -> Result<T> {
    tally::edit::<Kept, _>(cx, SPACE, uid, |old| {
        let plain = old.and_then(|old| tally::opened(cx, SPACE, uid, &old.history));
        let mut history: History = plain
            .and_then(|plain| serde_json::from_str(&plain).ok())
            .unwrap_or_default();
        let answer = with(&mut history);
        let kept = serde_json::to_string(&history)
            .map_err(|e| Error::internal("a history of logins as JSON").because(e))
            .and_then(|plain| tally::sealed(cx, SPACE, uid, &plain));
        match kept {
            Ok(history) => (Becomes::New(Kept { history, last: now }), Ok(answer)),
            Err(error) => (Becomes::Same, Err(error)),
        }
    })
    .await?
}

/// Forgets users who have not come for long.
pub(super) async fn sweep(cx: &Cx) -> Result<()> {
    let now = cx.clock().now();
    tally::sweep::<Kept>(cx, SPACE, |kept| now.since(kept.last) < REMEMBERED)
        .await
        .map(drop)
}

/// Puts a risky login on record, and tells those who follow events.
///
/// # Errors
/// When the audit trail cannot be written.
pub async fn tell(cx: &Cx, row: Note, user: &Obj<User>, seen: &Seen, done: &str) -> Result<()> {
    let level = seen.risk.level();
    if level < Level::Medium {
        return Ok(());
    }
    note(cx, seen.with(row).with("done", done)).await?;
    let about = ObjectRef {
        kind: User::KIND.name.into(),
        project: None,
        name: user.metadata.name.to_string(),
    };
    let severity = match level {
        Level::Critical => Severity::Error,
        _ => Severity::Warning,
    };
    let message = format!(
        "a login of `{}` had risk {} of 100 ({}): {done}",
        user.metadata.name,
        seen.risk.score,
        seen.risk.signs.join(", ")
    );
    cx.event(&about, "user.login-risky", &message, severity)
        .await;
    Ok(())
}
