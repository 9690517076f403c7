//! Where rows are kept: a folder, and the thread ([`super::chain`]) that alone adds to it.

use super::chain::{Bell, Chain, Waits, Work, first_head};
use super::format::{self, Hash, Link};
use super::head::{ChainId, Head};
use super::row::Row;
use super::signer::Signer;
use super::subjects::{KeyCounts, Subjects};
use super::verify::heads_of;
use super::{ANNOUNCED, files};
use crate::{Clock, Seal, SystemClock};
use futures::future::BoxFuture;
use model::{Error, Result, Timestamp};
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use store::Sqlite;
use store::streams::{Limits, Stream, StreamError};
use tokio::sync::{mpsc, oneshot, watch};

/// The chain is signed after this many rows ...
pub const SEAL_ROWS: u64 = 1000;
/// ... and when a row has waited so long for it.
pub const SEAL_AFTER: Duration = Duration::from_secs(60);
/// Rows that wait to be written; more callers wait for a place.
pub(super) const WAITING: usize = 4096;
/// How long rows are kept.
const KEEP: Duration = Duration::from_secs(366 * 24 * 3600);
/// When a row must be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// When this returns.
    Now,
    /// Before the change that it announces is: the store asks for that with the batch that has the change
    /// ([`FileTrail::share`]), and nobody waits before. Without such a store, when this returns.
    WithChange,
    /// A little later.
    Later,
}

/// Where rows are kept.
pub trait Trail: Send + Sync {
    /// Keeps a row. An error means that it is not kept; with [`Durable::Later`] it may also be lost without one.
    fn keep(&self, row: Row, when: Durable) -> BoxFuture<'_, Result<()>>;
    /// The last rows, oldest first.
    fn last(&self, limit: usize) -> BoxFuture<'_, Vec<Row>>;
}

/// Where a chain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Number of its last row, 0 when there is none.
    pub seq: u64,
    /// The hash of that row.
    pub hash: Hash,
    /// The oldest row that is kept.
    pub first: u64,
    /// The seal that was made last.
    pub sealed: Option<Head>,
    /// When the oldest row came that no seal covers.
    pub unsealed_since: Option<Timestamp>,
}

/// What a trail is opened with.
pub struct TrailOptions {
    /// The folder of the rows.
    pub rows: PathBuf,
    /// The folder of the keys and pinned heads; best on another disk.
    pub keys: PathBuf,
    /// The root key.
    pub seal: Arc<dyn Seal>,
    /// Time and randomness.
    pub clock: Arc<dyn Clock>,
    /// Rows in a segment: [`SEAL_ROWS`], less in tests.
    pub seal_rows: u64,
}

impl TrailOptions {
    /// With the machine's clock.
    pub fn new(rows: &Path, keys: &Path, seal: Arc<dyn Seal>) -> TrailOptions {
        TrailOptions {
            rows: rows.to_owned(),
            keys: keys.to_owned(),
            seal,
            clock: Arc::new(SystemClock),
            seal_rows: SEAL_ROWS,
        }
    }
}

/// Rows in a folder, kept for a year in which it grew, chained and sealed.
pub struct FileTrail {
    stream: Stream,
    subjects: Arc<Subjects>,
    rows: PathBuf,
    heads: PathBuf,
    genesis: Head,
    cut: Option<String>,
    /// Nothing once the trail is closed.
    work: Arc<Mutex<Option<mpsc::Sender<Work>>>>,
    bell: Arc<Bell>,
    /// Whether the last write failed: then everybody waits to hear whether his row is kept.
    failing: Arc<AtomicBool>,
    standing: watch::Receiver<Standing>,
    /// Whether a store makes rows durable with its own commits.
    shared: AtomicBool,
    /// Whether an intent was given that the next batch of that store must wait for.
    unsynced: Arc<AtomicBool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// The heads that are kept beside the keys.
pub const HEADS: &str = "heads";
/// The signing key, and the seal that was made last.
const EPOCH: &str = "epoch";

impl FileTrail {
    /// Opens the trail, makes its keys when there are none, and adds the seal that a crash kept out.
    ///
    /// # Errors
    /// When a folder cannot be used, a key cannot be read, or the rows belong to other keys.
    pub async fn open(options: TrailOptions) -> Result<FileTrail> {
        tokio::task::spawn_blocking(move || FileTrail::open_here(options))
            .await
            .map_err(|e| Error::internal("open the audit trail").because(e))?
    }

