//! The root key: the one key that lies outside the state folder. It wraps the data keys and seals nothing else.
//!
//! It comes as text, one key a line, each 64 hexadecimal digits: the first is the current one, those below it were the
//! current one before and still unwrap. Where from: a credential that systemd hands to the unit (which may be sealed to
//! the machine's TPM), else a file that nobody else may read.

use super::{SealError, file};
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The name of the credential that may bring the root key.
pub const CREDENTIAL: &str = "debvisor-root-key";
/// A random key of 32 bytes has about 30 different ones; with fewer than this it was not drawn at random.
const DISTINCT: usize = 16;

/// Where the root key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootSource {
    /// A file of systemd's credential folder: protected by systemd, and not ours to write.
    Credential(PathBuf),
    /// A file that only its owner may read.
    File(PathBuf),
}

impl RootSource {
    /// The credential when systemd's folder of them (`$CREDENTIALS_DIRECTORY`) has one, else the file.
    ///
    /// # Errors
    /// When the file is inside the state folder: who copies that folder would have the key too.
    pub fn find(
        credentials: Option<&Path>,
        file: &Path,
        state: &Path,
    ) -> Result<RootSource, SealError> {
        let credential = credentials.map(|folder| folder.join(CREDENTIAL));
        if let Some(path) = credential.filter(|path| path.exists()) {
            return Ok(RootSource::Credential(path));
        }
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let folder = file.parent().map(real).unwrap_or_default();
        if folder.starts_with(real(state)) {
            let reason = format!(
                "is inside the state folder {}, where a copy of that folder takes it along; name another place with `root_key` in the configuration, and move the file there",
                state.display()
            );
            return Err(file::bad(file, reason));
        }
        Ok(RootSource::File(file.to_owned()))
    }

    /// Which file it is.
    pub fn path(&self) -> &Path {
        match self {
            RootSource::Credential(path) | RootSource::File(path) => path,
        }
    }

    /// Whether there is a key.
    pub fn exists(&self) -> bool {
        self.path().symlink_metadata().is_ok()
    }

    /// Makes the file with one new key, mode 0600. Refuses when it is there.
    pub fn make(&self) -> Result<(), SealError> {
        match self {
            RootSource::Credential(path) => Err(file::bad(path, unwritable())),
            RootSource::File(path) if path.symlink_metadata().is_ok() => {
                Err(file::bad(path, "is there already".into()))
            }
            RootSource::File(path) => file::write(path, &line(&rand::random())),
        }
    }

    /// Puts a new key before those that are there. They still unwrap.
    pub fn add(&self) -> Result<(), SealError> {
        let keys = self.read()?;
        self.write(std::iter::once(&rand::random()).chain(keys.secrets()))
    }

    /// Leaves only the current key.
    pub fn drop_older(&self) -> Result<(), SealError> {
        let keys = self.read()?;
        self.write(keys.secrets().take(1))
    }

    fn write<'a>(&self, keys: impl Iterator<Item = &'a [u8; 32]>) -> Result<(), SealError> {
        match self {
            RootSource::Credential(path) => Err(file::bad(path, unwritable())),
            RootSource::File(path) => file::write(path, &keys.map(line).collect::<String>()),
        }
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// When there is none, others may read the file, or a key is short or known.
    pub(super) fn read(&self) -> Result<RootKeys, SealError> {
        let path = self.path();
        let opened = OpenOptions::new()
            .read(true)
            // Not through a link: somebody who may write the folder must not point us elsewhere. Systemd's own may be one.
            .custom_flags(match self {
                RootSource::File(_) => nix::libc::O_NOFOLLOW,
                RootSource::Credential(_) => 0,
            })
            .open(path);
        let opened = opened.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => file::bad(
                path,
                "holds the root key and is missing; put it back from your backup: without it no secret of this installation can be read".into(),
            ),
            _ => file::bad(path, format!("cannot be opened: {e}")),
        })?;
        if matches!(self, RootSource::File(_)) {
            file::check_mode(path, &opened)?;
        }
        let mut text = String::new();
        let read = opened.take(1 << 16).read_to_string(&mut text);
        read.map_err(|e| file::bad(path, format!("cannot be read: {e}")))?;
        let keys: Result<Vec<Root>, String> = text
            .lines()
            .zip(1..)
            .map(|(line, number)| {
                parse(line.trim_end()).map_err(|why| format!("line {number} {why}"))
            })
            .collect();
        let keys = keys.map_err(|why| file::bad(path, why))?;
        match keys.is_empty() {
            true => Err(file::bad(path, "has no key".into())),
            false => Ok(RootKeys(keys)),
        }
    }
}

