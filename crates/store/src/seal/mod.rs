//! Sealed fields: secrets as text that only this installation can read, each bound to where it stands.
//!
//! ```text
//! root key (outside the state folder) --wraps--> data keys (the key ring in the state folder) --seal--> texts
//! ```
//!
//! One data key for the cluster and one for each project, each in versions: new texts are sealed with the newest, older
//! ones still open. AES-256-GCM with a random nonce; the context (an object, its field, its version) goes into the
//! authentication, so that a sealed text copied to another place does not open there. A new root key is taken in three
//! steps, each whole or not at all, and between any two of them everything can be read: both root keys in the file, all
//! data keys wrapped anew, the old root key gone. This module never logs or prints a key or a plain text.

mod file;
mod keys;
mod old;
mod root;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use keys::{CLUSTER, KeyFile};
use parking_lot::RwLock;
pub use root::{CREDENTIAL, RootSource};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

/// What every sealed text begins with.
const MARK: &str = "sealed:2:";
/// What a text begins with that an older version sealed.
const OLD_MARK: &str = "sealed:1:";
/// The key ring in its folder.
const RING: &str = "ring";
/// The key file of older versions in that folder.
const OLD: &str = "fields";

/// Why something could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key file cannot be used. Says what to do.
    #[error("the key file {}: {reason}", path.display())]
    KeyFile {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// The data keys are wrapped with a root key that is not here.
    #[error(
        "the keys in {} are wrapped with root key {root}, and the one that is here is {found}; put the right root key back from your backup, or start this daemon again when it was just rotated", path.display()
    )]
    UnknownRoot {
        /// The key ring.
        path: PathBuf,
        /// The id of the root key that is wanted.
        root: String,
        /// The id of the one that is here.
        found: String,
    },
    /// The text does not have the form of a sealed one.
    #[error("the value for `{context}` is not a sealed one")]
    NotSealed {
        /// Where it stands.
        context: String,
    },
    /// It was sealed with a key that the key ring does not have.
    #[error(
        "the value for `{context}` was sealed with key {key}, which is not in the key ring; restore that file"
    )]
    UnknownKey {
        /// Where it stands.
        context: String,
        /// The id of the key.
        key: String,
    },
    /// It was changed, or sealed for another place.
    #[error("the value for `{context}` was changed or belongs to another object")]
    Forged {
        /// Where it stands.
        context: String,
    },
    /// The cipher refused, which it does only for texts beyond 64 GiB.
    #[error("the value for `{context}` is too large to be sealed")]
    TooLarge {
        /// Where it was to stand.
        context: String,
    },
}

/// Seals and opens. New texts are sealed with the newest key of their scope; older keys still open.
pub struct Sealer {
    source: RootSource,
    folder: PathBuf,
    ring: RwLock<Ring>,
}

struct Ring {
    /// The newest key of each scope.
    primary: BTreeMap<String, String>,
    ciphers: BTreeMap<String, Aes256Gcm>,
}

impl Sealer {
    /// Reads the key ring of a folder, making it with one new key when there is none, and the root key with it when
    /// that is a file that is missing too. Wraps anew what is wrapped with an older root key. Blocks.
    ///
    /// # Errors
    /// When a file with keys may be read by others, a key is short or known, or the root key is not the one that the
    /// ring is wrapped with.
    pub fn open(source: RootSource, folder: impl AsRef<Path>) -> Result<Sealer, SealError> {
        let folder = folder.as_ref();
        let _alone = alone(folder)?;
        if !source.exists() && !folder.join(RING).exists() {
            source.make()?;
        }
        let roots = source.read()?;
        let mut keys = match KeyFile::read(folder, &roots)? {
            Some(keys) => keys,
            None => KeyFile::new(),
        };
        if keys.behind {
            keys.write(folder, &roots)?;
        }
        Ok(Self::with(source, folder, &keys))
    }

