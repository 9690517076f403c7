//! Byte streams of objects: consoles, logs, uploads. Which there are, and what they mean, is declared by kinds.
//!
//! | way | how |
//! |---|---|
//! | duplex | WebSocket: binary is data, text is control (JSON) |
//! | read | WebSocket, server-sent events, or plain bytes |
//! | write | `PUT` with the bytes as body; the last control message is the answer |

mod input;
mod ticket;

pub(crate) use ticket::Tickets;

use crate::app::Call;
use crate::reply::{self, Failure, Outcome};
use crate::rest::Params;
use crate::watch::{socket, sse};
use axum::body::Body;
use axum::extract::ws::WebSocket;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use model::{Error, ObjectRef, Result, StreamKind, Way};
use runtime::{Admitted, Msg, Op, StreamIo};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;

/// Time for one more piece of an uploaded body.
const PIECE: Duration = Duration::from_secs(60);

/// `POST .../streams/{stream}/ticket`.
pub(crate) fn ticket(call: &Call, target: ObjectRef, stream: &'static StreamKind) -> Outcome {
    // Whoever may not open it gets no ticket; an object that is not there has none.
    let admitted = call.app.gate.admit(call.request(Op::Stream {
        target: target.clone(),
        stream: stream.name.into(),
        params: json!({}),
    })?)?;
    let Some(uid) = call.uid_of(&target) else {
        return Err(Error::not_found(format!("there is no {target}")).into());
    };
    let actor = &admitted.request().actor.name;
    let now = call.app.cx.clock().now();
    let (ticket, expires) = call
        .app
        .tickets
        .issue(actor, &target, uid, stream.name, now);
    Ok(reply::json(
        StatusCode::CREATED,
        &json!({ "ticket": ticket, "expires": expires }),
    ))
}

/// `GET` or `PUT` on a stream.
pub(crate) async fn answer(
    call: Call,
    target: ObjectRef,
    stream: &'static StreamKind,
    request: Request<Body>,
) -> Outcome {
    // Whoever may not open it does not learn what parameters there are.
    let bare = call.request(Op::Stream {
        target: target.clone(),
        stream: stream.name.into(),
        params: json!({}),
    })?;
    if !call.app.gate.still(&bare) {
        call.admit(bare, None)?;
    }
    let params = Params::any(request.uri())?;
    let ticket = params.get("ticket").map(str::to_owned);
    let input = input::read(stream, &params)?;
    let admitted = call.admit(
        call.request(Op::Stream {
            target: target.clone(),
            stream: stream.name.into(),
            params: input,
        })?,
        None,
    )?;
    if stream.ticketed {
        let Some(uid) = call.uid_of(&target) else {
            return Err(Error::not_found(format!("there is no {target}")).into());
        };
        let actor = &admitted.request().actor.name;
        let now = call.app.cx.clock().now();
        call.app
            .tickets
            .redeem(ticket.as_deref(), actor, &target, uid, stream.name, now)?;
    }
    if request.method() == Method::PUT {
        return write(call, admitted, request.into_body()).await;
    }
    if socket::wanted(&request) {
        let call = call.with_socket()?;
        let app = call.app.clone();
        return socket::upgrade(&app, request, move |socket| duplex(call, admitted, socket)).await;
    }
    if stream.way != Way::Read {
        return Err(Failure::http(
            StatusCode::UPGRADE_REQUIRED,
            "UPGRADE_REQUIRED",
            format!("`{}` is spoken over a WebSocket", stream.name),
            Some("ask with Upgrade: websocket".to_owned()),
        ));
    }
    read(call, admitted, sse::wanted(request.headers())).await
}

/// Bytes both ways over a WebSocket. Control messages are JSON texts; a failure is the last of them.
async fn duplex(call: Call, admitted: Admitted, socket: WebSocket) {
    let _open = call.app.metrics.opened("stream");
    let (ours, theirs) = StreamIo::pair();
    let (mut from, to) = ours.split();
    let mut to = Some(to);
    let caller = call.clone();
    let opened = async move { caller.open(admitted, theirs).await };
    tokio::pin!(opened);
    let mut socket = socket::Paced::new(socket, &call.app.limits);
    let mut ended: Option<Result<()>> = None;
    loop {
        tokio::select! {
            biased;
            () = call.app.closing.cancelled() => {
                socket.close(socket::RESTART, "the server restarts: connect again").await;
                return;
            }
            // What was sent before the end is sent on before the end.
            message = from.recv() => match message {
                Some(Msg::Data(bytes)) => if socket.data(bytes).await.is_err() { return },
                Some(Msg::Control(value)) => if socket.text(value.to_string()).await.is_err() { return },
                None => break,
            },
            end = &mut opened, if ended.is_none() => ended = Some(end),
            heard = socket.hear() => {
                let message = match heard {
                    Some(socket::Heard::Data(bytes)) => Msg::Data(bytes),
                    Some(socket::Heard::Text(text)) => match serde_json::from_str(&text) {
                        Ok(value) => Msg::Control(value),
                        Err(error) => {
                            let why = format!("a control message is not JSON: {error}");
                            socket.close(socket::FAILED, &why).await;
                            return;
                        }
                    },
                    // The far side sees the end and stops; it gets a moment to do so in order.
                    None => {
                        to = None;
                        drop(from);
                        if ended.is_none() {
                            let _ = tokio::time::timeout(Duration::from_secs(10), &mut opened).await;
                        }
                        drop(to);
                        return;
                    }
                };
                if ended.is_none() && let Some(to) = &to {
                    // While the far side does not read, it is still driven, and its words are still carried.
                    let mut sending = std::pin::pin!(to.send(message));
                    loop {
                        tokio::select! {
                            _ = &mut sending => break,
                            () = call.app.closing.cancelled() => {
                                socket.close(socket::RESTART, "the server restarts: connect again").await;
                                return;
                            }
                            () = socket.gone() => return,
                            end = &mut opened, if ended.is_none() => { ended = Some(end); break }
                            message = from.recv() => match message {
                                Some(Msg::Data(bytes)) => if socket.data(bytes).await.is_err() { return },
                                Some(Msg::Control(value)) => if socket.text(value.to_string()).await.is_err() { return },
                                None => break,
                            },
                        }
                    }
                }
            }
        }
    }
    let ended = match ended {
        Some(ended) => ended,
        None => opened.await,
    };
    match ended {
        Ok(()) => socket.close(socket::NORMAL, "").await,
        Err(error) => {
            let problem = Failure::Error(error).problem(&call.id);
            let _ = socket.text(json!({ "error": problem }).to_string()).await;
            socket.close(socket::FAILED, &problem.detail).await;
        }
    }
}

