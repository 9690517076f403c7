//! Slows down who guesses: by account and by address, on the server, in the store that all processes share.
//!
//! A try is counted before it is looked at, in one compare-and-set, so that many at once are no way around it. The
//! first wrong ones are free; then the time to wait doubles from a second to a quarter of an hour. Names that nobody has
//! are counted like others.

use model::{Error, Result, Timestamp, What};
use runtime::Cx;
use runtime::tally::{self, Becomes};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Wrong tries of one account that cost nothing.
const FREE: u32 = 2;
/// Wrong tries from one address that cost nothing: many may share one.
const FREE_ADDRESS: u32 = 20;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// What was tried so long ago counts no more.
const FORGOTTEN: Duration = Duration::from_secs(24 * 3600);

/// Second factors: so many tries in a window, then none for as long.
const TRIES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(300);

const ACCOUNT: &str = "login-account";
const ADDRESS: &str = "login-address";
const SECOND: &str = "login-second";

/// What is kept of one account or address.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Tries {
    count: u32,
    last: Timestamp,
}

/// How long to wait after so many wrong tries.
fn pause(wrong: u32, free: u32) -> Duration {
    match wrong.saturating_sub(free) {
        0 => Duration::ZERO,
        over => Duration::from_secs(1u64 << (over - 1).min(20)).min(LONGEST),
    }
}

/// What a try makes of what was before, or how long it must wait. What was before `since` does not count.
fn after(
    old: Option<Tries>,
    since: Option<Timestamp>,
    free: u32,
    now: Timestamp,
) -> Result<Tries, Duration> {
    let old = old.filter(|old| {
        since.is_none_or(|since| old.last > since) && now.since(old.last) < FORGOTTEN
    });
    let Some(old) = old else {
        return Ok(Tries {
            count: 1,
            last: now,
        });
    };
    let pause = pause(old.count, free);
    // When the clock has gone back, nobody waits longer than the pause itself.
    let passed = if old.last > now {
        Duration::ZERO
    } else {
        now.since(old.last)
    };
    match passed < pause {
        true => Err(pause - passed),
        false => Ok(Tries {
            count: old.count.saturating_add(1),
            last: now,
        }),
    }
}

/// Counts a try at an account, before it is known to be wrong.
///
/// # Errors
/// [`What::Quota`] with the time to wait.
pub(super) async fn attempt(
    cx: &Cx,
    account: &str,
    from: Option<IpAddr>,
    unlocked: Option<Timestamp>,
) -> Result<()> {
    let now = cx.clock().now();
    if let Some(address) = address(from) {
        tally::edit::<Tries, _>(cx, ADDRESS, &address, |old| {
            (
                Becomes::Same,
                after(old, None, FREE_ADDRESS, now)
                    .map(drop)
                    .map_err(too_many),
            )
        })
        .await??;
    }
    count(cx, ACCOUNT, account, unlocked, FREE, now).await?;
    match address(from) {
        Some(address) => count(cx, ADDRESS, &address, None, FREE_ADDRESS, now).await,
        None => Ok(()),
    }
}

async fn count(
    cx: &Cx,
    space: &str,
    subject: &str,
    since: Option<Timestamp>,
    free: u32,
    now: Timestamp,
) -> Result<()> {
    tally::edit::<Tries, _>(cx, space, subject, |old| {
        match after(old, since, free, now) {
            Ok(new) => (Becomes::New(new), Ok(())),
            Err(wait) => (Becomes::Same, Err(too_many(wait))),
        }
    })
    .await?
}

fn too_many(wait: Duration) -> Error {
    // Whole seconds, rounded up: who waits as long as he is told is let in.
    let wait = Duration::from_secs(wait.as_millis().div_ceil(1000) as u64);
    Error::new(What::Quota(Some(wait)), "too many wrong logins").hint(format!(
        "wait {} s; an administrator can let you try at once: dvctl user unlock NAME",
        wait.as_secs()
    ))
}

/// Forgives an account, and an address this one try: it was right. What else was tried from there counts on, or an
/// account of one's own would wipe out guesses at others.
pub(super) async fn forgive(cx: &Cx, account: &str, from: Option<IpAddr>) -> Result<()> {
    tally::edit::<Tries, ()>(cx, ACCOUNT, account, |_| (Becomes::Forgotten, ())).await?;
    match address(from) {
        Some(address) => {
            tally::edit::<Tries, ()>(cx, ADDRESS, &address, |old| (taken_back(old), ())).await
        }
        None => Ok(()),
    }
}

