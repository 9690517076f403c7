//! What the CA has signed and revoked: one line each, appended and chained by hashes, so that a line that somebody
//! changed, removed or put in between is found. Our own certificate transparency.
//!
//! A line is `SHA256 JSON`; the hash is over the hash of the line before and the JSON. A certificate leaves the CA only
//! when its line is on disk. A torn last line (a crash while it was written) is cut off: its certificate never left.

use crate::files;
use model::{Error, Result, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The hash before the first line.
const BEGINNING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A certificate was signed.
    Issued,
    /// A certificate is refused from now on.
    Revoked,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number, from 1.
    pub seq: u64,
    /// When.
    pub time: Timestamp,
    /// What happened.
    pub what: What,
    /// SHA-256 of the certificate, hex.
    pub fingerprint: String,
    /// Its serial number, hex; empty for a certificate that is not ours.
    #[serde(default)]
    pub serial: String,
    /// The generation of the CA that signed it; empty for the first.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ca: String,
    /// Whom it is for.
    #[serde(default)]
    pub subject: String,
    /// Its names.
    #[serde(default)]
    pub names: Vec<String>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Why it was revoked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// SHA-256 of its public key (the whole SubjectPublicKeyInfo), hex; empty in lines of older versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
}

/// The log of one CA.
pub(crate) struct Log {
    path: PathBuf,
    head: String,
    count: u64,
    /// The first line that does not fit, when there is one.
    broken: Option<u64>,
    /// Serial numbers and generations by fingerprint.
    serials: HashMap<String, (Vec<u8>, String)>,
    /// Which serial numbers are ours.
    ours: HashMap<Vec<u8>, String>,
    /// Public keys by fingerprint, and fingerprints by public key.
    keys: HashMap<String, String>,
    of_key: HashMap<String, Vec<String>>,
}

impl Log {
    /// Reads and checks the log; a missing file is an empty one.
    pub fn open(folder: &Path) -> Result<Log> {
        let path = folder.join("issued.log");
        let text = files::read(&path)?.unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            tracing::warn!("the last line of the issuance log was torn and is cut off");
            let file = OpenOptions::new().write(true).open(&path);
            file.and_then(|f| f.set_len(whole as u64).and_then(|()| f.sync_all()))
                .map_err(|e| trouble(&path, e))?;
        }
        let mut log = Log {
            path,
            head: BEGINNING.into(),
            count: 0,
            broken: None,
            serials: HashMap::new(),
            ours: HashMap::new(),
            keys: HashMap::new(),
            of_key: HashMap::new(),
        };
        for text in text[..whole].lines() {
            log.count += 1;
            let (hash, json) = text.split_once(' ').unwrap_or((text, ""));
            let line: Option<Line> = serde_json::from_str(json).ok();
            let fits = hash == chained(&log.head, json)
                && line.as_ref().is_some_and(|line| line.seq == log.count);
            if !fits && log.broken.is_none() {
                log.broken = Some(log.count);
            }
            hash.clone_into(&mut log.head);
            if let Some(line) = line {
                log.know(&line);
            }
        }
        if let Some(line) = log.broken {
            tracing::error!(line, "the issuance log was changed by somebody");
        }
        Ok(log)
    }

    fn know(&mut self, line: &Line) {
        if let (What::Issued, Ok(serial)) = (line.what, hex::decode(&line.serial)) {
            self.ours.insert(serial.clone(), line.fingerprint.clone());
            let ca = (serial, line.ca.clone());
            self.serials.insert(line.fingerprint.clone(), ca);
            if !line.key.is_empty() {
                let (fingerprint, key) = (line.fingerprint.clone(), line.key.clone());
                let all = self.of_key.entry(key.clone()).or_default();
                all.push(fingerprint.clone());
                self.keys.insert(fingerprint, key);
            }
        }
    }

    /// Appends a line; its number is set here. On disk when it returns.
    pub fn append(&mut self, mut line: Line) -> Result<()> {
        line.seq = self.count + 1;
        let json = serde_json::to_string(&line)
            .map_err(|e| Error::internal("a line of the issuance log as JSON").because(e))?;
        let hash = chained(&self.head, &json);
        let write = || -> std::io::Result<()> {
            let new = !self.path.exists();
            let mut file = OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o600)
                .open(&self.path)?;
            let before = file.metadata()?.len();
            let written = file
                .write_all(format!("{hash} {json}\n").as_bytes())
                .and_then(|()| file.sync_data());
            if let Err(error) = written {
                // Nothing half: the next line would not fit.
                let _ = file.set_len(before);
                return Err(error);
            }
            match (new, self.path.parent()) {
                (true, Some(folder)) => File::open(folder)?.sync_all(),
                _ => Ok(()),
            }
        };
        write().map_err(|e| trouble(&self.path, e))?;
        self.head = hash;
        self.count = line.seq;
        self.know(&line);
        Ok(())
    }

    /// The serial number of a certificate of ours.
    pub fn serial(&self, fingerprint: &str) -> Option<&[u8]> {
        self.serials.get(fingerprint).map(|(serial, _)| &**serial)
    }

    /// The fingerprints of all certificates with this public key.
    pub fn with_key(&self, key: &str) -> &[String] {
        self.of_key.get(key).map_or(&[], Vec::as_slice)
    }

    /// The fingerprints of all certificates with the public key of this one, itself among them; none when its key is not
    /// known.
    pub fn of_same_key(&self, fingerprint: &str) -> &[String] {
        let key = self.keys.get(fingerprint);
        key.map_or(&[], |key| self.with_key(key))
    }

    /// Whether a certificate was signed by this generation.
    pub fn is_by(&self, fingerprint: &str, id: &str) -> bool {
        self.serials
            .get(fingerprint)
            .is_some_and(|(_, ca)| ca == id || ca.is_empty() && id == super::generation::FIRST)
    }

    /// The fingerprint of the certificate with this serial number.
    pub fn fingerprint(&self, serial: &[u8]) -> Option<&str> {
        self.ours.get(serial).map(String::as_str)
    }

    /// How many lines there are, the hash of the last, and the first line that did not fit when the log was opened.
    pub fn standing(&self) -> (u64, &str, Option<u64>) {
        (self.count, &self.head, self.broken)
    }
}

