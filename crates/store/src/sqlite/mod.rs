//! The store in an SQLite file: the default backend.
//!
//! One thread writes ([`writer`](self)), in batches that share an fsync; a bounded set of connections reads. The
//! file is WAL with `synchronous=FULL`: what was acknowledged survives a crash of the machine. History for watchers
//! is in memory only: after a restart a watch goes on from the newest revision or lists again.
//!
//! It never deletes or overwrites a file it cannot read: damage is reported, and a person restores a copy.

mod copies;
mod error;
mod lock;
mod queue;
mod readers;
mod schema;
mod writer;

pub use crate::history::Keep;
pub use copies::{KEPT, Restored, list as list_copies, restore};

use crate::clock::SystemClock;
use crate::leases::Leases;
use crate::{
    Change, Clock, Entry, Key, LeaseId, Listing, Page, Prefix, Result, Revision, Store, StoreError,
    Txn,
};
use crate::{history, rules};
use bytes::Bytes;
use error::explain;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use history::Watches;
use lock::Lock;
use parking_lot::Mutex;
use queue::{Queue, Request};
use readers::Readers;
use rusqlite::{Connection, OpenFlags, Row};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
pub use writer::Begin;
use writer::Writer;

/// Name of the store file in the state folder.
pub const FILE: &str = "store.db";

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// How much history watchers can go back to.
    pub keep: Keep,
    /// A read that takes this long is logged with its plan. Default one second.
    pub slow_read: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            clock: Arc::new(SystemClock),
            keep: Keep::default(),
            slow_read: Duration::from_secs(1),
        }
    }
}

/// A store in the file `store.db` of a state folder.
pub struct Sqlite {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    queue: Arc<Queue>,
    readers: Arc<Readers>,
    leases: Arc<Mutex<Leases>>,
    watches: Watches,
    writer: Mutex<Option<JoinHandle<()>>>,
    first: writer::First,
}

/// What there is to know about an open store.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Status {
    /// The store file.
    pub file: PathBuf,
    /// The format of the file.
    pub format: u32,
    /// The newest revision.
    pub revision: Revision,
    /// Keys in the store.
    pub keys: u64,
    /// Size of the file with its write-ahead log, in bytes.
    pub bytes: u64,
    /// Reading connections in use now.
    pub readers_busy: usize,
    /// Reading connections kept for later.
    pub readers_idle: usize,
    /// Daily copies, newest first.
    pub copies: Vec<PathBuf>,
}

const REVISION: &str = "SELECT value FROM meta WHERE name = 'revision'";
const GET: &str = "SELECT key, value, created, modified, lease FROM entries WHERE key = ?1";
const LIST: &str = "SELECT key, value, created, modified, lease FROM entries \
                    WHERE key >= ?1 AND key < ?2 ORDER BY key LIMIT ?3";
/// As `LIST` for a prefix behind which no key can lie.
const LIST_REST: &str = "SELECT key, value, created, modified, lease FROM entries \
                         WHERE key >= ?1 AND ?2 IS NULL ORDER BY key LIMIT ?3";

impl Sqlite {
    /// Opens the store of a state folder, making both when there is nothing yet. Blocks: call it before the
    /// runtime starts or on a blocking thread.
    pub fn open(dir: impl AsRef<Path>) -> Result<Arc<Self>> {
        Self::open_with(dir, Options::default())
    }

    /// As [`Sqlite::open`], with options.
    pub fn open_with(dir: impl AsRef<Path>, options: Options) -> Result<Arc<Self>> {
        Self::open_steps(dir.as_ref(), options, schema::STEPS)
    }

