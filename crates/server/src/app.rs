//! What all requests share, and what one request carries.

use crate::health::Check;
use crate::metrics::Metrics;
use crate::net::{self, Peer};
use crate::perimeter::{self, Counted};
use crate::streams::Tickets;
use crate::{Limits, graphql};
use futures::StreamExt;
use futures::stream::BoxStream;
use model::{Error, ObjectRef, Result, Uid, What};
use parking_lot::Mutex;
use runtime::audit::{CERTIFICATE_REFUSED, Note};
use runtime::event::Event;
use runtime::limit::{Class, Rates};
use runtime::{
    Actor, Admitted, Answer, Authority, Cx, Desk, Gate, Op, Request, StreamIo, Surface, Trace,
    WatchEvent,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

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
    /// How often everybody may ask.
    pub rates: Rates,
    /// Who has how many WebSockets open.
    pub sockets: Mutex<HashMap<String, usize>>,
    /// Those that are open: what a connection has become is no longer the connection's, and still the server's.
    pub upgraded: TaskTracker,
    pub graphql: graphql::Schema,
    pub openapi: bytes::Bytes,
    pub registry: bytes::Bytes,
    /// Which surface offers which action.
    pub surfaces: bytes::Bytes,
    /// Whether `/health/ready` may say yes.
    pub ready: AtomicBool,
    /// Requests in flight end, nothing new is taken; long streams are told to reconnect.
    pub closing: CancellationToken,
    /// What has not ended in time is cut.
    pub cut: CancellationToken,
}

/// When it is worth trying again for another WebSocket.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest name of a caller's program that is kept.
const AGENT: usize = 256;

/// One request on its way.
#[derive(Clone)]
pub(crate) struct Call {
    pub app: Arc<App>,
    /// Follows it through every log.
    pub id: String,
    /// Where it stands among others.
    pub trace: Trace,
    pub peer: Peer,
    /// What his program calls itself.
    pub agent: Option<String>,
    /// Who asks, or why he is not let in.
    actor: Result<Actor>,
    /// What his connection holds; also what becomes of it (a WebSocket) goes on holding it.
    _place: Option<Arc<net::Place>>,
    /// That it is about a WebSocket, which counts.
    _socket: Option<Arc<Socket>>,
    pub surface: Surface,
}

