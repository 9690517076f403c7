//! The list of revoked certificates: a text file with one SHA-256 fingerprint a line, then `#`, when and why.
//!
//! The list only grows through us; an administrator may also edit the file, and a change is seen within two seconds. Who
//! asks never waits for the file.

use crate::files;
use model::{Error, Result, Timestamp};
use parking_lot::{Mutex, RwLock};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How stale the list may be.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a certificate is refused before its time (RFC 5280).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No reason is given.
    #[default]
    Unspecified,
    /// Somebody else may have the private key.
    KeyCompromise,
    /// Its names do not belong to us any more.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// What it was for is gone.
    CessationOfOperation,
    /// Its holder may no longer do what it lets him do.
    PrivilegeWithdrawn,
}

impl Reason {
    /// Its number in a CRL.
    pub fn number(self) -> u8 {
        match self {
            Reason::Unspecified => 0,
            Reason::KeyCompromise => 1,
            Reason::AffiliationChanged => 3,
            Reason::Superseded => 4,
            Reason::CessationOfOperation => 5,
            Reason::PrivilegeWithdrawn => 9,
        }
    }

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Unspecified => "unspecified",
            Reason::KeyCompromise => "key-compromise",
            Reason::AffiliationChanged => "affiliation-changed",
            Reason::Superseded => "superseded",
            Reason::CessationOfOperation => "cessation-of-operation",
            Reason::PrivilegeWithdrawn => "privilege-withdrawn",
        }
    }

    fn read(word: &str) -> Reason {
        [
            Reason::KeyCompromise,
            Reason::AffiliationChanged,
            Reason::Superseded,
            Reason::CessationOfOperation,
            Reason::PrivilegeWithdrawn,
        ]
        .into_iter()
        .find(|r| r.word() == word)
        .unwrap_or_default()
    }
}

/// When and why a certificate was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// When; the beginning of time when the line does not say it.
    pub time: Timestamp,
    /// Why.
    pub reason: Reason,
}

pub(super) type List = BTreeMap<String, Revocation>;

pub(crate) struct Revoked {
    path: PathBuf,
    list: RwLock<Arc<List>>,
    /// How the file looked when it was read or written last. Held while it is.
    file: Mutex<Option<SystemTime>>,
}

impl Revoked {
    /// Reads the list; a missing file is an empty list.
    pub(crate) fn open(folder: &Path) -> Result<Revoked> {
        let path = folder.join("revoked");
        let (list, stamp) = load(&path)?;
        Ok(Revoked {
            path,
            list: RwLock::new(Arc::new(list)),
            file: Mutex::new(stamp),
        })
    }

    /// The list as it was read or written last. The same list is the same pointer.
    pub(crate) fn list(&self) -> Arc<List> {
        self.list.read().clone()
    }

    /// Reads the file when somebody has changed it. When it cannot be read, the last list that could be counts and nothing
    /// is taken off it. Blocks.
    pub(super) fn look(&self) {
        let mut file = self.file.lock();
        if stamp(&self.path) == *file {
            return;
        }
        match load(&self.path) {
            Ok((list, stamp)) => {
                *self.list.write() = Arc::new(list);
                *file = stamp;
            }
            Err(error) => tracing::error!(?error, "the revocation list cannot be read"),
        }
    }

    /// When and why a fingerprint was put on the list.
    pub(crate) fn find(&self, fingerprint: &str) -> Option<Revocation> {
        self.list().get(fingerprint).copied()
    }

    /// Puts a fingerprint on the list; one that is there keeps its time. Says whether it is new. Blocks.
    pub(crate) fn add(
        &self,
        fingerprint: &str,
        reason: Reason,
        why: &str,
        now: Timestamp,
    ) -> Result<bool> {
        let fingerprint = plain(fingerprint)?;
        let mut file = self.file.lock();
        if self.list().contains_key(&fingerprint) {
            return Ok(false);
        }
        let mut text = files::read(&self.path)?.unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let why: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
        text.push_str(&format!("{fingerprint} # {now} {} {why}\n", reason.word()));
        files::write(&self.path, &text, 0o600)?;
        // With what somebody else has written there since.
        let list = text.lines().filter_map(read).collect();
        *self.list.write() = Arc::new(list);
        *file = stamp(&self.path);
        Ok(true)
    }
}

