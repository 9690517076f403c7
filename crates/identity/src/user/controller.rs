//! Keeps what a user's status says true, and ends the sessions of one who may not log in any more. Whoever is asked
//! for his sessions has refused them before that: this only clears up.

use super::{User, UserStatus};
use crate::factor::Factor;
use crate::session::{self, Session};
use futures::future::BoxFuture;
use model::{Kind, Resource, Result};
use runtime::{Controller, Cx, Key, Next, Watch, object_ref};

/// The only writer of a user's status besides his login.
pub(super) struct UserController;

impl Controller for UserController {
    fn name(&self) -> &'static str {
        "users"
    }

    fn owns(&self) -> &'static Kind {
        User::KIND
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::Owners("factor")]
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(user) = cx.get_key::<User>(key) else {
                return Ok(Next::Settled);
            };
            let mut factors = Vec::new();
            for owned in cx.cache().owned(key) {
                let Some(target) = object_ref(&owned) else {
                    continue;
                };
                if target.kind == Factor::KIND.name
                    && let Some(factor) = cx.get_key::<Factor>(&owned)
                {
                    factors.push(factor.spec.sort.word().to_owned());
                }
                if target.kind == Session::KIND.name && !user.spec.active {
                    session::end(cx, &target.name).await?;
                }
            }
            factors.sort();
            factors.dedup();
            cx.set_status::<User>(key, |status: &mut UserStatus| {
                status.factors.clone_from(&factors);
            })
            .await?;
            Ok(Next::Settled)
        })
    }
}
