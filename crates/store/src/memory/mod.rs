//! The store in memory, for tests: the same answers as the durable backends, without a file.
//!
//! A commit is done by the time its future is first polled to the end: no thread is between, so tests stay
//! deterministic and may pause time. It never keeps anything on disk; [`Memory::restart`] stands for "the process
//! died and opened its store again".

mod faults;

pub use faults::{Fault, Faults};

use crate::clock::SystemClock;
use crate::history::{self, Commit, History, Keep, Watches};
use crate::leases::{self, Leases};
use crate::{
    Change, ChangeKind, Clock, Entry, Key, LeaseId, Listing, Page, Prefix, Result, Revision, Store,
    StoreError, Txn, Write, rules,
};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A store that lives as long as its process.
pub struct Memory {
    shared: Arc<Shared>,
    watches: Watches,
    clock: Arc<dyn Clock>,
    keep: Keep,
    faults: Faults,
}

struct Shared {
    state: Mutex<State>,
    /// Told when the first lease is granted and when the store is dropped.
    lease_granted: Condvar,
}

struct State {
    entries: BTreeMap<Key, Entry>,
    revision: Revision,
    leases: Leases,
    /// `None` once the store is closed: watchers end then.
    history: Option<History>,
    reaper: bool,
}

/// How often a lease that ran out is looked for.
const REAP: Duration = Duration::from_millis(50);

impl Memory {
    /// An empty store on this machine's clock.
    pub fn new() -> Arc<Self> {
        Self::with(Arc::new(SystemClock), Keep::default(), Faults::default())
    }

    /// An empty store on another clock.
    pub fn on_clock(clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::with(clock, Keep::default(), Faults::default())
    }

    /// An empty store that fails as `faults` tell it.
    pub fn with_faults(faults: Faults) -> Arc<Self> {
        Self::with(Arc::new(SystemClock), Keep::default(), faults)
    }

    /// An empty store with its own clock, length of history and faults.
    pub fn with(clock: Arc<dyn Clock>, keep: Keep, faults: Faults) -> Arc<Self> {
        Arc::new(Self::open(
            BTreeMap::new(),
            Revision::ZERO,
            Leases::default(),
            clock,
            keep,
            faults,
        ))
    }

    fn open(
        entries: BTreeMap<Key, Entry>,
        revision: Revision,
        leases: Leases,
        clock: Arc<dyn Clock>,
        keep: Keep,
        faults: Faults,
    ) -> Self {
        let (history, watches) = history::starting_at(revision, keep);
        let state = State {
            entries,
            revision,
            leases,
            history: Some(history),
            reaper: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            lease_granted: Condvar::new(),
        });
        Memory {
            shared,
            watches,
            clock,
            keep,
            faults,
        }
    }

    /// What a process finds that opens the store again after this one died: every commit that was done, no history,
    /// each lease with its full ttl. This store answers nothing from now on and its watches end.
    pub fn restart(&self, faults: Faults) -> Arc<Self> {
        let mut state = self.shared.state.lock();
        state.history = None;
        let now = self.clock.boot();
        let mut leases = Leases::default();
        for (id, ttl) in state.leases.all() {
            leases.enter(id, ttl, now);
        }
        let entries = std::mem::take(&mut state.entries);
        let revision = state.revision;
        drop(state);
        let again = Self::open(
            entries,
            revision,
            leases,
            self.clock.clone(),
            self.keep,
            faults,
        );
        again.start_reaper();
        Arc::new(again)
    }

    /// The faults this store was made with.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    fn open_state(&self) -> Result<parking_lot::MutexGuard<'_, State>> {
        let mut state = self.shared.state.lock();
        if state.history.is_none() {
            return Err(StoreError::Unavailable(
                "the store in memory has crashed or was restarted".into(),
            ));
        }
        state.reap(self.clock.boot());
        Ok(state)
    }

    fn commit_now(&self, txn: Txn) -> Result<Revision> {
        rules::check(&txn)?;
        let mut state = self.open_state()?;
        let now = self.clock.boot();
        for expect in &txn.expect {
            rules::holds(expect, state.entries.get(expect.key()).map(|e| e.modified))?;
        }
        for write in &txn.writes {
            if let Write::Put {
                lease: Some(lease), ..
            } = write
                && !state.leases.lives(*lease, now)
            {
                return Err(StoreError::LeaseEnded(*lease));
            }
        }
        let effective = txn.writes.iter().any(|write| match write {
            Write::Put { .. } => true,
            Write::Delete(key) => state.entries.contains_key(key),
        });
        if !effective {
            return Ok(state.revision);
        }
        let fault = self.faults.next_commit();
        if fault.is_none_or(Fault::commits) {
            state.apply(txn.writes);
        }
        match fault {
            None => Ok(state.revision),
            Some(fault) => {
                if fault.crashes() {
                    state.history = None;
                    drop(state);
                    self.faults.tell_crashed();
                }
                Err(StoreError::Unavailable(format!(
                    "a test made this commit fail: {fault:?}"
                )))
            }
        }
    }

    /// Leases end without anybody asking: a thread looks for them as long as there are any.
    fn start_reaper(&self) {
        let mut state = self.shared.state.lock();
        if state.reaper || state.leases.next_end(Duration::ZERO).is_none() {
            return;
        }
        state.reaper = true;
        let shared = Arc::downgrade(&self.shared);
        let clock = self.clock.clone();
        std::thread::spawn(move || reap_until_gone(&shared, &*clock));
    }
}