impl Call {
    pub(crate) fn new(
        app: Arc<App>,
        (id, trace): (String, Trace),
        peer: Peer,
        surface: Surface,
        request: &http::Request<axum::body::Body>,
    ) -> Call {
        let headers = request.headers();
        let actor = net::proof::read(headers)
            .and_then(|proof| peer.actor(&app.cx, &*app.authority, app.owner, proof));
        if let (Err(error), true) = (&actor, peer.shows_certificate()) {
            let note = Note::new(&CERTIFICATE_REFUSED, "refused").from(peer.ip());
            runtime::audit::refusal(&app.cx, note.failed(error.code()));
        }
        Call {
            app,
            id,
            trace,
            peer,
            agent: headers
                .get(http::header::USER_AGENT)
                .and_then(|value| value.to_str().ok())
                .map(|text| text.chars().take(AGENT).collect()),
            actor,
            _place: request.extensions().get().cloned(),
            _socket: None,
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

    /// The same caller with a WebSocket, which counts for as long as anybody holds this.
    ///
    /// # Errors
    /// When he has too many.
    pub(crate) fn with_socket(&self) -> Result<Call> {
        let actor = self.actor()?;
        let user = actor.user.unwrap_or(actor.name);
        let most = self.app.limits.sockets_per_user;
        let mut open = self.app.sockets.lock();
        let count = open.entry(user.clone()).or_insert(0);
        if *count >= most {
            return Err(Error::new(
                What::Quota(Some(AGAIN)),
                format!("`{user}` has {most} WebSockets open, and no more may be"),
            )
            .hint("close some, or watch several kinds over one"));
        }
        *count += 1;
        let app = self.app.clone();
        Ok(Call {
            _socket: Some(Arc::new(Socket {
                _open: app.upgraded.token(),
                app,
                user,
            })),
            ..self.clone()
        })
    }

    /// Who asks; an error when a certificate is not accepted.
    pub(crate) fn actor(&self) -> Result<Actor> {
        self.actor.clone()
    }

    /// Counts this request, or one more operation in it.
    pub(crate) fn count(&self, class: Class) -> Counted {
        perimeter::count(&self.app, &self.peer, &self.actor, class)
    }

    /// Counts an operation on this kind with this verb, when they have a limit of their own.
    pub(crate) fn count_named(&self, kind: &str, verb: &str) -> Option<Counted> {
        perimeter::count_named(&self.app, &self.peer, &self.actor, (kind, verb))
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
        let actor = self.somebody()?;
        let from = self.peer.ip();
        self.app.gate.need(&actor, from, kind, verb)?;
        Ok(actor)
    }

    /// Who asks, when he is known.
    pub(crate) fn somebody(&self) -> Result<Actor> {
        let actor = self.actor()?;
        match actor.kind {
            runtime::ActorKind::Anonymous => Err(Error::unauthenticated(
                "this needs a login: `dvctl login URL`, or the instance's local socket",
            )),
            _ => Ok(actor),
        }
    }

    /// Whether somebody has a privilege on an object, or on a kind as a whole.
    pub(crate) fn may(
        &self,
        actor: &Actor,
        kind: &str,
        verb: &str,
        project: Option<&str>,
        name: Option<&str>,
    ) -> bool {
        let from = self.peer.ip();
        self.app.gate.may(actor, from, kind, verb, project, name)
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

    /// Carries out an admitted watch, for as long as its watcher may have it.
    pub(crate) fn watch(
        &self,
        admitted: &Admitted,
    ) -> Result<BoxStream<'static, Result<WatchEvent>>> {
        let mut events = self.app.desk.watch(admitted)?;
        let barred = self.barred(admitted.request());
        Ok(Box::pin(async_stream::stream! {
            tokio::pin!(barred);
            loop {
                tokio::select! {
                    () = &mut barred => {
                        yield Err(no_longer());
                        return;
                    }
                    event = events.next() => match event {
                        Some(event) => yield event,
                        None => return,
                    },
                }
            }
        }))
    }

    /// Opens an admitted stream and runs it until it ends, or until its reader may no longer have it.
    pub(crate) async fn open(&self, admitted: Admitted, io: StreamIo) -> Result<()> {
        let barred = self.barred(admitted.request());
        tokio::select! {
            ended = self.app.desk.open(admitted, io) => ended,
            () = barred => Err(no_longer()),
        }
    }

    /// Resolves when whoever began a stream may no longer have it: his login has ended, or his rights have gone.
    /// Never for those who need no login.
    fn barred(&self, request: &Request) -> impl Future<Output = ()> + use<> {
        let (gate, asked) = (self.app.gate.clone(), request.clone());
        self.ended(&request.actor, move || gate.still(&asked))
    }

    /// Resolves when a login has ended, or when `still` says no. Never for those who need no login.
    pub(crate) fn ended<F>(&self, actor: &Actor, still: F) -> impl Future<Output = ()> + use<F>
    where
        F: Fn() -> bool + Send + 'static,
    {
        /// Grants end by the time too, and certificates by a list that is read.
        const LOOK_AGAIN: Duration = Duration::from_millis(500);
        let (call, actor) = (self.clone(), actor.clone());
        async move {
            if actor.credential.is_none() && matches!(call.peer, Peer::Local { .. }) {
                return std::future::pending().await;
            }
            let mut changes = call.app.gate.changes();
            loop {
                let changed = async {
                    let told = match &mut changes {
                        Some(changes) => changes.changed().await.is_ok(),
                        None => false,
                    };
                    if !told {
                        std::future::pending::<()>().await;
                    }
                };
                tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
                if !call.stands(&actor) || !still() {
                    tracing::info!(
                        request_id = call.id,
                        actor = actor.name,
                        "a stream was ended: its reader may no longer have it"
                    );
                    return;
                }
            }
        }
    }

    /// For what is asked on a connection that was let in long ago.
    ///
    /// # Errors
    ///
    /// `Unauthenticated` when the login that it was let in by has ended.
    pub(crate) fn is_in(&self) -> Result<()> {
        match self.stands(&self.actor()?) {
            true => Ok(()),
            false => Err(no_longer()),
        }
    }

    /// Whether somebody may know of an event: that he may read what it is about. No privilege on events as a whole says so.
    pub(crate) fn sees(&self, actor: &Actor, event: &Event) -> bool {
        let (about, project) = (&event.about, event.about.project.as_deref());
        self.may(actor, &about.kind, "read", project, Some(&about.name))
    }

    fn stands(&self, actor: &Actor) -> bool {
        let cx = &self.app.cx;
        let known = cx.try_part::<runtime::Known>();
        let authority = &*self.app.authority;
        let from = self.peer.whence(authority);
        let login = known.is_none_or(|known| known.0.stands(cx, actor, from));
        login && self.peer.stands(authority)
    }

    /// A request for the gate.
    pub(crate) fn request(&self, op: Op) -> Result<Request> {
        let mut request = Request::new(self.id.clone(), self.actor()?, self.surface, op);
        request.from = self.peer.ip();
        request.user_agent.clone_from(&self.agent);
        request.trace = self.trace.clone();
        Ok(request)
    }
}

/// One WebSocket of a user.
struct Socket {
    app: Arc<App>,
    user: String,
    _open: TaskTrackerToken,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let mut open = self.app.sockets.lock();
        if let Some(count) = open.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}

/// What a stream is ended with when its reader has been logged out or has lost the right.
fn no_longer() -> Error {
    Error::unauthenticated("this login has ended, or what it was allowed to read has changed")
        .hint("log in again")
}
