//! Time and randomness as parameters, so that tests control them.

use model::{Timestamp, Uid};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;
use store::clock::Clock as _;

/// Where time and randomness come from.
pub trait Clock: Send + Sync {
    /// The wall clock. It may jump; never measure with it.
    fn now(&self) -> Timestamp;
    /// Where the wall clock stands; kept beside a time that something waits for.
    fn bearing(&self) -> Bearing;
    /// Fills with unpredictable bytes.
    fn fill(&self, bytes: &mut [u8]);
    /// A new identity.
    fn uid(&self) -> Uid {
        let mut random = [0; 10];
        self.fill(&mut random);
        Uid::from_parts(self.now().millis().max(0) as u64, random)
    }
}

/// Where the wall clock stands against the clock that counts since boot and never jumps.
///
/// Kept beside a stored time, it tells later by how much the wall clock was set in between, also after a restart of ours.
/// After a boot of the host, or on another host, nothing can be told, and the wall clock is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bearing {
    /// The boot of the host.
    pub boot: String,
    /// Wall clock less time since boot, in milliseconds.
    pub offset: i64,
}

/// What two readings of two clocks may differ without a jump, in milliseconds.
const UNSTEADY: i64 = 1000;

impl Bearing {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        self.boot.is_empty()
    }

    /// What a time that was written down under this bearing is called by the wall clock as it stands `now`.
    pub fn restate(&self, at: Timestamp, now: &Bearing) -> Timestamp {
        let jump = now.offset.saturating_sub(self.offset);
        if self.is_unknown() || self.boot != now.boot || jump.saturating_abs() < UNSTEADY {
            return at;
        }
        Timestamp::from_millis(at.millis().saturating_add(jump))
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

    fn bearing(&self) -> Bearing {
        static BOOT: OnceLock<String> = OnceLock::new();
        // Without an id nothing is known, and the wall clock is believed.
        let boot = BOOT.get_or_init(|| {
            let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
            id.unwrap_or_default().trim().to_owned()
        });
        let since = store::clock::SystemClock.boot().as_millis() as i64;
        Bearing {
            boot: boot.clone(),
            offset: self.now().millis() - since,
        }
    }

    fn fill(&self, bytes: &mut [u8]) {
        rand::RngCore::fill_bytes(&mut rand::rng(), bytes);
    }
}

/// A clock that tests set; its randomness is a counter.
#[derive(Debug)]
pub struct ManualClock(Mutex<Manual>);

#[derive(Debug, Default)]
struct Manual {
    now: i64,
    /// By how much the wall clock was set in all.
    set: i64,
    boots: u32,
    random: u64,
}

impl ManualClock {
    /// Starts at this time, in milliseconds since 1970.
    pub fn at(ms: i64) -> Self {
        ManualClock(Mutex::new(Manual {
            now: ms,
            ..Manual::default()
        }))
    }

    /// Lets so many milliseconds pass.
    pub fn pass(&self, ms: u32) {
        self.0.lock().now += i64::from(ms);
    }

    /// Sets the wall clock forward by milliseconds, or back; no time passes.
    pub fn jump(&self, ms: i64) {
        let mut state = self.0.lock();
        state.now += ms;
        state.set += ms;
    }

    /// The host boots again.
    pub fn reboot(&self) {
        self.0.lock().boots += 1;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.lock().now)
    }

    fn bearing(&self) -> Bearing {
        let state = self.0.lock();
        Bearing {
            boot: format!("boot-{}", state.boots),
            offset: state.set,
        }
    }

    fn fill(&self, bytes: &mut [u8]) {
        let mut state = self.0.lock();
        for chunk in bytes.chunks_mut(8) {
            state.random += 1;
            // Spread the counter over all bytes, so that short prefixes differ too (splitmix64).
            let mut z = state.random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_moves_what_was_written_down_with_it() {
        let clock = ManualClock::at(1_000_000);
        let (then, due) = (clock.bearing(), Timestamp::from_millis(1_060_000));
        let left = || {
            then.restate(due, &clock.bearing())
                .since(clock.now())
                .as_secs()
        };
        clock.pass(10_000);
        assert_eq!(left(), 50);
        clock.jump(3_600_000);
        assert_eq!(left(), 50);
        clock.jump(-2 * 3_600_000);
        assert_eq!(left(), 50);
        clock.pass(20_000);
        assert_eq!(left(), 30);
        // In another boot nobody can tell a jump from a long night.
        clock.jump(2 * 3_600_000);
        clock.reboot();
        assert_eq!(left(), 0);
        assert_eq!(Bearing::default().restate(due, &then), due);
    }

    #[test]
    fn the_bearing_of_the_machine_stands_still() {
        let (one, two) = (SystemClock.bearing(), SystemClock.bearing());
        assert!(!one.is_unknown());
        assert_eq!(one.boot, two.boot);
        assert!(
            (one.offset - two.offset).abs() < UNSTEADY,
            "{one:?} {two:?}"
        );
    }
}