    /// Reads the key ring that another process has made. Blocks.
    ///
    /// # Errors
    /// As [`Sealer::open`], and when there is none.
    pub fn join(source: RootSource, folder: impl AsRef<Path>) -> Result<Sealer, SealError> {
        let folder = folder.as_ref();
        let roots = source.read()?;
        match KeyFile::read(folder, &roots)? {
            Some(keys) => Ok(Self::with(source, folder, &keys)),
            None => Err(file::bad(
                &folder.join(RING),
                "is missing; the api role makes it at its first start".into(),
            )),
        }
    }

    fn with(source: RootSource, folder: &Path, keys: &KeyFile) -> Sealer {
        Sealer {
            source,
            folder: folder.to_owned(),
            ring: RwLock::new(Ring::of(keys)),
        }
    }

    /// Seals `plain` for the place `context` with the key of the cluster.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<String, SealError> {
        self.seal_in(None, context, plain)
    }

    /// Seals `plain` for the place `context` with the key of a project, which is made when it has none yet: then this
    /// writes a file, once in the life of a project.
    pub fn seal_in(
        &self,
        project: Option<&str>,
        context: &str,
        plain: &[u8],
    ) -> Result<String, SealError> {
        let scope = project.map_or(CLUSTER.to_owned(), |name| format!("project/{name}"));
        if !self.ring.read().primary.contains_key(&scope) {
            self.change(|keys| {
                // Another process may have been faster.
                if !keys.keys.iter().any(|k| k.scope == scope) {
                    keys.add(&scope);
                }
                Ok(())
            })?;
        }
        let ring = self.ring.read();
        let too_large = || SealError::TooLarge {
            context: context.to_owned(),
        };
        let id = ring.primary.get(&scope).ok_or_else(too_large)?;
        let cipher = ring.ciphers.get(id).ok_or_else(too_large)?;
        // Random 96 bits: safe for 2^32 texts a key, after which chances of a repeat are still below 2^-32.
        let nonce: [u8; 12] = rand::random();
        let bound = bind(MARK, id, context);
        let payload = Payload {
            msg: plain,
            aad: &bound,
        };
        let sealed = cipher
            .encrypt(Nonce::from_slice(&nonce), payload)
            .map_err(|_| too_large())?;
        let body = BASE64.encode([&nonce[..], &sealed].concat());
        Ok(format!("{MARK}{id}:{body}"))
    }

    /// Opens what was sealed for the place `context`. A key that another process has made meanwhile is read from disk.
    pub fn unseal(&self, context: &str, sealed: &str) -> Result<Vec<u8>, SealError> {
        match self.try_unseal(context, sealed) {
            Err(SealError::UnknownKey { .. }) => {
                let roots = self.source.read()?;
                if let Some(keys) = KeyFile::read(&self.folder, &roots)? {
                    *self.ring.write() = Ring::of(&keys);
                }
                self.try_unseal(context, sealed)
            }
            other => other,
        }
    }

    fn try_unseal(&self, context: &str, sealed: &str) -> Result<Vec<u8>, SealError> {
        let not_sealed = || SealError::NotSealed {
            context: context.to_owned(),
        };
        let (mark, key, body) = parts(sealed).ok_or_else(not_sealed)?;
        let body = BASE64.decode(body).map_err(|_| not_sealed())?;
        let (nonce, body) = body.split_first_chunk::<12>().ok_or_else(not_sealed)?;
        let ring = self.ring.read();
        let cipher = ring.ciphers.get(key).ok_or_else(|| SealError::UnknownKey {
            context: context.to_owned(),
            key: key.chars().take(32).collect(),
        })?;
        let bound = bind(mark, key, context);
        let plain = cipher.decrypt(
            Nonce::from_slice(nonce),
            Payload {
                msg: body,
                aad: &bound,
            },
        );
        plain.map_err(|_| SealError::Forged {
            context: context.to_owned(),
        })
    }

    /// Whether a text has the form of a sealed one.
    pub fn is_sealed(text: &str) -> bool {
        parts(text).is_some()
    }

    /// Whether a sealed text is of the form of older versions, whose context was the object alone.
    pub fn is_old(text: &str) -> bool {
        text.starts_with(OLD_MARK)
    }

    /// Whether a sealed text should be sealed anew, because its key is not the newest of its scope or its form is old.
    pub fn is_stale(&self, sealed: &str) -> bool {
        let ring = self.ring.read();
        parts(sealed).is_some_and(|(mark, key, _)| {
            mark != MARK || !ring.primary.values().any(|newest| newest == key)
        })
    }

    /// Adds a new data key of the cluster and of each project, which new texts are sealed with. Blocks.
    pub fn rotate(&self) -> Result<(), SealError> {
        self.change(|keys| {
            let mut scopes: Vec<_> = keys.keys.iter().map(|k| k.scope.clone()).collect();
            scopes.sort();
            scopes.dedup();
            for scope in scopes {
                keys.add(&scope);
            }
            Ok(())
        })
    }

    /// Takes a new root key: both in the file, all data keys wrapped anew, the old one gone. Cut off at any point,
    /// everything can still be read, and doing it again finishes it. Only for a root key in a file. Blocks.
    pub fn rotate_root(&self) -> Result<(), SealError> {
        if self.source.read()?.count() == 1 {
            self.source.add()?;
        }
        self.change(|_| Ok(()))?;
        self.source.drop_older()
    }

    /// Removes an old data key, once nothing sealed with it is left, also in no copy of the store. Blocks.
    pub fn retire(&self, id: &str) -> Result<(), SealError> {
        let folder = self.folder.clone();
        self.change(|keys| keys.remove(&folder, id))
    }

    /// The ids of all data keys with what they are for (`cluster`, `project/NAME`) and their version.
    pub fn keys(&self) -> Result<Vec<(String, String, u32)>, SealError> {
        let keys = KeyFile::read(&self.folder, &self.source.read()?)?;
        let keys = keys.map(|keys| keys.keys).unwrap_or_default();
        Ok(keys
            .into_iter()
            .map(|key| (key.id, key.scope, key.version))
            .collect())
    }

    /// Edits the ring on disk, alone among the processes of this node, and uses it.
    fn change(
        &self,
        edit: impl FnOnce(&mut KeyFile) -> Result<(), SealError>,
    ) -> Result<(), SealError> {
        // Held for writing from reading the file to using it: two changes never lose a key.
        let mut ring = self.ring.write();
        let _alone = alone(&self.folder)?;
        let roots = self.source.read()?;
        let mut keys = KeyFile::read(&self.folder, &roots)?.unwrap_or_else(KeyFile::new);
        edit(&mut keys)?;
        keys.write(&self.folder, &roots)?;
        *ring = Ring::of(&keys);
        Ok(())
    }
}

