//! Blobs: large files that are written once, found by the SHA-256 of their content or by a name.
//!
//! What is being written lies apart and is moved to its place when it is whole, checked and on disk; so a blob that
//! can be found is complete. An upload can go on where it stopped, also after a crash. Never looks into a blob.

mod upload;

pub use upload::Upload;

use crate::Clock;
use crate::clock::SystemClock;
use bytes::Bytes;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Folder of blobs found by content, of those found by name, and of what is being written.
const CONTENT: &str = "content";
const NAMED: &str = "named";
const PARTS: &str = "parts";

/// The SHA-256 of a blob.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = BlobError;

    /// From 64 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, BlobError> {
        let mut digest = [0; 32];
        match hex::decode_to_slice(text, &mut digest) {
            Ok(()) => Ok(Digest(digest)),
            Err(_) => Err(BlobError::BadName {
                name: text.chars().take(80).collect(),
                wants: "64 hexadecimal digits of a SHA-256",
            }),
        }
    }
}

/// Where a blob is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// By its content.
    Content(Digest),
    /// By a name of 1 to 128 letters, digits, `.`, `_`, `-` that does not begin with `.`.
    Named(String),
}

/// Where an upload goes when it is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goes {
    /// To be found by its content.
    ByContent,
    /// To be found by this name; what has that name now is replaced at once.
    ByName(String),
}

/// A whole blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The file. Only to be read.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Why the blob folder did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A file could not be read or written.
    #[error("{doing} {}: {source}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The name cannot be that of a blob or upload.
    #[error("`{name}` cannot be used as a name here; it takes {wants}")]
    BadName {
        /// The name.
        name: String,
        /// What is possible.
        wants: &'static str,
    },
    /// The upload goes on somewhere else.
    #[error("upload `{upload}` has {has} bytes; the next part must begin there, not at {given}")]
    WrongOffset {
        /// Which upload.
        upload: String,
        /// How much there is: where to go on.
        has: u64,
        /// Where the part was said to begin.
        given: u64,
    },
    /// The content is not what was promised; it was thrown away.
    #[error(
        "upload `{upload}` has SHA-256 {found}, not {expected}; it was thrown away, upload it again"
    )]
    WrongDigest {
        /// Which upload.
        upload: String,
        /// What was promised.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// The upload is larger than is allowed.
    #[error("upload `{upload}` is larger than the {most} bytes that are allowed")]
    TooLarge {
        /// Which upload.
        upload: String,
        /// The limit.
        most: u64,
    },
    /// Somebody else is writing this upload.
    #[error("upload `{0}` is being written by another request; wait for it to end")]
    Busy(String),
    /// The blob does not exist.
    #[error("there is no blob {0:?}")]
    NotFound(Place),
    /// The thread that worked on the files ended.
    #[error("the thread that worked on blobs ended: {0}")]
    Thread(String),
}

impl BlobError {
    fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        BlobError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }
}

/// A folder of blobs. Clones are the same folder; only one process may have it.
#[derive(Clone)]
pub struct Blobs(Arc<Folder>);

struct Folder {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    /// Uploads that somebody writes now.
    writing: Mutex<HashSet<String>>,
    /// How long uploads were when this process left them. Locked after `writing`.
    left: Mutex<HashMap<String, u64>>,
}

impl Blobs {
    /// Opens a folder of blobs, making it when it is not there. Blocks.
    pub fn open(dir: impl AsRef<Path>) -> Result<Blobs, BlobError> {
        Self::open_with(dir, Arc::new(SystemClock))
    }

