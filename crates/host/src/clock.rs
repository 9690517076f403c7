//! Time, boot identity and randomness as parameters.
//!
//! What is true "since this boot" (processes, leases, probe results) is keyed by a [`BootId`]. Code takes a [`Clock`]
//! instead of asking the system, so a test can make time pass, or "reboot the host" by changing the boot id.
//! Nothing here sleeps.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Names one boot of one machine. Two equal ids mean: no reboot lies between.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BootId(String);

impl BootId {
    /// An id with this text, for tests and for instances that simulate a reboot.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The id of the running kernel, from `/proc/sys/kernel/random/boot_id`.
    ///
    /// # Errors
    /// When `/proc` is not mounted or cannot be read.
    pub fn of_kernel() -> std::io::Result<Self> {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self(text.trim().to_owned()))
    }

    /// The text of the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where time, boot identity and randomness come from.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Which boot this is.
    fn boot_id(&self) -> BootId;
    /// Time since boot, suspend included (`CLOCK_BOOTTIME`): never goes back within one boot.
    fn since_boot(&self) -> Duration;
    /// Calendar time, which may jump either way.
    fn wall(&self) -> jiff::Timestamp;
    /// Fills `bytes` with randomness fit for keys and identifiers.
    fn random(&self, bytes: &mut [u8]);
}

/// A clock that many parts share.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of this machine.
#[derive(Debug, Clone)]
pub struct SystemClock {
    boot: BootId,
}

impl SystemClock {
    /// The machine's clock, with the kernel's boot id.
    ///
    /// # Errors
    /// When the boot id cannot be read.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self {
            boot: BootId::of_kernel()?,
        })
    }

    /// The machine's clock under another boot id: the way an instance simulates a reboot of its host.
    pub fn with_boot_id(boot: BootId) -> Self {
        Self { boot }
    }
}

impl Clock for SystemClock {
    fn boot_id(&self) -> BootId {
        self.boot.clone()
    }

    fn since_boot(&self) -> Duration {
        match nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME) {
            Ok(at) => Duration::from(at),
            // Every Linux since 2.6.39 has this clock; there is no second answer to give.
            Err(error) => unreachable!("CLOCK_BOOTTIME: {error}"),
        }
    }

    fn wall(&self) -> jiff::Timestamp {
        jiff::Timestamp::now()
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            // SAFETY: the pointer and the length describe one live, writable slice.
            let got = unsafe { nix::libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
            // With flags 0 the call only fails when a signal interrupts it: ask again.
            let got = usize::try_from(got).unwrap_or(0);
            rest = &mut rest[got..];
        }
    }
}

/// Whether something keeps the kernel's calendar time right (NTP, PTP), as `adjtimex(2)` tells.
///
/// # Errors
/// When the kernel does not say.
pub fn is_synchronised() -> std::io::Result<bool> {
    use nix::libc;
    // SAFETY: all zeros is a valid request, which asks and changes nothing; the kernel fills it in.
    let (answer, state) = unsafe {
        let mut state: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut state), state)
    };
    match answer {
        -1 => Err(std::io::Error::last_os_error()),
        answer => Ok(answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0),
    }
}

/// A clock that stands still until told: for tests.
#[derive(Debug)]
pub struct ManualClock {
    now: Mutex<Manual>,
}

#[derive(Debug)]
struct Manual {
    boot: BootId,
    since_boot: Duration,
    wall: jiff::Timestamp,
    seed: u64,
}

impl ManualClock {
    /// A clock at this calendar time, in boot `boot-1`, ten seconds after boot. Its randomness repeats from run to run.
    pub fn new(wall: jiff::Timestamp) -> Self {
        Self {
            now: Mutex::new(Manual {
                boot: BootId::new("boot-1"),
                since_boot: Duration::from_secs(10),
                wall,
                seed: 1,
            }),
        }
    }

    fn now(&self) -> MutexGuard<'_, Manual> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets this much time pass, on both clocks.
    pub fn advance(&self, by: Duration) {
        let mut now = self.now();
        now.since_boot += by;
        if let Ok(later) = now.wall.checked_add(by) {
            now.wall = later;
        }
    }

    /// Sets the calendar time alone, as a wrong NTP server would.
    pub fn set_wall(&self, wall: jiff::Timestamp) {
        self.now().wall = wall;
    }

    /// Reboots: another boot id, and the time since boot starts again.
    pub fn reboot(&self, boot: BootId) {
        let mut now = self.now();
        now.boot = boot;
        now.since_boot = Duration::ZERO;
    }
}

impl Clock for ManualClock {
    fn boot_id(&self) -> BootId {
        self.now().boot.clone()
    }

    fn since_boot(&self) -> Duration {
        self.now().since_boot
    }

    fn wall(&self) -> jiff::Timestamp {
        self.now().wall
    }

    fn random(&self, bytes: &mut [u8]) {
        let mut now = self.now();
        for byte in bytes {
            // Knuth's linear congruential generator: repeatable, which is all a test asks for.
            now.seed = now
                .seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = (now.seed >> 56) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_a_boot_id_and_its_clock_goes_forward() {
        let clock = SystemClock::new().unwrap();
        assert_eq!(clock.boot_id().as_str().len(), 36);
        let before = clock.since_boot();
        assert!(clock.since_boot() >= before);
        let mut bytes = [0; 64];
        clock.random(&mut bytes);
        assert_ne!(bytes, [0; 64]);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let (before, boot) = (clock.since_boot(), clock.boot_id());
        clock.advance(Duration::from_secs(60));
        assert_eq!(clock.since_boot() - before, Duration::from_secs(60));
        assert_eq!(clock.wall().to_string(), "2026-01-01T00:01:00Z");
        clock.reboot(BootId::new("boot-2"));
        assert_ne!(clock.boot_id(), boot);
        assert_eq!(clock.since_boot(), Duration::ZERO);
    }
}
