//! How somebody becomes known: [`People`] knows who is who and carries the conversations; here are the one-time codes
//! that the machine itself gives out, for a client certificate or for the first administrator.
//!
//! A code is 140 random bits in Crockford's base 32, shown once, stored as SHA-256, good for 15 minutes and for one
//! login. Wrong tries are limited by address (an IPv6 address counts as its /64). Nothing here knows certificates.

pub(crate) mod administrators;
mod delay;
mod people;
pub mod risk;
mod talk;

pub use people::People;
pub(crate) use people::{Used, is_active, refused};

use crate::files;
use model::{Error, Result, Timestamp};
use runtime::limit::{Caller, Limiter, Rate};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Wrong tries from one address.
const WRONG: Rate = Rate::per_minute(10);
/// How long a code is good.
pub const LIFE: Duration = Duration::from_secs(15 * 60);
/// Most codes open at a time; the oldest goes when one more is made.
const MOST_OPEN: usize = 16;
/// Letters without I, L, O and U, so that nothing is misread.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 28 letters of 5 bits each.
const LETTERS: usize = 28;
const GROUP: usize = 4;

/// Forgets old login delays each hour.
async fn sweep(cx: runtime::Cx) {
    let stop = cx.shutdown();
    let hour = Duration::from_secs(3600);
    while stop
        .run_until_cancelled(tokio::time::sleep(hour))
        .await
        .is_some()
    {
        if let Err(error) = delay::sweep(&cx).await {
            tracing::warn!(?error, "old login delays could not be forgotten");
        }
        if let Err(error) = risk::sweep(&cx).await {
            tracing::warn!(?error, "old histories of logins could not be forgotten");
        }
        if let Err(error) = talk::letters::sweep(&cx).await {
            tracing::warn!(?error, "old codes of letters could not be forgotten");
        }
        if let Err(error) = talk::second::sweep(&cx).await {
            tracing::warn!(?error, "keys of apps were not swept");
        }
        if let Err(error) = talk::keys::sweep(&cx).await {
            tracing::warn!(?error, "unanswered challenges could not be forgotten");
        }
        if let Err(error) = talk::sweep(&cx).await {
            tracing::warn!(?error, "old logins by other sites could not be forgotten");
        }
    }
}

/// The open codes of one pki folder.
pub(crate) struct Codes {
    path: PathBuf,
    open: Vec<Open>,
    /// Wrong tries by address. A restart forgives, which 140-bit codes can bear.
    wrong: Limiter,
}

#[derive(Serialize, Deserialize)]
struct Open {
    sha256: String,
    account: String,
    made: Timestamp,
}

impl Codes {
    /// Reads the open codes; a missing file means none. A file that cannot be read as such is none either: the worst
    /// that can come of it is that a new code must be made.
    pub(crate) fn open(path: PathBuf) -> Result<Codes> {
        let open = match files::read(&path)? {
            Some(text) => serde_json::from_str(&text).unwrap_or_else(|error| {
                tracing::warn!(%error, "the file of open login codes is unreadable and was dropped");
                Vec::new()
            }),
            None => Vec::new(),
        };
        Ok(Codes {
            path,
            open,
            wrong: Limiter::default(),
        })
    }

    /// A new code and when it ends.
    pub(crate) fn make(&mut self, account: &str, now: Timestamp) -> Result<(String, Timestamp)> {
        self.drop_old(now);
        let random: [u8; LETTERS] = rand::random();
        let letters = random.map(|byte| ALPHABET[usize::from(byte & 31)]);
        if self.open.len() >= MOST_OPEN {
            self.open.remove(0);
        }
        self.open.push(Open {
            sha256: hash(&letters),
            account: account.to_owned(),
            made: now,
        });
        self.save()?;
        let code = letters
            .chunks(GROUP)
            .map(|group| String::from_utf8_lossy(group).into_owned())
            .collect::<Vec<_>>()
            .join("-");
        Ok((code, now.plus(LIFE)))
    }

