//! The end of a link that wants the store.

use super::wire::{
    self, Answer, Ask, Call, ListAsk, Open, Reply, Seen, TxnMessage, VERSION, WatchAsk,
};
use super::{BoxIo, OpenStream};
use crate::{
    Change, Entry, Key, LeaseId, Listing, Page, Prefix, Result, Revision, Store, StoreError, Txn,
    rules,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{SinkExt, StreamExt};
use parking_lot::Mutex;
use prost::Message;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a call waits for a link that is down.
const LINK_WAIT: Duration = Duration::from_secs(2);
/// How long a call waits for its answer; the store's own waits are shorter.
const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// First and longest pause before a link is opened again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How long opening a stream may take.
const OPENING: Duration = Duration::from_secs(10);
/// Calls that wait to be sent; more callers wait.
const WAITING: usize = 256;

type Frames = Framed<BoxIo, LengthDelimitedCodec>;

/// A store at the other end of a link. Opens one stream for calls and one for each watch, and opens them again when
/// the link breaks: a call meanwhile is `Unavailable`, a watch goes on after the last revision it has seen.
pub struct RemoteStore {
    opener: Arc<dyn OpenStream>,
    calls: mpsc::Sender<Waiting>,
    linked: watch::Receiver<bool>,
    closed: CancellationToken,
    _closing: DropGuard,
    _driver: JoinSet<()>,
}

struct Waiting {
    ask: Ask,
    answer: oneshot::Sender<Result<Whole>>,
}

/// An answer with all its parts.
enum Whole {
    Entry(Option<Entry>),
    Listing(Listing),
    Revision(Revision),
    Lease(LeaseId),
    Done,
}

/// A call that was sent.
struct Sent {
    parts: Vec<Entry>,
    answer: oneshot::Sender<Result<Whole>>,
}

impl RemoteStore {
    /// A store behind `opener`. Must be called inside a tokio runtime; its task ends when the store is dropped.
    pub fn new(opener: Arc<dyn OpenStream>) -> Arc<Self> {
        let (calls, waiting) = mpsc::channel(WAITING);
        let (linked_tx, linked) = watch::channel(false);
        let closed = CancellationToken::new();
        let mut driver = JoinSet::new();
        driver.spawn(drive(opener.clone(), waiting, linked_tx));
        Arc::new(RemoteStore {
            opener,
            calls,
            linked,
            _closing: closed.clone().drop_guard(),
            closed,
            _driver: driver,
        })
    }

    /// Whether the stream for calls is open now. Changes can be waited for.
    pub fn linked(&self) -> watch::Receiver<bool> {
        self.linked.clone()
    }

    async fn call(&self, ask: Ask) -> Result<Whole> {
        let mut linked = self.linked.clone();
        match tokio::time::timeout(LINK_WAIT, linked.wait_for(|linked| *linked)).await {
            Ok(Ok(_)) => {}
            _ => return Err(unavailable("the link to it is down; nothing was done")),
        }
        let (answer, answered) = oneshot::channel();
        let sent = self.calls.send(Waiting { ask, answer }).await;
        sent.map_err(|_| unavailable("the link to it was closed; nothing was done"))?;
        match tokio::time::timeout(ANSWER_WAIT, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(lost()),
            Err(_) => Err(unavailable(
                "it did not answer for a minute; what was asked may or may not have been done",
            )),
        }
    }
}

fn unavailable(text: &str) -> StoreError {
    StoreError::Unavailable(text.into())
}

fn lost() -> StoreError {
    unavailable("the link to it broke; what was asked may or may not have been done")
}

fn odd() -> StoreError {
    unavailable("it gave an answer that does not fit the question")
}

/// Opens a stream and says what it is for.
async fn open(opener: &dyn OpenStream, watch: Option<WatchAsk>) -> io::Result<Frames> {
    let io = tokio::time::timeout(OPENING, opener.open())
        .await
        .map_err(io::Error::from)??;
    let mut frames = Framed::new(io, wire::codec());
    frames
        .send(wire::pack(&Open {
            version: VERSION,
            watch,
        }))
        .await?;
    Ok(frames)
}

/// Pauses that double.
struct Pauses(Duration);

impl Pauses {
    fn new() -> Self {
        Pauses(PAUSE.0)
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE.1);
    }
}

