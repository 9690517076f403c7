//! A door that nobody watches: what the checks are compared with. It exists in this measurement only.

use futures::future::BoxFuture;
use model::{Error, Labels, ObjectRef, Result};
use runtime::{Access, Actor, Cx, Identities, Proof, Said, Talk, View, Whence, Wish};
use std::net::IpAddr;
use tokio::sync::watch;

/// Lets everybody do everything, and takes everybody for the same.
pub struct Open {
    changes: watch::Sender<u64>,
}

impl Open {
    pub fn new() -> Open {
        Open {
            changes: watch::channel(0).0,
        }
    }
}

impl Access for Open {
    fn may(&self, _: &Cx, _: &Actor, _: &Wish<'_>) -> bool {
        true
    }
    fn view(&self, _: &Cx, _: &Actor, _: &Wish<'_>) -> View {
        View::All
    }
    fn enters(&self, _: &Cx, _: &Actor, _: Option<IpAddr>, _: &str) -> bool {
        true
    }
    fn lets_go(&self, _: &Cx, _: &Actor, _: &ObjectRef) -> Result<()> {
        Ok(())
    }
    fn relabels(
        &self,
        _: &Cx,
        _: &Actor,
        _: Option<IpAddr>,
        _: &ObjectRef,
        _: (&Labels, &Labels),
    ) -> Result<()> {
        Ok(())
    }
    fn names(&self, _: &str, _: &str) -> bool {
        true
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

impl Identities for Open {
    fn who(&self, _: &Cx, _: Proof<'_>, _: Whence<'_>) -> Result<Actor> {
        Ok(Actor::user("u0", None, None))
    }
    fn stands(&self, _: &Cx, _: &Actor, _: Whence<'_>) -> bool {
        true
    }
    fn talk<'a>(&'a self, _: &'a Cx, _: Talk) -> BoxFuture<'a, Result<Said>> {
        Box::pin(async { Err(Error::not_found("nobody talks here")) })
    }
}