    fn open_steps(dir: &Path, options: Options, steps: &[schema::Step]) -> Result<Arc<Self>> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir);
        made.map_err(|e| {
            StoreError::Unusable(format!(
                "the state folder {} cannot be made: {e}",
                dir.display()
            ))
        })?;
        let lock = Lock::take(dir)?;
        let file = dir.join(FILE);
        let mut db = open_for_writing(dir, &file)?;
        bring_up(&mut db, dir, &file, steps, &*options.clock)?;

        let fail = |e: rusqlite::Error| explain("opening the store", &file, &e);
        let revision = db
            .query_row(REVISION, [], |row| row.get::<_, i64>(0))
            .map_err(fail)?;
        let revision = Revision(revision.cast_unsigned());
        let leases = Arc::new(Mutex::new(
            load_leases(&db, options.clock.boot()).map_err(fail)?,
        ));
        let (history, watches) = history::starting_at(revision, options.keep);
        let readers = Readers::open(&file, options.slow_read)?;
        let queue = Arc::new(Queue::new());
        let first = writer::First::default();
        let writer = Writer {
            db,
            file: file.clone(),
            queue: queue.clone(),
            leases: leases.clone(),
            clock: options.clock.clone(),
            history,
            revision,
            first: first.clone(),
            lock,
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run());
        let thread = thread.map_err(|e| {
            StoreError::Unavailable(format!("the writing thread cannot start: {e}"))
        })?;
        let writer = Mutex::new(Some(thread));
        tracing::info!(file = %file.display(), %revision, "Store is open");
        Ok(Arc::new(Sqlite {
            dir: dir.to_owned(),
            clock: options.clock,
            queue,
            readers,
            leases,
            watches,
            writer,
            first,
        }))
    }

    /// Names what must be durable before some commits are: a log that says what they are about to do. They are known by a
    /// key that they write, which begins with `mark`. It is begun with each batch that has such commits, goes on beside the
    /// statements of the batch, and is waited for before the one fsync that makes the batch durable. When it fails, the
    /// batch is rolled back and its callers are told why; from then on, until it succeeds, it is waited for before a batch
    /// is begun, and only the commits with the mark are refused. Only the first call counts.
    pub fn first(&self, mark: &'static str, begin: Box<Begin>) {
        let _ = self.first.set((mark, begin));
    }

    /// Finishes what waits, ends watches and closes the file. What is asked afterwards is `Unavailable`.
    pub async fn close(&self) {
        let thread = self.stop();
        if let Some(thread) = thread {
            // A writer that panicked has said so already; there is nothing left to close.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    fn stop(&self) -> Option<JoinHandle<()>> {
        self.queue.close();
        self.readers.close();
        self.writer.lock().take()
    }

    /// Makes a copy of the store beside it (`copies/store-TIME.db`) while it is in use; keeps the newest [`KEPT`].
    pub async fn copy(&self) -> Result<PathBuf> {
        let (dir, wall) = (self.dir.clone(), self.clock.wall());
        blocking("copying the store", move || {
            copies::make(&dir, "store", wall)
        })
        .await
    }

    /// As [`Sqlite::copy`], unless there is a copy of today (UTC) already. For the daemon to call every hour.
    pub async fn daily_copy(&self) -> Result<Option<PathBuf>> {
        if !copies::due(&self.dir, self.clock.wall()) {
            return Ok(None);
        }
        self.copy().await.map(Some)
    }

    /// Looks through the whole file and compares indexes with tables.
    pub async fn check(&self) -> Result<()> {
        let file = self.dir.join(FILE);
        blocking("checking the store", move || {
            schema::integrity(&open_plain(&file)?, &file, false)
        })
        .await
    }

    /// Gives space that nothing uses any more back to the file system, while the store is in use; writes wait meanwhile.
    /// Answers the size of the file with its log before and after, in bytes.
    pub async fn compact(&self) -> Result<(u64, u64)> {
        let file = self.dir.join(FILE);
        blocking("compacting the store", move || {
            let fail = |e: rusqlite::Error| explain("compacting the store", &file, &e);
            let before = size_with_log(&file);
            let db = open_plain(&file)?;
            db.execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")
                .map_err(fail)?;
            Ok((before, size_with_log(&file)))
        })
        .await
    }

    /// Sets from when on a read is slow: it is logged with its plan.
    pub fn set_slow_read(&self, slow: Duration) {
        self.readers.set_slow(slow);
    }

    /// What there is to know about this store.
    pub async fn status(&self) -> Result<Status> {
        let file = self.dir.join(FILE);
        let read = |read: &mut readers::Reading<'_>| {
            read.at_one_revision(|read| {
                let revision = read.rows(REVISION, [], |row| row.get::<_, i64>(0))?;
                let keys = read.rows("SELECT count(*) FROM entries", [], |row| {
                    row.get::<_, i64>(0)
                })?;
                let format = read.rows("PRAGMA user_version", [], |row| row.get::<_, u32>(0))?;
                Ok((revision, keys, format))
            })
        };
        let (revision, keys, format) = self.readers.run("reading the store's status", read).await?;
        let (readers_busy, readers_idle) = self.readers.count();
        let (dir, sized) = (self.dir.clone(), file.clone());
        let (bytes, copies) = blocking("reading the store's folder", move || {
            let copies = copies::list(&dir).map_err(|e| {
                StoreError::Unavailable(format!("listing copies in {}: {e}", dir.display()))
            })?;
            Ok((size_with_log(&sized), copies))
        })
        .await?;
        Ok(Status {
            file,
            format: format.first().copied().unwrap_or_default(),
            revision: Revision(revision.first().map_or(0, |r| r.cast_unsigned())),
            keys: keys.first().map_or(0, |k| k.cast_unsigned()),
            bytes,
            readers_busy,
            readers_idle,
            copies,
        })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        // Short: the writer finishes its batch. Whoever opens the folder next finds the lock free.
        if let Some(thread) = self.stop() {
            let _ = thread.join();
        }
    }
}

