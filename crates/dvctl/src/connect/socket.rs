//! WebSocket over the same places as HTTP.

use super::{Client, Wire, http::problem};
use crate::failure::{Failure, Result};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

/// Close code: the server restarts (IANA registry).
const RESTART: u16 = 1012;

/// An open WebSocket.
pub struct Socket {
    inner: WebSocketStream<Box<dyn Wire>>,
    /// Our half is closed: only reading goes on.
    closing: bool,
}

/// What travels on it.
#[derive(Debug)]
pub enum Frame {
    /// A binary message: bytes of the stream.
    Data(Bytes),
    /// A text message: JSON about the stream.
    Control(serde_json::Value),
}

impl Client {
    /// Opens a WebSocket at a path after `/api/v1`.
    pub async fn socket(&self, path: &str) -> Result<Socket> {
        let bearer = self.bearer().await?;
        let wire = self.dial().await?;
        let mut request = format!("ws://{}/api/v1{path}", self.host())
            .into_client_request()
            .map_err(|e| Failure::usage(format!("{path} cannot be asked for: {e}")))?;
        if let Some(token) = bearer {
            let header = format!("Bearer {token}").parse();
            let header = header.map_err(|_| Failure::usage("the saved login is unreadable"))?;
            request
                .headers_mut()
                .insert(http::header::AUTHORIZATION, header);
        }
        match tokio_tungstenite::client_async(request, wire).await {
            Ok((inner, _)) => Ok(Socket {
                inner,
                closing: false,
            }),
            Err(Error::Http(response)) => {
                let status = response.status().as_u16();
                Err(problem(status, response.body().as_deref().unwrap_or(&[])))
            }
            Err(e) => Err(Failure::unreachable(format!(
                "{} does not open a WebSocket at {path}: {e}",
                self.place().shown()
            ))),
        }
    }
}

impl Socket {
    /// The next frame; `None` when the server has closed.
    pub async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            match self.inner.next().await {
                None => return Ok(None),
                Some(Ok(Message::Binary(bytes))) => return Ok(Some(Frame::Data(bytes))),
                Some(Ok(Message::Text(text))) => {
                    let value = serde_json::from_str(&text).map_err(|e| {
                        Failure::unreachable(format!(
                            "the server sent a text that is not JSON: {e}"
                        ))
                    })?;
                    return Ok(Some(Frame::Control(value)));
                }
                Some(Ok(Message::Close(Some(frame))))
                    if !frame.reason.is_empty() && u16::from(frame.code) != 1000 =>
                {
                    let reason = frame.reason.as_str();
                    return Err(match u16::from(frame.code) {
                        RESTART => Failure::unreachable(reason),
                        _ => Failure::new(1, reason),
                    });
                }
                Some(Ok(Message::Close(_))) => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => return Ok(None),
                Some(Err(e)) => {
                    return Err(Failure::unreachable(format!("the stream broke: {e}"))
                        .hint("the server may be restarting; open it again"));
                }
            }
        }
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: Frame) -> Result<()> {
        if self.closing {
            return Ok(());
        }
        let message = match frame {
            Frame::Data(bytes) => Message::Binary(bytes),
            Frame::Control(value) => Message::Text(value.to_string().into()),
        };
        self.inner
            .send(message)
            .await
            .map_err(|e| Failure::unreachable(format!("the stream broke: {e}")))
    }

    /// Says goodbye; errors no longer matter then.
    pub async fn close(&mut self) {
        self.closing = true;
        _ = self.inner.close(None).await;
    }
}