fn taken_back(old: Option<Tries>) -> Becomes<Tries> {
    match old {
        Some(old) if old.count > 1 => Becomes::New(Tries {
            count: old.count - 1,
            ..old
        }),
        _ => Becomes::Forgotten,
    }
}

/// Counts a try of a second factor.
///
/// # Errors
/// [`What::Quota`] with the time to wait.
pub(super) async fn second(cx: &Cx, user: &str, unlocked: Option<Timestamp>) -> Result<()> {
    let now = cx.clock().now();
    tally::edit::<Tries, _>(cx, SECOND, user, |old| {
        // `last` is when the window began, or when the last free try was made: from then on it is closed.
        let old = old.filter(|old| {
            old.last <= now
                && now.since(old.last) < WINDOW
                && unlocked.is_none_or(|at| old.last > at)
        });
        match old {
            None => (
                Becomes::New(Tries {
                    count: 1,
                    last: now,
                }),
                Ok(()),
            ),
            Some(old) if old.count >= TRIES => {
                let wait = WINDOW - now.since(old.last);
                (Becomes::Same, Err(too_many(wait)))
            }
            Some(old) => {
                let count = old.count + 1;
                let last = if count == TRIES { now } else { old.last };
                (Becomes::New(Tries { count, last }), Ok(()))
            }
        }
    })
    .await?
}

/// Forgives the second factors of a user.
pub(super) async fn second_right(cx: &Cx, user: &str) -> Result<()> {
    tally::edit::<Tries, ()>(cx, SECOND, user, |_| (Becomes::Forgotten, ())).await
}

/// Forgets what is so long ago that it counts no more.
pub(super) async fn sweep(cx: &Cx) -> Result<()> {
    let now = cx.clock().now();
    for (space, after) in [(ACCOUNT, FORGOTTEN), (ADDRESS, FORGOTTEN), (SECOND, WINDOW)] {
        tally::sweep::<Tries>(cx, space, |tries| now.since(tries.last) < after).await?;
    }
    Ok(())
}

/// What counts as one address: an IPv4 address, or the /64 of an IPv6 one. The local socket is not limited.
fn address(from: Option<IpAddr>) -> Option<String> {
    let net = match from?.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    };
    Some(net.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn waits_double_up_to_a_quarter_of_an_hour() {
        let waits: Vec<u64> = (0..15).map(|n| pause(n, FREE).as_secs()).collect();
        assert_eq!(
            waits,
            [0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]
        );
        assert_eq!(pause(u32::MAX, FREE), LONGEST);
    }

    #[test]
    fn a_try_counts_before_it_is_known_to_be_wrong() {
        let mut tries = None;
        for _ in 0..3 {
            tries = Some(after(tries, None, FREE, at(0)).unwrap());
        }
        assert_eq!(after(tries, None, FREE, at(0)), Err(Duration::from_secs(1)));
        let sixth = Some(Tries {
            count: 5,
            last: at(0),
        });
        assert_eq!(after(sixth, None, FREE, at(1)), Err(Duration::from_secs(3)));
        assert_eq!(
            after(sixth, None, FREE, at(4)),
            Ok(Tries {
                count: 6,
                last: at(4)
            })
        );
        // Unlocked since, a day ago, and a clock that went back.
        assert_eq!(after(sixth, Some(at(0)), FREE, at(1)).unwrap().count, 1);
        assert_eq!(after(sixth, None, FREE, at(24 * 3600)).unwrap().count, 1);
        assert_eq!(
            after(sixth, None, FREE, at(-1000)),
            Err(Duration::from_secs(4))
        );
    }

    #[test]
    fn one_right_try_takes_back_one() {
        let mut kept = None;
        // Nineteen guesses at others, then one's own password, again and again.
        for round in 0..3 {
            for _ in 0..5 {
                kept = Some(after(kept, None, FREE_ADDRESS, at(round)).unwrap());
            }
            kept = Some(after(kept, None, FREE_ADDRESS, at(round)).unwrap());
            kept = match taken_back(kept) {
                Becomes::New(tries) => Some(tries),
                _ => None,
            };
        }
        assert_eq!(kept.map(|tries| tries.count), Some(15));
        let one = Some(Tries {
            count: 1,
            last: at(0),
        });
        assert!(matches!(taken_back(one), Becomes::Forgotten));
    }

    #[test]
    fn neighbours_in_one_network_are_one_address() {
        let ip = |text: &str| address(Some(text.parse().unwrap()));
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::ffff"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        assert_eq!(ip("::ffff:192.0.2.1"), ip("192.0.2.1"));
    }
}
