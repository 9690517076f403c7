//! The one thread that writes: takes all waiting requests, does them in one SQLite transaction, makes it durable
//! with one fsync, shows the commits to watchers, and only then answers the callers.
//!
//! Each request is judged whole, against what earlier requests of its batch wrote, before its first write; so a
//! refused request leaves nothing behind. What can fail after that is the database itself, and then the whole batch
//! is rolled back and each of its callers is told.

use super::error::explain;
use super::lock::Lock;
use super::queue::{Found, Queue, Request};
use crate::history::{Commit, History};
use crate::leases::{self, Leases};
use crate::{
    ChangeKind, Clock, Entry, Expect, Key, LeaseId, Result, Revision, StoreError, Txn, Write, rules,
};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Statement, params};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The boot clock also runs while the machine sleeps, waiting does not: look at it this often while leases live.
const LOOK_AT_CLOCK: Duration = Duration::from_millis(250);

/// After a failed batch that was only our own (leases that end), so that a full disk is not hammered.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Callers that were answered together ask again about together. Waiting for them costs at most this part of what
/// the last batch took, so that a slow disk, where an fsync is dear, gets full batches...
const GATHER_PART: u32 = 8;

/// ... and at most this.
const GATHER: Duration = Duration::from_millis(2);

pub(super) struct Writer {
    pub(super) db: Connection,
    pub(super) file: PathBuf,
    pub(super) queue: Arc<Queue>,
    pub(super) leases: Arc<Mutex<Leases>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) history: History,
    pub(super) revision: Revision,
    pub(super) first: First,
    /// Held until the last write is done.
    pub(super) lock: Lock,
}

/// Begins what must be durable before a batch is, and answers what waits for it: see [`Sqlite::first`](super::Sqlite::first).
pub type Begin = dyn Fn() -> Box<dyn FnOnce() -> std::result::Result<(), String>> + Send + Sync;

/// Where a [`Begin`] is put once the store is open.
pub(super) type First = Arc<OnceLock<(&'static str, Box<Begin>)>>;

/// Why a batch was not done.
enum Failed {
    Database(rusqlite::Error),
    First(String),
}

impl From<rusqlite::Error> for Failed {
    fn from(error: rusqlite::Error) -> Self {
        Failed::Database(error)
    }
}

/// What one request came to, to be told when the batch is durable.
enum Outcome {
    Committed(Result<Revision>, oneshot::Sender<Result<Revision>>),
    Granted(LeaseId, Duration, oneshot::Sender<Result<LeaseId>>),
    Revoked(Result<()>, oneshot::Sender<Result<()>>),
}

/// What a batch did, before it is durable.
#[derive(Default)]
struct Batch {
    outcomes: Vec<Outcome>,
    commits: Vec<Commit>,
    /// Leases that end with this batch.
    ended: Vec<LeaseId>,
    /// Whether anything was written.
    dirty: bool,
}

impl Writer {
    /// Works until the queue is closed and empty, then marks the file as cleanly closed.
    pub(super) fn run(self) {
        let Writer {
            db,
            file,
            queue,
            leases,
            clock,
            history,
            revision,
            first,
            lock,
        } = self;
        let _abandon = Abandon(&queue);
        {
            let statements = match Statements::new(&db) {
                Ok(statements) => statements,
                Err(error) => {
                    tracing::error!(%error, file = %file.display(), "Store writer cannot prepare its statements");
                    return;
                }
            };
            let mut work = Work {
                statements,
                file,
                leases,
                clock,
                history,
                revision,
                first,
                first_fails: false,
            };
            work.until_closed(&queue);
            work.close(&db);
        }
        // Watchers have ended; now the file goes, then the lock.
        drop(db);
        drop(lock);
    }
}

/// Whatever ends the writer, also a panic: no caller waits for an answer that never comes.
struct Abandon<'q>(&'q Queue);

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

struct Work<'db> {
    statements: Statements<'db>,
    file: PathBuf,
    leases: Arc<Mutex<Leases>>,
    clock: Arc<dyn Clock>,
    history: History,
    revision: Revision,
    first: First,
    /// Whether it failed when it was last waited for.
    first_fails: bool,
}

