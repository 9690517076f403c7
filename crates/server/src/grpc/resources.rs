//! The generic service: each call becomes a request for the gate.

use super::convert::{json as plain, object, status};
use super::v1::watch_event::Type;
use super::v1::{
    ActRequest, Batch, CreateRequest, DeleteReply, DeleteRequest, GetRequest, Key, ListReply,
    ListRequest, Object, PatchRequest, UpdateRequest, WatchEvent, WatchRequest, resources_server,
};
use super::{Told, count_op};
use crate::app::Call;
use crate::watch::parse_revision;
use futures::StreamExt;
use futures::stream::BoxStream;
use model::{Error, ObjectRef, Result, Selector};
use runtime::{Answer, Op, Query};
use serde_json::{Value, json};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

pub(super) struct Resources;

/// One call, taken apart.
struct Asked<T> {
    call: Call,
    told: Option<Told>,
    if_match: Option<String>,
    idempotency: Option<String>,
    body: T,
}

fn take<T>(request: Request<T>) -> Result<Asked<T>, Status> {
    let text = |metadata: &MetadataMap, name: &str| {
        metadata
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned)
    };
    let (metadata, extensions, body) = request.into_parts();
    let call = extensions
        .get::<Call>()
        .cloned()
        .ok_or_else(|| Status::new(Code::Internal, "the call came by no connection"))?;
    Ok(Asked {
        if_match: text(&metadata, "if-match").map(|v| v.trim_matches('"').to_owned()),
        idempotency: text(&metadata, "idempotency-key"),
        told: extensions.get().cloned(),
        call,
        body,
    })
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn target(key: Option<Key>) -> Result<ObjectRef> {
    let key = key.ok_or_else(|| Error::field("key", "is required"))?;
    Ok(ObjectRef {
        kind: key.kind,
        project: some(key.project),
        name: key.name,
    })
}

impl<T> Asked<T> {
    /// Through the gate, and carried out.
    async fn run(&self, op: Op, dry_run: bool) -> Result<Answer> {
        self.run_with(op, dry_run, false).await
    }

    async fn run_with(&self, op: Op, dry_run: bool, force: bool) -> Result<Answer> {
        self.count(&op)?;
        let mut request = self.call.request(op)?;
        request.force = force;
        request.if_match.clone_from(&self.if_match);
        request.idempotency.clone_from(&self.idempotency);
        request.dry_run = dry_run;
        self.call.carry_out(request).await
    }

    /// Counts what is asked for, and lets the answer say how it stands.
    fn count(&self, op: &Op) -> Result<()> {
        let counted = count_op(&self.call, op);
        let admitted = counted.admitted();
        if let Some(told) = &self.told {
            *told.lock() = counted;
        }
        admitted
    }

    fn reply<R>(&self, outcome: Result<R>) -> Result<Response<R>, Status> {
        match outcome {
            Ok(reply) => Ok(Response::new(reply)),
            Err(error) => Err(status(&error, &self.call.id)),
        }
    }

    /// An operation whose answer is one object.
    async fn one(&self, op: Result<Op>, dry_run: bool) -> Result<Response<Object>, Status> {
        let run = async { one(self.run(op?, dry_run).await?) };
        self.reply(run.await)
    }
}

/// One verb over many objects.
fn many(key: Option<Key>, verb: String, params: Value, batch: Batch) -> Result<Op> {
    let target = target(key)?;
    if !target.name.is_empty() {
        return Err(Error::field("key.name", "cannot stand beside `batch`")
            .hint("name the objects in batch.names"));
    }
    let mut body = json!({ "params": params, "names": batch.names, "keep": batch.keep });
    if !batch.selector.is_empty() {
        body["selector"] = batch.selector.into();
    }
    if batch.parallel > 0 {
        body["parallel"] = batch.parallel.into();
    }
    if !batch.on_error.is_empty() {
        body["on_error"] = batch.on_error.into();
    }
    Ok(Op::Batch {
        kind: target.kind,
        project: target.project,
        verb,
        body,
    })
}

fn one(answer: Answer) -> Result<Object> {
    match answer {
        Answer::Object {
            json,
            revision,
            created,
        } => Ok(Object {
            object: Some(object(&json)?),
            revision,
            created,
        }),
        Answer::Accepted { task } => Ok(Object {
            object: Some(object(&task)?),
            revision: String::new(),
            created: false,
        }),
        _ => Err(Error::internal(
            "one object was asked for and none was answered",
        )),
    }
}

