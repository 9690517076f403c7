//! The last commits, kept in memory, and the watchers that follow them.
//!
//! One bounded ring is shared by all watchers, so a watcher costs a position and never a queue: one that falls out
//! of the ring is told so ([`StoreError::Compacted`]) and lists again. Nothing is shown here before it is durable.

use crate::{Change, ChangeKind, Prefix, Result, Revision, StoreError};
use futures::stream::BoxStream;
use parking_lot::RwLock;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Most changes.
    pub changes: usize,
    /// Most bytes of keys and values.
    pub bytes: usize,
}

impl Default for Keep {
    /// 32,768 changes or 16 MiB, whichever is reached first.
    fn default() -> Self {
        Keep {
            changes: 32 * 1024,
            bytes: 16 * 1024 * 1024,
        }
    }
}

/// The changes of one revision.
#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<ChangeKind>,
}

impl Commit {
    fn weight(&self) -> usize {
        self.changes.iter().map(weight).sum()
    }
}

fn weight(change: &ChangeKind) -> usize {
    match change {
        ChangeKind::Put(entry) => entry.key.as_str().len() + entry.value.len(),
        ChangeKind::Delete(key) => key.as_str().len(),
    }
}

#[derive(Debug)]
struct Ring {
    commits: VecDeque<Commit>,
    changes: usize,
    bytes: usize,
    /// Every change above this revision is in the ring.
    oldest: Revision,
}

/// The writing end: only the backend that commits holds it. When it is dropped, watchers end with `Unavailable`.
#[derive(Debug)]
pub(crate) struct History {
    ring: Arc<RwLock<Ring>>,
    newest: watch::Sender<Revision>,
    keep: Keep,
}

/// The end that opens watches.
#[derive(Clone, Debug)]
pub(crate) struct Watches {
    ring: Arc<RwLock<Ring>>,
    newest: watch::Receiver<Revision>,
}

/// A history that begins after `revision`.
pub(crate) fn starting_at(revision: Revision, keep: Keep) -> (History, Watches) {
    let ring = Ring {
        commits: VecDeque::new(),
        changes: 0,
        bytes: 0,
        oldest: revision,
    };
    let ring = Arc::new(RwLock::new(ring));
    let (sender, newest) = watch::channel(revision);
    (
        History {
            ring: ring.clone(),
            newest: sender,
            keep,
        },
        Watches { ring, newest },
    )
}

impl History {
    /// Shows durable commits to all watchers, in order.
    pub(crate) fn publish(&self, commits: impl IntoIterator<Item = Commit>) {
        let mut newest = None;
        {
            let mut ring = self.ring.write();
            for commit in commits {
                newest = Some(commit.revision);
                ring.changes += commit.changes.len();
                ring.bytes += commit.weight();
                ring.commits.push_back(commit);
            }
            // The newest commit always stays, however large it is.
            while ring.commits.len() > 1
                && (ring.changes > self.keep.changes || ring.bytes > self.keep.bytes)
            {
                let Some(gone) = ring.commits.pop_front() else {
                    break;
                };
                ring.changes -= gone.changes.len();
                ring.bytes -= gone.weight();
                ring.oldest = gone.revision;
            }
        }
        if let Some(newest) = newest {
            self.newest.send_replace(newest);
        }
    }
}

/// Most commits a watcher takes out of the ring in one go, so that the reading lock is short.
const STRIDE: usize = 256;

struct Watcher {
    watches: Watches,
    prefix: Prefix,
    seen: Revision,
    ready: VecDeque<Change>,
    ended: bool,
}

impl Watches {
    /// Every change under `prefix` above `after`, in order. A revision that lies ahead is waited for.
    pub(crate) fn follow(
        &self,
        prefix: Prefix,
        after: Revision,
    ) -> BoxStream<'static, Result<Change>> {
        let watcher = Watcher {
            watches: self.clone(),
            prefix,
            seen: after,
            ready: VecDeque::new(),
            ended: false,
        };
        Box::pin(futures::stream::unfold(watcher, |mut watcher| async move {
            let item = watcher.next().await?;
            watcher.ended = item.is_err();
            Some((item, watcher))
        }))
    }
}

