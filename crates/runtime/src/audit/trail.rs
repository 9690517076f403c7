//! Where rows are kept, and the one thread that keeps them: it numbers, seals, chains and writes what waits in one go, and
//! signs the chain every [`SEAL_ROWS`] rows.

use super::format::{self, Clear, Hash, Link, Personal, Sort, canonical, tag};
use super::head::{ChainId, Head};
use super::row::Row;
use super::signer::Signer;
use super::subjects::{KeyCounts, STRANGER, Subjects};
use super::verify::heads_of;
use super::{files, format::mask};
use crate::{ActorKind, Clock, Seal, SystemClock};
use bytes::Bytes;
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
const WAITING: usize = 4096;
/// Rows that are written in one go at most.
const AT_ONCE: usize = 512;
/// How far back the last seal is looked for. Seals are never further apart.
const BACK: u64 = 2 * SEAL_ROWS + AT_ONCE as u64 + 2;
/// How long rows are kept.
const KEEP: Duration = Duration::from_secs(366 * 24 * 3600);
/// At least so far apart are the heads that are kept beside the keys.
const HEADS_APART: Duration = Duration::from_secs(24 * 3600);

/// When a row must be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durable {
    /// When this returns.
    Now,
    /// Before the change that it announces is: the store syncs both in one go ([`FileTrail::share`]). Without such a
    /// store, when this returns.
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
    work: Mutex<Option<mpsc::Sender<Work>>>,
    standing: watch::Receiver<Standing>,
    /// Whether a store makes rows durable with its own commits.
    shared: AtomicBool,
    /// Whether an intent was written that the next batch of that store must wait for.
    unsynced: Arc<AtomicBool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Where the thread that syncs answers.
type Answer = std::sync::mpsc::SyncSender<std::result::Result<(), String>>;

enum Work {
    Keep {
        row: Box<Row>,
        durable: bool,
        kept: Option<oneshot::Sender<Result<()>>>,
    },
    /// Answers once all before it is written.
    Flush(oneshot::Sender<()>),
    /// Signs the chain, if there is anything new.
    Seal(oneshot::Sender<Result<()>>),
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
            work: Mutex::new(Some(tx)),
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

