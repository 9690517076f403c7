//! Public keys of authenticators: as they come in COSE (RFC 9053), as they are kept, and what they have signed.

use super::{Wrong, cbor};
use ciborium::Value;
use ring::signature;
use serde::{Deserialize, Serialize};

/// The algorithms that authenticators are offered, by their COSE numbers, best liked first: ECDSA with P-256, Ed25519,
/// RSA with SHA-256.
pub const OFFERED: [i64; 3] = [ES256, EDDSA, RS256];
const ES256: i64 = -7;
const EDDSA: i64 = -8;
const RS256: i64 = -257;

/// A public key, whole and of an algorithm that we know. Kept as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// A point of P-256, uncompressed: 65 bytes.
    Es256(#[serde(with = "hex::serde")] Vec<u8>),
    /// A point of Ed25519: 32 bytes.
    Eddsa(#[serde(with = "hex::serde")] Vec<u8>),
    /// Modulus and exponent, big-endian.
    Rs256(
        #[serde(with = "hex::serde")] Vec<u8>,
        #[serde(with = "hex::serde")] Vec<u8>,
    ),
}

impl Key {
    /// Reads a `COSE_Key`.
    pub fn read(map: &Value) -> Result<Key, Wrong> {
        let number = |label: i64| cbor::number(map, label).ok_or(Wrong("KEY"));
        let bytes = |label: i64| cbor::bytes(map, label).ok_or(Wrong("KEY"));
        let sized = |label: i64| {
            bytes(label).and_then(|b| {
                if b.len() == 32 {
                    Ok(b)
                } else {
                    Err(Wrong("KEY"))
                }
            })
        };
        match (number(1)?, number(3)?) {
            (2, ES256) if number(-1)? == 1 => {
                Ok(Key::Es256([&[4], sized(-2)?, sized(-3)?].concat()))
            }
            (1, EDDSA) if number(-1)? == 6 => Ok(Key::Eddsa(sized(-2)?.to_vec())),
            (3, RS256) => {
                let (n, e) = (bytes(-1)?, bytes(-2)?);
                // 2048 to 8192 bits; ring looks closer when it is used.
                match (256..=1024).contains(&n.len()) && (1..=8).contains(&e.len()) {
                    true => Ok(Key::Rs256(n.to_vec(), e.to_vec())),
                    false => Err(Wrong("KEY")),
                }
            }
            _ => Err(Wrong("ALGORITHM")),
        }
    }

    /// The COSE number of its algorithm.
    pub fn algorithm(&self) -> i64 {
        match self {
            Key::Es256(_) => ES256,
            Key::Eddsa(_) => EDDSA,
            Key::Rs256(..) => RS256,
        }
    }

    /// Whether it has signed these bytes.
    pub fn has_signed(&self, message: &[u8], signed: &[u8]) -> bool {
        let plain = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(algorithm, key).verify(message, signed)
        };
        match self {
            Key::Es256(key) => plain(&signature::ECDSA_P256_SHA256_ASN1, key),
            Key::Eddsa(key) => plain(&signature::ED25519, key),
            Key::Rs256(n, e) => signature::RsaPublicKeyComponents { n, e }.verify(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                message,
                signed,
            ),
        }
        .is_ok()
    }
}