/// Alone among the processes that change this ring, for as long as the file is open.
fn alone(folder: &Path) -> Result<File, SealError> {
    // The folder itself: a lock file that root made would be closed to the unprivileged half of a node.
    let file =
        File::open(folder).map_err(|e| file::bad(folder, format!("cannot be opened: {e}")))?;
    file.lock()
        .map_err(|e| file::bad(folder, format!("cannot be locked: {e}")))?;
    Ok(file)
}

impl Ring {
    fn of(keys: &KeyFile) -> Ring {
        let cipher = |secret: &[u8; 32]| Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(secret));
        let mut sorted: Vec<_> = keys.keys.iter().collect();
        sorted.sort_by_key(|key| key.version);
        Ring {
            // The last one of a scope stays.
            primary: sorted
                .iter()
                .map(|k| (k.scope.clone(), k.id.clone()))
                .collect(),
            ciphers: sorted
                .iter()
                .map(|k| (k.id.clone(), cipher(&k.secret)))
                .collect(),
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// The mark, the key and the body of a sealed text.
fn parts(sealed: &str) -> Option<(&'static str, &str, &str)> {
    [MARK, OLD_MARK].into_iter().find_map(|mark| {
        let (key, body) = sealed.strip_prefix(mark)?.split_once(':')?;
        Some((mark, key, body))
    })
}

/// What is authenticated beside the text: the form, the key and the place.
fn bind(mark: &str, key: &str, context: &str) -> Vec<u8> {
    [mark, key, ":", context].concat().into_bytes()
}

#[cfg(test)]
mod tests;