impl Work<'_> {
    fn until_closed(&mut self, queue: &Queue) {
        let mut requests = Vec::new();
        let mut expected = 1;
        let mut gather = Duration::ZERO;
        let mut failed = false;
        loop {
            let patience = match self.leases.lock().next_end(self.clock.boot()) {
                Some(_) if failed => Some(AFTER_FAILURE),
                Some(left) => Some(left.min(LOOK_AT_CLOCK)),
                None => None,
            };
            match queue.take(&mut requests, patience, expected, gather) {
                Found::Closed => return,
                Found::Nothing | Found::Requests => {}
            }
            let due = self.leases.lock().due(self.clock.boot());
            if requests.is_empty() && due.is_empty() {
                continue;
            }
            expected = requests.len();
            let began = Instant::now();
            failed = !self.batch(&mut requests, due);
            gather = (began.elapsed() / GATHER_PART).min(GATHER);
        }
    }

    /// Does one batch and answers it. Whether it could be written.
    fn batch(&mut self, requests: &mut Vec<Request>, due: Vec<LeaseId>) -> bool {
        let before = self.revision;
        let mut batch = Batch::default();
        match self.write(&mut batch, requests, due) {
            Ok(()) => {
                self.tell(batch);
                true
            }
            Err(error) => {
                self.revision = before;
                // After some errors SQLite has rolled back by itself; then this one fails and that is fine.
                let _ = self.statements.rollback.execute([]);
                let error = match error {
                    Failed::Database(error) => {
                        explain("writing a batch of transactions", &self.file, &error)
                    }
                    Failed::First(why) => StoreError::Unavailable(why),
                };
                tracing::error!(%error, requests = batch.outcomes.len() + requests.len(), "Store batch failed");
                refuse(batch.outcomes, requests, &error);
                false
            }
        }
    }

    fn write(
        &mut self,
        batch: &mut Batch,
        requests: &mut Vec<Request>,
        due: Vec<LeaseId>,
    ) -> std::result::Result<(), Failed> {
        let first = self.first.clone();
        let marked = |request: &Request| match (request, first.get()) {
            (Request::Commit(txn, _), Some((mark, _))) => {
                let keys = txn.writes.iter().map(Write::key);
                keys.into_iter().any(|key| key.as_str().starts_with(mark))
            }
            _ => false,
        };
        let begin = first.get().filter(|_| requests.iter().any(marked));
        // It goes on while the statements are done.
        let mut first = begin.map(|(_, begin)| begin());
        if self.first_fails
            && let Some(wait) = first.take()
        {
            let done = wait();
            self.first_fails = done.is_err();
            if let Err(why) = done {
                let (refused, others) = requests.drain(..).partition(|r| marked(r));
                let (mut refused, error): (Vec<_>, _) = (refused, StoreError::Unavailable(why));
                refuse(Vec::new(), &mut refused, &error);
                *requests = others;
            }
        }
        self.statements.begin.execute([])?;
        for lease in due {
            self.end_lease(batch, lease)?;
        }
        let now = self.clock.boot();
        // Reversed and popped, so that what was not reached when the database fails is still there to be answered.
        requests.reverse();
        while let Some(request) = requests.pop() {
            let outcome = match request {
                Request::Commit(txn, answer) => match self.transaction(batch, txn, now) {
                    Ok(result) => Outcome::Committed(result, answer),
                    Err(error) => {
                        // It is put back to be told with the others.
                        requests.push(Request::Commit(Txn::new(), answer));
                        return Err(error.into());
                    }
                },
                Request::Grant(ttl, answer) => {
                    let id = leases::fresh_id();
                    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
                    if let Err(error) = self.statements.grant.execute(params![id.0 as i64, ttl_ms])
                    {
                        requests.push(Request::Grant(ttl, answer));
                        return Err(error.into());
                    }
                    batch.dirty = true;
                    Outcome::Granted(id, ttl, answer)
                }
                Request::Revoke(lease, answer) => {
                    let lives =
                        self.leases.lock().lives(lease, now) && !batch.ended.contains(&lease);
                    if lives && let Err(error) = self.end_lease(batch, lease) {
                        requests.push(Request::Revoke(lease, answer));
                        return Err(error.into());
                    }
                    Outcome::Revoked(
                        if lives {
                            Ok(())
                        } else {
                            Err(StoreError::LeaseEnded(lease))
                        },
                        answer,
                    )
                }
            };
            batch.outcomes.push(outcome);
        }
        if !batch.commits.is_empty() {
            self.statements
                .set_revision
                .execute([self.revision.0 as i64])?;
        }
        if let (Some(wait), true) = (first, batch.dirty) {
            let done = wait();
            self.first_fails = done.is_err();
            done.map_err(Failed::First)?;
        }
        // With WAL and synchronous=FULL this returns after the fsync.
        if batch.dirty {
            self.statements.commit.execute([])
        } else {
            self.statements.rollback.execute([])
        }?;
        Ok(())
    }

    /// Judges and does one transaction. The outer error is the database's own.
    fn transaction(
        &mut self,
        batch: &mut Batch,
        txn: Txn,
        now: Duration,
    ) -> rusqlite::Result<Result<Revision>> {
        let mut heads = Vec::with_capacity(txn.expect.len());
        for expect in &txn.expect {
            let head = self.statements.head(expect.key())?;
            if let Err(conflict) = rules::holds(expect, head.as_ref().map(|h| h.modified)) {
                return Ok(Err(conflict));
            }
            heads.push(head);
        }
        for write in &txn.writes {
            if let Write::Put {
                lease: Some(lease), ..
            } = write
                && (!self.leases.lock().lives(*lease, now) || batch.ended.contains(lease))
            {
                return Ok(Err(StoreError::LeaseEnded(*lease)));
            }
        }
        let mut known = Known {
            expect: &txn.expect,
            heads: &heads,
            next: 0,
        };
        let revision = Revision(self.revision.0 + 1);
        let mut changes = Vec::with_capacity(txn.writes.len());
        for write in txn.writes {
            let head = match known.of(write.key()) {
                Some(head) => head,
                None => self.statements.head(write.key())?,
            };
            changes.extend(self.statements.write(write, head, revision)?);
        }
        Ok(Ok(self.done(batch, changes)))
    }

    fn end_lease(&mut self, batch: &mut Batch, lease: LeaseId) -> rusqlite::Result<()> {
        let keys = self
            .statements
            .leased
            .query_map([lease.0 as i64], |row| row.get::<_, String>(0))?;
        let keys = keys.collect::<rusqlite::Result<Vec<_>>>()?;
        self.statements.delete_leased.execute([lease.0 as i64])?;
        self.statements.end.execute([lease.0 as i64])?;
        batch.dirty = true;
        batch.ended.push(lease);
        self.done(
            batch,
            keys.into_iter()
                .map(|key| ChangeKind::Delete(Key::new(key)))
                .collect(),
        );
        Ok(())
    }

    /// Gives changes their revision, if there are any.
    fn done(&mut self, batch: &mut Batch, changes: Vec<ChangeKind>) -> Revision {
        if !changes.is_empty() {
            self.revision.0 += 1;
            batch.dirty = true;
            batch.commits.push(Commit {
                revision: self.revision,
                changes,
            });
        }
        self.revision
    }

    /// The batch is durable: watchers first, so that whoever has an answer can be sure that watches go on from it.
    fn tell(&mut self, batch: Batch) {
        self.history.publish(batch.commits);
        if !batch.ended.is_empty() {
            let mut leases = self.leases.lock();
            batch.ended.iter().for_each(|lease| leases.remove(*lease));
        }
        for outcome in batch.outcomes {
            // A caller that no longer waits has dropped its end; what it asked is done all the same.
            match outcome {
                Outcome::Committed(result, answer) => _ = answer.send(result),
                Outcome::Revoked(result, answer) => _ = answer.send(result),
                Outcome::Granted(id, ttl, answer) => {
                    self.leases.lock().enter(id, ttl, self.clock.boot());
                    _ = answer.send(Ok(id));
                }
            }
        }
    }

    fn close(&mut self, db: &Connection) {
        let closed = db
            .execute("UPDATE meta SET value = 1 WHERE name = 'clean'", [])
            .and_then(|_| db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())));
        if let Err(error) = closed {
            let error = explain("closing the store", &self.file, &error);
            tracing::warn!(%error, "Store was not closed cleanly; its next start checks the file");
        }
    }
}

