//! A login with a password that a directory keeps: which one is asked, and what comes of its answer.
//!
//! **Invariant.** A password goes to one place: here or to one directory, never to the one after the other failed. Where a
//! directory has a part in logins, one that fails is answered at a whole second, wherever it failed.

use super::super::delay;
use super::{Talk, enter, row};
use crate::realm::ldap::{self, Proved};
use crate::realm::{self, LOCAL, Realm};
use crate::user::User;
use model::{Result, What};
use runtime::audit::{LOGIN_FAILED, note};
use runtime::{Cx, Obj};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A login that failed is answered at a whole multiple of this.
const TICK: Duration = Duration::from_secs(1);

/// Who looks at a password.
pub(super) enum Asked {
    /// We.
    Here,
    /// A directory.
    There(Arc<Obj<Realm>>),
    /// Nobody: the realm that was named takes no passwords.
    Nobody,
}

/// Who looks at it: the realm that was named, that of the user, or the first.
pub(super) fn asked(cx: &Cx, named: Option<&str>, user: Option<&Obj<User>>) -> Asked {
    let first;
    let of = match (named, user) {
        (Some(named), _) => named,
        (None, Some(user)) => &user.spec.realm,
        (None, None) => {
            first = realm::first(cx);
            &first
        }
    };
    match ldap::asked(cx, of) {
        Some(realm) => Asked::There(realm),
        // Who is nobody here costs as much as somebody whose password is wrong.
        None if of == LOCAL || named.is_none() => Asked::Here,
        None => Asked::Nobody,
    }
}

/// Whose name and password these are, says a directory.
pub(super) async fn prove(
    cx: &Cx,
    talk: &Talk,
    realm: &Obj<Realm>,
    user: Option<&Obj<User>>,
    (account, typed): (&str, &str),
    password: &str,
) -> Result<Arc<Obj<User>>> {
    // Somebody of the same name in another realm has nothing to do with it.
    let user = user.filter(|user| *user.spec.realm == *realm.metadata.name);
    let why = match ldap::prove(cx, realm, user, typed, password).await {
        Ok(Proved::Yes(incoming)) => {
            delay::forgive(cx, account, talk.from).await?;
            ldap::let_in_again(cx, realm, &incoming.subject).await?;
            match realm::known(cx, &realm.metadata.name, &incoming.subject) {
                Some(known) if !known.spec.active => "DISABLED",
                _ => match realm::arrive(cx, realm, &incoming).await {
                    Err(error) if error.what == What::Denied => {
                        note(cx, row(&LOGIN_FAILED, account, talk).failed("NOT_A_USER")).await?;
                        return Err(error);
                    }
                    arrived => return arrived,
                },
            }
        }
        Ok(Proved::No(why)) => why,
        Err(error) => {
            note(cx, row(&LOGIN_FAILED, account, talk).failed("DIRECTORY")).await?;
            return Err(error);
        }
    };
    note(cx, row(&LOGIN_FAILED, account, talk).failed(why)).await?;
    Err(enter::wrong())
}

/// After a password was wrong here: does what a login of a directory does too, so that nobody learns from the answer which
/// of both a name belongs to.
pub(super) async fn pretend(cx: &Cx, named: Option<&str>, typed: &str) -> Result<()> {
    match named {
        Some(_) => Ok(()),
        None => match ldap::asked(cx, &realm::first(cx)) {
            Some(realm) => ldap::pretend(cx, &realm, typed).await,
            None => Ok(()),
        },
    }
}

/// Waits with the answer to a login that failed, where a directory has a part in logins.
pub(super) async fn hold(cx: &Cx, begun: Instant) {
    let realms = cx.list::<Realm>(None);
    if realms.iter().all(|realm| realm.spec.ldap.is_none()) {
        return;
    }
    tokio::time::sleep_until(begun + tick(begun.elapsed())).await;
}

fn tick(passed: Duration) -> Duration {
    TICK * (passed.as_millis() / TICK.as_millis() + 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_answered_at_whole_seconds() {
        for (passed, answered) in [
            (0, 1000),
            (1, 1000),
            (999, 1000),
            (1000, 2000),
            (2500, 3000),
        ] {
            assert_eq!(tick(Duration::from_millis(passed)).as_millis(), answered);
        }
    }
}
