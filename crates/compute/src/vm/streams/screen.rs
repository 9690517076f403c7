//! `vnc` and `screenshot`: the screen.

use super::super::hypervisor::{Ask, Reply};
use super::guest;
use super::viewer::Viewer;
use bytes::Bytes;
use model::{Error, Result};
use runtime::{Cx, Msg, StreamIo, StreamRequest};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Bytes read from QEMU at once: a full screen comes in a few of these.
const CHUNK: usize = 64 * 1024;

pub(super) async fn vnc(cx: Cx, request: StreamRequest, mut io: StreamIo) -> Result<()> {
    let (id, hypervisor) = guest(&cx, &request, "screen").await?;
    let _viewer = Viewer::enter(&cx, &request, &id, "screen").await?;
    let screen = hypervisor.screen(&id).await?;
    let (mut from, mut to) = screen.stream.into_split();
    let mut buffer = vec![0; CHUNK];
    loop {
        tokio::select! {
            read = from.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return Ok(()),
                Ok(n) => io.data(Bytes::copy_from_slice(&buffer[..n])).await?,
            },
            got = io.recv() => match got {
                Some(Msg::Data(bytes)) => {
                    if to.write_all(&bytes).await.is_err() {
                        return Ok(());
                    }
                }
                Some(Msg::Control(_)) => {}
                None => return Ok(()),
            },
        }
    }
}

pub(super) async fn shot(cx: Cx, request: StreamRequest, io: StreamIo) -> Result<()> {
    let (id, hypervisor) = guest(&cx, &request, "screen").await?;
    match hypervisor.ask(&id, Ask::Screenshot).await? {
        Reply::Bytes(png) => {
            for at in (0..png.len()).step_by(CHUNK) {
                io.data(png.slice(at..png.len().min(at + CHUNK))).await?;
            }
            Ok(())
        }
        other => Err(Error::internal(format!("a screenshot answered {other:?}"))),
    }
}
