//! Byte streams of objects: consoles, logs, uploads. Declared per kind, so that no surface names a kind.

use crate::{Actor, Cx};
use bytes::Bytes;
use futures::future::BoxFuture;
use model::{Error, ObjectRef, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

/// One message of a stream. WebSockets carry `Data` as binary and `Control` as text.
#[derive(Clone, Debug, PartialEq)]
pub enum Msg {
    /// Bytes.
    Data(Bytes),
    /// JSON beside the bytes: a window size, an exit code.
    Control(Value),
}

/// Which stream of which object, and who opens it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamRequest {
    /// The object.
    pub target: ObjectRef,
    /// The declared stream.
    pub stream: String,
    /// Its parameters, checked.
    pub params: Value,
    /// Who opens it.
    pub actor: Actor,
    /// Follows the request through every log.
    pub request_id: String,
}

/// Opens a stream: runs until either side ends it.
pub type OpenFn = fn(Cx, StreamRequest, StreamIo) -> BoxFuture<'static, Result<()>>;

/// One end of a stream.
pub struct StreamIo {
    rx: mpsc::Receiver<Msg>,
    tx: mpsc::Sender<Msg>,
}

impl StreamIo {
    /// Two ends that are connected, each side buffering up to 64 messages.
    pub fn pair() -> (StreamIo, StreamIo) {
        let (a_tx, b_rx) = mpsc::channel(64);
        let (b_tx, a_rx) = mpsc::channel(64);
        (
            StreamIo { rx: a_rx, tx: a_tx },
            StreamIo { rx: b_rx, tx: b_tx },
        )
    }

    /// The next message; `None` when the other side has ended.
    pub async fn recv(&mut self) -> Option<Msg> {
        self.rx.recv().await
    }

    /// Sends a message; an error means that the other side is gone.
    pub async fn send(&self, msg: Msg) -> Result<()> {
        self.tx
            .send(msg)
            .await
            .map_err(|_| Error::gone("the other side has closed the stream"))
    }

    /// Sends bytes.
    pub async fn data(&self, bytes: impl Into<Bytes>) -> Result<()> {
        self.send(Msg::Data(bytes.into())).await
    }

    /// Resolves when the other side no longer reads.
    pub async fn closed(&self) {
        self.tx.closed().await;
    }

    /// One end put together from its two directions.
    pub fn from_parts(rx: mpsc::Receiver<Msg>, tx: mpsc::Sender<Msg>) -> StreamIo {
        StreamIo { rx, tx }
    }

    /// The two directions apart.
    pub fn split(self) -> (mpsc::Receiver<Msg>, mpsc::Sender<Msg>) {
        (self.rx, self.tx)
    }

    /// Passes messages both ways between two streams until both directions have ended.
    pub async fn join(self, other: StreamIo) {
        let (mut a_rx, a_tx) = self.split();
        let (mut b_rx, b_tx) = other.split();
        let there = async move {
            while let Some(msg) = a_rx.recv().await {
                if b_tx.send(msg).await.is_err() {
                    break;
                }
            }
        };
        let back = async move {
            loop {
                tokio::select! {
                    msg = b_rx.recv() => match msg {
                        Some(msg) => if a_tx.send(msg).await.is_err() { break },
                        None => break,
                    },
                    () = a_tx.closed() => break,
                }
            }
        };
        tokio::join!(there, back);
    }
}
