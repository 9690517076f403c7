//! Rate limits: how often one address or one principal may do something.
//!
//! A limit is a window that slides (most requests in it) and, where bursts are bounded too, a bucket of tokens that fills
//! evenly. One [`Limiter`] counts one sort of thing for all callers, in bounded memory: it keeps a hash of each caller for
//! at most two windows, and when a flood of callers fills its table, new ones share what is left of it. Counts are in
//! memory only: a restart forgives.

mod mode;
mod rates;

pub use mode::{Load, MODE, Mode};
pub use rates::{
    ANONYMOUS, Class, Counted, GRAPHQL_MUTATION, GRAPHQL_QUERY, GRPC, GRPC_CHANGE, NamedRate,
    NamedRates, PRINCIPAL, PRINCIPAL_BURST, Rates, SETTINGS,
};

use model::{Error, What};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Callers that a limiter keeps apart at a time.
const MOST_CALLERS: usize = 65_536;
/// Counters that the callers beyond that share.
const SHARED: usize = 1024;

/// How often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Most in a window.
    pub most: u32,
    /// The window.
    pub window: Duration,
    /// Most at once, beyond what the window gives evenly; `None` for all of the window at once.
    pub burst: Option<u32>,
}

impl Rate {
    /// So many a minute.
    pub const fn per_minute(most: u32) -> Rate {
        Rate {
            most,
            window: Duration::from_secs(60),
            burst: None,
        }
    }

    /// So many at once.
    #[must_use]
    pub const fn burst(self, burst: u32) -> Rate {
        Rate {
            burst: Some(burst),
            ..self
        }
    }

    /// The time in which the bucket gets one token.
    fn step(&self) -> Duration {
        self.window / self.most.max(1)
    }
}

/// Who is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller<'a> {
    /// Everybody behind an address; see [`network`].
    Address(IpAddr),
    /// A principal or an account, by name.
    Name(&'a str),
}

impl Caller<'_> {
    fn counted(self) -> Self {
        match self {
            Caller::Address(ip) => Caller::Address(network(ip)),
            name @ Caller::Name(_) => name,
        }
    }
}

/// What counts as one address: an IPv4 address, or the /64 of an IPv6 one, of which each host has 2^64 to itself.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// How a caller stands with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Most in a window.
    pub limit: u32,
    /// How many more he may now.
    pub remaining: u32,
    /// When he may all of them again, or, when none remains, one more.
    pub after: Duration,
}

impl Standing {
    /// The refusal of one more of `what`.
    pub fn refusal(&self, what: &str) -> Error {
        let seconds = self.after.as_secs() + u64::from(self.after.subsec_nanos() > 0);
        let after = Duration::from_secs(seconds.max(1));
        Error::new(
            What::Quota(Some(after)),
            format!("too many {what}: the limit is {} in its window", self.limit),
        )
        .hint(format!("try again in {} s", after.as_secs()))
    }
}

/// What is known of one caller.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// When his window began.
    began: Duration,
    /// How many in it.
    now: u32,
    /// How many in the one before.
    before: u32,
    /// Until when the tokens that he took are made.
    made: Duration,
}

struct Table {
    callers: HashMap<u64, Seen>,
    shared: Vec<Seen>,
    /// When the table was last searched for callers who are long gone.
    swept: Duration,
}

/// Counts one sort of thing.
pub struct Limiter {
    hash: RandomState,
    table: Mutex<Table>,
}

impl Default for Limiter {
    fn default() -> Self {
        Limiter {
            hash: RandomState::new(),
            table: Mutex::new(Table {
                callers: HashMap::new(),
                shared: vec![Seen::default(); SHARED],
                swept: Duration::ZERO,
            }),
        }
    }
}

impl Limiter {
    /// Counts one, when it is within the rate. `now` is any clock that goes forward; one that goes back begins anew.
    ///
    /// # Errors
    /// How he stands when it is not.
    pub fn take(
        &self,
        rate: Rate,
        caller: Caller<'_>,
        now: Duration,
    ) -> Result<Standing, Standing> {
        self.with(rate, caller, now, |seen| {
            let standing = seen.stands(rate, now);
            match standing.remaining {
                0 => Err(standing),
                _ => {
                    seen.count(rate, now);
                    Ok(seen.stands(rate, now))
                }
            }
        })
    }

