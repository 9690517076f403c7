//! The end of a link that has the store.

use super::BoxIo;
use super::wire::{
    self, Answer, Ask, Call, ChangeMessage, Failure, Found, Open, PART, Reply, Seen, VERSION,
    WatchAsk,
};
use crate::{Key, LeaseId, Prefix, Result, Revision, Store, StoreError, Txn};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, SinkExt, StreamExt};
use prost::Message;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

/// Calls of one stream that are worked on at the same time.
const AT_ONCE: usize = 256;

/// A stream must say within this time what it is for.
const GREETING: Duration = Duration::from_secs(10);

/// What a caller wants to do, for the rule that scopes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read one key, or learn from an expectation whether it exists.
    Read(Key),
    /// List or watch everything under a prefix.
    ReadAll(Prefix),
    /// Create, replace or delete a key.
    Write(Key),
    /// Take, extend or end a lease. Ids are random, so only who took a lease, or may read its keys, can name it.
    Lease,
}

/// Says whether a caller may.
pub type Allow = Arc<dyn Fn(&Access) -> bool + Send + Sync>;

type Frames = Framed<BoxIo, LengthDelimitedCodec>;

/// Serves one stream of a link: either calls or one watch, as its first frame says. Returns when the peer is done;
/// an error when the peer breaks off or does not keep to the form. `allow` is asked for every access.
pub async fn serve_store(io: BoxIo, store: Arc<dyn Store>, allow: Allow) -> io::Result<()> {
    let mut frames = Framed::new(io, wire::codec());
    let first = tokio::time::timeout(GREETING, frames.next()).await;
    let first = match first {
        Ok(Some(frame)) => frame?,
        Ok(None) => return Ok(()),
        Err(_) => {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the peer did not say what the stream is for",
            ));
        }
    };
    let open = Open::decode(first).map_err(garbage)?;
    if open.version != VERSION {
        let text = format!(
            "this node speaks version {VERSION} of the store link, the peer version {}; bring both to neighbouring releases",
            open.version
        );
        let failure = Failure::from(StoreError::Unusable(text));
        return match open.watch {
            Some(_) => end_watch(&mut frames, failure).await,
            None => {
                send(
                    &mut frames,
                    &Reply {
                        id: 0,
                        answer: Some(Answer::Failure(failure)),
                    },
                )
                .await
            }
        };
    }
    match open.watch {
        Some(ask) => watch(frames, &*store, &allow, ask).await,
        None => calls(frames, store, allow).await,
    }
}

