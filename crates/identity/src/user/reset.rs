//! A code with which a user sets a new password: given out by an administrator or sent by mail, good once and for an hour.
//!
//! It goes to who asked for it and nowhere else. Stored is SHA-256 of it, under a name made from the same: so it is
//! found without looking at others.

use super::User;
use crate::factor::{self, Factor, Sort, codes};
use crate::{access, session};
use futures::future::BoxFuture;
use model::{Error, Result};
use runtime::audit::{Note, RESET_ASKED, note};
use runtime::{Cx, Obj, StreamIo, StreamRequest};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// How long it is good.
const LIFE: Duration = Duration::from_secs(3600);
/// 28 letters of 5 bits each, as the code of a first start.
const LETTERS: usize = 28;

/// A code that is open, and whose.
pub(crate) struct Reset {
    /// Whose.
    pub user: Arc<Obj<User>>,
    factor: Arc<Obj<Factor>>,
}

impl Reset {
    /// The open code that somebody typed.
    pub(crate) fn find(cx: &Cx, typed: &str) -> Option<Reset> {
        let hash = hash(&codes::plain(typed, LETTERS)?);
        let factor = cx.get::<Factor>(None, &name(&hash))?;
        let same = factor.spec.material.as_deref() == Some(hash.as_str());
        let good = factor.spec.sort == Sort::Reset
            && factor
                .spec
                .expires
                .is_some_and(|end| cx.clock().now() < end);
        let user = cx.get::<User>(None, &factor.spec.user)?;
        (same && good && user.spec.active).then_some(Reset { user, factor })
    }
}

fn hash(letters: &str) -> String {
    hex::encode(Sha256::digest(letters.as_bytes()))
}

fn name(hash: &str) -> String {
    format!("reset-{}", &hash[..32])
}

/// Uses a code up. Says whether it was us: of two at once only one gets through.
pub(crate) async fn spend(cx: &Cx, reset: &Reset) -> Result<bool> {
    factor::remove(cx, &reset.factor).await
}

/// A new code for a user; those before are good no more.
pub(crate) async fn make(cx: &Cx, user: &Obj<User>) -> Result<String> {
    let mut random = [0; LETTERS];
    cx.clock().fill(&mut random);
    let letters = codes::letters(&random);
    let (hash, until) = (hash(&letters), cx.clock().now().plus(LIFE));
    let name = name(&hash);
    factor::replace(cx, user, &name, Sort::Reset, hash, Some(until)).await?;
    let parts: Vec<&str> = (0..LETTERS)
        .step_by(4)
        .map(|at| &letters[at..at + 4])
        .collect();
    Ok(parts.join("-"))
}

/// The stream `reset`.
pub(super) fn open(cx: Cx, request: StreamRequest, io: StreamIo) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let target = &request.target;
        let user = cx
            .get::<User>(None, &target.name)
            .ok_or_else(|| Error::not_found(format!("there is no {target}")))?;
        if user.spec.realm != super::LOCAL {
            return Err(Error::refused(format!(
                "{target} has no password here: realm `{}` keeps it",
                user.spec.realm
            )));
        }
        access::manages(&cx, &request.actor, &target.name)?;
        let asked = Note::by(&RESET_ASKED, &request.actor).about(target);
        note(&cx, asked).await?;
        let code = make(&cx, &user).await?;
        session::end_all(&cx, &target.name, None).await?;
        io.data(format!("{code}\n")).await
    })
}
