//! What every backend of [`Store`] must do, as tests that any crate can run over its own backend.
//!
//! Asks for nothing that etcd cannot answer: no revision is assumed to be the first, and a lease lasts a second or
//! more. A failed check panics with what was expected.

mod leases;
mod reads;
mod txns;
mod watches;

use crate::{Change, ChangeKind, Entry, Key, Page, Prefix, Revision, Store, Txn};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A store under test.
pub type Subject = Arc<dyn Store>;

/// Longest time any single answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs every check, each on a store of its own that holds nothing yet.
pub async fn all(make_store: impl Fn() -> BoxFuture<'static, Subject>) {
    macro_rules! run {
        ($($part:ident :: $check:ident),* $(,)?) => {$(
            tracing::debug!(check = stringify!($check), "Conformance check begins");
            let done = tokio::time::timeout(PATIENCE * 2, $part::$check(make_store().await)).await;
            assert!(done.is_ok(), "conformance check {}::{} hangs", stringify!($part), stringify!($check));
        )*};
    }
    run![
        txns::create_replace_delete,
        txns::expectations,
        txns::all_or_nothing,
        txns::limits,
        txns::no_change_no_revision,
        txns::counting_together,
        reads::values_and_order,
        reads::prefixes_and_pages,
        reads::pages_under_writes,
        reads::own_writes_are_seen,
        watches::sees_what_was_and_what_comes,
        watches::prefix_and_last,
        watches::many_writers,
        watches::resumes,
        watches::too_old_or_too_slow,
        leases::expiry_is_one_change,
        leases::keep_alive_keeps,
        leases::revoke_ends,
        leases::unknown_is_refused,
        leases::put_moves_a_key,
    ];
}

fn key(text: impl AsRef<str>) -> Key {
    Key::new(text.as_ref())
}

async fn put(store: &Subject, at: &str, value: &str) -> Revision {
    store
        .commit(Txn::new().put(key(at), value.to_owned()))
        .await
        .expect("a plain put")
}

async fn value(store: &Subject, at: &str) -> Option<String> {
    let entry = store.get(&key(at)).await.expect("a get");
    entry.map(|e| String::from_utf8_lossy(&e.value).into_owned())
}

async fn now(store: &Subject) -> Revision {
    store
        .commit(Txn::new())
        .await
        .expect("an empty transaction")
}

async fn keys(store: &Subject, under: &str) -> Vec<String> {
    let listing = store
        .list(&Prefix::new(under), Page::ALL)
        .await
        .expect("a list");
    listing.entries.iter().map(|e| e.key.to_string()).collect()
}

/// The next change, which must come soon.
async fn next(watch: &mut BoxStream<'static, crate::Result<Change>>) -> Change {
    let item = tokio::time::timeout(PATIENCE, watch.next())
        .await
        .expect("a change within a minute");
    item.expect("the watch goes on")
        .expect("the watch does not fail")
}

/// The state that a watcher builds from what it sees, checking the law of watches on the way.
#[derive(Default)]
struct Replica {
    state: BTreeMap<Key, Entry>,
    revision: Revision,
    open: bool,
    changes: usize,
}

impl Replica {
    fn at(revision: Revision, entries: Vec<Entry>) -> Self {
        let state = entries.into_iter().map(|e| (e.key.clone(), e)).collect();
        Replica {
            state,
            revision,
            open: false,
            changes: 0,
        }
    }

    fn apply(&mut self, change: Change) {
        if self.open {
            assert_eq!(
                change.revision, self.revision,
                "a revision goes on until its last change"
            );
        } else {
            assert!(
                change.revision > self.revision,
                "{:?} was seen already or out of order",
                change.revision
            );
        }
        self.revision = change.revision;
        self.open = !change.last;
        self.changes += 1;
        match change.kind {
            ChangeKind::Put(entry) => {
                assert_eq!(
                    entry.modified, change.revision,
                    "a put carries the revision of its change"
                );
                let before = self.state.insert(entry.key.clone(), entry.clone());
                let created = before.map_or(change.revision, |b| b.created);
                assert_eq!(
                    entry.created, created,
                    "key {} keeps the revision that created it",
                    entry.key
                );
            }
            ChangeKind::Delete(key) => {
                assert!(
                    self.state.remove(&key).is_some(),
                    "key {key} existed when it was deleted"
                );
            }
        }
    }

    /// Follows until nothing is missing up to `until`.
    async fn follow(
        &mut self,
        watch: &mut BoxStream<'static, crate::Result<Change>>,
        until: Revision,
    ) {
        while self.revision < until || self.open {
            self.apply(next(watch).await);
        }
    }

    fn assert_same(&self, entries: &[Entry]) {
        let mine: Vec<_> = self.state.values().cloned().collect();
        assert_eq!(mine.len(), entries.len(), "as many keys as the store has");
        for (mine, theirs) in mine.iter().zip(entries) {
            assert_eq!(mine, theirs, "the same entries as the store has");
        }
    }
}