/// Keeps the stream for calls open until the store is dropped.
async fn drive(
    opener: Arc<dyn OpenStream>,
    mut waiting: mpsc::Receiver<Waiting>,
    linked: watch::Sender<bool>,
) {
    let mut pauses = Pauses::new();
    loop {
        let opened = {
            let opening = open(&*opener, None);
            tokio::pin!(opening);
            loop {
                tokio::select! {
                    opened = &mut opening => break opened,
                    call = waiting.recv() => match call {
                        Some(call) => refuse(call),
                        None => return,
                    },
                }
            }
        };
        match opened {
            Ok(frames) => {
                linked.send_replace(true);
                let sent = Mutex::new(HashMap::new());
                let ended = converse(frames, &mut waiting, &sent).await;
                linked.send_replace(false);
                for (_, call) in sent.into_inner() {
                    let _: Result<_, _> = call.answer.send(Err(lost()));
                }
                match ended {
                    Ended::Dropped => return,
                    // A link that has carried an answer is opened again at once.
                    Ended::Broken { answered: true, .. } => pauses = Pauses::new(),
                    Ended::Broken { error, .. } => tracing::debug!(%error, "Store link broke"),
                }
            }
            Err(error) => tracing::debug!(%error, "Store link cannot be opened"),
        }
        while let Ok(call) = waiting.try_recv() {
            refuse(call);
        }
        pauses.pause().await;
    }
}

fn refuse(call: Waiting) {
    let _: Result<_, _> = call
        .answer
        .send(Err(unavailable("the link to it is down; nothing was done")));
}

enum Ended {
    /// Nobody can call any more.
    Dropped,
    Broken {
        answered: bool,
        error: io::Error,
    },
}

async fn converse(
    frames: Frames,
    waiting: &mut mpsc::Receiver<Waiting>,
    sent: &Mutex<HashMap<u64, Sent>>,
) -> Ended {
    let (mut sink, mut stream) = frames.split();
    let answered = AtomicBool::new(false);
    let ask = async {
        let mut id = 0;
        while let Some(first) = waiting.recv().await {
            let mut next = Some(first);
            // What waits already goes out with it.
            while let Some(Waiting { ask, answer }) = next {
                id += 1;
                sent.lock().insert(
                    id,
                    Sent {
                        parts: Vec::new(),
                        answer,
                    },
                );
                sink.feed(wire::pack(&Call { id, ask: Some(ask) })).await?;
                next = waiting.try_recv().ok();
            }
            sink.flush().await?;
        }
        Ok::<_, io::Error>(())
    };
    let hear = async {
        while let Some(frame) = stream.next().await {
            let reply =
                Reply::decode(frame?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            answered.store(true, Ordering::Relaxed);
            hear(sent, reply)?;
        }
        Err::<(), _>(io::ErrorKind::UnexpectedEof.into())
    };
    let ended = tokio::select! {
        ended = ask => ended,
        ended = hear => ended,
    };
    match ended {
        Ok(()) => Ended::Dropped,
        Err(error) => Ended::Broken {
            answered: answered.load(Ordering::Relaxed),
            error,
        },
    }
}

/// Gives a reply to who waits for it.
fn hear(sent: &Mutex<HashMap<u64, Sent>>, reply: Reply) -> io::Result<()> {
    let mut sent = sent.lock();
    let answer = reply
        .answer
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a reply without an answer"))?;
    if let Answer::Listing(part) = &answer
        && part.goes_on
    {
        if let (Some(call), Answer::Listing(part)) = (sent.get_mut(&reply.id), answer) {
            call.parts.extend(part.entries.into_iter().map(Entry::from));
        }
        return Ok(());
    }
    let Some(mut call) = sent.remove(&reply.id) else {
        // The other end ends the conversation with a reply to nobody.
        return match answer {
            Answer::Failure(failure) if reply.id == 0 => {
                Err(io::Error::other(StoreError::from(failure)))
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a reply to nothing that was asked",
            )),
        };
    };
    let answer = match answer {
        Answer::Entry(found) => Ok(Whole::Entry(found.entry.map(Into::into))),
        Answer::Listing(part) => {
            let mut entries = std::mem::take(&mut call.parts);
            entries.extend(part.entries.into_iter().map(Entry::from));
            Ok(Whole::Listing(Listing {
                revision: Revision(part.revision),
                entries,
                more: part.more,
            }))
        }
        Answer::Revision(revision) => Ok(Whole::Revision(Revision(revision))),
        Answer::Lease(lease) => Ok(Whole::Lease(LeaseId(lease))),
        Answer::Done(_) => Ok(Whole::Done),
        Answer::Failure(failure) => Err(failure.into()),
    };
    // Who no longer waits has dropped its end.
    let _: Result<_, _> = call.answer.send(answer);
    Ok(())
}

