//! How long to wait before trying again: growing and jittered.

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

    #[test]
    fn waits_grow_to_the_cap() {
        let retry = Retry::default();
        assert_eq!(retry.wait(1, 0.0).as_secs(), 1);
        assert_eq!(retry.wait(3, 0.0).as_secs(), 4);
        assert_eq!(retry.wait(30, 0.0).as_secs(), 30);
        assert_eq!(retry.wait(1, 1.0).as_millis(), 500);
    }
}
