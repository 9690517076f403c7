//! Sealed fields: secrets as text that only this installation can read, each bound to where it stands.
//!
//! AES-256-GCM with a random nonce. The context (for example `secret/default/db#spec.value`) goes into the
//! authentication, so that a sealed text copied to another object or field does not open there. Keys live in one
//! file that only the daemon's user may read. This module never logs or prints a key or a plain text.

mod keys;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use keys::KeyFile;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What every sealed text begins with.
const MARK: &str = "sealed:1:";

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
    /// The text does not have the form of a sealed one.
    #[error("the value for `{context}` is not a sealed one")]
    NotSealed {
        /// Where it stands.
        context: String,
    },
    /// It was sealed with a key that the key file does not have.
    #[error(
        "the value for `{context}` was sealed with key {key}, which is not in the key file; restore that file"
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

/// Seals and opens. New texts are sealed with the primary key; older keys still open.
pub struct Sealer {
    path: PathBuf,
    ring: RwLock<Ring>,
}

struct Ring {
    primary: String,
    ciphers: BTreeMap<String, Aes256Gcm>,
}

impl Sealer {
    /// Reads the keys of a file, making it with one new key (mode 0600) when it is not there. Refuses a file that
    /// others may read. Blocks.
    pub fn open(path: impl AsRef<Path>) -> Result<Sealer, SealError> {
        let path = path.as_ref();
        let keys = KeyFile::open_or_make(path)?;
        Ok(Sealer {
            path: path.to_owned(),
            ring: RwLock::new(Ring::of(&keys)),
        })
    }

    /// Seals `plain` for the place `context`.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Result<String, SealError> {
        let ring = self.ring.read();
        let too_large = || SealError::TooLarge {
            context: context.to_owned(),
        };
        let cipher = ring.ciphers.get(&ring.primary).ok_or_else(too_large)?;
        // Random 96 bits: safe for 2^32 texts a key, after which chances of a repeat are still below 2^-32.
        let nonce: [u8; 12] = rand::random();
        let bound = bind(&ring.primary, context);
        let payload = Payload {
            msg: plain,
            aad: &bound,
        };
        let sealed = cipher
            .encrypt(Nonce::from_slice(&nonce), payload)
            .map_err(|_| too_large())?;
        let body = BASE64.encode([&nonce[..], &sealed].concat());
        Ok(format!("{MARK}{}:{body}", ring.primary))
    }

    /// Opens what was sealed for the place `context`.
    pub fn unseal(&self, context: &str, sealed: &str) -> Result<Vec<u8>, SealError> {
        let not_sealed = || SealError::NotSealed {
            context: context.to_owned(),
        };
        let (key, body) = parts(sealed).ok_or_else(not_sealed)?;
        let body = BASE64.decode(body).map_err(|_| not_sealed())?;
        let (nonce, body) = body.split_first_chunk::<12>().ok_or_else(not_sealed)?;
        let ring = self.ring.read();
        let cipher = ring.ciphers.get(key).ok_or_else(|| SealError::UnknownKey {
            context: context.to_owned(),
            key: key.chars().take(32).collect(),
        })?;
        let bound = bind(key, context);
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

    /// Whether a sealed text should be sealed anew, because its key is not the primary one.
    pub fn is_stale(&self, sealed: &str) -> bool {
        parts(sealed).is_some_and(|(key, _)| key != self.ring.read().primary)
    }

    /// Adds a new key to the file and makes it the primary one. Blocks. Answers its id.
    pub fn rotate(&self) -> Result<String, SealError> {
        // Held for writing from reading the file to using it: two rotations never lose a key.
        let mut ring = self.ring.write();
        let mut keys = KeyFile::open_or_make(&self.path)?;
        keys.add_primary();
        keys.write(&self.path)?;
        *ring = Ring::of(&keys);
        Ok(ring.primary.clone())
    }

    /// Removes an old key from the file, once nothing sealed with it is left. The primary key stays. Blocks.
    pub fn retire(&self, id: &str) -> Result<(), SealError> {
        let mut ring = self.ring.write();
        let mut keys = KeyFile::open_or_make(&self.path)?;
        keys.remove(&self.path, id)?;
        keys.write(&self.path)?;
        *ring = Ring::of(&keys);
        Ok(())
    }

    /// The ids of all keys, the primary one first.
    pub fn key_ids(&self) -> Vec<String> {
        let ring = self.ring.read();
        let others = ring.ciphers.keys().filter(|id| **id != ring.primary);
        std::iter::once(&ring.primary)
            .chain(others)
            .cloned()
            .collect()
    }
}

impl Ring {
    fn of(keys: &KeyFile) -> Ring {
        let cipher = |secret: &[u8; 32]| Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(secret));
        let ciphers = keys
            .keys
            .iter()
            .map(|(id, secret)| (id.clone(), cipher(secret)))
            .collect();
        Ring {
            primary: keys.primary.clone(),
            ciphers,
        }
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

fn parts(sealed: &str) -> Option<(&str, &str)> {
    sealed.strip_prefix(MARK)?.split_once(':')
}

/// What is authenticated beside the text: the form, the key and the place.
fn bind(key: &str, context: &str) -> Vec<u8> {
    [MARK, key, ":", context].concat().into_bytes()
}

#[cfg(test)]
mod tests;
