//! Time as the store sees it: the boot clock for leases, the wall clock for stamps on files.
//!
//! Never the wall clock for anything that decides: it can be set back, and it stands still for nobody.

use parking_lot::Mutex;
use std::time::Duration;

/// Where the store takes its time from.
pub trait Clock: Send + Sync {
    /// Time since boot, counting suspend (`CLOCK_BOOTTIME`). Never goes back while the machine is up.
    fn boot(&self) -> Duration;
    /// Time since 1970 in UTC. May jump either way; only for names and stamps people read.
    fn wall(&self) -> Duration;
}

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn boot(&self) -> Duration {
        read(nix::time::ClockId::CLOCK_BOOTTIME)
    }

    fn wall(&self) -> Duration {
        read(nix::time::ClockId::CLOCK_REALTIME)
    }
}

fn read(id: nix::time::ClockId) -> Duration {
    // Both clocks exist on every Linux we support; should one be refused, standing still only makes leases longer.
    nix::time::clock_gettime(id)
        .map(Duration::from)
        .unwrap_or_default()
}

/// A clock that moves only when told, for tests.
#[derive(Debug)]
pub struct ManualClock(Mutex<(Duration, Duration)>);

impl ManualClock {
    /// A clock that shows `boot` since boot and `wall` since 1970.
    pub fn new(boot: Duration, wall: Duration) -> Self {
        ManualClock(Mutex::new((boot, wall)))
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock();
        now.0 += by;
        now.1 += by;
    }

    /// Sets the wall clock, also backwards.
    pub fn set_wall(&self, wall: Duration) {
        self.0.lock().1 = wall;
    }
}

impl Clock for ManualClock {
    fn boot(&self) -> Duration {
        self.0.lock().0
    }

    fn wall(&self) -> Duration {
        self.0.lock().1
    }
}
