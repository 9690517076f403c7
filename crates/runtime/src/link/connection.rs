//! One yamux connection with its driver.

use super::broken;
use crate::Cx;
use futures::future::poll_fn;
use model::{Error, Result};
use std::future::Future;
use std::task::Poll;
use store::remote::BoxIo;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};

type Ask = oneshot::Sender<std::io::Result<BoxIo>>;

/// Opens streams on one connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Mux(mpsc::Sender<Ask>);

impl Mux {
    /// Starts the driver as a task of the process.
    pub(super) fn start(
        cx: &Cx,
        stream: UnixStream,
        mode: yamux::Mode,
    ) -> (Mux, mpsc::Receiver<BoxIo>) {
        let (mux, inbound, driver) = Mux::prepare(stream, mode);
        let stop = cx.shutdown();
        cx.life().spawn("link driver", async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = driver => {}
            }
        });
        (mux, inbound)
    }

    /// The handle, the streams that the other side opens, and the driver that must be polled.
    pub(super) fn prepare(
        stream: UnixStream,
        mode: yamux::Mode,
    ) -> (Mux, mpsc::Receiver<BoxIo>, impl Future<Output = ()> + Send) {
        let (ask, asked) = mpsc::channel(64);
        let (arrived, inbound) = mpsc::channel(64);
        let connection = yamux::Connection::new(stream.compat(), yamux::Config::default(), mode);
        (Mux(ask), inbound, drive(connection, asked, arrived))
    }

    pub(super) fn closed(&self) -> bool {
        self.0.is_closed()
    }

    /// Opens a stream.
    pub(super) async fn open(&self) -> Result<BoxIo> {
        let (answer, answered) = oneshot::channel();
        let gone = || Error::unavailable("the link between api and agent is down");
        self.0.send(answer).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?.map_err(broken)
    }
}

type Connection = yamux::Connection<tokio_util::compat::Compat<UnixStream>>;

/// Polls the connection: it makes progress only here.
async fn drive(
    mut connection: Connection,
    mut asked: mpsc::Receiver<Ask>,
    arrived: mpsc::Sender<BoxIo>,
) {
    let mut pending: Option<Ask> = None;
    poll_fn(|cx| {
        loop {
            let mut progress = false;
            if pending.is_none()
                && let Poll::Ready(Some(ask)) = asked.poll_recv(cx)
            {
                pending = Some(ask);
            }
            if pending.is_some()
                && let Poll::Ready(opened) = connection.poll_new_outbound(cx)
                && let Some(ask) = pending.take()
            {
                let opened = opened
                    .map(|s| Box::new(s.compat()) as BoxIo)
                    .map_err(std::io::Error::other);
                let _ = ask.send(opened);
                progress = true;
            }
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    // A full queue drops the stream, which resets it: the other side sees an error, not a hang.
                    let _ = arrived.try_send(Box::new(stream.compat()));
                    progress = true;
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "link");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if !progress {
                return Poll::Pending;
            }
        }
    })
    .await;
}
