//! `console`: the serial line. QEMU lets one client connect, so the guest's driver task holds that connection and shares it.

use super::guest;
use super::viewer::Viewer;
use model::Result;
use runtime::{Cx, Msg, StreamIo, StreamRequest};
use tokio::sync::broadcast::error::RecvError;

pub(super) async fn open(cx: Cx, request: StreamRequest, mut io: StreamIo) -> Result<()> {
    let (id, hypervisor) = guest(&cx, &request, "screen").await?;
    let _viewer = Viewer::enter(&cx, &request, &id, "serial line").await?;
    let mut console = hypervisor.console(&id).await?;
    if !console.before.is_empty() {
        io.data(console.before.clone()).await?;
    }
    loop {
        tokio::select! {
            said = console.output.recv() => match said {
                Ok(bytes) => io.data(bytes).await?,
                // A slow reader misses what a terminal would have scrolled past.
                Err(RecvError::Lagged(n)) => {
                    io.send(Msg::Control(serde_json::json!({ "missed": n }))).await?;
                }
                Err(RecvError::Closed) => return Ok(()),
            },
            typed = io.recv() => match typed {
                Some(Msg::Data(bytes)) => {
                    if console.input.send(bytes).await.is_err() {
                        return Ok(());
                    }
                }
                // Window sizes mean nothing to a serial line.
                Some(Msg::Control(_)) => {}
                None => return Ok(()),
            },
        }
    }
}