fn reap_until_gone(shared: &Weak<Shared>, clock: &dyn Clock) {
    while let Some(shared) = shared.upgrade() {
        let mut state = shared.state.lock();
        if state.history.is_none() {
            return;
        }
        state.reap(clock.boot());
        if state.leases.next_end(Duration::ZERO).is_none() {
            state.reaper = false;
            return;
        }
        shared.lease_granted.wait_for(&mut state, REAP);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.shared.state.lock().history = None;
        self.shared.lease_granted.notify_all();
    }
}

impl State {
    /// Does the writes as one revision and shows it. Only called with at least one write that changes something.
    fn apply(&mut self, writes: Vec<Write>) {
        let revision = Revision(self.revision.0 + 1);
        let mut changes = Vec::with_capacity(writes.len());
        for write in writes {
            match write {
                Write::Put { key, value, lease } => {
                    let created = self.entries.get(&key).map_or(revision, |old| old.created);
                    let entry = Entry {
                        key: key.clone(),
                        value,
                        created,
                        modified: revision,
                        lease,
                    };
                    self.entries.insert(key, entry.clone());
                    changes.push(ChangeKind::Put(entry));
                }
                Write::Delete(key) => {
                    if self.entries.remove(&key).is_some() {
                        changes.push(ChangeKind::Delete(key));
                    }
                }
            }
        }
        self.revision = revision;
        if let Some(history) = &self.history {
            history.publish([Commit { revision, changes }]);
        }
    }

    fn reap(&mut self, now: Duration) {
        for lease in self.leases.due(now) {
            self.end(lease);
        }
    }

    fn end(&mut self, lease: LeaseId) {
        self.leases.remove(lease);
        let keys = self.entries.values().filter(|e| e.lease == Some(lease));
        let deletes: Vec<_> = keys.map(|e| Write::Delete(e.key.clone())).collect();
        if !deletes.is_empty() {
            self.apply(deletes);
        }
    }
}

impl Store for Memory {
    fn get(&self, key: &Key) -> BoxFuture<'_, Result<Option<Entry>>> {
        let key = key.clone();
        Box::pin(async move { Ok(self.open_state()?.entries.get(&key).cloned()) })
    }

    fn list(&self, under: &Prefix, page: Page) -> BoxFuture<'_, Result<Listing>> {
        let under = under.clone();
        Box::pin(async move {
            let state = self.open_state()?;
            let first = Key::new(under.as_str());
            let start = match &page.after {
                Some(after) if *after >= first => Bound::Excluded(after),
                _ => Bound::Included(&first),
            };
            let inside = state
                .entries
                .range((start, Bound::Unbounded))
                .map(|(_, e)| e);
            let mut inside = inside.take_while(|e| under.contains(&e.key));
            let limit = if page.limit == 0 {
                usize::MAX
            } else {
                page.limit
            };
            let entries = inside.by_ref().take(limit).cloned().collect();
            Ok(Listing {
                revision: state.revision,
                entries,
                more: inside.next().is_some(),
            })
        })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision>> {
        Box::pin(async move { self.commit_now(txn) })
    }

    fn watch(&self, under: &Prefix, after: Revision) -> BoxStream<'static, Result<Change>> {
        self.watches.follow(under.clone(), after)
    }

    fn lease(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>> {
        Box::pin(async move {
            let id = leases::fresh_id();
            self.open_state()?.leases.enter(id, ttl, self.clock.boot());
            self.start_reaper();
            Ok(id)
        })
    }

    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.open_state()?
                .leases
                .keep_alive(lease, self.clock.boot())
        })
    }

    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let mut state = self.open_state()?;
            if !state.leases.lives(lease, self.clock.boot()) {
                return Err(StoreError::LeaseEnded(lease));
            }
            state.end(lease);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests;