fn refuse(outcomes: Vec<Outcome>, requests: &mut Vec<Request>, error: &StoreError) {
    for outcome in outcomes {
        match outcome {
            Outcome::Committed(_, answer) => _ = answer.send(Err(copy(error))),
            Outcome::Revoked(_, answer) => _ = answer.send(Err(copy(error))),
            Outcome::Granted(_, _, answer) => _ = answer.send(Err(copy(error))),
        }
    }
    for request in requests.drain(..) {
        match request {
            Request::Commit(_, answer) => _ = answer.send(Err(copy(error))),
            Request::Grant(_, answer) => _ = answer.send(Err(copy(error))),
            Request::Revoke(_, answer) => _ = answer.send(Err(copy(error))),
        }
    }
}

/// One error for each caller of a batch; only these two come from [`explain`].
fn copy(error: &StoreError) -> StoreError {
    match error {
        StoreError::Unusable(text) => StoreError::Unusable(text.clone()),
        other => StoreError::Unavailable(other.to_string()),
    }
}

/// What is known of keys from judging the expectations. Writes mostly come in the order of their expectations, so
/// the search goes on where it last ended.
struct Known<'a> {
    expect: &'a [Expect],
    heads: &'a [Option<Head>],
    next: usize,
}

impl Known<'_> {
    fn of(&mut self, key: &Key) -> Option<Option<Head>> {
        let n = self.expect.len();
        let at = (0..n)
            .map(|i| (self.next + i) % n)
            .find(|i| self.expect[*i].key() == key)?;
        self.next = at + 1;
        Some(self.heads[at])
    }
}

