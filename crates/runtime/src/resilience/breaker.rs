//! Leaving a dead dependency alone: `closed → open → half open → closed`.
//!
//! ```text
//! closed ──5 failures──► open ──30 s (doubling to 10 min)──► half open ──3 successes──► closed
//!                          ▲                                    │
//!                          └────────────── a failure ───────────┘
//! ```

use model::{Error, Result};
use parking_lot::Mutex;
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

const FAILURES: u32 = 5;
const TRIALS: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_secs(30);
const LAST_WAIT: Duration = Duration::from_secs(600);

/// How a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Calls pass.
    Closed,
    /// Calls fail at once.
    Open,
    /// A few trial calls pass.
    HalfOpen,
}

#[derive(Debug)]
struct Inner {
    state: BreakerState,
    failures: u32,
    successes: u32,
    in_trial: u32,
    wait: Duration,
    until: Instant,
    opened: u64,
}

/// The breaker of one named dependency.
#[derive(Debug)]
pub struct Breaker {
    name: String,
    inner: Mutex<Inner>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(name: &str) -> Breaker {
        Breaker {
            name: name.to_owned(),
            inner: Mutex::new(Inner {
                state: BreakerState::Closed,
                failures: 0,
                successes: 0,
                in_trial: 0,
                wait: FIRST_WAIT,
                until: Instant::now(),
                opened: 0,
            }),
        }
    }

    /// Calls, unless the breaker is open: then it fails at once with `Unavailable`.
    pub async fn run<T, F: Future<Output = Result<T>>>(
        &self,
        call: impl FnOnce() -> F,
    ) -> Result<T> {
        let trial = self.enter()?;
        let result = call().await;
        // Only a dependency that does not answer counts; a refusal is an answer.
        let failed = matches!(&result, Err(e) if matches!(e.what, model::What::Unavailable(_) | model::What::Internal));
        drop(trial);
        self.leave(failed);
        result
    }

    fn enter(&self) -> Result<Option<Trial<'_>>> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        if inner.state == BreakerState::Open && now >= inner.until {
            inner.state = BreakerState::HalfOpen;
            inner.successes = 0;
            inner.in_trial = 0;
        }
        let refused = match inner.state {
            BreakerState::Closed => None,
            BreakerState::Open => Some(inner.until - now),
            BreakerState::HalfOpen if inner.in_trial >= TRIALS => Some(Duration::from_secs(1)),
            BreakerState::HalfOpen => {
                inner.in_trial += 1;
                None
            }
        };
        match refused {
            None => Ok((inner.state == BreakerState::HalfOpen).then(|| Trial(self))),
            Some(after) => Err(Error::new(
                model::What::Unavailable(after),
                format!(
                    "{} has failed again and again and is left alone for {} s",
                    self.name,
                    after.as_secs().max(1)
                ),
            )),
        }
    }

    fn leave(&self, failed: bool) {
        let mut inner = self.inner.lock();
        match (inner.state, failed) {
            (BreakerState::Closed, false) => inner.failures = 0,
            (BreakerState::Closed, true) => {
                inner.failures += 1;
                if inner.failures >= FAILURES {
                    inner.open();
                }
            }
            (BreakerState::HalfOpen, true) => {
                inner.wait = (inner.wait * 2).min(LAST_WAIT);
                inner.open();
            }
            (BreakerState::HalfOpen, false) => {
                inner.successes += 1;
                if inner.successes >= TRIALS {
                    inner.state = BreakerState::Closed;
                    inner.failures = 0;
                    inner.wait = FIRST_WAIT;
                }
            }
            (BreakerState::Open, _) => {}
        }
    }

    /// How it stands.
    pub fn state(&self) -> BreakerState {
        self.inner.lock().state
    }

    /// What it guards.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How often it has opened.
    pub fn opened(&self) -> u64 {
        self.inner.lock().opened
    }
}

/// A call in the half-open state; when it is dropped, also half-way, its place is free.
struct Trial<'a>(&'a Breaker);

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner.lock();
        inner.in_trial = inner.in_trial.saturating_sub(1);
    }
}

impl Inner {
    fn open(&mut self) {
        self.state = BreakerState::Open;
        self.until = Instant::now() + self.wait;
        self.opened += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn fail(b: &Breaker) -> bool {
        b.run(|| async { Err::<(), _>(Error::unavailable("dead")) })
            .await
            .unwrap_err()
            .message
            == "dead"
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_five_and_closes_by_itself() {
        let b = Breaker::new("test");
        for _ in 0..5 {
            assert!(fail(&b).await);
        }
        assert_eq!(b.state(), BreakerState::Open);
        assert!(!fail(&b).await, "an open breaker does not call");
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(fail(&b).await, "a trial call passes");
        assert_eq!(b.state(), BreakerState::Open);
        tokio::time::advance(Duration::from_secs(31)).await;
        assert!(!fail(&b).await, "the wait has doubled");
        tokio::time::advance(Duration::from_secs(30)).await;
        for _ in 0..3 {
            b.run(|| async { Ok(()) }).await.unwrap();
        }
        assert_eq!(b.state(), BreakerState::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_is_given_up_makes_room_for_another() {
        let b = Breaker::new("test");
        for _ in 0..5 {
            fail(&b).await;
        }
        tokio::time::advance(Duration::from_secs(31)).await;
        for _ in 0..10 {
            let never = b.run(std::future::pending::<Result<()>>);
            assert!(
                tokio::time::timeout(Duration::from_secs(1), never)
                    .await
                    .is_err()
            );
        }
        assert!(b.run(|| async { Ok(()) }).await.is_ok());
    }
}
