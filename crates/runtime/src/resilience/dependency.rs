//! A thing outside that we call by name, such as `image host example.org`.

use super::{Breaker, BreakerState, Retry};
use model::{Error, Result};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

/// Calls to one dependency at once; more wait.
const AT_ONCE: usize = 10;
/// How long a call waits for its turn.
const WAIT: Duration = Duration::from_secs(30);
/// How many dependencies are remembered. The longest unused of those that are well goes first.
const REMEMBERED: usize = 100;

/// How a dependency stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// The node that calls it; empty for the api itself.
    #[serde(default)]
    pub node: String,
    /// Its breaker.
    pub state: BreakerState,
    /// How often the breaker has opened.
    pub opened: u64,
    /// Calls that were made.
    pub calls: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Calls that the breaker refused.
    pub refused: u64,
    /// Time that all calls took together, in seconds.
    pub seconds: f64,
}

#[derive(Default)]
struct Counts {
    calls: u64,
    failures: u64,
    refused: u64,
    seconds: f64,
}

/// One named dependency.
pub struct Dependency {
    breaker: Breaker,
    turns: Semaphore,
    retry: Retry,
    counts: Mutex<Counts>,
    used: Mutex<Instant>,
    told: watch::Sender<u64>,
}

impl Dependency {
    fn new(name: &str, told: watch::Sender<u64>) -> Dependency {
        Dependency {
            breaker: Breaker::new(name),
            turns: Semaphore::new(AT_ONCE),
            retry: Retry::default(),
            counts: Mutex::default(),
            used: Mutex::new(Instant::now()),
            told,
        }
    }

