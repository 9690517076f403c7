//! What all requests share, and what one request carries.

use crate::health::Check;
use crate::metrics::Metrics;
use crate::net::Peer;
use crate::streams::Tickets;
use crate::{Limits, graphql};
use model::{Error, ObjectRef, Result, Uid};
use runtime::{Actor, Authority, Cx, Desk, Gate, Op, Request, Surface};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio_util::sync::CancellationToken;

/// What all requests share.
pub(crate) struct App {
    pub cx: Cx,
    pub gate: Gate,
    pub desk: Desk,
    pub authority: Arc<dyn Authority>,
    pub limits: Arc<Limits>,
    /// Besides root, the uid that is the administrator on the local socket.
    pub owner: u32,
    pub checks: Vec<Check>,
    pub metrics: Arc<Metrics>,
    pub tickets: Tickets,
    pub graphql: graphql::Schema,
    pub openapi: bytes::Bytes,
    pub registry: bytes::Bytes,
    /// Whether `/health/ready` may say yes.
    pub ready: AtomicBool,
    /// Requests in flight end, nothing new is taken; long streams are told to reconnect.
    pub closing: CancellationToken,
}

/// One request on its way.
#[derive(Clone)]
pub(crate) struct Call {
    pub app: Arc<App>,
    /// Follows it through every log.
    pub id: String,
    pub peer: Peer,
    /// Who asks, or why he is not let in.
    actor: Result<Actor>,
    pub surface: Surface,
}

impl Call {
    pub(crate) fn new(app: Arc<App>, id: String, peer: Peer, surface: Surface) -> Call {
        let actor = peer.actor(&*app.authority, app.owner);
        Call {
            app,
            id,
            peer,
            actor,
            surface,
        }
    }

    /// The same caller through another surface.
    pub(crate) fn through(&self, surface: Surface) -> Call {
        Call {
            surface,
            ..self.clone()
        }
    }

    /// Who asks; an error when a certificate is not accepted.
    pub(crate) fn actor(&self) -> Result<Actor> {
        self.actor.clone()
    }

    /// The name for the log.
    pub(crate) fn actor_name(&self) -> &str {
        match &self.actor {
            Ok(actor) => &actor.name,
            Err(_) => "refused",
        }
    }

    /// For what is no operation on objects (the registry, metrics): somebody known, with this privilege.
    pub(crate) fn need(&self, kind: &str, verb: &str) -> Result<Actor> {
        let actor = self.actor()?;
        if actor.kind == runtime::ActorKind::Anonymous {
            return Err(Error::unauthenticated(
                "this needs a login: `dvctl login URL --code CODE`, or the instance's local socket",
            ));
        }
        if !actor.may(kind, verb) {
            return Err(Error::denied(format!(
                "`{}` needs the privilege `{kind}.{verb}`",
                actor.name
            )));
        }
        Ok(actor)
    }

    /// The identity of an object, when it is there.
    pub(crate) fn uid_of(&self, target: &ObjectRef) -> Option<Uid> {
        let key = runtime::object_key(&target.kind, target.project.as_deref(), &target.name);
        self.app
            .cx
            .cache()
            .row(&target.kind, &key)
            .map(|row| row.uid)
    }

    /// A request for the gate.
    pub(crate) fn request(&self, op: Op) -> Result<Request> {
        let mut request = Request::new(self.id.clone(), self.actor()?, self.surface, op);
        request.from = self.peer.ip();
        Ok(request)
    }
}
