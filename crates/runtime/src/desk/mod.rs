//! Carries out what the gate has let in: reads from the cache, writes in one transaction each.

mod act;
mod batch;
mod body;
mod delete;
mod explain;
mod force;
mod idempotent;
mod watch;
mod write;

pub(crate) use body::THEIRS;
pub use watch::WatchEvent;

use crate::gate::{Actor, Admitted, Op, Request};
use crate::trace::{Cause, Trace};
use crate::{Cx, Msg, StreamIo, StreamRequest, View, audit, object_key};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use model::{Error, ObjectRef, Result};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use store::Key;
use tokio::sync::oneshot;
use tracing::Instrument as _;

/// Carries out admitted requests. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    cx: Cx,
}

/// What a request answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// One object.
    Object {
        /// As surfaces show it.
        json: Bytes,
        /// Its revision, for ETag.
        revision: String,
        /// Whether it was created by this request.
        created: bool,
    },
    /// A page of a list.
    List(crate::Listed),
    /// A task was made for it (or the task itself was changed).
    Accepted {
        /// The task, as JSON.
        task: Bytes,
    },
    /// Deletion is under way.
    Deleting {
        /// The object, as JSON.
        json: Bytes,
    },
    /// It is deleted.
    Deleted,
}

impl Desk {
    pub(crate) fn new(cx: Cx) -> Desk {
        Desk { cx }
    }