fn unwritable() -> String {
    "is a credential, which only what made it can change: see `systemd-creds`".into()
}

fn line(key: &[u8; 32]) -> String {
    format!("{}\n", hex::encode(key))
}

fn parse(line: &str) -> Result<Root, String> {
    let mut key = [0; 32];
    hex::decode_to_slice(line, &mut key).map_err(|_| {
        format!(
            "has {} characters and is not a key of 64 hexadecimal digits; `debvisord key make` makes one",
            line.len()
        )
    })?;
    match is_weak(&key) {
        true => Err(
            "is a key that others can guess; take one drawn at random: `debvisord key make`".into(),
        ),
        false => Ok(Root::new(key)),
    }
}

/// Whether a key was typed, copied from a manual or counted up: few different bytes, all of them letters, or even steps.
fn is_weak(key: &[u8; 32]) -> bool {
    let distinct: BTreeSet<_> = key.iter().collect();
    let steps: BTreeSet<_> = key.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
    let typed = key.iter().all(|b| (0x20..0x7f).contains(b));
    distinct.len() < DISTINCT || steps.len() < DISTINCT / 2 || typed
}

/// One root key.
struct Root {
    id: String,
    secret: [u8; 32],
}

impl Root {
    fn new(secret: [u8; 32]) -> Root {
        let digest = Sha256::new()
            .chain_update(b"debvisor root key id")
            .chain_update(secret)
            .finalize();
        Root {
            id: hex::encode(&digest[..8]),
            secret,
        }
    }
}

/// The root keys, the current one first.
pub(super) struct RootKeys(Vec<Root>);

impl RootKeys {
    fn secrets(&self) -> impl Iterator<Item = &[u8; 32]> {
        self.0.iter().map(|root| &root.secret)
    }

    /// The id of the current one.
    pub(super) fn current(&self) -> &str {
        self.0.first().map(|root| &*root.id).unwrap_or_default()
    }

    /// How many there are: more than one while a new one is being taken.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether a key of this id is here.
    pub(super) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|root| root.id == id)
    }

    /// Wraps a data key with the current one, bound to what is said of it.
    pub(super) fn wrap(&self, about: &str, key: &[u8; 32]) -> Option<Vec<u8>> {
        let root = self.0.first()?;
        let nonce: [u8; 12] = rand::random();
        let bound = bind(&root.id, about);
        let payload = Payload {
            msg: key,
            aad: &bound,
        };
        let wrapped = cipher(&root.secret).encrypt(Nonce::from_slice(&nonce), payload);
        Some([&nonce[..], &wrapped.ok()?].concat())
    }

    /// Unwraps a data key; `None` when the root key is not here or the text was changed.
    pub(super) fn unwrap(&self, id: &str, about: &str, wrapped: &[u8]) -> Option<[u8; 32]> {
        let root = self.0.iter().find(|root| root.id == id)?;
        let (nonce, body) = wrapped.split_first_chunk::<12>()?;
        let bound = bind(id, about);
        let payload = Payload {
            msg: body,
            aad: &bound,
        };
        let key = cipher(&root.secret).decrypt(Nonce::from_slice(nonce), payload);
        key.ok()?.try_into().ok()
    }
}

fn bind(id: &str, about: &str) -> Vec<u8> {
    ["debvisor wrapped key 1\n", id, "\n", about]
        .concat()
        .into_bytes()
}

fn cipher(key: &[u8; 32]) -> Aes256Gcm {
    Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(key))
}
