//! Takes away sessions that have ended by their age. They let nobody in before that: this only clears up.

use super::{Session, end, is_open};
use futures::future::BoxFuture;
use model::{Kind, Resource, Result};
use runtime::audit::{Note, SESSION_EXPIRED, note};
use runtime::{Controller, Cx, Key, Next};
use std::time::Duration;

/// The only writer of a session's status besides its use.
pub(super) struct SessionController;

impl Controller for SessionController {
    fn name(&self) -> &'static str {
        "sessions"
    }

    fn owns(&self) -> &'static Kind {
        Session::KIND
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(session) = cx.get_key::<Session>(key) else {
                return Ok(Next::Settled);
            };
            if is_open(&session, cx.clock().now()) {
                return Ok(Next::Again(Duration::from_secs(300)));
            }
            end(cx, &session.metadata.name).await?;
            note(cx, Note::new(&SESSION_EXPIRED, session.spec.user.clone())).await?;
            Ok(Next::Settled)
        })
    }
}
