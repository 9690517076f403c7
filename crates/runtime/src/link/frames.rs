//! Messages of an object stream as frames: `length u32 | sort u8 | payload`.

use super::broken;
use crate::{Msg, StreamIo};
use bytes::Bytes;
use model::{Error, Result};
use store::remote::BoxIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Largest payload of a frame.
const MAX: usize = 1 << 20;
const DATA: u8 = 0;
const CONTROL: u8 = 1;

/// Carries messages both ways until either side ends.
pub(super) async fn run(stream: BoxIo, io: StreamIo) -> Result<()> {
    let (mut read, mut write) = tokio::io::split(stream);
    let (mut from, to) = io.split();
    let out = async {
        while let Some(msg) = from.recv().await {
            let (sort, payload) = match msg {
                Msg::Data(bytes) => (DATA, bytes),
                Msg::Control(value) => (CONTROL, Bytes::from(value.to_string())),
            };
            for chunk in chunks(&payload) {
                write.write_u32(chunk.len() as u32).await.map_err(broken)?;
                write.write_u8(sort).await.map_err(broken)?;
                write.write_all(chunk).await.map_err(broken)?;
            }
            write.flush().await.map_err(broken)?;
        }
        write.shutdown().await.map_err(broken)
    };
    let back = async {
        loop {
            let length = match read.read_u32().await {
                Ok(length) => length as usize,
                Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(e) => return Err(broken(e)),
            };
            if length > MAX {
                return Err(Error::unparseable(format!("frame of {length} bytes")));
            }
            let sort = read.read_u8().await.map_err(broken)?;
            let mut payload = vec![0; length];
            read.read_exact(&mut payload).await.map_err(broken)?;
            let msg = match sort {
                DATA => Msg::Data(payload.into()),
                _ => Msg::Control(
                    serde_json::from_slice(&payload)
                        .map_err(|e| Error::unparseable("control frame").because(e))?,
                ),
            };
            if to.send(msg).await.is_err() {
                return Ok(());
            }
        }
    };
    // When the far side has ended, nothing that we still send is read; when ours has ended, what comes back still counts.
    let (mut out, mut back) = (Box::pin(out), Box::pin(back));
    tokio::select! {
        ended = &mut back => ended,
        ended = &mut out => match ended {
            Ok(()) => back.await,
            Err(e) => Err(e),
        },
    }
}

fn chunks(payload: &Bytes) -> impl Iterator<Item = &[u8]> {
    let whole = payload.is_empty().then_some(&payload[..]);
    whole.into_iter().chain(payload.chunks(MAX))
}
