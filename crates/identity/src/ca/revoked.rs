//! The list of revoked certificates: a text file with one SHA-256 fingerprint a line, `#` begins a comment.
//!
//! The list only grows through us; an administrator may also edit the file, and a change is seen within two seconds.

use crate::files;
use model::{Error, Result, Timestamp};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How stale the list may be.
const LOOK_EVERY: Duration = Duration::from_secs(2);

pub(crate) struct Revoked {
    path: PathBuf,
    seen: Mutex<Seen>,
}

struct Seen {
    list: BTreeSet<String>,
    stamp: Option<SystemTime>,
    looked: Instant,
}

impl Revoked {
    /// Reads the list; a missing file is an empty list.
    pub(crate) fn open(folder: &Path) -> Result<Revoked> {
        let path = folder.join("revoked");
        let (list, stamp) = load(&path)?;
        Ok(Revoked {
            path,
            seen: Mutex::new(Seen {
                list,
                stamp,
                looked: Instant::now(),
            }),
        })
    }

    /// Whether a fingerprint is on the list. When the file cannot be read, the last list that could be read counts
    /// and nothing is taken off it.
    pub(crate) fn contains(&self, fingerprint: &str) -> bool {
        let mut seen = self.seen.lock();
        if seen.looked.elapsed() >= LOOK_EVERY {
            seen.looked = Instant::now();
            if stamp(&self.path) != seen.stamp {
                match load(&self.path) {
                    Ok((list, stamp)) => (seen.list, seen.stamp) = (list, stamp),
                    Err(error) => tracing::error!(?error, "the revocation list cannot be read"),
                }
            }
        }
        seen.list.contains(fingerprint)
    }

    /// Puts a fingerprint on the list.
    pub(crate) fn add(&self, fingerprint: &str, why: &str, now: Timestamp) -> Result<()> {
        let fingerprint = fingerprint.replace(':', "").to_ascii_lowercase();
        if fingerprint.len() != 64 || !fingerprint.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(Error::field(
                "fingerprint",
                format!("`{fingerprint}` is not a SHA-256 fingerprint: 64 hex digits"),
            ));
        }
        let mut seen = self.seen.lock();
        let mut text = files::read(&self.path)?.unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let why: String = why.chars().filter(|c| !c.is_control()).take(200).collect();
        text.push_str(&format!("{fingerprint} # {now} {why}\n"));
        files::write(&self.path, &text, 0o600)?;
        seen.list.insert(fingerprint);
        seen.stamp = stamp(&self.path);
        Ok(())
    }
}

fn stamp(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

fn load(path: &Path) -> Result<(BTreeSet<String>, Option<SystemTime>)> {
    let stamp = stamp(path);
    let text = files::read(path)?.unwrap_or_default();
    let list = text
        .lines()
        .filter_map(|line| line.split('#').next())
        .map(|word| word.trim().replace(':', "").to_ascii_lowercase())
        .filter(|word| !word.is_empty())
        .collect();
    Ok((list, stamp))
}