/// A fingerprint as people type it, in the form that is compared.
pub(crate) fn plain(fingerprint: &str) -> Result<String> {
    let plain = fingerprint.replace(':', "").to_ascii_lowercase();
    if plain.len() != 64 || !plain.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(Error::field(
            "fingerprint",
            format!("`{fingerprint}` is not a SHA-256 fingerprint: 64 hex digits"),
        ));
    }
    Ok(plain)
}

fn stamp(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn load(path: &Path) -> Result<(List, Option<SystemTime>)> {
    let stamp = stamp(path);
    let text = files::read(path)?.unwrap_or_default();
    Ok((text.lines().filter_map(read).collect(), stamp))
}

/// One line: what is no fingerprint is a comment.
fn read(line: &str) -> Option<(String, Revocation)> {
    let (word, rest) = line.split_once('#').unwrap_or((line, ""));
    let fingerprint = plain(word.trim()).ok()?;
    let mut words = rest.split_whitespace();
    let time = words.next().and_then(Timestamp::parse);
    let reason = words.next().map(Reason::read).unwrap_or_default();
    let time = time.unwrap_or(Timestamp::from_millis(0));
    Some((fingerprint, Revocation { time, reason }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_by_us_and_by_hand() {
        let dir = tempfile::tempdir().unwrap();
        let one = "ab".repeat(32);
        let other = "CD:".repeat(31) + "CD";
        std::fs::write(
            dir.path().join("revoked"),
            format!("# by hand\n{other}\nnonsense\n"),
        )
        .unwrap();
        let list = Revoked::open(dir.path()).unwrap();
        let now = Timestamp::from_millis(1_800_000_000_000);
        assert!(
            list.add(&one, Reason::KeyCompromise, "lost\nlaptop", now)
                .unwrap()
        );
        assert!(!list.add(&one, Reason::Superseded, "", now).unwrap());
        assert!(list.add("12", Reason::Superseded, "", now).is_err());
        let before = std::fs::read(dir.path().join("revoked")).unwrap();
        for list in [list, Revoked::open(dir.path()).unwrap()] {
            let found = list.find(&one).unwrap();
            assert_eq!(
                found,
                Revocation {
                    time: now,
                    reason: Reason::KeyCompromise
                }
            );
            assert_eq!(
                list.find(&"cd".repeat(32)).unwrap().reason,
                Reason::Unspecified
            );
            assert_eq!(list.list().len(), 2);
            // A line by hand that nobody has looked at yet is not lost by the next one of ours.
            let (hand, ours) = ("12".repeat(32), "34".repeat(32));
            let text = std::fs::read_to_string(&list.path).unwrap();
            std::fs::write(&list.path, format!("{text}{hand}\n")).unwrap();
            assert!(list.add(&ours, Reason::Superseded, "", now).unwrap());
            assert!(list.find(&hand).is_some() && list.find(&ours).is_some());
            // Asked for while somebody works on the file, also on one that hangs.
            let held = list.file.lock();
            assert!(list.find(&one).is_some());
            drop(held);
            let third = "ef".repeat(32);
            std::fs::write(dir.path().join("revoked"), format!("{one}\n{third}\n")).unwrap();
            let later = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
            let file = std::fs::File::options()
                .write(true)
                .open(&list.path)
                .unwrap();
            file.set_modified(later).unwrap();
            list.look();
            assert!(list.find(&third).is_some() && list.list().len() == 2);
            std::fs::write(dir.path().join("revoked"), &before).unwrap();
        }
    }
}