fn garbage(error: prost::DecodeError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

async fn send(frames: &mut Frames, message: &impl Message) -> io::Result<()> {
    frames.send(wire::pack(message)).await
}

async fn end_watch(frames: &mut Frames, failure: Failure) -> io::Result<()> {
    send(
        frames,
        &Seen {
            changes: Vec::new(),
            failure: Some(failure),
        },
    )
    .await
}

async fn watch(
    mut frames: Frames,
    store: &dyn Store,
    allow: &Allow,
    ask: WatchAsk,
) -> io::Result<()> {
    let under = Prefix::new(ask.under);
    let access = Access::ReadAll(under.clone());
    if !allow(&access) {
        return end_watch(&mut frames, denied(&access).into()).await;
    }
    let mut changes = store.watch(&under, Revision(ask.after)).ready_chunks(256);
    loop {
        let ready = tokio::select! {
            ready = changes.next() => ready,
            // The peer says nothing more; what comes is its end.
            end = frames.next() => return match end {
                None => Ok(()),
                Some(Err(error)) => Err(error),
                Some(Ok(_)) => Err(io::Error::new(io::ErrorKind::InvalidData, "a watch takes no further frames")),
            },
        };
        let Some(ready) = ready else { return Ok(()) };
        let mut seen = Seen::default();
        let mut bytes = 0;
        for change in ready {
            match change {
                Ok(change) => {
                    let change = ChangeMessage::from(change);
                    bytes += change.encoded_len();
                    seen.changes.push(change);
                }
                Err(error) => seen.failure = Some(error.into()),
            }
            if bytes >= PART {
                frames.feed(wire::pack(&std::mem::take(&mut seen))).await?;
                bytes = 0;
            }
        }
        let ended = seen.failure.is_some();
        send(&mut frames, &seen).await?;
        if ended {
            return Ok(());
        }
    }
}

async fn calls(frames: Frames, store: Arc<dyn Store>, allow: Allow) -> io::Result<()> {
    let (mut sink, mut stream) = frames.split();
    let mut working = FuturesUnordered::new();
    let mut open = true;
    while open || !working.is_empty() {
        tokio::select! {
            frame = stream.next(), if open && working.len() < AT_ONCE => match frame {
                Some(frame) => {
                    let call = Call::decode(frame?).map_err(garbage)?;
                    working.push(answer(&*store, &allow, call));
                }
                // The peer asks no more; what it asked is still answered, if it listens.
                None => open = false,
            },
            Some(replies) = working.next() => {
                feed(&mut sink, replies).await?;
                // What is ready at the same time goes out together.
                while let Some(Some(replies)) = working.next().now_or_never() {
                    feed(&mut sink, replies).await?;
                }
                sink.flush().await?;
            }
        }
    }
    Ok(())
}

async fn feed(
    sink: &mut (impl SinkExt<bytes::Bytes, Error = io::Error> + Unpin),
    replies: Vec<Reply>,
) -> io::Result<()> {
    for reply in replies {
        sink.feed(wire::pack(&reply)).await?;
    }
    Ok(())
}

async fn answer(store: &dyn Store, allow: &Allow, call: Call) -> Vec<Reply> {
    let id = call.id;
    let reply = |answer| Reply {
        id,
        answer: Some(answer),
    };
    match work(store, allow, call.ask).await {
        Ok(answers) => answers.into_iter().map(reply).collect(),
        Err(error) => vec![reply(Answer::Failure(error.into()))],
    }
}

async fn work(store: &dyn Store, allow: &Allow, ask: Option<Ask>) -> Result<Vec<Answer>> {
    let check = |access: Access| {
        if allow(&access) {
            Ok(())
        } else {
            Err(denied(&access))
        }
    };
    let one = |answer| Ok(vec![answer]);
    match ask {
        Some(Ask::Get(key)) => {
            let key = Key::new(key);
            check(Access::Read(key.clone()))?;
            let entry = store.get(&key).await?;
            one(Answer::Entry(Found {
                entry: entry.map(Into::into),
            }))
        }
        Some(Ask::List(ask)) => {
            let under = Prefix::new(ask.under.as_str());
            check(Access::ReadAll(under.clone()))?;
            let listing = store.list(&under, ask.page()).await?;
            Ok(wire::parts(listing)
                .into_iter()
                .map(Answer::Listing)
                .collect())
        }
        Some(Ask::Commit(txn)) => {
            let txn = Txn::from(txn);
            for expect in &txn.expect {
                check(Access::Read(expect.key().clone()))?;
            }
            for write in &txn.writes {
                check(Access::Write(write.key().clone()))?;
            }
            one(Answer::Revision(store.commit(txn).await?.0))
        }
        Some(Ask::Lease(ttl)) => {
            check(Access::Lease)?;
            one(Answer::Lease(
                store.lease(Duration::from_millis(ttl)).await?.0,
            ))
        }
        Some(Ask::KeepAlive(lease)) => {
            check(Access::Lease)?;
            store.keep_alive(LeaseId(lease)).await?;
            one(Answer::Done(true))
        }
        Some(Ask::Revoke(lease)) => {
            check(Access::Lease)?;
            store.revoke(LeaseId(lease)).await?;
            one(Answer::Done(true))
        }
        None => Err(StoreError::Unusable(
            "the peer asks for something this version does not know; upgrade this node".into(),
        )),
    }
}

fn denied(access: &Access) -> StoreError {
    StoreError::Denied(match access {
        Access::Read(key) => format!("it may not read key `{key}`"),
        Access::ReadAll(under) => format!("it may not read the keys under `{}`", under.as_str()),
        Access::Write(key) => format!("it may not write key `{key}`"),
        Access::Lease => "it may not use leases".into(),
    })
}