async fn blocking<T: Send + 'static>(
    doing: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| StoreError::Unavailable(format!("{doing}: the thread ended: {e}")))?
}

fn size_with_log(file: &Path) -> u64 {
    let size = |path: &Path| fs::metadata(path).map_or(0, |m| m.len());
    size(file) + size(&file.with_extension("db-wal"))
}

/// A connection for a single job beside the writer and the readers.
fn open_plain(file: &Path) -> Result<Connection> {
    let fail = |e: rusqlite::Error| explain("opening the store", file, &e);
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
    db.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
    Ok(db)
}

fn open_for_writing(dir: &Path, file: &Path) -> Result<Connection> {
    let size = match fs::metadata(file) {
        Ok(metadata) => Some(metadata.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(StoreError::Unusable(format!(
                "{} cannot be read: {error}",
                file.display()
            )));
        }
    };
    // An empty store where there was a full one would make every controller tidy its objects away.
    if size.unwrap_or(0) == 0
        && let Ok(Some(copy)) = copies::newest(dir)
    {
        return Err(StoreError::Unusable(format!(
            "{} is missing or empty, but there are copies of it; run `debvisord store restore` to go back to the newest \
             ({}), or move the folder of copies away to start with an empty store",
            file.display(),
            copy.display()
        )));
    }
    let fail = |e: rusqlite::Error| explain("opening the store", file, &e);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(file, flags).map_err(fail)?;
    db.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
    Ok(db)
}

/// Checks the file, brings its format up to date and marks it as in use.
fn bring_up(
    db: &mut Connection,
    dir: &Path,
    file: &Path,
    steps: &[schema::Step],
    clock: &dyn Clock,
) -> Result<()> {
    let fail = |e: rusqlite::Error| explain("opening the store", file, &e);
    let has = schema::check(db, file, steps)?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -8192;
         PRAGMA wal_autocheckpoint = 2000; PRAGMA journal_size_limit = 33554432; PRAGMA temp_store = MEMORY;",
    )
    .map_err(fail)?;
    if has > 0 {
        let clean: i64 = db
            .query_row("SELECT value FROM meta WHERE name = 'clean'", [], |row| {
                row.get(0)
            })
            .map_err(fail)?;
        if clean != 1 {
            tracing::info!(file = %file.display(), "Store was not closed cleanly, checking it");
            schema::integrity(db, file, true)?;
        }
    }
    let missing: Vec<_> = steps.iter().filter(|s| s.version > has).collect();
    if has > 0 && !missing.is_empty() {
        let copy = copies::make(dir, &format!("before-format-{}", has + 1), clock.wall())?;
        tracing::info!(copy = %copy.display(), "Store is copied before its format changes");
    }
    for step in missing {
        schema::step_up(db, file, step, clock.wall().as_secs().cast_signed())?;
        tracing::info!(
            version = step.version,
            step = step.name,
            "Store format step is done"
        );
    }
    db.execute("UPDATE meta SET value = 0 WHERE name = 'clean'", [])
        .map_err(fail)?;
    Ok(())
}

fn load_leases(db: &Connection, now: Duration) -> rusqlite::Result<Leases> {
    let mut leases = Leases::default();
    let mut statement = db.prepare("SELECT id, ttl_ms FROM leases")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let id = LeaseId(row.get::<_, i64>(0)?.cast_unsigned());
        let ttl = Duration::from_millis(row.get::<_, i64>(1)?.cast_unsigned());
        leases.enter(id, ttl, now);
    }
    Ok(leases)
}

/// Looks through the whole store file of a state folder and compares indexes with tables. The store must not be open;
/// [`Sqlite::check`] is for one that is. Blocks. Answers the format of the file.
pub fn check(dir: &Path) -> Result<u32> {
    let _lock = Lock::take(dir)?;
    let file = dir.join(FILE);
    let db = open_plain(&file)?;
    let format = schema::check(&db, &file, schema::STEPS)?;
    schema::integrity(&db, &file, false)?;
    Ok(format)
}

