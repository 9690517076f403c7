//! Which leases live and until when. Pure bookkeeping: the backends keep leases durable and delete their keys.

use crate::{LeaseId, Result, StoreError};
use std::collections::HashMap;
use std::time::Duration;

/// The living leases, by the boot clock.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    terms: HashMap<LeaseId, Term>,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    ttl: Duration,
    ends: Duration,
}

impl Leases {
    /// Enters a lease with its full ttl from `now`. After a restart every lease is entered anew.
    pub(crate) fn enter(&mut self, id: LeaseId, ttl: Duration, now: Duration) {
        self.terms.insert(
            id,
            Term {
                ttl,
                ends: now.saturating_add(ttl),
            },
        );
    }

    /// Whether the lease lives at `now`.
    pub(crate) fn lives(&self, id: LeaseId, now: Duration) -> bool {
        self.terms.get(&id).is_some_and(|term| term.ends > now)
    }

    /// Gives a living lease its full ttl again.
    pub(crate) fn keep_alive(&mut self, id: LeaseId, now: Duration) -> Result<()> {
        match self.terms.get_mut(&id) {
            Some(term) if term.ends > now => {
                term.ends = now.saturating_add(term.ttl);
                Ok(())
            }
            _ => Err(StoreError::LeaseEnded(id)),
        }
    }

    /// Forgets a lease.
    pub(crate) fn remove(&mut self, id: LeaseId) {
        self.terms.remove(&id);
    }

    /// The leases that have run out at `now`, lowest id first. They stay known (but do not live) until removed.
    pub(crate) fn due(&self, now: Duration) -> Vec<LeaseId> {
        let mut due: Vec<_> = self
            .terms
            .iter()
            .filter(|(_, t)| t.ends <= now)
            .map(|(id, _)| *id)
            .collect();
        due.sort();
        due
    }

    /// How long until the next lease runs out; `None` when there is none.
    pub(crate) fn next_end(&self, now: Duration) -> Option<Duration> {
        self.terms
            .values()
            .map(|t| t.ends.saturating_sub(now))
            .min()
    }

    /// All leases with their ttl.
    pub(crate) fn all(&self) -> Vec<(LeaseId, Duration)> {
        self.terms.iter().map(|(id, t)| (*id, t.ttl)).collect()
    }
}

/// A fresh lease number. Random, because whoever knows the number may end the lease.
pub(crate) fn fresh_id() -> LeaseId {
    // 63 bits: both SQLite and etcd keep it as a signed number.
    LeaseId(rand::random_range(1..=i64::MAX as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_once_and_cannot_be_revived() {
        let s = Duration::from_secs;
        let mut leases = Leases::default();
        leases.enter(LeaseId(1), s(10), s(100));
        assert!(leases.lives(LeaseId(1), s(109)));
        leases.keep_alive(LeaseId(1), s(109)).unwrap();
        assert_eq!(leases.next_end(s(110)), Some(s(9)));
        assert!(leases.due(s(118)).is_empty());
        assert_eq!(leases.due(s(119)), [LeaseId(1)]);
        assert!(matches!(
            leases.keep_alive(LeaseId(1), s(119)),
            Err(StoreError::LeaseEnded(_))
        ));
        leases.remove(LeaseId(1));
        assert_eq!(leases.next_end(s(0)), None);
    }
}