    /// As [`Blobs::open`], with the clock that tells the age of leftovers.
    pub fn open_with(dir: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Blobs, BlobError> {
        let dir = dir.as_ref();
        for part in [CONTENT, NAMED, PARTS] {
            make_dir(&dir.join(part))?;
        }
        let folder = Folder {
            dir: dir.to_owned(),
            clock,
            writing: Mutex::default(),
            left: Mutex::default(),
        };
        Ok(Blobs(Arc::new(folder)))
    }

    /// Begins an upload of at most `most` bytes, or goes on with it: [`Upload::offset`] says from where.
    pub async fn upload(&self, id: &str, most: u64) -> Result<Upload, BlobError> {
        let id = id.to_owned();
        self.blocking(move |folder| Upload::begin(folder, id, most))
            .await
    }

    /// Stores bytes as a blob in one go.
    pub async fn put(&self, goes: Goes, bytes: Bytes) -> Result<Blob, BlobError> {
        self.blocking(move |folder| {
            let digest = Digest::of(&bytes);
            let target = folder.target(&goes, &digest)?;
            // A name of its own: two puts of the same blob do not meet.
            let part = folder
                .dir
                .join(PARTS)
                .join(format!("{:032x}.put", rand::random::<u128>()));
            let write = || {
                let mut file = File::create_new(&part)?;
                file.write_all(&bytes)?;
                file.sync_all()
            };
            let placed = write()
                .map_err(|e| BlobError::io("writing", &part, e))
                .and_then(|()| place(&part, &target));
            if placed.is_err() {
                let _ = fs::remove_file(&part);
            }
            placed
        })
        .await
    }

    /// The blob of a place, if there is one.
    pub async fn find(&self, place: Place) -> Result<Option<Blob>, BlobError> {
        self.blocking(move |folder| folder.find(&place)).await
    }

    /// Up to `len` bytes of a blob from `offset` on; less at its end.
    pub async fn read(&self, place: Place, offset: u64, len: usize) -> Result<Bytes, BlobError> {
        self.blocking(move |folder| {
            let blob = folder.find(&place)?.ok_or(BlobError::NotFound(place))?;
            let failed = |e| BlobError::io("reading", &blob.path, e);
            let file = File::open(&blob.path).map_err(failed)?;
            let here = usize::try_from(blob.bytes.saturating_sub(offset))
                .unwrap_or(usize::MAX)
                .min(len);
            let mut bytes = vec![0; here];
            file.read_exact_at(&mut bytes, offset).map_err(failed)?;
            Ok(bytes.into())
        })
        .await
    }

    /// Whether the bytes of a content blob still have its digest.
    pub async fn verify(&self, digest: Digest) -> Result<bool, BlobError> {
        self.blocking(move |folder| {
            let place = Place::Content(digest);
            let blob = folder.find(&place)?.ok_or(BlobError::NotFound(place))?;
            Ok(hash_file(&blob.path)? == digest)
        })
        .await
    }

    /// Removes a blob. Whether there was one.
    pub async fn remove(&self, place: Place) -> Result<bool, BlobError> {
        self.blocking(move |folder| remove(&folder.path(&place)?))
            .await
    }

    /// The names of all named blobs, in order.
    pub async fn names(&self) -> Result<Vec<String>, BlobError> {
        self.blocking(|folder| {
            let mut names: Vec<_> = files(&folder.dir.join(NAMED))?
                .into_iter()
                .map(|(name, _)| name)
                .collect();
            names.sort();
            Ok(names)
        })
        .await
    }

    /// Removes uploads that nobody has written to for `age`, and what crashes left. Answers what was removed.
    pub async fn clean(&self, age: Duration) -> Result<Vec<String>, BlobError> {
        self.blocking(move |folder| folder.clean(age)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Folder>) -> Result<T, BlobError> + Send + 'static,
    ) -> Result<T, BlobError> {
        let folder = self.0.clone();
        let done = tokio::task::spawn_blocking(move || work(&folder)).await;
        done.map_err(|e| BlobError::Thread(e.to_string()))?
    }
}

impl Folder {
    fn path(&self, place: &Place) -> Result<PathBuf, BlobError> {
        match place {
            Place::Content(digest) => {
                let hex = digest.to_string();
                Ok(self.dir.join(CONTENT).join(&hex[..2]).join(hex))
            }
            Place::Named(name) => {
                check_name(name)?;
                Ok(self.dir.join(NAMED).join(name))
            }
        }
    }

    /// Where a whole blob goes; its folder is there.
    fn target(&self, goes: &Goes, digest: &Digest) -> Result<PathBuf, BlobError> {
        match goes {
            Goes::ByName(name) => self.path(&Place::Named(name.clone())),
            Goes::ByContent => {
                let path = self.path(&Place::Content(*digest))?;
                if let Some(folder) = path.parent() {
                    make_dir(folder)?;
                }
                Ok(path)
            }
        }
    }

    fn find(&self, place: &Place) -> Result<Option<Blob>, BlobError> {
        let path = self.path(place)?;
        match fs::metadata(&path) {
            Ok(meta) => Ok(Some(Blob {
                path,
                bytes: meta.len(),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(BlobError::io("looking for", &path, error)),
        }
    }

    fn clean(&self, age: Duration) -> Result<Vec<String>, BlobError> {
        let now = self.clock.wall();
        let mut removed = Vec::new();
        for (name, path) in files(&self.dir.join(PARTS))? {
            let written = fs::metadata(&path)
                .and_then(|m| m.modified())
                .map(|t| t.duration_since(UNIX_EPOCH));
            let Ok(Ok(written)) = written else { continue };
            let upload = name.split_once('.').map_or(name.as_str(), |(id, _)| id);
            // A clock that went back makes leftovers young, which is the safe side.
            if now.saturating_sub(written) >= age && !self.writing.lock().contains(upload) {
                remove(&path)?;
                self.left.lock().remove(upload);
                removed.push(name);
            }
        }
        removed.sort();
        Ok(removed)
    }
}

fn check_name(name: &str) -> Result<(), BlobError> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if (1..=128).contains(&name.len()) && name.bytes().all(fine) && !name.starts_with('.') {
        return Ok(());
    }
    Err(BlobError::BadName {
        name: name.chars().take(80).collect(),
        wants: "1 to 128 letters, digits, `.`, `_`, `-`, not beginning with `.`",
    })
}

/// Moves a whole, synced file to its place, durable.
fn place(part: &Path, target: &Path) -> Result<Blob, BlobError> {
    let move_it = || {
        fs::rename(part, target)?;
        for folder in [target.parent(), part.parent()].into_iter().flatten() {
            File::open(folder)?.sync_all()?;
        }
        fs::metadata(target)
    };
    let meta = move_it().map_err(|e| BlobError::io("moving a blob to", target, e))?;
    Ok(Blob {
        path: target.to_owned(),
        bytes: meta.len(),
    })
}

fn make_dir(dir: &Path) -> Result<(), BlobError> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir);
    made.map_err(|e| BlobError::io("making the folder", dir, e))
}

fn remove(path: &Path) -> Result<bool, BlobError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(BlobError::io("removing", path, error)),
    }
}

fn files(dir: &Path) -> Result<Vec<(String, PathBuf)>, BlobError> {
    let failed = |e| BlobError::io("listing", dir, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        files.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    Ok(files)
}

fn hash_file(path: &Path) -> Result<Digest, BlobError> {
    let failed = |e| BlobError::io("reading", path, e);
    let mut file = File::open(path).map_err(failed)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 => return Ok(Digest(hash.finalize().into())),
            n => hash.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests;
