//! Every object in memory, at a known revision: what reads are served from and what controllers are woken by.
//!
//! Fed by one watch of the store; never polls. Rows hold the JSON that surfaces send plus the few values that tables,
//! selectors and references need, never trees of values.

mod query;
mod row;

pub use query::{Listed, Query};
pub use row::Row;
pub(crate) use row::reference;

use crate::key::{OBJECTS, UNIQUE, object_ref};
use crate::usage::{Amounts, Counted, Tally};
use crate::{Registry, Seal, View};
use futures::StreamExt;
use model::{Error, Result, Uid};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use store::{Change, ChangeKind, Key, Page, Prefix, Revision, Store, StoreError};
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

/// How many changes are kept for watchers that resume.
const HISTORY: usize = 10_000;

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Delta {
    /// The revision it belongs to.
    pub revision: Revision,
    /// Name of the kind.
    pub kind: &'static str,
    /// The object's key.
    pub key: Key,
    /// As it is now; `None` when it is gone.
    pub new: Option<Arc<Row>>,
    /// As it was; `None` when it is new.
    pub old: Option<Arc<Row>>,
}

/// What a watcher missed, and what comes next.
pub(crate) type Resumed = (Vec<Arc<Delta>>, broadcast::Receiver<Arc<Delta>>);

#[derive(Default)]
struct State {
    revision: Revision,
    /// kind -> key -> row
    rows: HashMap<&'static str, BTreeMap<Key, Arc<Row>>>,
    /// unique key -> owner
    unique: BTreeMap<Key, Key>,
    /// target key -> referrers
    referrers: HashMap<Key, BTreeSet<Key>>,
    /// owner key -> owned
    owned: HashMap<Key, BTreeSet<Key>>,
    /// uid -> key
    uids: HashMap<Uid, Key>,
    /// kind -> project -> count
    counts: HashMap<&'static str, BTreeMap<String, usize>>,
    /// What projects use.
    tally: Tally,
    history: VecDeque<Arc<Delta>>,
    /// Everything up to here is no longer in `history`.
    forgotten: Revision,
}

struct Inner {
    registry: Registry,
    /// Opens what is personal, which lies sealed in the store.
    seal: Arc<dyn Seal>,
    state: RwLock<State>,
    reached: watch::Sender<Revision>,
    /// Nobody follows the store any more: this process ends.
    ended: CancellationToken,
    deltas: broadcast::Sender<Arc<Delta>>,
}

/// The watch cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

impl Cache {
    /// An empty cache; [`Cache::fill`] and [`Cache::follow`] feed it.
    pub fn new(registry: Registry, seal: Arc<dyn Seal>) -> Cache {
        let (reached, _) = watch::channel(Revision::ZERO);
        let (deltas, _) = broadcast::channel(4096);
        Cache(Arc::new(Inner {
            registry,
            seal,
            state: RwLock::default(),
            reached,
            ended: CancellationToken::new(),
            deltas,
        }))
    }

    /// Reads everything once. Returns the revision from which to follow.
    pub async fn fill(&self, store: &dyn Store) -> Result<Revision, StoreError> {
        let objects = store.list(&Prefix::new(OBJECTS), Page::ALL).await?;
        let unique = store.list(&Prefix::new(UNIQUE), Page::ALL).await?;
        let revision = objects.revision;
        {
            let mut state = self.0.state.write();
            let mut seen = BTreeSet::new();
            let mut deltas = Vec::new();
            for entry in objects.entries {
                seen.insert(entry.key.clone());
                deltas.extend(self.put(&mut state, entry.modified, entry));
            }
            let gone: Vec<Key> = state
                .rows
                .values()
                .flat_map(BTreeMap::keys)
                .filter(|k| !seen.contains(*k))
                .cloned()
                .collect();
            for key in gone {
                deltas.extend(self.delete(&mut state, revision, &key));
            }
            state.unique = unique
                .entries
                .into_iter()
                .map(|e| {
                    (
                        e.key,
                        Key::new(String::from_utf8_lossy(&e.value).into_owned()),
                    )
                })
                .collect();
            // What happened while nobody followed cannot be replayed to watchers.
            state.history.clear();
            state.forgotten = revision;
            state.revision = revision;
            for delta in deltas {
                let _ = self.0.deltas.send(delta);
            }
        }
        self.0.reached.send_replace(revision);
        Ok(revision)
    }