/// Reads the whole log again and names the first line that does not fit.
pub(crate) fn verify(folder: &Path) -> Result<(u64, Option<u64>)> {
    let log = Log::open(folder)?;
    Ok((log.count, log.broken))
}

/// The line about the signing of a certificate.
pub(crate) fn find(folder: &Path, fingerprint: &str) -> Result<Option<Line>> {
    about(folder, fingerprint, What::Issued)
}

/// Whether there is a line about the revocation of a certificate.
pub(super) fn is_revoked(folder: &Path, fingerprint: &str) -> Result<bool> {
    about(folder, fingerprint, What::Revoked).map(|line| line.is_some())
}

fn about(folder: &Path, fingerprint: &str, what: What) -> Result<Option<Line>> {
    let text = files::read(&folder.join("issued.log"))?.unwrap_or_default();
    let lines = text.lines().filter(|line| line.contains(fingerprint));
    let mut lines = lines.filter_map(|line| serde_json::from_str(line.split_once(' ')?.1).ok());
    Ok(lines.find(|line: &Line| line.what == what && line.fingerprint == fingerprint))
}

fn chained(before: &str, json: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(before.as_bytes());
    hash.update(json.as_bytes());
    hex::encode(hash.finalize())
}

fn trouble(path: &Path, error: std::io::Error) -> Error {
    Error::internal(format!(
        "cannot write the issuance log {}; nothing is signed without it",
        path.display()
    ))
    .because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(n: u8) -> Line {
        Line {
            seq: 0,
            time: Timestamp::from_millis(1_800_000_000_000),
            what: What::Issued,
            fingerprint: hex::encode([n; 32]),
            serial: hex::encode([n; 16]),
            ca: String::new(),
            subject: "CN=x".into(),
            names: vec!["x".into()],
            not_after: None,
            reason: String::new(),
            key: String::new(),
        }
    }

    #[test]
    fn an_edited_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path()).unwrap();
        for n in 1..=3 {
            log.append(line(n)).unwrap();
        }
        assert_eq!(verify(dir.path()).unwrap(), (3, None));
        let path = dir.path().join("issued.log");
        let good = std::fs::read_to_string(&path).unwrap();
        for (edit, wanted) in [
            (good.replacen("CN=x", "CN=y", 1), Some(1)),
            (
                good.lines()
                    .take(1)
                    .chain(good.lines().skip(2))
                    .map(|l| format!("{l}\n"))
                    .collect(),
                Some(2),
            ),
            (
                good.replace(&hex::encode([3; 16]), &hex::encode([4; 16])),
                Some(3),
            ),
            (format!("{good}torn"), None),
        ] {
            std::fs::write(&path, edit).unwrap();
            assert_eq!(verify(dir.path()).unwrap().1, wanted);
        }
        // The torn line is gone, and the next one fits.
        let mut log = Log::open(dir.path()).unwrap();
        log.append(line(9)).unwrap();
        assert_eq!(verify(dir.path()).unwrap(), (4, None));
        assert_eq!(log.fingerprint(&[9; 16]), Some(&*hex::encode([9; 32])));
    }
}
