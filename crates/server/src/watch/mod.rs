//! Watch: changes of objects as they happen, over WebSocket or server-sent events.
//!
//! `GET /watch?kind=vm&project=&name=&selector=&search=&after=REV`. Every event says its revision; a client that comes
//! back with the last one misses nothing, or is told `compacted` and lists again. A slow client holds up nobody: what
//! it does not take in time is compacted for it.

pub(crate) mod socket;
pub(crate) mod sse;

use crate::app::Call;
use crate::reply::Outcome;
use crate::rest::Params;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{BoxStream, select_all};
use futures::{Stream, StreamExt};
use http::Request;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use model::{Error, ObjectRef, Result, What};
pub(crate) use revision::parse_revision;
use runtime::{Op, Surface, WatchEvent};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::convert::Infallible;

mod revision;

/// Most kinds in one watch.
const MOST_KINDS: usize = 32;

/// One event as it goes over the wire.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(rename = "type")]
    sort: &'static str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<model::Problem>,
}

/// An event, its revision for resuming, and whether it is the last.
pub(crate) struct Sent {
    pub json: String,
    pub sort: &'static str,
    pub revision: Option<String>,
    pub last: bool,
}

/// Opens the watches that a request asks for, as one stream.
pub(crate) fn open(call: &Call, wanted: Vec<Op>) -> Outcome<BoxStream<'static, Sent>> {
    let mut all = Vec::new();
    for op in wanted {
        let kind = op.kind().to_owned();
        let request = call.request(op)?;
        let admitted = call.admit(request, None)?;
        let id = call.id.clone();
        let events = match call.watch(&admitted) {
            Ok(events) => events,
            // Told in the stream, so that every transport tells it alike.
            Err(error) if error.what == What::Gone => {
                futures::stream::once(async move { Err(error) }).boxed()
            }
            Err(error) => return Err(error.into()),
        };
        all.push(events.map(move |event| shown(&kind, event, &id)).boxed());
    }
    Ok(until_last(select_all(all)).boxed())
}

/// Ends a stream after its last event.
fn until_last(events: impl Stream<Item = Sent>) -> impl Stream<Item = Sent> {
    async_stream::stream! {
        futures::pin_mut!(events);
        while let Some(event) = events.next().await {
            let last = event.last;
            yield event;
            if last {
                break;
            }
        }
    }
}

#[derive(Deserialize)]
struct Head {
    metadata: HeadMeta,
}

#[derive(Deserialize)]
struct HeadMeta {
    name: String,
    #[serde(default)]
    project: Option<String>,
}

fn shown(kind: &str, event: Result<WatchEvent>, request_id: &str) -> Sent {
    let mut out = Shown {
        sort: "error",
        kind,
        key: None,
        revision: None,
        object: None,
        problem: None,
    };
    let object;
    match event {
        Ok(WatchEvent::Put {
            object: o,
            revision,
        }) => {
            out.sort = "put";
            out.revision = Some(revision.to_string());
            object = Some(o);
        }
        Ok(WatchEvent::Deleted {
            object: o,
            revision,
        }) => {
            out.sort = "delete";
            out.revision = Some(revision.to_string());
            object = Some(o);
        }
        Ok(WatchEvent::Bookmark(revision)) => {
            out.sort = "bookmark";
            out.revision = Some(revision.to_string());
            object = None;
        }
        Err(error) => {
            if error.what == What::Gone {
                out.sort = "compacted";
            } else if error.what == What::Internal {
                tracing::error!(request_id, ?error, "a watch failed by our fault");
            }
            out.problem = Some(error.problem(request_id));
            object = None;
        }
    }
    if let Some(object) = &object {
        out.key = serde_json::from_slice::<Head>(object)
            .ok()
            .map(|head| ObjectRef {
                kind: kind.to_owned(),
                project: head.metadata.project,
                name: head.metadata.name,
            });
        out.object = serde_json::from_slice(object).ok();
    }
    Sent {
        json: serde_json::to_string(&out).unwrap_or_default(),
        sort: out.sort,
        last: out.problem.is_some(),
        revision: out.revision,
    }
}

/// `GET /watch`.
pub(crate) async fn answer(call: Call, request: Request<Body>) -> Outcome {
    let call = call.through(Surface::Watch);
    let params = Params::read(
        request.uri(),
        &["kind", "project", "name", "selector", "search", "after"],
    )?;
    let kinds = params.words("kind");
    if kinds.is_empty() || kinds.len() > MOST_KINDS {
        return Err(
            Error::field("?kind", format!("{} kinds are given", kinds.len()))
                .hint(format!(
                    "give 1 to {MOST_KINDS}, for example ?kind=NAME,NAME"
                ))
                .into(),
        );
    }
    let last_id = request
        .headers()
        .get("last-event-id")
        .and_then(|v| v.to_str().ok());
    let after = match last_id.or(params.get("after")) {
        Some(text) => Some(parse_revision(text)?),
        None => None,
    };
    let mut query = params.query()?;
    query.after = None;
    let wanted = kinds
        .into_iter()
        .map(|kind| Op::Watch {
            kind,
            project: params.get("project").map(str::to_owned),
            name: params.get("name").map(str::to_owned),
            query: query.clone(),
            after,
        })
        .collect();
    let events = open(&call, wanted)?;
    if socket::wanted(&request) {
        let call = call.with_socket()?;
        let app = call.app.clone();
        let serve = move |socket| serve_socket(call, socket, events);
        return socket::upgrade(&app, request, serve).await;
    }
    Ok(serve_sse(call, events))
}

/// Events over a WebSocket. What the client sends is ignored, but it must answer pings.
async fn serve_socket(
    call: Call,
    socket: axum::extract::ws::WebSocket,
    mut events: BoxStream<'static, Sent>,
) {
    let _open = call.app.metrics.opened("watch");
    let mut socket = socket::Paced::new(socket, &call.app.limits);
    loop {
        tokio::select! {
            () = call.app.closing.cancelled() => {
                socket.close(socket::RESTART, "the server restarts: connect again with the last revision").await;
                return;
            }
            event = events.next() => match event {
                Some(event) => {
                    if socket.text(event.json).await.is_err() {
                        return;
                    }
                    if event.last {
                        socket.close(socket::NORMAL, event.sort).await;
                        return;
                    }
                }
                None => {
                    socket.close(socket::NORMAL, "the watch ended").await;
                    return;
                }
            },
            heard = socket.hear() => if heard.is_none() { return },
        }
    }
}

fn serve_sse(call: Call, mut events: BoxStream<'static, Sent>) -> Response {
    let open = call.app.metrics.opened("watch");
    let frames = async_stream::stream! {
        let _open = open;
        loop {
            let event = tokio::select! {
                () = call.app.closing.cancelled() => {
                    // The client comes back by itself and sends Last-Event-ID.
                    yield Ok::<Bytes, Infallible>(Bytes::from_static(b"retry: 1000\n\n"));
                    return;
                }
                event = events.next() => event,
                () = tokio::time::sleep(call.app.limits.ping) => {
                    yield Ok(Bytes::from_static(sse::PING));
                    continue;
                }
            };
            let Some(event) = event else { return };
            yield Ok(sse::frame(event.sort, event.revision.as_deref(), &event.json));
            if event.last {
                return;
            }
        }
    };
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(sse::TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
