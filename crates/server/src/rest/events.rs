//! Events: what happened, as lines of JSON or as server-sent events, and on from there when wanted.

use super::Params;
use crate::app::Call;
use crate::reply::Outcome;
use crate::watch::sse;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request};
use runtime::event::Event;
use tokio::sync::broadcast::error::RecvError;

/// Most events in one answer.
const MOST: u64 = 1000;

/// `GET /events?since=&limit=&follow=`.
pub(super) async fn answer(call: Call, request: Request<Body>) -> Outcome {
    let params = Params::read(request.uri(), &["since", "limit", "follow"])?;
    let actor = call.actor()?;
    // Who may read no event at all is told so; everybody else gets those about what he may read.
    let all = call.may(&actor, "event", "read", None, None);
    if !all {
        call.somebody()?;
    }
    let sees = {
        let call = call.clone();
        move |event: &Event| {
            let about = &event.about;
            all || call.may(
                &actor,
                &about.kind,
                "read",
                about.project.as_deref(),
                Some(&about.name),
            )
        }
    };
    let as_sse = sse::wanted(request.headers());
    let since = match last_event_id(request.headers()) {
        Some(id) => id,
        None => params.number("since")?.unwrap_or(0),
    };
    let limit = params.number("limit")?.unwrap_or(100).clamp(1, MOST) as usize;
    let follow = params.flag("follow")?;
    let events = call.app.cx.events().clone();
    // Followed before it is read, so that nothing falls between.
    let mut live = events.follow();
    let first = events.read(since, limit).await;
    let closing = call.app.closing.clone();
    let open = follow.then(|| call.app.metrics.opened("events"));
    let ping = call.app.limits.ping;
    let lines = async_stream::stream! {
        let _open = open;
        let mut seen = since;
        for event in first {
            seen = seen.max(event.seq);
            if sees(&event) {
                yield line(&event, as_sse);
            }
        }
        if !follow {
            return;
        }
        loop {
            let event = tokio::select! {
                () = closing.cancelled() => break,
                event = live.recv() => event,
                () = tokio::time::sleep(ping), if as_sse => {
                    yield Ok(Bytes::from_static(sse::PING));
                    continue;
                }
            };
            match event {
                Ok(event) if event.seq > seen => {
                    seen = event.seq;
                    if sees(&event) {
                        yield line(&event, as_sse);
                    }
                }
                Ok(_) => {}
                // What was missed is in the log.
                Err(RecvError::Lagged(_)) => {
                    for event in events.read(seen, MOST as usize).await {
                        seen = seen.max(event.seq);
                        if sees(&event) {
                            yield line(&event, as_sse);
                        }
                    }
                }
                Err(RecvError::Closed) => break,
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
