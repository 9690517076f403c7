//! The forward-secure key of a chain: each key signs one seal and is erased, after it has signed which key comes next.
//! Who takes over the machine finds the key of the next seal only, and can forge nothing that was sealed before.
//!
//! The file holds that one key, wrapped, and the seal that was made last. It is replaced *before* the seal is added to the
//! trail: whatever happens in between, the old key is gone, and the seal is added at the next start.

use super::files;
use super::format::Hash;
use super::head::{ChainId, Head, PublicKey};
use crate::Seal;
use model::{Error, Result, Timestamp};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Puts a text in the place of a file.
type Replace = fn(&Path, &str) -> Result<()>;

pub(super) struct Signer {
    path: PathBuf,
    seal: Arc<dyn Seal>,
    state: State,
    /// What was to take the place of the state when writing it ended with an error: perhaps it lies there.
    doubt: Option<State>,
    replace: Replace,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    #[serde(with = "hex")]
    chain: ChainId,
    /// Number of the key.
    epoch: u64,
    /// Its seed, sealed with the data key of the cluster.
    key: String,
    /// The seal that the key before it has signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Head>,
}

fn context(chain: &ChainId, epoch: u64) -> String {
    format!("audit-epoch/{}/{epoch}", hex::encode(chain))
}

fn pair(seed: &[u8]) -> Result<Ed25519KeyPair> {
    Ed25519KeyPair::from_seed_unchecked(seed)
        .map_err(|_| Error::internal("the signing key of the audit trail is not one"))
}

fn public(pair: &Ed25519KeyPair) -> PublicKey {
    let mut out = PublicKey::default();
    // An Ed25519 public key is 32 bytes.
    out.copy_from_slice(pair.public_key().as_ref());
    out
}

impl Signer {
    /// Reads the key; `None` when there is none.
    pub fn open(path: &Path, seal: &Arc<dyn Seal>) -> Result<Option<Signer>> {
        let Some(text) = files::read(path)? else {
            return Ok(None);
        };
        let state = State::read(path, &text)?;
        let signer = Signer {
            path: path.to_owned(),
            seal: seal.clone(),
            state,
            doubt: None,
            replace: |path, text| files::replace(path, text),
        };
        signer.key()?;
        Ok(Some(signer))
    }

    /// The seal that was made last, as the file says; needs no key.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn last_of(path: &Path) -> Result<Option<Head>> {
        let Some(text) = files::read(path)? else {
            return Ok(None);
        };
        Ok(State::read(path, &text)?.last)
    }

    /// A new chain, with its first line. Nothing of it is on disk before [`Signer::keep`].
    pub fn make(
        path: &Path,
        seal: &Arc<dyn Seal>,
        now: Timestamp,
        mut random: impl FnMut(&mut [u8]),
    ) -> Result<(Signer, Head)> {
        let (mut chain, mut seed) = (ChainId::default(), [0; 32]);
        random(&mut chain);
        random(&mut seed);
        let state = State {
            chain,
            epoch: 1,
            key: seal.seal(&context(&chain, 1), &hex::encode(seed))?,
            last: None,
        };
        let head = Head::genesis(chain, public(&pair(&seed)?), now);
        seed.fill(0);
        let signer = Signer {
            path: path.to_owned(),
            seal: seal.clone(),
            state,
            doubt: None,
            replace: |path, text| files::replace(path, text),
        };
        Ok((signer, head))
    }

    /// Puts a new chain's key on disk.
    pub fn keep(&self) -> Result<()> {
        self.write(&self.state)
    }

    pub fn chain(&self) -> ChainId {
        self.state.chain
    }

    /// The seal that was made last.
    pub fn last(&self) -> Option<&Head> {
        self.state.last.as_ref()
    }

    fn key(&self) -> Result<Ed25519KeyPair> {
        let wrapped = &self.state.key;
        let text = self
            .seal
            .open(&context(&self.state.chain, self.state.epoch), wrapped)?;
        let seed = hex::decode(text)
            .map_err(|e| Error::internal("the signing key of the audit trail").because(e))?;
        pair(&seed)
    }

    /// Signs where the chain stands, and erases the key that did. The rows up to there must be on disk.
    pub fn sign(
        &mut self,
        seq: u64,
        hash: Hash,
        now: Timestamp,
        mut random: impl FnMut(&mut [u8]),
    ) -> Result<Head> {
        let key = self.key()?;
        let State { chain, epoch, .. } = self.state;
        let mut seed = [0; 32];
        random(&mut seed);
        let mut head = Head {
            chain,
            epoch,
            seq,
            hash,
            time: now,
            next_key: public(&pair(&seed)?),
            signature: String::new(),
        };
        head.sign(&key);
        let next = State {
            chain,
            epoch: epoch + 1,
            key: self
                .seal
                .seal(&context(&chain, epoch + 1), &hex::encode(seed))?,
            last: Some(head.clone()),
        };
        seed.fill(0);
        if let Err(error) = self.write(&next) {
            self.doubt = Some(next);
            return Err(error);
        }
        self.state = next;
        Ok(head)
    }

    /// After a write that failed: finds out which key there is. Answers the seal when it was made all the same, whose key
    /// is gone then: it belongs behind the last row before anything else does.
    ///
    /// # Errors
    /// When that cannot be found out, or is not certain to stay. Then nothing may be added to the trail.
    pub fn settle(&mut self) -> Result<Option<Head>> {
        let Some(next) = &self.doubt else {
            return Ok(None);
        };
        let text = files::read(&self.path)?.ok_or_else(|| {
            Error::unavailable(format!("{} is gone", self.path.display()))
                .hint("restore it from your backup of the keys folder")
        })?;
        let there = State::read(&self.path, &text)?;
        if there == self.state {
            self.doubt = None;
            return Ok(None);
        }
        if there != *next {
            return Err(Error::unavailable(format!(
                "{} was changed by somebody",
                self.path.display()
            )));
        }
        files::settle(&self.path)?;
        self.state = there;
        self.doubt = None;
        Ok(self.state.last.clone())
    }

    fn write(&self, state: &State) -> Result<()> {
        let text = serde_json::to_string(state)
            .map_err(|e| Error::internal("the signing key of the audit trail").because(e))?;
        (self.replace)(&self.path, &text)
    }
}