/// A body from a client, piece by piece.
async fn write(call: Call, admitted: Admitted, mut body: Body) -> Outcome {
    let _open = call.app.metrics.opened("stream");
    let (ours, theirs) = StreamIo::pair();
    let (mut from, to) = ours.split();
    let fed = async move {
        loop {
            let piece = match tokio::time::timeout(PIECE, body.frame()).await {
                Ok(piece) => piece,
                Err(_) => {
                    return Err(Failure::http(
                        StatusCode::REQUEST_TIMEOUT,
                        "REQUEST_TIMEOUT",
                        format!("no byte of the body came for {} s", PIECE.as_secs()),
                        Some("go on from where it stopped, with ?offset=".to_owned()),
                    ));
                }
            };
            match piece {
                None => return Ok(()),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data()
                        && !bytes.is_empty()
                        && to.send(Msg::Data(bytes)).await.is_err()
                    {
                        // The far side has enough, or failed: its end says which.
                        return Ok(());
                    }
                }
                Some(Err(error)) => {
                    return Err(Error::new(
                        model::What::Unparseable,
                        format!("the body broke off: {error}"),
                    )
                    .into());
                }
            }
        }
    };
    let work = async move {
        let heard = async move {
            let mut said = None;
            while let Some(message) = from.recv().await {
                if let Msg::Control(value) = message {
                    said = Some(value);
                }
            }
            said
        };
        let (said, opened) = tokio::join!(heard, call.open(admitted, theirs));
        opened.map(|()| said)
    };
    tokio::pin!(fed, work);
    // The far side takes the end of its input for the end of the body. A body that broke off must not look like that,
    // so then the far side is dropped where it stands.
    let said: Option<Value> = tokio::select! {
        biased;
        fed = &mut fed => {
            fed?;
            work.await?
        }
        early = &mut work => early?,
    };
    match said {
        Some(value) => Ok(reply::json(StatusCode::OK, &value)),
        None => Ok(reply::empty(StatusCode::NO_CONTENT)),
    }
}

/// Bytes to a client: as they are, or as server-sent events. An error before the first byte is a problem document.
async fn read(call: Call, admitted: Admitted, as_sse: bool) -> Outcome {
    let open = call.app.metrics.opened("stream");
    let (ours, theirs) = StreamIo::pair();
    // The sender is kept until the client goes: its end tells the far side to stop.
    let (mut from, to) = ours.split();
    let caller = call.clone();
    let mut opened = Box::pin(async move { caller.open(admitted, theirs).await });
    let mut ended = None;
    let first = loop {
        tokio::select! {
            biased;
            message = from.recv() => break message,
            end = &mut opened, if ended.is_none() => match end {
                Ok(()) => ended = Some(Ok(())),
                Err(error) => match from.recv().await {
                    Some(message) => {
                        ended = Some(Err(error));
                        break Some(message);
                    }
                    None => return Err(error.into()),
                },
            },
        }
    };
    let ping = call.app.limits.ping;
    let body = async_stream::stream! {
        let _open = open;
        let _to = to;
        let mut next = first;
        loop {
            match next {
                Some(message) => if let Some(bytes) = piece(message, as_sse) {
                    yield Ok::<Bytes, Infallible>(bytes);
                },
                None => break,
            }
            next = loop {
                tokio::select! {
                    biased;
                    () = call.app.closing.cancelled() => return,
                    message = from.recv() => break message,
                    end = &mut opened, if ended.is_none() => ended = Some(end),
                    () = tokio::time::sleep(ping), if as_sse => yield Ok(Bytes::from_static(sse::PING)),
                }
            };
        }
        let end = match ended {
            Some(end) => end,
            None => opened.await,
        };
        if let Err(error) = end {
            let problem = Failure::Error(error).problem(&call.id);
            tracing::info!(request_id = call.id, detail = problem.detail, "a stream ended with an error");
            if as_sse {
                let json = serde_json::to_string(&problem).unwrap_or_default();
                yield Ok(sse::frame("error", None, &json));
            }
        }
    };
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    let kind = if as_sse {
        sse::TYPE
    } else {
        "application/octet-stream"
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn piece(message: Msg, as_sse: bool) -> Option<Bytes> {
    match (message, as_sse) {
        (Msg::Data(bytes), false) => Some(bytes),
        (Msg::Data(bytes), true) => {
            Some(sse::frame("data", None, &String::from_utf8_lossy(&bytes)))
        }
        (Msg::Control(value), true) => Some(sse::frame("control", None, &value.to_string())),
        // Plain bytes have no place for it.
        (Msg::Control(_), false) => None,
    }
}
