//! Trying again, with growing and jittered waits. Only for calls that may be repeated.

use model::Result;
use std::future::Future;
use std::time::Duration;

/// How a call is tried again. The default: 3 tries, 1 s, doubling to 30 s, half of it random.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// How often in all.
    pub tries: u32,
    /// Wait after the first failure.
    pub base: Duration,
    /// Longest wait.
    pub cap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Retry {
            tries: 3,
            base: Duration::from_secs(1),
            cap: Duration::from_secs(30),
        }
    }
}

impl Retry {
    /// Calls until it succeeds, fails for good ([`model::Error::retryable`] is false) or the tries are used up.
    pub async fn run<T, F: Future<Output = Result<T>>>(
        &self,
        mut call: impl FnMut() -> F,
    ) -> Result<T> {
        let mut attempt = 1;
        loop {
            match call().await {
                Ok(value) => return Ok(value),
                Err(error) if attempt >= self.tries || !error.retryable() => return Err(error),
                Err(error) => {
                    let wait = self.wait(attempt, rand::random());
                    tracing::debug!(attempt, ?wait, %error, "trying again");
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                }
            }
        }
    }

    /// The wait after a failed attempt; `random` in 0..1 takes up to half of it away.
    pub fn wait(&self, attempt: u32, random: f64) -> Duration {
        let full = self
            .base
            .saturating_mul(1 << (attempt - 1).min(16))
            .min(self.cap);
        full.mul_f64(1.0 - 0.5 * random.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Error;

    #[tokio::test(start_paused = true)]
    async fn tries_again_only_what_can_help() {
        let mut calls = 0;
        let out: Result<()> = Retry::default()
            .run(|| {
                calls += 1;
                async { Err(Error::unavailable("down")) }
            })
            .await;
        assert!(out.is_err());
        assert_eq!(calls, 3);
        let mut calls = 0;
        let _: Result<()> = Retry::default()
            .run(|| {
                calls += 1;
                async { Err(Error::denied("no")) }
            })
            .await;
        assert_eq!(calls, 1);
    }

    #[test]
    fn waits_grow_to_the_cap() {
        let retry = Retry::default();
        assert_eq!(retry.wait(1, 0.0).as_secs(), 1);
        assert_eq!(retry.wait(3, 0.0).as_secs(), 4);
        assert_eq!(retry.wait(30, 0.0).as_secs(), 30);
        assert_eq!(retry.wait(1, 1.0).as_millis(), 500);
    }
}