    /// Follows the store until stopped; fills again whenever the watch breaks.
    pub async fn follow(
        &self,
        store: Arc<dyn Store>,
        mut after: Revision,
        stop: CancellationToken,
    ) {
        // However it ends: who waits for a change must not wait for one that will not be seen.
        let _ended = self.0.ended.clone().drop_guard();
        loop {
            let mut changes = store.watch(&Prefix::new(""), after);
            let mut commit: Vec<Change> = Vec::new();
            loop {
                let change = tokio::select! {
                    () = stop.cancelled() => return,
                    change = changes.next() => change,
                };
                match change {
                    Some(Ok(change)) => {
                        let (revision, last) = (change.revision, change.last);
                        commit.push(change);
                        if last {
                            self.apply(revision, std::mem::take(&mut commit));
                        }
                    }
                    Some(Err(error)) => {
                        tracing::warn!(%error, "watch of the store broke");
                        break;
                    }
                    None => break,
                }
            }
            loop {
                match self.fill(&*store).await {
                    Ok(revision) => {
                        after = revision;
                        break;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "store cannot be listed");
                        tokio::select! {
                            () = stop.cancelled() => return,
                            () = tokio::time::sleep(Duration::from_millis(500)) => {}
                        }
                    }
                }
            }
        }
    }

    /// Applies all changes of one revision at once: no reader sees half of a commit.
    fn apply(&self, revision: Revision, changes: Vec<Change>) {
        let mut state = self.0.state.write();
        let mut deltas = Vec::with_capacity(changes.len());
        for change in changes {
            match change.kind {
                ChangeKind::Put(entry) if entry.key.as_str().starts_with(OBJECTS) => {
                    deltas.extend(self.put(&mut state, revision, entry));
                }
                ChangeKind::Put(entry) if entry.key.as_str().starts_with(UNIQUE) => {
                    let owner = Key::new(String::from_utf8_lossy(&entry.value).into_owned());
                    state.unique.insert(entry.key, owner);
                }
                ChangeKind::Delete(key) if key.as_str().starts_with(OBJECTS) => {
                    deltas.extend(self.delete(&mut state, revision, &key));
                }
                ChangeKind::Delete(key) if key.as_str().starts_with(UNIQUE) => {
                    state.unique.remove(&key);
                }
                _ => {}
            }
        }
        state.revision = revision;
        // Sent under the lock, so that a subscriber that takes a snapshot misses nothing and sees nothing twice.
        for delta in deltas {
            let _ = self.0.deltas.send(delta);
        }
        drop(state);
        self.0.reached.send_replace(revision);
    }

    fn put(
        &self,
        state: &mut State,
        revision: Revision,
        entry: store::Entry,
    ) -> Option<Arc<Delta>> {
        let target = object_ref(&entry.key)?;
        let declared = self.0.registry.get(&target.kind)?;
        let row = match Row::read(&self.0.registry, &*self.0.seal, declared, &entry) {
            Ok(row) => Arc::new(row),
            Err(error) => {
                tracing::error!(key = %entry.key, %error, "stored object cannot be read");
                return None;
            }
        };
        let kind = declared.kind().name;
        let old = state.rows.entry(kind).or_default().get(&entry.key).cloned();
        // At the same revision it may only show more or less of its secrets than before.
        if old.as_ref().is_some_and(|o| {
            o.modified > row.modified || (o.modified == row.modified && o.same_secrets(&row))
        }) {
            return None;
        }
        match &old {
            Some(old) => state.unlink(old),
            None => {
                let project = target.project.unwrap_or_default();
                *state
                    .counts
                    .entry(kind)
                    .or_default()
                    .entry(project)
                    .or_default() += 1;
            }
        }
        state.link(&row);
        state
            .rows
            .entry(kind)
            .or_default()
            .insert(entry.key.clone(), row.clone());
        let delta = Arc::new(Delta {
            revision,
            kind,
            key: entry.key,
            new: Some(row),
            old,
        });
        state.remember(delta.clone());
        Some(delta)
    }

    fn delete(&self, state: &mut State, revision: Revision, key: &Key) -> Option<Arc<Delta>> {
        let target = object_ref(key)?;
        let kind = self.0.registry.get(&target.kind)?.kind().name;
        let old = state.rows.get_mut(kind).and_then(|rows| rows.remove(key))?;
        state.unlink(&old);
        let project = target.project.unwrap_or_default();
        if let Some(n) = state.counts.entry(kind).or_default().get_mut(&project) {
            *n = n.saturating_sub(1);
        }
        let delta = Arc::new(Delta {
            revision,
            kind,
            key: key.clone(),
            new: None,
            old: Some(old),
        });
        state.remember(delta.clone());
        Some(delta)
    }

    /// The revision that reads answer for.
    pub fn revision(&self) -> Revision {
        self.0.state.read().revision
    }

    /// Waits until reads answer for this revision, so that a writer reads its own write.
    pub async fn reach(&self, revision: Revision) -> Result<()> {
        let mut reached = self.0.reached.subscribe();
        let wait = reached.wait_for(|r| *r >= revision);
        let wait = tokio::time::timeout(Duration::from_secs(10), wait);
        let waited = tokio::select! {
            biased;
            waited = wait => waited,
            () = self.0.ended.cancelled() => {
                return Err(Error::unavailable(
                    "the change is stored, but this process ends and does not see it",
                ));
            }
        };
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Error::unavailable(
                "the change is stored, but this process has not seen it within 10 s",
            )),
        }
    }

    /// One object.
    pub fn row(&self, kind: &str, key: &Key) -> Option<Arc<Row>> {
        self.0.state.read().rows.get(kind)?.get(key).cloned()
    }

    /// All objects of a kind, of one project or of all, in key order.
    pub fn rows(&self, kind: &str, project: Option<&str>) -> Vec<Arc<Row>> {
        let state = self.0.state.read();
        let Some(rows) = state.rows.get(kind) else {
            return Vec::new();
        };
        match project {
            None => rows.values().cloned().collect(),
            Some(_) => query::range(rows, kind, project, None)
                .map(|(_, r)| r.clone())
                .collect(),
        }
    }

    /// The rows that stand nearest to a key in the order of their names, and whether these are all of its kind and
    /// project: what may have been meant by a name that there is not. However many there are, few are looked at.
    pub fn around(&self, kind: &str, project: Option<&str>, key: &Key) -> (Vec<Arc<Row>>, bool) {
        /// On each side.
        const MOST: usize = 128;
        let state = self.0.state.read();
        let Some(rows) = state.rows.get(kind) else {
            return (Vec::new(), true);
        };
        let prefix = query::prefix(kind, project);
        let inside = |(k, _): &(&Key, &Arc<Row>)| k.as_str().starts_with(&prefix);
        let mut before = rows.range(..key).rev().take_while(inside);
        let mut after = rows.range(key..).take_while(inside);
        let mut out: Vec<_> = before.by_ref().take(MOST).map(|(_, r)| r.clone()).collect();
        out.reverse();
        out.extend(after.by_ref().take(MOST).map(|(_, r)| r.clone()));
        let whole = before.next().is_none() && after.next().is_none();
        (out, whole)
    }

    /// The owner of a unique value.
    pub fn unique(&self, key: &Key) -> Option<Key> {
        self.0.state.read().unique.get(key).cloned()
    }

    /// All values of a unique space with their owners.
    pub fn unique_in(&self, space: &str) -> Vec<(String, Key)> {
        let prefix = format!("{UNIQUE}{space}/");
        let state = self.0.state.read();
        state
            .unique
            .range(Key::new(prefix.as_str())..)
            .take_while(|(k, _)| k.as_str().starts_with(&prefix))
            .map(|(k, owner)| (k.as_str()[prefix.len()..].to_owned(), owner.clone()))
            .collect()
    }

    /// The key of the object with this uid.
    pub fn key_of(&self, uid: Uid) -> Option<Key> {
        self.0.state.read().uids.get(&uid).cloned()
    }

    /// Objects that name this one in a reference field.
    pub fn referrers(&self, key: &Key) -> Vec<Key> {
        self.0
            .state
            .read()
            .referrers
            .get(key)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// Objects that belong to this one.
    pub fn owned(&self, key: &Key) -> Vec<Key> {
        self.0
            .state
            .read()
            .owned
            .get(key)
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// A page of a list.
    pub fn list(
        &self,
        kind: &'static model::Kind,
        project: Option<&str>,
        query: &Query,
        view: &View,
    ) -> Result<Listed> {
        let state = self.0.state.read();
        let empty = BTreeMap::new();
        let rows = state.rows.get(kind.name).unwrap_or(&empty);
        let total = match project {
            // How many there are that he may not see is not told either.
            _ if !matches!(view, View::All) => query::range(rows, kind.name, project, None)
                .filter(|(_, row)| view.shows(row))
                .count(),
            Some(p) => state
                .counts
                .get(kind.name)
                .and_then(|c| c.get(p))
                .copied()
                .unwrap_or(0),
            None => rows.len(),
        };
        query::run(kind, rows, project, query, view, state.revision, total)
    }

    /// Every change from now on. A receiver that lags must read everything again.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Delta>> {
        self.0.deltas.subscribe()
    }

    /// Changes from a revision on, and everything from then on without a gap. The revision itself is among them: of a
    /// commit to several objects a watcher may have seen only the first. `Gone` when it is too old.
    pub(crate) fn resume(&self, after: Revision) -> Result<Resumed> {
        let state = self.0.state.read();
        if after < state.forgotten {
            return Err(Error::gone(format!(
                "revision {after} is no longer kept; the oldest is {}",
                state.forgotten
            ))
            .hint("list again and watch from the revision of the list"));
        }
        let deltas = self.0.deltas.subscribe();
        let missed = state
            .history
            .iter()
            .filter(|d| d.revision >= after)
            .cloned()
            .collect();
        Ok((missed, deltas))
    }

    /// The registry whose kinds it holds.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// How many objects of a kind there are, in one project or outside of all.
    pub(crate) fn count(&self, kind: &str, project: Option<&str>) -> usize {
        let state = self.0.state.read();
        let counts = state.counts.get(kind);
        counts
            .and_then(|c| c.get(project.unwrap_or_default()))
            .copied()
            .unwrap_or(0)
    }

    /// What a project uses of what it has limits for.
    pub fn usage(&self, project: &str) -> Amounts {
        self.0.state.read().tally.total(project)
    }

    /// Whether the object, being so, changes what its project uses or how those that count together share it.
    pub(crate) fn counts_anew(&self, it: &Counted) -> bool {
        let state = self.0.state.read();
        state.tally.shifts(it) || !state.tally.raise(it).is_empty()
    }

    /// The revision, what the object's project uses then, and by how much the object would raise that.
    pub(crate) fn room(&self, it: &Counted) -> (Revision, Amounts, Amounts) {
        let state = self.0.state.read();
        let (total, raise) = (state.tally.total(&it.project), state.tally.raise(it));
        (state.revision, total, raise)
    }

    /// Adds up what all projects use anew, from the objects, and says in which projects the sums had been wrong.
    pub fn recount(&self) -> Vec<Box<str>> {
        let mut state = self.0.state.write();
        let mut anew = Tally::default();
        for row in state.rows.values().flat_map(BTreeMap::values) {
            if let Some(it) = Counted::of(row) {
                anew.put(it);
            }
        }
        let wrong = state.tally.differs(&anew);
        state.tally = anew;
        wrong
    }

    /// Counts something that is not there: what a mistake would look like.
    #[cfg(test)]
    pub(crate) fn miscount(&self, it: Counted) {
        self.0.state.write().tally.put(it);
    }

    /// How many objects of each kind there are.
    pub fn counts(&self) -> Vec<(&'static str, usize)> {
        let state = self.0.state.read();
        let mut out: Vec<_> = state
            .rows
            .iter()
            .map(|(k, rows)| (*k, rows.len()))
            .collect();
        out.sort_unstable();
        out
    }

    /// The object as its controllers see it: with secrets opened.
    pub fn open(
        &self,
        kind: &str,
        key: &Key,
        seal: &dyn Seal,
    ) -> Result<Option<serde_json::Value>> {
        match self.row(kind, key) {
            None => Ok(None),
            Some(row) => row.open(self.0.registry.need(kind)?, seal).map(Some),
        }
    }
}