    /// As [`FileTrail::open`], for a thread that may wait. Blocks.
    ///
    /// # Errors
    /// The same.
    pub fn open_here(options: TrailOptions) -> Result<FileTrail> {
        let TrailOptions {
            rows,
            keys,
            seal,
            clock,
            seal_rows,
        } = options;
        files::folder(&keys)?;
        let limits = Limits {
            // Evidence is not pushed out by writing more of it: a full disk refuses changes instead.
            keep_bytes: u64::MAX,
            keep_age: KEEP,
            by_growth: true,
            ..Limits::default()
        };
        let stream = Stream::open(&rows, limits).map_err(|e| {
            Error::unavailable(format!("the audit trail cannot be opened: {e}")).because(e)
        })?;
        let (epoch, heads) = (keys.join(EPOCH), keys.join(HEADS));
        let signer = match Signer::open(&epoch, &seal)? {
            Some(signer) => signer,
            None if stream.range().1 > 1 => {
                return Err(Error::unavailable(format!(
                    "the audit trail in {} has rows, but its key {} is gone",
                    rows.display(),
                    epoch.display()
                ))
                .hint(
                    "restore the keys folder; else move the trail away, so that a new one begins",
                ));
            }
            None => {
                let (signer, first) = Signer::make(&epoch, &seal, clock.now(), |b| clock.fill(b))?;
                // The key last: without it nothing has begun, and the next start begins anew.
                files::replace(&heads, first.line())?;
                signer.keep()?;
                signer
            }
        };
        let subjects = Arc::new(Subjects::open(
            &keys.join("subjects"),
            &seal,
            signer.chain(),
        )?);
        let mut chain = Chain::open(
            stream.clone(),
            signer,
            subjects.clone(),
            clock,
            heads.clone(),
        )?;
        chain.seal_rows = seal_rows.clamp(1, SEAL_ROWS);
        let genesis = first_head(&heads)?;
        let cut = chain.cut.clone();
        let (tx, rx) = mpsc::channel(WAITING);
        let standing = chain.standing.subscribe();
        let (bell, failing) = (chain.bell.clone(), chain.failing.clone());
        let thread = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || chain.run(rx))
            .map_err(|e| Error::internal("start the audit thread").because(e))?;
        Ok(FileTrail {
            stream,
            subjects,
            rows,
            heads,
            genesis,
            cut,
            work: Arc::new(Mutex::new(Some(tx))),
            bell,
            failing,
            standing,
            shared: AtomicBool::new(false),
            unsynced: Arc::default(),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Where the chain stands, now and from now on.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// Names the chain.
    pub fn chain(&self) -> ChainId {
        self.genesis.chain
    }

    /// The first line of the chain: it names the key that is trusted from there on.
    pub fn genesis(&self) -> &Head {
        &self.genesis
    }

    /// Why the rows that were found at the start are not those that were signed last; `None` when they are.
    pub fn is_cut(&self) -> Option<&str> {
        self.cut.as_deref()
    }

    /// The stream that the rows lie in.
    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn subjects(&self) -> &Arc<Subjects> {
        &self.subjects
    }

    /// The folder of the rows and the file of the heads that are kept here.
    pub fn places(&self) -> (&Path, &Path) {
        (&self.rows, &self.heads)
    }

    /// Where time stamps of heads are kept.
    pub(super) fn stamps(&self) -> PathBuf {
        self.heads.with_file_name("stamps")
    }

    /// A row from its bytes, as far as it can be read.
    pub(super) fn decode(&self, payload: &[u8]) -> Option<Row> {
        let seq = Link::read(payload)?.seq;
        format::decode(payload, &|tag, sealed| {
            self.subjects.open_field(seq, tag, sealed)
        })
    }

    /// For the store that changes are kept in: with each of its batches that has a change which was announced, it has the
    /// intents made durable that were given before, and waits for that before the batch itself is durable. From then on an
    /// intent waits for nothing of its own.
    pub fn share(&self, store: &Sqlite) {
        let (unsynced, work, bell) = (self.unsynced.clone(), self.work.clone(), self.bell.clone());
        let begin = move || -> Box<dyn FnOnce() -> std::result::Result<(), String>> {
            if !unsynced.swap(false, Ordering::AcqRel) {
                return Box::new(|| Ok(()));
            }
            // A batch in which nothing was to be written does not wait; then the next one does.
            let owes = Owes(Some(unsynced.clone()));
            let (answer, done) = std::sync::mpsc::sync_channel(1);
            let sender = work.lock().clone();
            let asked = sender.is_some_and(|to| to.blocking_send(Work::Sync(answer)).is_ok());
            bell.ring();
            Box::new(move || {
                let why = "changes are refused, because the audit trail cannot be written";
                match asked.then(|| done.recv().ok()).flatten() {
                    Some(Ok(())) => {
                        owes.paid();
                        Ok(())
                    }
                    Some(Err(error)) => Err(format!("{why}: {error}")),
                    None => Err(why.to_owned()),
                }
            })
        };
        store.first(ANNOUNCED, Box::new(begin));
        self.shared.store(true, Ordering::Release);
    }

    /// Gives every person a new version of his key; older ones still open older rows. Answers how many.
    ///
    /// # Errors
    /// When the keys cannot be written; then the old ones stay.
    pub async fn rotate_keys(&self) -> Result<u64> {
        self.with_keys(Subjects::rotate).await
    }

    /// Destroys the key of a person: what rows say of him personally is unreadable from now on. Says whether he had one.
    ///
    /// # Errors
    /// When the keys cannot be written; then his key stays.
    pub async fn erase(&self, subject: &str) -> Result<bool> {
        let name = subject.to_owned();
        self.with_keys(move |keys| keys.destroy(&name)).await
    }

    /// Opens nothing of a person for now, or again. Says whether he has a key.
    ///
    /// # Errors
    /// When the keys cannot be written; then nothing has changed.
    pub async fn restrict(&self, subject: &str, on: bool) -> Result<bool> {
        let name = subject.to_owned();
        self.with_keys(move |keys| keys.restrict(&name, on)).await
    }

    /// How the keys of persons stand.
    pub fn key_counts(&self) -> KeyCounts {
        self.subjects.counts()
    }

    async fn with_keys<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Subjects) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let keys = self.subjects.clone();
        tokio::task::spawn_blocking(move || work(&keys))
            .await
            .map_err(|e| Error::internal("keys of the audit trail").because(e))?
    }

