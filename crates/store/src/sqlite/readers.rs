//! The bounded set of connections that read. Reading never happens on an async thread.

use super::error::explain;
use crate::{Result, StoreError};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, Params};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that are opened with the store and kept.
const MIN: usize = 5;
/// Most connections that are kept for later.
const MAX: usize = 20;
/// Connections beyond `MAX`, closed after use.
const OVERFLOW: usize = 10;
/// Longest wait for a connection.
const WAIT: Duration = Duration::from_secs(30);
/// A connection of this age is replaced.
const RECYCLE: Duration = Duration::from_secs(3600);
/// A connection beyond `MIN` that nobody used for so long is closed.
const IDLE: Duration = Duration::from_secs(300);

pub(super) struct Readers {
    file: PathBuf,
    idle: Mutex<Vec<Reader>>,
    places: Arc<Semaphore>,
    /// From when on a read is slow, in milliseconds.
    slow: AtomicU64,
}

struct Reader {
    db: Connection,
    opened: Instant,
    used: Instant,
}

/// A read that took too long, and how SQLite went about it.
struct Slow {
    took: Duration,
    sql: &'static str,
    plan: String,
}

/// What a read has to work with.
pub(super) struct Reading<'r> {
    db: &'r Connection,
    threshold: Duration,
    slow: &'r mut Vec<Slow>,
}

impl Readers {
    pub(super) fn open(file: &Path, slow: Duration) -> Result<Arc<Self>> {
        let readers = Readers {
            file: file.to_owned(),
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(MAX + OVERFLOW)),
            slow: AtomicU64::new(0),
        };
        readers.set_slow(slow);
        let opened = (0..MIN)
            .map(|_| readers.connect())
            .collect::<Result<Vec<_>>>()?;
        *readers.idle.lock() = opened;
        Ok(Arc::new(readers))
    }

    /// Runs `read` on a connection, on a thread where it may block.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        doing: &'static str,
        read: impl FnOnce(&mut Reading<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let place = match tokio::time::timeout(WAIT, self.places.clone().acquire_owned()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Err(StoreError::Unavailable("the store has been closed".into())),
            Err(_) => {
                return Err(StoreError::Unavailable(format!(
                    "{doing}: all {} reading connections were busy for {WAIT:?}; ask for smaller pages",
                    MAX + OVERFLOW
                )));
            }
        };
        let readers = self.clone();
        let done = tokio::task::spawn_blocking(move || readers.read(place, doing, read)).await;
        let (answer, slow) = done.map_err(|e| {
            StoreError::Unavailable(format!("{doing}: the reading thread ended: {e}"))
        })?;
        // Logged here and not on the thread, so that it stands in the span of the request that waited.
        for slow in slow {
            let scan = slow.plan.contains("SCAN");
            let took_ms = slow.took.as_millis() as u64;
            tracing::warn!(
                took_ms,
                sql = slow.sql,
                plan = slow.plan,
                full_scan = scan,
                "Store read was slow"
            );
        }
        answer
    }

    fn read<T>(
        &self,
        place: OwnedSemaphorePermit,
        doing: &'static str,
        read: impl FnOnce(&mut Reading<'_>) -> rusqlite::Result<T>,
    ) -> (Result<T>, Vec<Slow>) {
        let mut slow = Vec::new();
        let answer = self.check_out().and_then(|reader| {
            let answer = read(&mut Reading {
                db: &reader.db,
                threshold: Duration::from_millis(self.slow.load(Ordering::Relaxed)),
                slow: &mut slow,
            });
            // A connection that failed is not trusted again.
            match answer {
                Ok(answer) => {
                    self.check_in(reader);
                    Ok(answer)
                }
                Err(error) => Err(explain(doing, &self.file, &error)),
            }
        });
        drop(place);
        (answer, slow)
    }

    fn check_out(&self) -> Result<Reader> {
        let kept = self.idle.lock().pop();
        match kept {
            Some(reader) if reader.opened.elapsed() < RECYCLE => Ok(reader),
            _ => self.connect(),
        }
    }

    fn check_in(&self, mut reader: Reader) {
        reader.used = Instant::now();
        let mut closing = None;
        {
            let mut idle = self.idle.lock();
            if idle.len() < MAX {
                idle.push(reader);
            } else {
                closing = Some(reader);
            }
            // Used from the end, so the first has waited longest.
            if closing.is_none() && idle.len() > MIN && idle[0].used.elapsed() > IDLE {
                closing = Some(idle.remove(0));
            }
        }
        drop(closing);
    }

    fn connect(&self) -> Result<Reader> {
        let fail = |e: rusqlite::Error| explain("opening a reading connection", &self.file, &e);
        // WAL readers write to the shared index; `query_only` keeps them from writing anything else.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.file, flags).map_err(fail)?;
        db.busy_timeout(Duration::from_secs(5)).map_err(fail)?;
        db.execute_batch("PRAGMA query_only = 1; PRAGMA cache_size = -512; PRAGMA mmap_size = 0;")
            .map_err(fail)?;
        Ok(Reader {
            db,
            opened: Instant::now(),
            used: Instant::now(),
        })
    }

    /// Sets from when on a read is slow.
    pub(super) fn set_slow(&self, slow: Duration) {
        let ms = u64::try_from(slow.as_millis()).unwrap_or(u64::MAX);
        self.slow.store(ms, Ordering::Relaxed);
    }

    /// Closes what is idle and lets nobody read any more.
    pub(super) fn close(&self) {
        self.places.close();
        self.idle.lock().clear();
    }

    /// How many connections are in use now, and how many are kept.
    pub(super) fn count(&self) -> (usize, usize) {
        let idle = self.idle.lock().len();
        (MAX + OVERFLOW - self.places.available_permits(), idle)
    }
}

impl Reading<'_> {
    /// One view of the store for several statements.
    pub(super) fn at_one_revision<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let view = self.db.unchecked_transaction()?;
        let answer = read(self);
        view.finish()?;
        answer
    }

    /// All rows of a statement, each made by `row`.
    pub(super) fn rows<T>(
        &mut self,
        sql: &'static str,
        params: impl Params + Clone,
        row: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let began = Instant::now();
        let mut statement = self.db.prepare_cached(sql)?;
        let rows = statement
            .query_map(params.clone(), row)?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        let took = began.elapsed();
        if took >= self.threshold {
            self.slow.push(Slow {
                took,
                sql,
                plan: plan(self.db, sql, params)?,
            });
        }
        Ok(rows)
    }
}

fn plan(db: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<String> {
    let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let lines = statement.query_map(params, |row| row.get::<_, String>(3))?;
    Ok(lines.collect::<rusqlite::Result<Vec<_>>>()?.join("; "))
}