/// Takes the format back to `to`, for a downgrade of the program; objects stay. With `dry_run` only says what it
/// would do. The store must not be open. Blocks. Returns the steps, in the order they are taken.
pub fn downgrade(dir: &Path, to: u32, dry_run: bool) -> Result<Vec<String>> {
    downgrade_steps(dir, to, dry_run, schema::STEPS)
}

fn downgrade_steps(
    dir: &Path,
    to: u32,
    dry_run: bool,
    steps: &[schema::Step],
) -> Result<Vec<String>> {
    let _lock = Lock::take(dir)?;
    let file = dir.join(FILE);
    let mut db = open_plain(&file)?;
    let has = schema::check(&db, &file, steps)?;
    if to == 0 || to > has {
        return Err(StoreError::Unusable(format!(
            "{} has format {has}; it can be taken back to a format from 1 to {has}, not to {to}",
            file.display()
        )));
    }
    let back = steps
        .iter()
        .rev()
        .filter(|s| s.version > to && s.version <= has);
    let mut done = Vec::new();
    for step in back {
        if !dry_run {
            schema::step_down(&mut db, &file, step)?;
        }
        done.push(format!("take back {}: {}", step.version, step.name));
    }
    Ok(done)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let key = row.get_ref(0)?.as_str()?;
    let value = row.get_ref(1)?.as_blob()?;
    Ok(Entry {
        key: Key::new(key),
        value: Bytes::copy_from_slice(value),
        created: Revision(row.get::<_, i64>(2)?.cast_unsigned()),
        modified: Revision(row.get::<_, i64>(3)?.cast_unsigned()),
        lease: row
            .get::<_, Option<i64>>(4)?
            .map(|l| LeaseId(l.cast_unsigned())),
    })
}

/// The first text that is greater than everything with this prefix; `None` when there is no such text.
fn end_of(prefix: &str) -> Option<String> {
    let mut end: Vec<char> = prefix.chars().collect();
    while let Some(last) = end.pop() {
        // The order of UTF-8 bytes is the order of code points; surrogates are not among them.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            end.push(next);
            return Some(end.into_iter().collect());
        }
    }
    None
}

impl Store for Sqlite {
    fn get(&self, key: &Key) -> BoxFuture<'_, Result<Option<Entry>>> {
        let key = key.clone();
        Box::pin(async move {
            let rows = self
                .readers
                .run("reading a key", move |read| {
                    read.rows(GET, [key.as_str()], entry)
                })
                .await?;
            Ok(rows.into_iter().next())
        })
    }

    fn list(&self, under: &Prefix, page: Page) -> BoxFuture<'_, Result<Listing>> {
        let under = under.clone();
        Box::pin(async move {
            let read = move |read: &mut readers::Reading<'_>| {
                let end = end_of(under.as_str());
                let sql = if end.is_some() { LIST } else { LIST_REST };
                // The smallest text behind `after`: one bound, so that a late page costs no more than the first.
                let behind = page
                    .after
                    .map(|after| format!("{after}\0"))
                    .unwrap_or_default();
                let from = behind.as_str().max(under.as_str());
                // One more than wanted tells whether there is more.
                let limit = if page.limit == 0 {
                    i64::MAX
                } else {
                    i64::try_from(page.limit + 1).unwrap_or(i64::MAX)
                };
                read.at_one_revision(|read| {
                    let revision = read.rows(REVISION, [], |row| row.get::<_, i64>(0))?;
                    let entries = read.rows(sql, (from, &end, limit), entry)?;
                    Ok((revision, entries))
                })
            };
            let limit = page.limit;
            let (revision, mut entries) = self.readers.run("listing keys", read).await?;
            let more = limit != 0 && entries.len() > limit;
            if more {
                entries.truncate(limit);
            }
            let revision = Revision(revision.first().map_or(0, |r| r.cast_unsigned()));
            Ok(Listing {
                revision,
                entries,
                more,
            })
        })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision>> {
        Box::pin(async move {
            rules::check(&txn)?;
            self.queue.ask(|answer| Request::Commit(txn, answer)).await
        })
    }

    fn watch(&self, under: &Prefix, after: Revision) -> BoxStream<'static, Result<Change>> {
        self.watches.follow(under.clone(), after)
    }

    fn lease(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>> {
        Box::pin(self.queue.ask(move |answer| Request::Grant(ttl, answer)))
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.queue.is_open()?;
            self.leases.lock().keep_alive(lease, self.clock.boot())
        })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.queue.ask(move |answer| Request::Revoke(lease, answer)))
    }
}

#[cfg(test)]
mod tests;