    /// Whose code this is, when it is open. Says nothing about which part was wrong.
    pub(crate) fn check(
        &mut self,
        code: &str,
        from: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<String> {
        let at = Duration::from_millis(now.millis().max(0).cast_unsigned());
        // The local socket is not limited.
        let guesser = from.map(Caller::Address);
        if let Some(guesser) = guesser {
            let standing = self.wrong.look(WRONG, guesser, at);
            if standing.remaining == 0 {
                return Err(standing.refusal("wrong login codes from this address"));
            }
        }
        self.drop_old(now);
        let found = match letters(code) {
            Some(letters) => self.find(&hash(&letters)),
            None => None,
        };
        match found {
            Some(at) => {
                if let Some(guesser) = guesser {
                    self.wrong.forget(guesser);
                }
                Ok(self.open[at].account.clone())
            }
            None => {
                if let Some(guesser) = guesser {
                    // One too many is counted already.
                    let _ = self.wrong.take(WRONG, guesser, at);
                }
                Err(
                    Error::unauthenticated("the login code is not accepted").hint(
                        "a code works once and for 15 minutes; an administrator on the host makes a new one",
                    ),
                )
            }
        }
    }

    /// Uses the code up. On disk when it returns.
    pub(crate) fn spend(&mut self, code: &str, now: Timestamp) -> Result<()> {
        self.drop_old(now);
        if let Some(at) = letters(code).and_then(|letters| self.find(&hash(&letters))) {
            self.open.remove(at);
        }
        self.save()
    }

    /// Compares with every open code and every byte, so that the time taken says nothing.
    fn find(&self, sha256: &str) -> Option<usize> {
        let mut found = None;
        for (at, open) in self.open.iter().enumerate() {
            let differing = open
                .sha256
                .bytes()
                .zip(sha256.bytes())
                .fold(open.sha256.len() ^ sha256.len(), |all, (a, b)| {
                    all | usize::from(a ^ b)
                });
            if std::hint::black_box(differing) == 0 {
                found = Some(at);
            }
        }
        found
    }

    /// Drops what has ended, and what was made "later than now": the clock went back, and nobody can say how far.
    fn drop_old(&mut self, now: Timestamp) {
        self.open
            .retain(|open| open.made <= now && now.since(open.made) < LIFE);
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_string(&self.open)
            .map_err(|e| Error::internal("cannot write the login codes").because(e))?;
        files::write(&self.path, &text, 0o600)
    }
}

/// The letters of a code as typed: case, dashes and blanks do not count, O is 0, I and L are 1.
fn letters(code: &str) -> Option<Vec<u8>> {
    if code.len() > 100 {
        return None;
    }
    let letters: Vec<u8> = code
        .bytes()
        .filter(|b| *b != b'-' && !b.is_ascii_whitespace())
        .map(|b| match b.to_ascii_uppercase() {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            other => other,
        })
        .collect();
    (letters.len() == LETTERS && letters.iter().all(|l| ALPHABET.contains(l))).then_some(letters)
}

fn hash(letters: &[u8]) -> String {
    hex::encode(Sha256::digest(letters))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes() -> (tempfile::TempDir, Codes) {
        let dir = tempfile::tempdir().unwrap();
        let codes = Codes::open(dir.path().join("codes.json")).unwrap();
        (dir, codes)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_code_works_once_as_typed_and_survives_a_restart() {
        let (dir, mut codes) = codes();
        let (code, expires) = codes.make("administrator", at(0)).unwrap();
        assert_eq!(code.len(), 28 + 6);
        assert_eq!(expires, at(900));
        let stored = std::fs::read_to_string(dir.path().join("codes.json")).unwrap();
        assert!(!stored.contains(&code) && !stored.contains(&code.replace('-', "")));
        let mut codes = Codes::open(dir.path().join("codes.json")).unwrap();
        let sloppy = code.to_lowercase().replace('-', " ").replace('0', "o");
        assert_eq!(codes.check(&sloppy, None, at(1)).unwrap(), "administrator");
        codes.spend(&code, at(2)).unwrap();
        assert!(codes.check(&code, None, at(3)).is_err());
    }

    #[test]
    fn a_code_ends_after_its_time_and_when_the_clock_goes_back() {
        let (_dir, mut codes) = codes();
        let (code, _) = codes.make("administrator", at(0)).unwrap();
        assert!(codes.check(&code, None, at(899)).is_ok());
        assert!(codes.check(&code, None, at(900)).is_err());
        let (code, _) = codes.make("administrator", at(1000)).unwrap();
        assert!(codes.check(&code, None, at(999)).is_err());
    }

    #[test]
    fn guessing_is_stopped_by_address_not_for_others() {
        let (_dir, mut codes) = codes();
        let (code, _) = codes.make("administrator", at(0)).unwrap();
        let guesser = Some("2001:db8::1".parse().unwrap());
        let same_net = Some("2001:db8::2".parse().unwrap());
        for _ in 0..10 {
            assert_eq!(
                codes.check("WRONG", guesser, at(1)).unwrap_err().status(),
                401
            );
        }
        assert_eq!(
            codes.check(&code, same_net, at(2)).unwrap_err().status(),
            429
        );
        let other = Some("192.0.2.1".parse().unwrap());
        assert!(codes.check(&code, other, at(2)).is_ok());
        // The window slides: his tries count less and less.
        assert!(codes.check(&code, guesser, at(75)).is_ok());
    }
}
