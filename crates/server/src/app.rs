//! What all requests share, and what one request carries.

use crate::health::Check;
use crate::metrics::Metrics;
use crate::net::Peer;
use crate::streams::Tickets;
use crate::{Limits, graphql};
use model::{Error, ObjectRef, Result, Uid};
use runtime::{Actor, Admitted, Answer, Authority, Cx, Desk, Gate, Op, Request, Surface, Trace};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
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
    /// Which surface offers which action.
    pub surfaces: bytes::Bytes,
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
    /// Where it stands among others.
    pub trace: Trace,
    pub peer: Peer,
    /// Who asks, or why he is not let in.
    actor: Result<Actor>,
    pub surface: Surface,
}

impl Call {
    pub(crate) fn new(
        app: Arc<App>,
        (id, trace): (String, Trace),
        peer: Peer,
        surface: Surface,
    ) -> Call {
        let actor = peer.actor(&*app.authority, app.owner);
        Call {
            app,
            id,
            trace,
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
        debug_assert!(
            self.app.cx.registry().get(kind).is_some()
                || crate::reference::OWN
                    .iter()
                    .any(|(own, does, _)| (*own, *does) == (kind, verb)),
            "the privilege {kind}.{verb} is not in the table of privileges"
        );
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

    /// Through the gate, carried out, and counted.
    pub(crate) async fn carry_out(&self, request: Request) -> Result<Answer> {
        let begun = Instant::now();
        let action = self.app.metrics.action(&self.app.cx, &request.op);
        let surface = request.surface;
        let outcome = match self.app.gate.admit(request) {
            Ok(admitted) => self.app.desk.carry_out(admitted).await,
            Err(error) => Err(error),
        };
        let code = outcome.as_ref().map_or_else(Error::code, |_| "OK");
        self.app
            .metrics
            .acted(action, surface, code, begun.elapsed());
        outcome
    }

    /// Through the gate and counted: for watches and streams, whose end is not their answer, and under another name
    /// for what is no operation of its own.
    pub(crate) fn admit(&self, request: Request, name: Option<&'static str>) -> Result<Admitted> {
        let begun = Instant::now();
        let mut action = self.app.metrics.action(&self.app.cx, &request.op);
        action.1 = name.unwrap_or(action.1);
        let surface = request.surface;
        let outcome = self.app.gate.admit(request);
        let code = outcome.as_ref().map_or_else(Error::code, |_| "OK");
        self.app
            .metrics
            .acted(action, surface, code, begun.elapsed());
        outcome
    }

    /// A request for the gate.
    pub(crate) fn request(&self, op: Op) -> Result<Request> {
        let mut request = Request::new(self.id.clone(), self.actor()?, self.surface, op);
        request.from = self.peer.ip();
        request.trace = self.trace.clone();
        Ok(request)
    }
}