#[tonic::async_trait]
impl resources_server::Resources for Resources {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Object>, Status> {
        let mut asked = take(request)?;
        let op = target(asked.body.key.take()).map(|target| Op::Get { target });
        asked.one(op, false).await
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        let asked = take(request)?;
        let run = async {
            let body = asked.body.clone();
            let query = Query {
                selector: Selector::parse(&body.selector)?,
                fields: body.fields,
                sort: some(body.sort),
                search: some(body.search),
                limit: body.limit as usize,
                after: some(body.after),
            };
            let op = Op::List {
                kind: body.kind,
                project: some(body.project),
                query,
            };
            match asked.run(op, false).await? {
                Answer::List(listed) => Ok(ListReply {
                    items: listed
                        .items
                        .iter()
                        .map(|item| object(item))
                        .collect::<Result<_>>()?,
                    revision: listed.revision.to_string(),
                    next: listed.next.unwrap_or_default(),
                    total: listed.total as u64,
                }),
                _ => Err(Error::internal(
                    "a list was asked for and none was answered",
                )),
            }
        };
        asked.reply(run.await)
    }

    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<Object>, Status> {
        let mut asked = take(request)?;
        let body = std::mem::take(&mut asked.body);
        let op = plain(body.object).map(|object| Op::Create {
            kind: body.kind,
            project: some(body.project),
            body: object,
        });
        asked.one(op, body.dry_run).await
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<Object>, Status> {
        let mut asked = take(request)?;
        let body = std::mem::take(&mut asked.body);
        let create = asked.if_match.is_none();
        let op = || {
            Ok(Op::Update {
                target: target(body.key)?,
                body: plain(body.object)?,
                create,
            })
        };
        asked.one(op(), body.dry_run).await
    }

    async fn patch(&self, request: Request<PatchRequest>) -> Result<Response<Object>, Status> {
        let mut asked = take(request)?;
        let body = std::mem::take(&mut asked.body);
        let op = || {
            Ok(Op::Patch {
                target: target(body.key)?,
                body: plain(body.patch)?,
            })
        };
        asked.one(op(), body.dry_run).await
    }

    async fn delete(
        &self,
        request: Request<DeleteRequest>,
    ) -> Result<Response<DeleteReply>, Status> {
        let mut asked = take(request)?;
        let body = std::mem::take(&mut asked.body);
        let run = async {
            let op = Op::Delete {
                target: target(body.key)?,
                keep: body.keep,
            };
            match asked.run_with(op, body.dry_run, body.force).await? {
                Answer::Deleted => Ok(DeleteReply {
                    gone: true,
                    object: None,
                }),
                Answer::Deleting { json } | Answer::Object { json, .. } => Ok(DeleteReply {
                    gone: false,
                    object: Some(object(&json)?),
                }),
                _ => Err(Error::internal(
                    "a deletion was answered with something else",
                )),
            }
        };
        asked.reply(run.await)
    }

    async fn act(&self, request: Request<ActRequest>) -> Result<Response<Object>, Status> {
        let mut asked = take(request)?;
        let body = std::mem::take(&mut asked.body);
        let op = || match body.batch {
            None => Ok(Op::Act {
                target: target(body.key)?,
                verb: body.verb,
                params: plain(body.params)?,
            }),
            Some(batch) => many(body.key, body.verb, plain(body.params)?, batch),
        };
        let run = async { one(asked.run_with(op()?, body.dry_run, body.force).await?) };
        asked.reply(run.await)
    }

    type WatchStream = BoxStream<'static, Result<WatchEvent, Status>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let mut asked = take(request)?;
        let body = std::mem::take(&mut asked.body);
        let opened = || {
            let op = Op::Watch {
                kind: body.kind,
                project: some(body.project),
                name: some(body.name),
                query: Query {
                    selector: Selector::parse(&body.selector)?,
                    search: some(body.search),
                    ..Query::default()
                },
                after: some(body.after)
                    .as_deref()
                    .map(parse_revision)
                    .transpose()?,
            };
            asked.count(&op)?;
            let admitted = asked.call.admit(asked.call.request(op)?, None)?;
            asked.call.watch(&admitted)
        };
        let events = opened().map_err(|error| status(&error, &asked.call.id))?;
        let id = asked.call.id.clone();
        let open = asked.call.app.metrics.opened("watch");
        let closing = asked.call.app.closing.clone();
        let events = events
            .map(move |event| {
                let _open = &open;
                event.and_then(shown).map_err(|error| status(&error, &id))
            })
            .take_until(async move { closing.cancelled().await });
        Ok(Response::new(events.boxed()))
    }
}

fn shown(event: runtime::WatchEvent) -> Result<WatchEvent> {
    let (sort, json, revision) = match event {
        runtime::WatchEvent::Put { object, revision } => (Type::Put, Some(object), revision),
        runtime::WatchEvent::Deleted { object, revision } => (Type::Delete, Some(object), revision),
        runtime::WatchEvent::Bookmark(revision) => (Type::Bookmark, None, revision),
    };
    Ok(WatchEvent {
        r#type: sort.into(),
        object: json.as_deref().map(object).transpose()?,
        revision: revision.to_string(),
    })
}
