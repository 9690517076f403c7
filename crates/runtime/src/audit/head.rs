//! Heads: what a seal says of the row before it, and what leaves the machine. Pure.

use super::format::{Hash, Link, Sort, Writer, tag};
use model::Timestamp;
use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Names a chain: sixteen random bytes, in hexadecimal.
pub type ChainId = [u8; 16];
/// An Ed25519 public key.
pub type PublicKey = [u8; 32];

/// Where a chain stood when it was sealed: one line of an anchor, as JSON. The first line of a chain has number 0 and
/// no signature: it names the key that is trusted from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Which chain.
    #[serde(with = "hex")]
    pub chain: ChainId,
    /// Number of the key that signed it.
    pub epoch: u64,
    /// Number of the last row before the seal.
    pub seq: u64,
    /// Its hash.
    #[serde(with = "hex")]
    pub hash: Hash,
    /// When.
    pub time: Timestamp,
    /// The key that will sign the next one.
    #[serde(with = "hex")]
    pub next_key: PublicKey,
    /// Ed25519 over all that; absent in the first line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub signature: String,
}

impl Head {
    /// Before the first row: the hash that the first row names as the one before it.
    pub fn genesis(chain: ChainId, first_key: PublicKey, time: Timestamp) -> Head {
        let hash = Sha256::new()
            .chain_update(b"debvisor audit chain 1\0")
            .chain_update(chain)
            .chain_update(first_key)
            .finalize();
        Head {
            chain,
            epoch: 0,
            seq: 0,
            hash: hash.into(),
            time,
            next_key: first_key,
            signature: String::new(),
        }
    }

    /// What is signed.
    fn statement(&self) -> Vec<u8> {
        let mut out = b"debvisor audit seal 1\0".to_vec();
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.hash);
        out.extend_from_slice(&self.time.millis().to_le_bytes());
        out.extend_from_slice(&self.next_key);
        out
    }

    /// Signs it.
    pub(super) fn sign(&mut self, key: &Ed25519KeyPair) {
        self.signature = hex::encode(key.sign(&self.statement()));
    }

    /// Whether this key signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let Ok(signature) = hex::decode(&self.signature) else {
            return false;
        };
        UnparsedPublicKey::new(&ED25519, key)
            .verify(&self.statement(), &signature)
            .is_ok()
    }

    /// The seal row of this head, which follows the row that it names.
    pub(super) fn row(&self) -> Writer {
        let mut w = Writer::new(Sort::Seal, self.seq + 1, &self.hash, self.time.millis());
        w.field(tag::EPOCH, &self.epoch.to_le_bytes());
        w.field(tag::NEXT_KEY, &self.next_key);
        w.field(
            tag::SIGNATURE,
            &hex::decode(&self.signature).unwrap_or_default(),
        );
        w
    }

    /// The head that a seal row stands for.
    pub(super) fn of(chain: ChainId, seal: &Link<'_>) -> Option<Head> {
        if seal.sort != Sort::Seal {
            return None;
        }
        Some(Head {
            chain,
            epoch: u64::from_le_bytes(seal.field(tag::EPOCH)?.try_into().ok()?),
            seq: seal.seq.checked_sub(1)?,
            hash: seal.prev,
            time: Timestamp::from_millis(seal.time),
            next_key: seal.field(tag::NEXT_KEY)?.try_into().ok()?,
            signature: hex::encode(seal.field(tag::SIGNATURE)?),
        })
    }

    /// As a line of an anchor.
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }

    /// From a line of an anchor. What stands before the first `{` (a time stamp of a log) is passed over.
    pub fn parse(line: &str) -> Option<Head> {
        serde_json::from_str(&line[line.find('{')?..]).ok()
    }
}
