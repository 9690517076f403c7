//! Time and randomness as parameters, so that tests control them.

use model::{Timestamp, Uid};
use parking_lot::Mutex;

/// Where time and randomness come from.
pub trait Clock: Send + Sync {
    /// The wall clock. It may jump; never measure with it.
    fn now(&self) -> Timestamp;
    /// Fills with unpredictable bytes.
    fn fill(&self, bytes: &mut [u8]);
    /// A new identity.
    fn uid(&self) -> Uid {
        let mut random = [0; 10];
        self.fill(&mut random);
        Uid::from_parts(self.now().millis().max(0) as u64, random)
    }
}

/// The machine's clock and its random source.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the clock that the ban points to"
    )]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(since.as_millis() as i64)
    }

    fn fill(&self, bytes: &mut [u8]) {
        rand::RngCore::fill_bytes(&mut rand::rng(), bytes);
    }
}

/// A clock that tests set; its randomness is a counter.
#[derive(Debug)]
pub struct ManualClock(Mutex<(i64, u64)>);

impl ManualClock {
    /// Starts at this time, in milliseconds since 1970.
    pub fn at(ms: i64) -> Self {
        ManualClock(Mutex::new((ms, 0)))
    }

    /// Moves the time by milliseconds, also backwards.
    pub fn shift(&self, ms: i64) {
        self.0.lock().0 += ms;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.lock().0)
    }

    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock();
        for chunk in bytes.chunks_mut(8) {
            state.1 += 1;
            // Spread the counter over all bytes, so that short prefixes differ too (splitmix64).
            let mut z = state.1.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes()[..chunk.len()]);
        }
    }
}