    /// Carries out everything but watches and streams. What changes something goes on to its end and its outcome row also
    /// when nobody waits for the answer any more: a client that goes away must not leave it open what became of it.
    pub fn carry_out(&self, admitted: Admitted) -> BoxFuture<'_, Result<Answer>> {
        Box::pin(async move {
            let op = &admitted.request().op;
            if op.reads(self.cx.registry().need(op.kind())?) {
                return self.do_it(admitted.request()).await;
            }
            let (done, answer) = oneshot::channel();
            let desk = self.clone();
            let change = async move {
                // Whoever asked may have gone; then nobody is told.
                let _ = done.send(desk.change(admitted.request()).await);
            };
            let change = change.instrument(tracing::Span::current());
            match Cause::now() {
                Some(cause) => self.cx.life().spawn("change", cause.leads_to(change)),
                None => self.cx.life().spawn("change", change),
            }
            let broke_off = |e| Error::internal("a change broke off").because(e);
            answer.await.map_err(broke_off)?
        })
    }

    /// A change between its two rows.
    async fn change(&self, request: &Request) -> Result<Answer> {
        let pair = audit::intent(&self.cx, request).await?;
        let work = AssertUnwindSafe(self.do_it(request)).catch_unwind();
        let result = work.await.unwrap_or_else(|_| {
            tracing::error!(request_id = %request.id, "a change panicked");
            Err(Error::internal("a change panicked"))
        });
        audit::outcome(&self.cx, pair, result.as_ref().err()).await;
        result
    }

    async fn do_it(&self, request: &Request) -> Result<Answer> {
        match &request.op {
            Op::Get { target } => self.get(request, target),
            Op::List {
                kind,
                project,
                query,
            } => {
                let declared = self.cx.registry().need(kind)?;
                Ok(Answer::List(self.cx.cache().list(
                    declared.kind(),
                    project.as_deref(),
                    query,
                    &self.view(request, kind, project.as_deref()),
                )?))
            }
            Op::Create { .. } | Op::Update { .. } | Op::Patch { .. } => self.write(request).await,
            Op::Delete { target, keep } => self.delete(request, target, keep).await,
            Op::Act {
                target,
                verb,
                params,
            } => self.act(request, target, verb, params).await,
            Op::Batch {
                kind,
                project,
                verb,
                body,
            } => {
                self.batch(request, kind, project.as_deref(), verb, body)
                    .await
            }
            Op::Watch { .. } | Op::Stream { .. } => Err(Error::internal(
                "watches and streams are not carried out like requests",
            )),
        }
    }

    /// Which objects of a kind the caller may read.
    fn view(&self, request: &Request, kind: &str, project: Option<&str>) -> View {
        let (actor, from) = (&request.actor, request.from);
        self.cx.gate().view(actor, from, kind, "read", project)
    }

    fn get(&self, request: &Request, target: &ObjectRef) -> Result<Answer> {
        let key = key_of(target);
        match self.cx.cache().row(&target.kind, &key) {
            Some(row) => Ok(Answer::Object {
                json: row.json.clone(),
                revision: row.modified.to_string(),
                created: false,
            }),
            None => Err(self.no_such(request, target)),
        }
    }

    fn no_such(&self, request: &Request, target: &ObjectRef) -> Error {
        let error = Error::not_found(format!("there is no {target}"));
        let project = target.project.as_deref();
        let view = self.view(request, &target.kind, project);
        let (mut rows, _) = (self.cx.cache()).around(&target.kind, project, &key_of(target));
        rows.retain(|row| view.shows(row));
        match model::nearest(&target.name, rows.iter().map(|r| &*r.name)) {
            Some(near) => error.hint(format!("did you mean `{near}`?")),
            None => error,
        }
    }

    /// Opens a stream and runs it until it ends.
    pub async fn open(&self, admitted: Admitted, io: StreamIo) -> Result<()> {
        let request = admitted.request();
        let Op::Stream {
            target,
            stream,
            params,
        } = &request.op
        else {
            return Err(Error::internal("only streams are opened"));
        };
        let stream_request = StreamRequest {
            target: target.clone(),
            stream: stream.clone(),
            params: params.clone(),
            actor: request.actor.clone(),
            request_id: request.id.clone(),
        };
        let pair = audit::intent(&self.cx, request).await?;
        // It also ends by being dropped, when the other side has gone.
        let open = audit::Open::new(&self.cx, pair);
        let there = self.cx.cache().row(&target.kind, &key_of(target)).is_some();
        let result = match there {
            true => self.open_stream(stream_request, io).await,
            false => Err(self.no_such(request, target)),
        };
        open.close(result.as_ref().err()).await;
        result
    }

    /// Opens a stream here or, when its subsystem lives elsewhere, over the link.
    pub(crate) async fn open_stream(&self, request: StreamRequest, io: StreamIo) -> Result<()> {
        let declared = self.cx.registry().need(&request.target.kind)?;
        if !self.cx.runs(declared.place) {
            return self.cx.links().open_stream(request, io).await;
        }
        let open = declared
            .streams
            .iter()
            .find(|(name, _)| *name == request.stream)
            .map(|(_, open)| *open)
            .ok_or_else(|| {
                Error::not_found(format!(
                    "{} has no stream `{}`",
                    request.target.kind, request.stream
                ))
            })?;
        // What the stream asks for in turn (an upload that is complete begins an import) is found under its request.
        let cause = Cause {
            request_id: request.request_id.clone(),
            trace: Trace::default(),
        };
        cause.leads_to(open(self.cx.clone(), request, io)).await
    }

    /// Ends a stream with an error that the client sees.
    pub async fn refuse(io: &StreamIo, error: &Error, request_id: &str) {
        let problem = serde_json::to_value(error.problem(request_id)).unwrap_or_default();
        let _ = io
            .send(Msg::Control(serde_json::json!({ "error": problem })))
            .await;
    }
}

pub(crate) fn key_of(target: &ObjectRef) -> Key {
    object_key(&target.kind, target.project.as_deref(), &target.name)
}

/// A name for logs and objects.
pub(crate) fn by(actor: &Actor) -> String {
    actor.name.clone()
}

/// Keeps `Arc` rows out of answers.
pub(crate) fn object_answer(row: &Arc<crate::Row>, created: bool) -> Answer {
    Answer::Object {
        json: row.json.clone(),
        revision: row.modified.to_string(),
        created,
    }
}