    /// Signs the chain now, if there is a row that no seal covers.
    ///
    /// # Errors
    /// When the key or the seal cannot be written.
    pub async fn seal(&self) -> Result<()> {
        let (answer, sealed) = oneshot::channel();
        self.send(Work::Seal(answer)).await?;
        sealed.await.map_err(|_| ended())?
    }

    /// Returns once everything that was given before is written.
    pub(super) async fn flush(&self) {
        let (answer, flushed) = oneshot::channel();
        if self.send(Work::Flush(answer)).await.is_ok() {
            let _ = flushed.await;
        }
    }

    /// Writes what waits and ends.
    pub async fn close(&self) {
        self.flush().await;
        self.work.lock().take();
        self.bell.ring();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    async fn send(&self, work: Work) -> Result<()> {
        let sender = self.work.lock().clone().ok_or_else(ended)?;
        let urgent = work.is_urgent();
        sender.send(work).await.map_err(|_| ended())?;
        if urgent || sender.capacity() < WAITING / 2 {
            self.bell.ring();
        }
        Ok(())
    }
}

/// Intents that were written and are not durable yet: until they are, the next batch waits for them.
struct Owes(Option<Arc<AtomicBool>>);

impl Owes {
    /// They are durable.
    fn paid(mut self) {
        self.0 = None;
    }
}

impl Drop for Owes {
    fn drop(&mut self) {
        if let Some(unsynced) = self.0.take() {
            unsynced.store(true, Ordering::Release);
        }
    }
}

fn ended() -> Error {
    Error::unavailable("changes are refused, because the audit trail is closed")
}

pub(super) fn unwritable(error: &Error) -> Error {
    Error::unavailable("changes are refused, because the audit trail cannot be written")
        .hint(error.message.clone())
        .because(error.clone())
}

pub(super) fn of_stream(error: StreamError) -> Error {
    Error::unavailable(error.to_string()).because(error)
}

impl Trail for FileTrail {
    fn keep(&self, row: Row, when: Durable) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let row = Box::new(row);
            let shared = self.shared.load(Ordering::Acquire);
            let durable = match when {
                Durable::Now => true,
                Durable::WithChange if shared && !self.failing.load(Ordering::Acquire) => {
                    self.send(Work::Keep(row, Waits::Change)).await?;
                    // The change comes after this, so its batch finds it.
                    self.unsynced.store(true, Ordering::Release);
                    return Ok(());
                }
                Durable::WithChange => !shared,
                Durable::Later => return self.send(Work::Keep(row, Waits::Nobody)).await,
            };
            let (kept, done) = oneshot::channel();
            self.send(Work::Keep(row, Waits::Caller { durable, kept }))
                .await?;
            let result = done.await.map_err(|_| ended())?;
            if !durable && result.is_ok() {
                self.unsynced.store(true, Ordering::Release);
            }
            result
        })
    }

    fn last(&self, limit: usize) -> BoxFuture<'_, Vec<Row>> {
        Box::pin(async move {
            self.flush().await;
            // Seals have numbers too.
            let back = limit as u64 + limit as u64 / 2 + 8;
            let (first, next) = self.stream.range();
            let mut from = next.saturating_sub(back).max(first);
            let mut rows = Vec::new();
            loop {
                let records = self.stream.read(from, limit).await.unwrap_or_default();
                let Some(last) = records.last() else { break };
                from = last.seq + 1;
                rows.extend(records.iter().filter_map(|r| self.decode(&r.payload)));
            }
            rows.drain(..rows.len().saturating_sub(limit));
            rows
        })
    }
}

