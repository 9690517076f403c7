//! The end of a link that has the store.

use super::BoxIo;
use super::wire::{
    self, Answer, Ask, Call, ChangeMessage, Failure, Found, Open, PART, Reply, Seen, VERSION,
    WatchAsk,
};
use crate::{
    Change, ChangeKind, Entry, Key, LeaseId, Prefix, Result, Revision, Store, StoreError, Txn,
};
use futures::future::BoxFuture;
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

/// Which part of the store a caller has: asked for everything that it reads and writes. What it refuses, it refuses
/// with a text that names the key and the caller.
pub trait Scope: Send + Sync {
    /// May it read this key, or learn from an expectation whether it exists?
    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<(), String>>;
    /// An entry as the caller may see it; `None` when it may not see it at all.
    fn show(&self, entry: Entry) -> BoxFuture<'_, Option<Entry>>;
    /// A change as the caller may see it. What it may not see becomes [`hidden`], so that it still learns of the
    /// revision; one change may show or hide others.
    fn follow(&self, change: Change) -> BoxFuture<'_, Result<Vec<Change>>>;
    /// What of a transaction may be committed; a refusal commits nothing.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Txn, String>>;
}

/// Everything, for callers that are ourselves and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unscoped;

impl Scope for Unscoped {
    fn read<'a>(&'a self, _: &'a Key) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }
    fn show(&self, entry: Entry) -> BoxFuture<'_, Option<Entry>> {
        Box::pin(async { Some(entry) })
    }
    fn follow(&self, change: Change) -> BoxFuture<'_, Result<Vec<Change>>> {
        Box::pin(async { Ok(vec![change]) })
    }
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Txn, String>> {
        Box::pin(async { Ok(txn) })
    }
}

/// What stands in the place of a change that the caller may not see: no key has this name.
pub fn hidden(change: &Change) -> Change {
    Change {
        revision: change.revision,
        kind: ChangeKind::Delete(Key::new("hidden")),
        last: change.last,
    }
}

type Frames = Framed<BoxIo, LengthDelimitedCodec>;

/// Serves one stream of a link: either calls or one watch, as its first frame says. Returns when the peer is done;
/// an error when the peer breaks off or does not keep to the form. `scope` is asked for every access.
pub async fn serve_store(
    io: BoxIo,
    store: Arc<dyn Store>,
    scope: Arc<dyn Scope>,
) -> io::Result<()> {
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
        Some(ask) => watch(frames, &*store, &*scope, ask).await,
        None => calls(frames, store, scope).await,
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
    scope: &dyn Scope,
    ask: WatchAsk,
) -> io::Result<()> {
    let under = Prefix::new(ask.under);
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
            let shown = match change {
                Ok(change) => scope.follow(change).await,
                Err(error) => Err(error),
            };
            match shown {
                Ok(changes) => {
                    for change in changes {
                        let change = ChangeMessage::from(change);
                        bytes += change.encoded_len();
                        seen.changes.push(change);
                        if bytes >= PART {
                            frames.feed(wire::pack(&std::mem::take(&mut seen))).await?;
                            bytes = 0;
                        }
                    }
                }
                Err(error) => {
                    seen.failure = Some(error.into());
                    break;
                }
            }
        }
        let ended = seen.failure.is_some();
        send(&mut frames, &seen).await?;
        if ended {
            return Ok(());
        }
    }
}

async fn calls(frames: Frames, store: Arc<dyn Store>, scope: Arc<dyn Scope>) -> io::Result<()> {
    let (mut sink, mut stream) = frames.split();
    let mut working = FuturesUnordered::new();
    let mut open = true;
    while open || !working.is_empty() {
        tokio::select! {
            frame = stream.next(), if open && working.len() < AT_ONCE => match frame {
                Some(frame) => {
                    let call = Call::decode(frame?).map_err(garbage)?;
                    working.push(answer(&*store, &*scope, call));
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

async fn answer(store: &dyn Store, scope: &dyn Scope, call: Call) -> Vec<Reply> {
    let id = call.id;
    let reply = |answer| Reply {
        id,
        answer: Some(answer),
    };
    match work(store, scope, call.ask).await {
        Ok(answers) => answers.into_iter().map(reply).collect(),
        Err(error) => vec![reply(Answer::Failure(error.into()))],
    }
}

async fn work(store: &dyn Store, scope: &dyn Scope, ask: Option<Ask>) -> Result<Vec<Answer>> {
    let one = |answer| Ok(vec![answer]);
    match ask {
        Some(Ask::Get(key)) => {
            let key = Key::new(key);
            scope.read(&key).await.map_err(StoreError::Denied)?;
            let entry = match store.get(&key).await? {
                Some(entry) => scope.show(entry).await,
                None => None,
            };
            one(Answer::Entry(Found {
                entry: entry.map(Into::into),
            }))
        }
        Some(Ask::List(ask)) => {
            let under = Prefix::new(ask.under.as_str());
            let mut listing = store.list(&under, ask.page()).await?;
            let mut shown = Vec::with_capacity(listing.entries.len());
            for entry in listing.entries {
                shown.extend(scope.show(entry).await);
            }
            listing.entries = shown;
            Ok(wire::parts(listing)
                .into_iter()
                .map(Answer::Listing)
                .collect())
        }
        Some(Ask::Commit(txn)) => {
            let txn = Txn::from(txn);
            for expect in &txn.expect {
                scope.read(expect.key()).await.map_err(StoreError::Denied)?;
            }
            let txn = scope.commit(txn).await.map_err(StoreError::Denied)?;
            one(Answer::Revision(store.commit(txn).await?.0))
        }
        Some(Ask::Lease(ttl)) => one(Answer::Lease(
            store.lease(Duration::from_millis(ttl)).await?.0,
        )),
        Some(Ask::KeepAlive(lease)) => {
            store.keep_alive(LeaseId(lease)).await?;
            one(Answer::Done(true))
        }
        Some(Ask::Revoke(lease)) => {
            store.revoke(LeaseId(lease)).await?;
            one(Answer::Done(true))
        }
        None => Err(StoreError::Unusable(
            "the peer asks for something this version does not know; upgrade this node".into(),
        )),
    }
}