impl State {
    fn link(&mut self, row: &Row) {
        if let Some(it) = Counted::of(row) {
            self.tally.put(it);
        }
        self.uids.insert(row.uid, row.key.clone());
        for target in &row.references {
            self.referrers
                .entry(target.clone())
                .or_default()
                .insert(row.key.clone());
        }
        if let Some(owner) = &row.owner {
            self.owned
                .entry(owner.clone())
                .or_default()
                .insert(row.key.clone());
        }
    }

    fn unlink(&mut self, row: &Row) {
        if let Some(it) = Counted::of(row) {
            self.tally.remove(&it);
        }
        self.uids.remove(&row.uid);
        for target in &row.references {
            if let Some(set) = self.referrers.get_mut(target) {
                set.remove(&row.key);
                if set.is_empty() {
                    self.referrers.remove(target);
                }
            }
        }
        if let Some(owner) = &row.owner
            && let Some(set) = self.owned.get_mut(owner)
        {
            set.remove(&row.key);
            if set.is_empty() {
                self.owned.remove(owner);
            }
        }
    }

    fn remember(&mut self, delta: Arc<Delta>) {
        if self.history.len() >= HISTORY
            && let Some(old) = self.history.pop_front()
        {
            self.forgotten = old.revision;
        }
        self.history.push_back(delta);
    }
}