    /// For the store that changes are kept in: with each of its batches it begins to make durable what was written of
    /// their intents, and waits for that before the batch itself is durable. From then on an intent waits for no fsync of
    /// its own.
    ///
    /// # Errors
    /// When the thread for it cannot be started.
    pub fn share(&self, store: &Sqlite) -> Result<()> {
        let (asks, asked) = std::sync::mpsc::sync_channel::<Answer>(4);
        let stream = self.stream.clone();
        // It ends with the store, which holds the other end.
        std::thread::Builder::new()
            .name("audit-sync".into())
            .spawn(move || {
                while let Ok(answer) = asked.recv() {
                    let _ = answer.send(stream.sync_here().map_err(|e| e.to_string()));
                }
            })
            .map_err(|e| {
                Error::internal("start the thread that syncs the audit trail").because(e)
            })?;
        let unsynced = self.unsynced.clone();
        store.first(Box::new(move || {
            if !unsynced.swap(false, Ordering::AcqRel) {
                return Box::new(|| Ok(()));
            }
            // A batch in which nothing was to be written does not wait; then the next one does.
            let owes = Owes(Some(unsynced.clone()));
            let (answer, done) = std::sync::mpsc::sync_channel(1);
            let asked = asks.send(answer);
            Box::new(move || {
                let why = "changes are refused, because the audit trail cannot be written";
                let synced = asked.ok().and_then(|()| done.recv().ok());
                match synced {
                    Some(Ok(())) => {
                        owes.paid();
                        Ok(())
                    }
                    Some(Err(error)) => Err(format!("{why}: {error}")),
                    None => Err(why.to_owned()),
                }
            })
        }));
        self.shared.store(true, Ordering::Release);
        Ok(())
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
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    async fn send(&self, work: Work) -> Result<()> {
        let sender = self.work.lock().clone().ok_or_else(ended)?;
        sender.send(work).await.map_err(|_| ended())
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

fn unwritable(error: &Error) -> Error {
    Error::unavailable("changes are refused, because the audit trail cannot be written")
        .hint(error.message.clone())
        .because(error.clone())
}

fn of_stream(error: StreamError) -> Error {
    Error::unavailable(error.to_string()).because(error)
}

impl Trail for FileTrail {
    fn keep(&self, row: Row, when: Durable) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let row = Box::new(row);
            let durable = match when {
                Durable::Now => true,
                Durable::WithChange => !self.shared.load(Ordering::Acquire),
                Durable::Later => {
                    let (durable, kept) = (false, None);
                    return self.send(Work::Keep { row, durable, kept }).await;
                }
            };
            let (answer, done) = oneshot::channel();
            let kept = Some(answer);
            self.send(Work::Keep { row, durable, kept }).await?;
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

/// The end of the chain, in the hands of its thread.
struct Chain {
    stream: Stream,
    signer: Signer,
    subjects: Arc<Subjects>,
    clock: Arc<dyn Clock>,
    heads: PathBuf,
    /// When a head was last kept there.
    head_kept: Option<Timestamp>,
    next: u64,
    hash: Hash,
    /// Rows since the last seal.
    unsealed: u64,
    unsealed_since: Option<Timestamp>,
    seal_rows: u64,
    /// A seal whose key is gone already and that is not in the stream yet.
    owed: Option<(Vec<u8>, Hash)>,
    /// Why the rows do not go on where the key stands.
    cut: Option<String>,
    standing: watch::Sender<Standing>,
}

impl Chain {
    fn open(
        stream: Stream,
        signer: Signer,
        subjects: Arc<Subjects>,
        clock: Arc<dyn Clock>,
        heads: PathBuf,
    ) -> Result<Chain> {
        let (first, next) = stream.range();
        let chain = signer.chain();
        let mut out = Chain {
            standing: watch::Sender::new(Standing {
                seq: 0,
                hash: Hash::default(),
                first,
                sealed: signer.last().cloned(),
                unsealed_since: None,
            }),
            head_kept: last_head(&heads)?.map(|head| head.time),
            stream,
            signer,
            subjects,
            clock,
            heads,
            next,
            hash: Hash::default(),
            unsealed: 0,
            unsealed_since: None,
            seal_rows: SEAL_ROWS,
            owed: None,
            cut: None,
        };
        out.hash = first_head(&out.heads)?.hash;
        let mut sealed = None;
        let mut at = next.saturating_sub(BACK).max(first);
        while at < next {
            let records = out.stream.read_here(at, 1000).map_err(of_stream)?;
            let Some(last) = records.last() else { break };
            at = last.seq + 1;
            for record in records {
                let Some(link) = Link::read(&record.payload) else {
                    return Err(Error::unavailable(format!(
                        "row {} of the audit trail is none of ours",
                        record.seq
                    ))
                    .hint("move the folder of the trail away, so that a new one begins"));
                };
                out.hash = link.hash;
                if link.sort == Sort::Seal {
                    sealed = Head::of(chain, &link);
                    (out.unsealed, out.unsealed_since) = (0, None);
                } else {
                    out.unsealed += 1;
                    let time = Timestamp::from_millis(link.time);
                    out.unsealed_since.get_or_insert(time);
                }
            }
        }
        let last = out.signer.last();
        // The key was used and erased, and then the process died.
        if last.is_some() && last != sealed.as_ref() {
            let last = last.cloned();
            match last {
                Some(head) if head.seq + 1 == out.next && head.hash == out.hash => {
                    out.owed = Some(head.row().end());
                }
                last => {
                    let to = last.map_or(0, |head| head.seq);
                    let why = format!(
                        "the audit trail does not go on where its key stands, after row {to}: rows were removed, or another trail was put in its place"
                    );
                    tracing::error!("{why}; run `audit verify`");
                    out.cut = Some(why);
                }
            }
        }
        out.write(&mut Vec::new())?;
        Ok(out)
    }

    fn run(mut self, mut work: mpsc::Receiver<Work>) {
        let mut batch = Vec::with_capacity(AT_ONCE);
        while work.blocking_recv_many(&mut batch, AT_ONCE) > 0 {
            self.carry_out(&mut batch);
        }
    }

    fn carry_out(&mut self, batch: &mut Vec<Work>) {
        let mut rows = Vec::new();
        let mut then = Vec::new();
        for work in batch.drain(..) {
            match work {
                Work::Keep { row, durable, kept } => rows.push((row, durable, kept)),
                other => then.push(other),
            }
        }
        let sync = rows.iter().any(|(_, durable, _)| *durable);
        let mut plain: Vec<&mut Row> = rows.iter_mut().map(|(row, _, _)| &mut **row).collect();
        let mut result = self.write(&mut plain);
        if sync && result.is_ok() {
            result = self.stream.sync_here().map_err(of_stream);
        }
        if let Err(error) = &result {
            tracing::error!(
                ?error,
                rows = rows.len(),
                "the audit trail cannot be written"
            );
        }
        for (_, _, kept) in rows {
            if let Some(kept) = kept {
                let _ = kept.send(result.as_ref().map(|_| ()).map_err(unwritable));
            }
        }
        // Callers have their answers: a seal takes the time of some syncs.
        if self.unsealed >= self.seal_rows
            && let Err(error) = self.sign()
        {
            tracing::error!(?error, "the audit trail could not be sealed");
        }
        for work in then {
            match work {
                Work::Flush(answer) => _ = answer.send(()),
                Work::Seal(answer) => _ = answer.send(self.sign()),
                Work::Keep { .. } => {}
            }
        }
    }

    /// Writes rows at the end, after the seal that is owed. All of them or none.
    fn write(&mut self, rows: &mut [&mut Row]) -> Result<()> {
        let (mut next, mut hash) = (self.next, self.hash);
        let mut payloads = Vec::with_capacity(rows.len() + 1);
        if let Some((payload, sealed)) = &self.owed {
            payloads.push(Bytes::from(payload.clone()));
            (next, hash) = (next + 1, *sealed);
        }
        for row in rows.iter_mut() {
            row.seq = next;
            let (payload, made) = encode(&self.subjects, row, &hash)?;
            payloads.push(payload.into());
            (next, hash) = (next + 1, made);
        }
        if !payloads.is_empty() {
            let last = self.stream.append_here(&payloads).map_err(of_stream)?;
            // Only we append, so it has the numbers that the rows were chained with.
            debug_assert_eq!(last + 1, next);
        }
        if self.owed.take().is_some() {
            (self.unsealed, self.unsealed_since) = (0, None);
        }
        self.unsealed += rows.len() as u64;
        if let Some(first) = rows.first() {
            self.unsealed_since.get_or_insert(first.time);
        }
        (self.next, self.hash) = (next, hash);
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let first = self.stream.range().0;
        self.standing.send_modify(|standing| {
            standing.seq = self.next - 1;
            standing.hash = self.hash;
            standing.first = first;
            standing.sealed = self.signer.last().cloned();
            standing.unsealed_since = self.unsealed_since;
        });
    }

    /// Signs the chain where it stands.
    fn sign(&mut self) -> Result<()> {
        if self.unsealed == 0 && self.owed.is_none() {
            return Ok(());
        }
        if self.owed.is_none() {
            // What is signed must not be lost any more: its key will not come again.
            self.stream.sync_here().map_err(of_stream)?;
            let (clock, now) = (self.clock.clone(), self.clock.now());
            let head = self
                .signer
                .sign(self.next - 1, self.hash, now, |bytes| clock.fill(bytes))?;
            self.owed = Some(head.row().end());
        }
        self.write(&mut [])?;
        self.stream.sync_here().map_err(of_stream)?;
        self.keep_head()
    }

    /// Now and then a head is kept beside the keys: from there on a trail can be verified whose beginning was removed by
    /// its age.
    fn keep_head(&mut self) -> Result<()> {
        let Some(head) = self.signer.last() else {
            return Ok(());
        };
        let fresh = |kept: &Timestamp| head.time.since(*kept) < HEADS_APART;
        if self.head_kept.as_ref().is_some_and(fresh) {
            return Ok(());
        }
        files::append(&self.heads, &head.line())?;
        self.head_kept = Some(head.time);
        Ok(())
    }
}

/// The first line of a chain's heads.
fn first_head(heads: &Path) -> Result<Head> {
    let text = files::read(heads)?.unwrap_or_default();
    text.lines().next().and_then(Head::parse).ok_or_else(|| {
        Error::unavailable(format!(
            "{} does not begin with the first line of an audit chain",
            heads.display()
        ))
        .hint("restore the keys folder from your backup")
    })
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

fn last_head(heads: &Path) -> Result<Option<Head>> {
    let text = files::read(heads)?.unwrap_or_default();
    Ok(text.lines().rev().find_map(Head::parse))
}

/// A row as bytes: personal fields sealed, each with the key of its subject.
fn encode(subjects: &Subjects, row: &Row, prev: &Hash) -> Result<(Vec<u8>, Hash)> {
    let mut sealed = Vec::new();
    let mut put = |tag: u8, subject: &str, plain: String| -> Result<()> {
        let field = Personal { tag, plain };
        sealed.push((tag, subjects.seal(subject, row.seq, &field)?));
        Ok(())
    };
    let is_ours = row.actor_kind == ActorKind::System;
    let claimed = row.user.as_deref().unwrap_or(&row.actor);
    // A name that a stranger gives himself gets no key: he could make as many as he likes.
    let actor = match row.actor_kind {
        ActorKind::Anonymous if !subjects.knows(claimed) => STRANGER,
        _ => claimed,
    };
    if !is_ours {
        put(tag::SEALED_ACTOR, actor, row.actor.clone())?;
    }
    if let Some(user) = &row.user {
        put(tag::SEALED_USER, actor, user.clone())?;
    }
    if let Some(address) = &row.address {
        put(tag::SEALED_ADDRESS, actor, address.clone())?;
    }
    if let Some(agent) = &row.user_agent {
        put(tag::SEALED_AGENT, actor, agent.clone())?;
    }
    let object = match (row.is_person, &row.name) {
        // Nor does a name that somebody only asked about, in vain.
        (true, Some(name)) if row.change.is_none() && !subjects.knows(name) => {
            Some(STRANGER.to_owned())
        }
        (true, Some(name)) => Some(name.clone()),
        _ => None,
    };
    if let (Some(subject), Some(name)) = (&object, &row.name) {
        put(tag::SEALED_NAME, subject, name.clone())?;
    }
    let masked = match row.personal.is_empty() {
        true => None,
        false => {
            let mut masked = row.clone();
            let values = mask(&mut masked.params, &row.personal);
            let of = row.about.as_deref();
            let of = of.filter(|name| is_ours || subjects.knows(name));
            let subject = object.as_deref().or(of).unwrap_or(actor);
            put(tag::SEALED_PARAMS, subject, canonical(&values.into()))?;
            Some(masked)
        }
    };
    let clear = Clear {
        actor: is_ours,
        name: !row.is_person,
    };
    Ok(format::encode(masked.as_ref().unwrap_or(row), prev, clear, &sealed).end())
}

#[cfg(test)]
mod tests {
    use super::*;
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
        trail.share(&store).unwrap();
        trail
            .keep(Row::default(), Durable::WithChange)
            .await
            .unwrap();
        let lost = Txn::new()
            .expect(Expect::At(Key::new("o/a"), Revision(99)))
            .put(Key::new("o/a"), "1");
        store.commit(lost).await.unwrap_err();
        assert!(trail.unsynced.load(Ordering::Acquire));
        store
            .commit(Txn::new().put(Key::new("o/a"), "1"))
            .await
            .unwrap();
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
