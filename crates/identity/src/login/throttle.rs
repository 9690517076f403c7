//! Limits wrong tries by address. Kept in memory: a restart forgives, which 140-bit codes can bear.

use model::{Error, Result, Timestamp, What};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Wrong tries in one window.
const MOST: u32 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// Addresses remembered at a time; beyond that the ended windows go first, then all.
const MOST_ADDRESSES: usize = 10_000;

pub(super) struct Throttle {
    tries: HashMap<IpAddr, (Timestamp, u32)>,
}

impl Throttle {
    pub(super) fn new() -> Throttle {
        Throttle {
            tries: HashMap::new(),
        }
    }

    /// Refuses when an address has too many wrong tries in its window.
    pub(super) fn permit(&self, from: Option<IpAddr>, now: Timestamp) -> Result<()> {
        let Some((since, count)) = key(from).and_then(|key| self.tries.get(&key)) else {
            return Ok(());
        };
        let passed = now.since(*since);
        if *count >= MOST && passed < WINDOW && *since <= now {
            return Err(Error::new(
                What::Quota(Some(WINDOW - passed)),
                "too many wrong login codes from this address",
            )
            .hint("wait a minute"));
        }
        Ok(())
    }

    /// Counts a wrong try.
    pub(super) fn wrong(&mut self, from: Option<IpAddr>, now: Timestamp) {
        let Some(key) = key(from) else { return };
        if self.tries.len() >= MOST_ADDRESSES {
            self.tries
                .retain(|_, (since, _)| *since <= now && now.since(*since) < WINDOW);
            if self.tries.len() >= MOST_ADDRESSES {
                self.tries.clear();
            }
        }
        let entry = self.tries.entry(key).or_insert((now, 0));
        if entry.0 > now || now.since(entry.0) >= WINDOW {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }

    /// Forgives an address that logged in.
    pub(super) fn forget(&mut self, from: Option<IpAddr>) {
        if let Some(key) = key(from) {
            self.tries.remove(&key);
        }
    }
}

/// What counts as one address: an IPv4 address, or the /64 of an IPv6 one. The local socket is not limited.
fn key(from: Option<IpAddr>) -> Option<IpAddr> {
    match from?.to_canonical() {
        IpAddr::V6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => Some(v4),
    }
}