impl Watcher {
    async fn next(&mut self) -> Option<Result<Change>> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(change) = self.ready.pop_front() {
                return Some(Ok(change));
            }
            let newest = *self.watches.newest.borrow_and_update();
            if self.seen < newest {
                if let Err(error) = self.take() {
                    return Some(Err(error));
                }
                continue;
            }
            if self.watches.newest.changed().await.is_err() {
                return Some(Err(StoreError::Unavailable(
                    "the store has been closed; open it and watch again".into(),
                )));
            }
        }
    }

    fn take(&mut self) -> Result<()> {
        let ring = self.watches.ring.read();
        if self.seen < ring.oldest {
            return Err(StoreError::Compacted {
                asked: self.seen,
                oldest: ring.oldest,
            });
        }
        // Revisions in the ring may have gaps only at its start, so a search finds the place.
        let from = ring
            .commits
            .partition_point(|commit| commit.revision <= self.seen);
        for commit in ring.commits.range(from..).take(STRIDE) {
            self.seen = commit.revision;
            let first = self.ready.len();
            for kind in commit
                .changes
                .iter()
                .filter(|kind| self.prefix.contains(kind.key()))
            {
                self.ready.push_back(Change {
                    revision: commit.revision,
                    kind: kind.clone(),
                    last: false,
                });
            }
            if self.ready.len() > first
                && let Some(last) = self.ready.back_mut()
            {
                last.last = true;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;
    use futures::StreamExt;

    fn commit(revision: u64, keys: &[&str]) -> Commit {
        let changes = keys
            .iter()
            .map(|k| ChangeKind::Delete(Key::new(*k)))
            .collect();
        Commit {
            revision: Revision(revision),
            changes,
        }
    }

    #[tokio::test]
    async fn last_is_the_watchers_own_last() {
        let (history, watches) = starting_at(Revision::ZERO, Keep::default());
        let mut a = watches.follow(Prefix::new("a/"), Revision::ZERO);
        history.publish([
            commit(1, &["a/1", "b/1", "a/2", "b/2"]),
            commit(2, &["b/3"]),
            commit(3, &["a/3"]),
        ]);
        let seen: Vec<_> = a.by_ref().take(3).map(|c| c.unwrap()).collect().await;
        let seen: Vec<_> = seen
            .iter()
            .map(|c| (c.revision.0, c.kind.key().as_str(), c.last))
            .collect();
        assert_eq!(
            seen,
            [(1, "a/1", false), (1, "a/2", true), (3, "a/3", true)]
        );
        drop(history);
        assert!(matches!(
            a.next().await,
            Some(Err(StoreError::Unavailable(_)))
        ));
        assert!(a.next().await.is_none());
    }

    #[tokio::test]
    async fn who_falls_out_of_the_ring_is_told() {
        let (history, watches) = starting_at(
            Revision(10),
            Keep {
                changes: 3,
                bytes: 1 << 20,
            },
        );
        let mut early = watches.follow(Prefix::new(""), Revision(10));
        let mut too_old = watches.follow(Prefix::new(""), Revision(9));
        assert!(matches!(
            too_old.next().await,
            Some(Err(StoreError::Compacted {
                oldest: Revision(10),
                ..
            }))
        ));
        history.publish((11..=20).map(|r| commit(r, &["k"])));
        assert!(matches!(
            early.next().await,
            Some(Err(StoreError::Compacted {
                oldest: Revision(17),
                ..
            }))
        ));
        let resumed: Vec<_> = watches
            .follow(Prefix::new(""), Revision(17))
            .take(3)
            .collect()
            .await;
        assert_eq!(
            resumed
                .iter()
                .map(|c| c.as_ref().unwrap().revision.0)
                .collect::<Vec<_>>(),
            [18, 19, 20]
        );
    }
}