/// The heads that a trail keeps beside its keys, and the one that was signed last.
///
/// # Errors
/// When the folder cannot be read.
pub fn own_heads(keys: &Path, most: usize) -> Result<Vec<Head>> {
    let mut out = heads_of(&files::read(&keys.join(HEADS))?.unwrap_or_default(), most);
    out.extend(Signer::last_of(&keys.join(EPOCH))?);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ActorKind;
    use store::{Expect, Key, Revision, Store, Txn};

    struct Bare;

    impl Seal for Bare {
        fn seal(&self, _: &str, plain: &str) -> Result<String> {
            Ok(plain.to_owned())
        }
        fn open(&self, _: &str, sealed: &str) -> Result<String> {
            Ok(sealed.to_owned())
        }
    }

    async fn opened(dir: &Path) -> FileTrail {
        let (rows, keys) = (dir.join("rows"), dir.join("keys"));
        let options = TrailOptions::new(&rows, &keys, Arc::new(Bare));
        FileTrail::open(options).await.unwrap()
    }

    /// A batch that writes nothing syncs nothing: the intent still waits for the next one.
    #[tokio::test]
    async fn an_intent_is_durable_before_its_change_also_behind_a_batch_that_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let trail = opened(dir.path()).await;
        let store = Sqlite::open(dir.path().join("store")).unwrap();
        trail.share(&store);
        trail
            .keep(Row::default(), Durable::WithChange)
            .await
            .unwrap();
        let announced = || {
            Txn::new()
                .put(Key::new("o/a"), "1")
                .put(crate::audit::slot(1, ActorKind::User), "x")
        };
        let lost = announced().expect(Expect::At(Key::new("o/a"), Revision(99)));
        store.commit(lost).await.unwrap_err();
        assert!(trail.unsynced.load(Ordering::Acquire));
        // What nobody announced does not wait for it.
        let other = Txn::new().put(Key::new("o/b"), "1");
        store.commit(other).await.unwrap();
        assert!(trail.unsynced.load(Ordering::Acquire));
        store.commit(announced()).await.unwrap();
        assert!(!trail.unsynced.load(Ordering::Acquire));
        trail.close().await;
        store.close().await;
    }

    /// The power went between the first line and the key.
    #[tokio::test]
    async fn a_first_start_that_was_cut_off_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        let other = Head::genesis([3; 16], [4; 32], Timestamp::from_millis(0));
        std::fs::write(keys.join(HEADS), other.line()).unwrap();
        let trail = opened(dir.path()).await;
        trail.keep(Row::default(), Durable::Now).await.unwrap();
        trail.seal().await.unwrap();
        trail.close().await;
        let verdict = super::super::verify(&dir.path().join("rows"), own_heads(&keys, 10).unwrap());
        let verdict = verdict.unwrap();
        assert!(
            verdict.sound && verdict.seals == 1,
            "{}",
            verdict.sentence()
        );
    }
}