impl Store for RemoteStore {
    fn get(&self, key: &Key) -> BoxFuture<'_, Result<Option<Entry>>> {
        let key = key.as_str().to_owned();
        Box::pin(async move {
            match self.call(Ask::Get(key)).await? {
                Whole::Entry(entry) => Ok(entry),
                _ => Err(odd()),
            }
        })
    }

    fn list(&self, under: &Prefix, page: Page) -> BoxFuture<'_, Result<Listing>> {
        let ask = ListAsk::new(under, page);
        Box::pin(async move {
            match self.call(Ask::List(ask)).await? {
                Whole::Listing(listing) => Ok(listing),
                _ => Err(odd()),
            }
        })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision>> {
        Box::pin(async move {
            // Here already, so that no frame is too large.
            rules::check(&txn)?;
            match self.call(Ask::Commit(TxnMessage::from(txn))).await? {
                Whole::Revision(revision) => Ok(revision),
                _ => Err(odd()),
            }
        })
    }

    fn watch(&self, under: &Prefix, after: Revision) -> BoxStream<'static, Result<Change>> {
        let (opener, closed) = (self.opener.clone(), self.closed.clone());
        let under = under.as_str().to_owned();
        Box::pin(async_stream::stream! {
            let mut seen = after;
            let mut pauses = Pauses::new();
            loop {
                let ask = WatchAsk { under: under.clone(), after: seen.0 };
                let opened = tokio::select! {
                    opened = open(&*opener, Some(ask)) => opened,
                    () = closed.cancelled() => break,
                };
                if let Ok(mut frames) = opened {
                    // A revision is shown when all of it is here: a link that breaks never leaves half of one.
                    let mut half: Vec<Change> = Vec::new();
                    loop {
                        let heard = tokio::select! {
                            heard = frames.next() => heard,
                            () = closed.cancelled() => break,
                        };
                        let Some(Ok(frame)) = heard else { break };
                        let Ok(heard) = Seen::decode(frame) else {
                            tracing::warn!("Store watch got a frame it does not understand");
                            break;
                        };
                        pauses = Pauses::new();
                        for change in heard.changes {
                            let change = Change::from(change);
                            let (last, revision) = (change.last, change.revision);
                            half.push(change);
                            if last {
                                seen = revision;
                                for change in half.drain(..) {
                                    yield Ok(change);
                                }
                            }
                        }
                        match heard.failure.map(StoreError::from) {
                            None => {}
                            // The other end's store closes: it may come back.
                            Some(StoreError::Unavailable(_)) => break,
                            Some(error) => {
                                yield Err(error);
                                return;
                            }
                        }
                    }
                }
                tokio::select! {
                    () = pauses.pause() => {}
                    () = closed.cancelled() => break,
                }
            }
            yield Err(unavailable("the link to it was closed"));
        })
    }

    fn lease(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        Box::pin(async move {
            match self.call(Ask::Lease(ttl)).await? {
                Whole::Lease(lease) => Ok(lease),
                _ => Err(odd()),
            }
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            match self.call(Ask::KeepAlive(lease.0)).await? {
                Whole::Done => Ok(()),
                _ => Err(odd()),
            }
        })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            match self.call(Ask::Revoke(lease.0)).await? {
                Whole::Done => Ok(()),
                _ => Err(odd()),
            }
        })
    }
}