    /// Calls it, up to three times when a failure may pass. Only for calls that may be repeated. When its breaker is
    /// open, nothing is called and the answer is `Unavailable` at once.
    ///
    /// # Errors
    /// What the last call answered, or `Unavailable` when it is not its turn within 30 s.
    pub async fn call<T, F: Future<Output = Result<T>>>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<T> {
        let mut attempt = 1;
        loop {
            let error = match self.once(call()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let open = self.breaker.state() == BreakerState::Open;
            if open || attempt >= self.retry.tries || !error.retryable() {
                return Err(error);
            }
            let wait = self.retry.wait(attempt, rand::random());
            tracing::debug!(dependency = self.breaker.name(), attempt, ?wait, %error, "trying again");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

    /// Calls it one time; for calls that must not be repeated. When its breaker is open, nothing is called and the answer
    /// is `Unavailable` at once.
    ///
    /// # Errors
    /// What the call answered, or `Unavailable` when it is not its turn within 30 s.
    pub async fn once<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        *self.used.lock() = Instant::now();
        let name = self.breaker.name();
        let turn = tokio::time::timeout(WAIT, self.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(Error::unavailable(format!(
                "{AT_ONCE} calls to {name} are under way and none ended within {} s",
                WAIT.as_secs()
            )));
        };
        let begun = Instant::now();
        let before = self.breaker.opened();
        let mut called = false;
        let result = self
            .breaker
            .run(|| {
                called = true;
                call
            })
            .await;
        {
            let mut counts = self.counts.lock();
            if called {
                counts.calls += 1;
                counts.seconds += begun.elapsed().as_secs_f64();
                counts.failures += u64::from(result.is_err());
            } else {
                counts.refused += 1;
            }
        }
        if self.breaker.opened() != before {
            tracing::warn!(dependency = name, "breaker opened");
        }
        self.told.send_modify(|n| *n += 1);
        result
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        let counts = self.counts.lock();
        Standing {
            name: self.breaker.name().to_owned(),
            node: String::new(),
            state: self.breaker.state(),
            opened: self.breaker.opened(),
            calls: counts.calls,
            failures: counts.failures,
            refused: counts.refused,
            seconds: counts.seconds,
        }
    }
}

struct Inner {
    ours: Mutex<BTreeMap<String, Arc<Dependency>>>,
    /// What agents have told of theirs, by node.
    theirs: Mutex<BTreeMap<String, Vec<Standing>>>,
    told: watch::Sender<u64>,
}

/// All dependencies of this process, and of the agents that have told theirs. Cheap to clone.
#[derive(Clone)]
pub struct Dependencies(Arc<Inner>);

impl Default for Dependencies {
    fn default() -> Self {
        Dependencies(Arc::new(Inner {
            ours: Mutex::default(),
            theirs: Mutex::default(),
            told: watch::channel(0).0,
        }))
    }
}

impl Dependencies {
    /// The dependency with this name.
    pub fn named(&self, name: &str) -> Arc<Dependency> {
        let mut ours = self.0.ours.lock();
        if let Some(found) = ours.get(name) {
            return found.clone();
        }
        if ours.len() >= REMEMBERED {
            let idle = ours
                .iter()
                .filter(|(_, d)| d.breaker.state() == BreakerState::Closed)
                .min_by_key(|(_, d)| *d.used.lock())
                .map(|(name, _)| name.clone());
            if let Some(idle) = idle {
                ours.remove(&idle);
            }
        }
        let new = Arc::new(Dependency::new(name, self.0.told.clone()));
        ours.insert(name.to_owned(), new.clone());
        new
    }

    /// How those of this process stand.
    pub(crate) fn ours(&self) -> Vec<Standing> {
        self.0.ours.lock().values().map(|d| d.standing()).collect()
    }

    /// How all stand: of this process first, then by node.
    pub fn standings(&self) -> Vec<Standing> {
        let mut out = self.ours();
        for (node, theirs) in &*self.0.theirs.lock() {
            out.extend(theirs.iter().map(|s| Standing {
                node: node.clone(),
                ..s.clone()
            }));
        }
        out
    }

    /// Told with every call that ends.
    pub(crate) fn told(&self) -> watch::Receiver<u64> {
        self.0.told.subscribe()
    }

    /// Takes what an agent tells of its own.
    pub(crate) fn accept(&self, node: &str, mut standings: Vec<Standing>) {
        standings.truncate(REMEMBERED);
        self.0.theirs.lock().insert(node.to_owned(), standings);
    }

    /// Forgets what an agent has told: it is gone.
    pub(crate) fn forget(&self, node: &str) {
        self.0.theirs.lock().remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn a_dead_one_is_left_alone_and_found_again() {
        let all = Dependencies::default();
        let it = all.named("test");
        let calls = AtomicU32::new(0);
        let dead = || async {
            calls.fetch_add(1, Ordering::SeqCst);
            Err::<(), _>(Error::unavailable("dead"))
        };
        assert!(it.call(dead).await.is_err(), "three tries");
        assert!(it.call(dead).await.is_err(), "the fifth opens the breaker");
        assert_eq!(calls.load(Ordering::SeqCst), 5);
        let begun = Instant::now();
        for _ in 0..10 {
            assert!(it.call(dead).await.is_err());
        }
        assert_eq!(calls.load(Ordering::SeqCst), 5, "nobody is called");
        assert_eq!(begun.elapsed(), Duration::ZERO, "and nobody waits");
        let standing = it.standing();
        assert_eq!(standing.state, BreakerState::Open);
        assert_eq!(
            (standing.calls, standing.failures, standing.refused),
            (5, 5, 10)
        );
        tokio::time::advance(Duration::from_secs(30)).await;
        for _ in 0..3 {
            it.call(|| async { Ok(()) }).await.unwrap();
        }
        assert_eq!(it.standing().state, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_an_answer_and_is_not_asked_for_twice() {
        let all = Dependencies::default();
        let it = all.named("test");
        let calls = AtomicU32::new(0);
        for _ in 0..20 {
            let refused = it
                .call(|| async {
                    calls.fetch_add(1, Ordering::SeqCst);
                    Err::<(), _>(Error::refused("no"))
                })
                .await;
            assert!(refused.is_err());
        }
        assert_eq!(calls.load(Ordering::SeqCst), 20);
        assert_eq!(it.standing().state, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn ten_at_once_and_the_next_waits_its_turn() {
        let all = Dependencies::default();
        let it = all.named("test");
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(())
        };
        let ten = futures::future::join_all((0..AT_ONCE).map(|_| it.call(slow)));
        let eleventh = async {
            tokio::task::yield_now().await;
            it.once(slow()).await
        };
        let (ten, eleventh) = tokio::join!(ten, eleventh);
        assert!(ten.iter().all(Result::is_ok));
        let error = eleventh.unwrap_err().to_string();
        assert!(error.contains("none ended within 30 s"), "{error}");
        assert_eq!(it.standing().state, BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let all = Dependencies::default();
        for n in 0..300 {
            all.named(&format!("host {n}"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let names: Vec<_> = all.standings().into_iter().map(|s| s.name).collect();
        assert_eq!(names.len(), REMEMBERED);
        assert!(names.contains(&"host 299".to_owned()) && !names.contains(&"host 0".to_owned()));
    }
}