    /// How a caller stands, without counting.
    pub fn look(&self, rate: Rate, caller: Caller<'_>, now: Duration) -> Standing {
        self.with(rate, caller, now, |seen| seen.stands(rate, now))
    }

    /// Forgets a caller: what he did wrong he has made good.
    pub fn forget(&self, caller: Caller<'_>) {
        let id = self.hash.hash_one(caller.counted());
        self.table.lock().callers.remove(&id);
    }

    fn with<T>(
        &self,
        rate: Rate,
        caller: Caller<'_>,
        now: Duration,
        act: impl FnOnce(&mut Seen) -> T,
    ) -> T {
        let id = self.hash.hash_one(caller.counted());
        let mut table = self.table.lock();
        let table = &mut *table;
        if table.callers.len() >= MOST_CALLERS && !table.callers.contains_key(&id) {
            // Not at each request of a flood: a search costs more than what it would find.
            if now.saturating_sub(table.swept) >= rate.window / 8 || now < table.swept {
                table.swept = now;
                table.callers.retain(|_, seen| !seen.is_over(rate, now));
            }
            if table.callers.len() >= MOST_CALLERS {
                let at = usize::try_from(id % SHARED as u64).unwrap_or_default();
                let seen = &mut table.shared[at];
                seen.roll(rate, now);
                return act(seen);
            }
        }
        let seen = table.callers.entry(id).or_insert(Seen {
            began: now,
            ..Seen::default()
        });
        seen.roll(rate, now);
        act(seen)
    }
}

impl Seen {
    /// Whether nothing that he did counts any more.
    fn is_over(&self, rate: Rate, now: Duration) -> bool {
        now < self.began || now - self.began >= rate.window * 2
    }

    /// Moves on to the window that `now` is in.
    fn roll(&mut self, rate: Rate, now: Duration) {
        if self.is_over(rate, now) {
            *self = Seen {
                began: now,
                ..Seen::default()
            };
        } else if now - self.began >= rate.window {
            self.began += rate.window;
            self.before = std::mem::take(&mut self.now);
        }
    }

    fn count(&mut self, rate: Rate, now: Duration) {
        self.now = self.now.saturating_add(1);
        self.made = self.made.max(now) + rate.step();
    }

    /// What of the window before still counts: the share of it that the last window's length covers.
    fn weight(&self, rate: Rate, now: Duration) -> f64 {
        let passed = (now - self.began).as_secs_f64() / rate.window.as_secs_f64();
        f64::from(self.before) * (1.0 - passed).max(0.0)
    }

    fn stands(&self, rate: Rate, now: Duration) -> Standing {
        let used = self.weight(rate, now) + f64::from(self.now);
        // Half a request does not count as one that is left.
        let left = (f64::from(rate.most) - used).floor().max(0.0) as u32;
        let full = self.began + rate.window - now;
        let (mut remaining, mut after) = (left, full);
        if left == 0 {
            after = self.next(rate, now);
        }
        if let Some(burst) = rate.burst {
            let ahead = self.made.saturating_sub(now);
            let room = (rate.step() * burst).saturating_sub(ahead);
            let tokens = (room.as_nanos() / rate.step().as_nanos().max(1)) as u32;
            remaining = remaining.min(tokens);
            if tokens == 0 {
                let one = (ahead + rate.step()).saturating_sub(rate.step() * burst);
                after = if left == 0 { after.max(one) } else { one };
            }
        }
        Standing {
            limit: rate.most,
            remaining,
            after,
        }
    }

    /// How long until one more fits into the window.
    fn next(&self, rate: Rate, now: Duration) -> Duration {
        let room = |counted: u32| f64::from(rate.most) - 1.0 - f64::from(counted);
        // Within this window, when what fades of the one before makes room.
        if room(self.now) >= 0.0 && self.before > 0 {
            let share = (1.0 - room(self.now) / f64::from(self.before)).clamp(0.0, 1.0);
            let at = self.began + rate.window.mul_f64(share);
            return at.saturating_sub(now);
        }
        // Else in the next, when enough of this one has faded.
        let share = (1.0 - room(0) / f64::from(self.now.max(1))).clamp(0.0, 1.0);
        let at = self.began + rate.window + rate.window.mul_f64(share);
        at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests;