impl State {
    fn read(path: &Path, text: &str) -> Result<State> {
        serde_json::from_str(text).map_err(|e| {
            Error::unavailable(format!("{} is not as it was written", path.display()))
                .hint("restore it from your backup of the keys folder")
                .because(e)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bare;

    impl Seal for Bare {
        fn seal(&self, _: &str, plain: &str) -> Result<String> {
            Ok(plain.to_owned())
        }
        fn open(&self, _: &str, sealed: &str) -> Result<String> {
            Ok(sealed.to_owned())
        }
    }

    fn lost(_: &Path, _: &str) -> Result<()> {
        Err(Error::unavailable("the disk is full"))
    }

    fn late(path: &Path, text: &str) -> Result<()> {
        files::replace(path, text)?;
        Err(Error::unavailable("the folder could not be synced"))
    }

    /// Whatever a failed write has left: the next seal is by the key that the one before has named.
    #[test]
    fn a_write_that_failed_leaves_no_doubt_about_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("epoch");
        let seal: Arc<dyn Seal> = Arc::new(Bare);
        let now = Timestamp::from_millis(1_800_000_000_000);
        let mut byte = 0;
        let mut random = |bytes: &mut [u8]| {
            byte += 1;
            bytes.fill(byte);
        };
        let (mut signer, genesis) = Signer::make(&path, &seal, now, &mut random).unwrap();
        signer.keep().unwrap();
        let good = signer.replace;
        let mut key = genesis.next_key;
        let fails: [(u64, Replace, bool); 3] =
            [(1, lost, false), (2, late, true), (3, lost, false)];
        for (seq, fails, is_there) in fails {
            signer.replace = fails;
            signer.sign(seq, [0; 32], now, &mut random).unwrap_err();
            signer.replace = good;
            let made = signer.settle().unwrap();
            assert_eq!(made.is_some(), is_there, "{seq}");
            assert!(signer.settle().unwrap().is_none());
            let all = made
                .into_iter()
                .chain([signer.sign(seq, [0; 32], now, &mut random).unwrap()]);
            for head in all {
                assert!(head.is_signed_by(&key), "{seq}");
                key = head.next_key;
            }
            let kept = Signer::open(&path, &seal).unwrap().unwrap();
            assert_eq!(kept.last(), signer.last());
        }
    }
}
