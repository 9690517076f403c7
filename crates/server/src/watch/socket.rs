//! WebSockets that are pinged, bounded, and closed with a reason.

use crate::Limits;
use crate::app::App;
use crate::reply::{Failure, Outcome};
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use bytes::Bytes;
use http::header::UPGRADE;
use http::{Method, Request, StatusCode};
use std::future::Future;
use std::time::{Duration, Instant};

/// Close code: all is said (RFC 6455).
pub(crate) const NORMAL: u16 = 1000;
/// Close code: an error on our side or in what was asked.
pub(crate) const FAILED: u16 = 1011;
/// Close code: the server restarts, connect again (IANA registry).
pub(crate) const RESTART: u16 = 1012;

/// Most bytes of one message from a client.
const MESSAGE: usize = 1024 * 1024;
/// How long one message may take to leave; after that the client is gone.
const SEND: Duration = Duration::from_secs(30);

/// Whether a request wants to become a WebSocket.
pub(crate) fn wanted(request: &Request<Body>) -> bool {
    request.method() == Method::CONNECT
        || request
            .headers()
            .get(UPGRADE)
            .and_then(|v| v.to_str().ok())
            .is_some_and(|v| v.eq_ignore_ascii_case("websocket"))
}

/// Takes the handshake apart from what is said afterwards.
pub(crate) async fn accept(request: Request<Body>) -> Outcome<WebSocketUpgrade> {
    let (mut parts, _) = request.into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|e| {
            Failure::http(
                StatusCode::BAD_REQUEST,
                "BAD_UPGRADE",
                format!("the WebSocket handshake is wrong: {e}"),
                None,
            )
        })?;
    Ok(upgrade
        .max_message_size(MESSAGE)
        .max_frame_size(MESSAGE)
        .max_write_buffer_size(2 * MESSAGE))
}

/// Answers the handshake and runs `serve` on the socket, until it ends or the server cuts what is left.
pub(crate) async fn upgrade<F, Fut>(app: &App, request: Request<Body>, serve: F) -> Outcome
where
    F: FnOnce(WebSocket) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let cut = app.cut.clone();
    let serve =
        move |socket| async move { cut.run_until_cancelled(serve(socket)).await.unwrap_or(()) };
    Ok(accept(request).await?.on_upgrade(serve))
}

/// The other side is gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// What a client said.
pub(crate) enum Heard {
    /// Bytes.
    Data(Bytes),
    /// Text.
    Text(String),
}

/// A socket that is pinged; a client that does not answer is gone.
pub(crate) struct Paced {
    socket: WebSocket,
    every: Duration,
    patience: Duration,
    next_ping: tokio::time::Instant,
    unanswered: Option<Instant>,
    /// What came while nobody could take it.
    held: Option<Heard>,
}

impl Paced {
    pub(crate) fn new(socket: WebSocket, limits: &Limits) -> Paced {
        Paced {
            socket,
            every: limits.ping,
            patience: limits.pong,
            next_ping: tokio::time::Instant::now() + limits.ping,
            unanswered: None,
            held: None,
        }
    }

    /// Ends when the client is gone: for a while in which nothing that it says can be taken. One message is held for
    /// [`Paced::hear`]; with that, only what cannot be sent shows the end. May be dropped at any await.
    pub(crate) async fn gone(&mut self) {
        loop {
            let full = self.held.is_some();
            match self.next(full).await {
                Some(heard) => self.held = Some(heard),
                None => return,
            }
        }
    }

    /// The next message; pings while it waits. `None` when the client is gone. May be dropped at any await.
    pub(crate) async fn hear(&mut self) -> Option<Heard> {
        match self.held.take() {
            Some(held) => Some(held),
            None => self.next(false).await,
        }
    }

    async fn next(&mut self, deaf: bool) -> Option<Heard> {
        loop {
            tokio::select! {
                message = self.socket.recv(), if !deaf => {
                    self.unanswered = None;
                    match message? {
                        Ok(Message::Text(text)) => return Some(Heard::Text(text.as_str().to_owned())),
                        Ok(Message::Binary(bytes)) => return Some(Heard::Data(bytes)),
                        Ok(Message::Ping(_) | Message::Pong(_)) => {}
                        Ok(Message::Close(_)) | Err(_) => return None,
                    }
                }
                () = tokio::time::sleep_until(self.next_ping) => {
                    self.next_ping = tokio::time::Instant::now() + self.every;
                    match self.unanswered {
                        // Nobody has listened.
                        _ if deaf => self.unanswered = None,
                        Some(since) if since.elapsed() >= self.patience => return None,
                        Some(_) => {}
                        None => self.unanswered = Some(Instant::now()),
                    }
                    if self.send(Message::Ping(Bytes::new())).await.is_err() {
                        return None;
                    }
                }
            }
        }
    }

    async fn send(&mut self, message: Message) -> Result<(), Gone> {
        match tokio::time::timeout(SEND, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    /// Sends text.
    pub(crate) async fn text(&mut self, text: String) -> Result<(), Gone> {
        self.send(Message::Text(text.into())).await
    }

    /// Sends bytes.
    pub(crate) async fn data(&mut self, bytes: Bytes) -> Result<(), Gone> {
        self.send(Message::Binary(bytes)).await
    }

    /// Says goodbye.
    pub(crate) async fn close(&mut self, code: u16, reason: &str) {
        let reason: String = reason.chars().take(60).collect();
        let frame = CloseFrame {
            code,
            reason: reason.into(),
        };
        let _ = self.send(Message::Close(Some(frame))).await;
    }
}
