//! Keys to look at: each at most once, not before its time, by one worker at a time.

use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;
use store::Key;
use tokio::sync::Notify;
use tokio::time::Instant;

const FIRST_BACK_OFF: Duration = Duration::from_secs(1);
const LAST_BACK_OFF: Duration = Duration::from_secs(300);

#[derive(Default)]
struct State {
    due: BTreeSet<(Instant, Key)>,
    when: HashMap<Key, Instant>,
    running: HashSet<Key>,
    /// Asked for again while running.
    dirty: HashSet<Key>,
    failures: HashMap<Key, u32>,
    closed: bool,
}

/// The queue of one controller.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

impl Queue {
    /// Looks at the key soon, but keeps a back-off that it is in.
    pub(super) fn push(&self, key: Key) {
        let mut state = self.state.lock();
        if state.failures.contains_key(&key) && state.when.contains_key(&key) {
            return;
        }
        state.schedule(key, Instant::now());
        drop(state);
        self.changed.notify_one();
    }

    /// Looks at the key now: something changed.
    pub(super) fn push_now(&self, key: Key) {
        self.state.lock().schedule(key, Instant::now());
        self.changed.notify_one();
    }

    pub(super) fn settled(&self, key: &Key) {
        self.end(key, None, true);
    }

    pub(super) fn again(&self, key: &Key, after: Duration) {
        self.end(key, Some(after), true);
    }

    pub(super) fn failed(&self, key: &Key) {
        let failures = {
            let mut state = self.state.lock();
            let n = state.failures.entry(key.clone()).or_default();
            *n += 1;
            *n
        };
        let after = FIRST_BACK_OFF
            .saturating_mul(1 << (failures - 1).min(9))
            .min(LAST_BACK_OFF);
        self.end(key, Some(after), false);
    }

    fn end(&self, key: &Key, after: Option<Duration>, well: bool) {
        let mut state = self.state.lock();
        state.running.remove(key);
        if well {
            state.failures.remove(key);
        }
        if state.dirty.remove(key) {
            state.schedule(key.clone(), Instant::now());
        } else if let Some(after) = after {
            state.schedule(key.clone(), Instant::now() + after);
        }
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// The next key that is due; `None` when the queue is closed.
    pub(super) async fn next(&self) -> Option<Key> {
        loop {
            let changed = self.changed.notified();
            let wait = {
                let mut state = self.state.lock();
                if state.closed {
                    // Pass the news on to the next worker.
                    self.changed.notify_one();
                    return None;
                }
                let now = Instant::now();
                match state.due.first().cloned() {
                    Some((at, key)) if at <= now => {
                        state.due.pop_first();
                        state.when.remove(&key);
                        state.running.insert(key.clone());
                        if !state.due.is_empty() {
                            self.changed.notify_one();
                        }
                        return Some(key);
                    }
                    Some((at, _)) => Some(at),
                    None => None,
                }
            };
            match wait {
                Some(at) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => changed.await,
            }
        }
    }
}

impl State {
    fn schedule(&mut self, key: Key, at: Instant) {
        if self.running.contains(&key) {
            self.dirty.insert(key);
            return;
        }
        match self.when.get(&key) {
            Some(before) if *before <= at => return,
            Some(before) => {
                self.due.remove(&(*before, key.clone()));
            }
            None => {}
        }
        self.when.insert(key.clone(), at);
        self.due.insert((at, key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_runs_once_at_a_time_and_again_when_dirty() {
        let queue = Queue::default();
        let key = Key::new("a");
        queue.push_now(key.clone());
        queue.push_now(key.clone());
        assert_eq!(queue.next().await, Some(key.clone()));
        queue.push_now(key.clone());
        // It runs: nobody else gets it.
        let other = tokio::time::timeout(Duration::from_secs(1), queue.next()).await;
        assert!(other.is_err());
        queue.settled(&key);
        assert_eq!(queue.next().await, Some(key.clone()));
        queue.failed(&key);
        let start = Instant::now();
        assert_eq!(queue.next().await, Some(key.clone()));
        assert_eq!(start.elapsed().as_secs(), 1);
        queue.failed(&key);
        let start = Instant::now();
        assert_eq!(queue.next().await, Some(key));
        assert_eq!(start.elapsed().as_secs(), 2);
    }
}
