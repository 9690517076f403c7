//! Events: what happened, as lines of JSON or as server-sent events, and on from there when wanted.

use super::Params;
use crate::app::Call;
use crate::reply::Outcome;
use crate::watch::sse;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request};
use runtime::Actor;
use runtime::event::Event;
use std::sync::Arc;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

/// Most events in one answer.
const MOST: u64 = 1000;

/// `GET /events?since=&limit=&follow=`.
pub(super) async fn answer(call: Call, request: Request<Body>) -> Outcome {
    let params = Params::read(request.uri(), &["since", "limit", "follow"])?;
    let actor = call.somebody()?;
    let as_sse = sse::wanted(request.headers());
    let since = match last_event_id(request.headers()) {
        Some(id) => id,
        None => params.number("since")?.unwrap_or(0),
    };
    let limit = params.number("limit")?.unwrap_or(100).clamp(1, MOST) as usize;
    let follow_on = params.flag("follow")?;
    let events = call.app.cx.events().clone();
    // Followed before it is read, so that nothing falls between.
    let live = events.follow();
    let first = events.read(since, limit).await;
    let seen = first.last().map_or(since, |event| event.seq.max(since));
    let first: Vec<Event> = first.into_iter().filter(|e| call.sees(&actor, e)).collect();
    let open = follow_on.then(|| call.app.metrics.opened("events"));
    let ping = call.app.limits.ping;
    let lines = async_stream::stream! {
        let _open = open;
        for event in first {
            yield line(&event, as_sse);
        }
        if !follow_on {
            return;
        }
        let events = follow(&call, actor, live, Some(seen));
        tokio::pin!(events);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => yield line(&event, as_sse),
                    None => return,
                },
                () = tokio::time::sleep(ping), if as_sse => yield Ok(Bytes::from_static(sse::PING)),
            }
        }
    };
    let mut response = Response::new(Body::from_stream(lines));
    let kind = if as_sse {
        sse::TYPE
    } else {
        "application/x-ndjson"
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Events from now on, in their order and without a gap, as far as `actor` may read what they are about. `live` is
/// older than `seen`, the last that he has. Ends with his login, and with the server.
pub(crate) fn follow(
    call: &Call,
    actor: Actor,
    mut live: Receiver<Arc<Event>>,
    mut seen: Option<u64>,
) -> impl Stream<Item = Arc<Event>> + use<> {
    let call = call.clone();
    let ended = call.ended(&actor, || true);
    async_stream::stream! {
        tokio::pin!(ended);
        loop {
            let event = tokio::select! {
                () = call.app.closing.cancelled() => return,
                () = &mut ended => return,
                event = live.recv() => event,
            };
            let newest = match event {
                // One that could not be kept has no place among the others.
                Ok(event) if event.seq == 0 => {
                    if call.sees(&actor, &event) {
                        yield event;
                    }
                    continue;
                }
                Ok(event) if seen.is_none_or(|seen| event.seq == seen + 1) => {
                    seen = Some(event.seq);
                    if call.sees(&actor, &event) {
                        yield event;
                    }
                    continue;
                }
                Ok(event) => event.seq,
                Err(RecvError::Lagged(_)) => u64::MAX,
                Err(RecvError::Closed) => return,
            };
            // What was missed, or is still behind a younger one that was quicker, is in the log.
            while let Some(last) = seen.filter(|seen| *seen < newest) {
                let missed = call.app.cx.events().read(last, MOST as usize).await;
                if missed.is_empty() {
                    break;
                }
                for event in missed {
                    seen = Some(event.seq);
                    if call.sees(&actor, &event) {
                        yield Arc::new(event);
                    }
                }
            }
        }
    }
}

fn line(event: &Event, as_sse: bool) -> Result<Bytes, std::convert::Infallible> {
    let json = serde_json::to_string(event).unwrap_or_default();
    Ok(match as_sse {
        true => sse::frame("event", Some(&event.seq.to_string()), &json),
        false => format!("{json}\n").into(),
    })
}

fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}