/// What the writer knows of a key that exists.
#[derive(Clone, Copy)]
struct Head {
    id: i64,
    created: Revision,
    modified: Revision,
}

/// Every statement the writer needs, prepared once.
struct Statements<'db> {
    begin: Statement<'db>,
    commit: Statement<'db>,
    rollback: Statement<'db>,
    head: Statement<'db>,
    insert: Statement<'db>,
    update: Statement<'db>,
    delete: Statement<'db>,
    set_revision: Statement<'db>,
    grant: Statement<'db>,
    leased: Statement<'db>,
    delete_leased: Statement<'db>,
    end: Statement<'db>,
}

impl<'db> Statements<'db> {
    fn new(db: &'db Connection) -> rusqlite::Result<Self> {
        Ok(Statements {
            begin: db.prepare("BEGIN IMMEDIATE")?,
            commit: db.prepare("COMMIT")?,
            rollback: db.prepare("ROLLBACK")?,
            head: db.prepare("SELECT id, created, modified FROM entries WHERE key = ?1")?,
            insert: db.prepare(
                "INSERT INTO entries (key, value, created, modified, lease) VALUES (?1, ?2, ?3, ?3, ?4)",
            )?,
            update: db.prepare("UPDATE entries SET value = ?2, modified = ?3, lease = ?4 WHERE id = ?1")?,
            delete: db.prepare("DELETE FROM entries WHERE id = ?1")?,
            set_revision: db.prepare("UPDATE meta SET value = ?1 WHERE name = 'revision'")?,
            grant: db.prepare("INSERT INTO leases (id, ttl_ms) VALUES (?1, ?2)")?,
            leased: db.prepare("SELECT key FROM entries WHERE lease = ?1 ORDER BY key")?,
            delete_leased: db.prepare("DELETE FROM entries WHERE lease = ?1")?,
            end: db.prepare("DELETE FROM leases WHERE id = ?1")?,
        })
    }

    fn head(&mut self, key: &Key) -> rusqlite::Result<Option<Head>> {
        let head = |row: &rusqlite::Row<'_>| {
            let revision = |column| row.get::<_, i64>(column).map(|r| Revision(r as u64));
            Ok(Head {
                id: row.get(0)?,
                created: revision(1)?,
                modified: revision(2)?,
            })
        };
        self.head.query_row([key.as_str()], head).optional()
    }

    /// Does one write; `None` when it changes nothing.
    fn write(
        &mut self,
        write: Write,
        head: Option<Head>,
        revision: Revision,
    ) -> rusqlite::Result<Option<ChangeKind>> {
        let at = revision.0 as i64;
        match (write, head) {
            (Write::Put { key, value, lease }, head) => {
                let on = lease.map(|l| l.0 as i64);
                match head {
                    Some(head) => self.update.execute(params![head.id, &value[..], at, on])?,
                    None => self
                        .insert
                        .execute(params![key.as_str(), &value[..], at, on])?,
                };
                let created = head.map_or(revision, |h| h.created);
                Ok(Some(ChangeKind::Put(Entry {
                    key,
                    value,
                    created,
                    modified: revision,
                    lease,
                })))
            }
            (Write::Delete(key), Some(head)) => {
                self.delete.execute([head.id])?;
                Ok(Some(ChangeKind::Delete(key)))
            }
            (Write::Delete(_), None) => Ok(None),
        }
    }
}
