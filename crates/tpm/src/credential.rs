//! A challenge that only one TPM can answer, and only while it holds a certain key (Part 1, 24): a secret, encrypted to its
//! endorsement key together with the name of the other one. No TPM is needed for making one.

use crate::wire::Writer;
use crate::{Error, Result};
use aes_gcm::aes::cipher::{BlockEncrypt, KeyInit, generic_array::GenericArray};
use aes_gcm::aes::{Aes128, Aes256};
use num_bigint::BigUint;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{agreement, digest, hmac};

/// The public key of an endorsement certificate, of a sort for which the TCG has a template: that says what else the TPM does
/// with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endorser {
    /// RSA with 2048 bits: the modulus and the exponent, big-endian.
    Rsa2048 {
        /// The modulus, 256 bytes.
        modulus: Vec<u8>,
        /// The exponent.
        exponent: Vec<u8>,
    },
    /// A point on P-256, uncompressed.
    P256(Vec<u8>),
    /// A point on P-384, uncompressed.
    P384(Vec<u8>),
}

/// What is sent to the TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The secret, encrypted (`TPMS_ID_OBJECT`).
    pub credential: Vec<u8>,
    /// What it was encrypted with, encrypted to the endorsement key (`TPM2B_ENCRYPTED_SECRET` without its length).
    pub seed: Vec<u8>,
}

/// Encrypts a secret of at most 32 bytes for the TPM with this endorsement key, as long as the key called `name` is in it.
///
/// # Errors
/// When the endorsement key is no key, or the secret too long.
pub fn challenge(to: &Endorser, name: &[u8], secret: &[u8]) -> Result<Challenge> {
    if secret.len() > 32 {
        return Err(Error::Wrong("the secret of a challenge is too long"));
    }
    let hash = Hash::of(to);
    let (seed, sent) = match to {
        Endorser::Rsa2048 { modulus, exponent } => by_rsa(hash, modulus, exponent)?,
        Endorser::P256(point) => by_curve(hash, &agreement::ECDH_P256, point)?,
        Endorser::P384(point) => by_curve(hash, &agreement::ECDH_P384, point)?,
    };
    let key = hash.derive(&seed, b"STORAGE\0", name, &[], hash.cipher_bits());
    let mut hidden = Writer::default().sized(secret).0;
    encrypt(&key, &mut hidden);
    let check = hash.derive(&seed, b"INTEGRITY\0", &[], &[], hash.length() * 8);
    let check = hmac::Key::new(hash.hmac(), &check);
    let tag = hmac::sign(&check, &[&hidden, name].concat());
    Ok(Challenge {
        credential: Writer::default().sized(tag.as_ref()).bytes(&hidden).0,
        seed: sent,
    })
}

/// AES in CFB mode with an IV of zeros; each key is used once.
fn encrypt(key: &[u8], text: &mut [u8]) {
    let mut register = [0; 16];
    let block = |register: &mut [u8; 16]| {
        let register = GenericArray::from_mut_slice(register);
        match key.len() {
            16 => Aes128::new(GenericArray::from_slice(key)).encrypt_block(register),
            _ => Aes256::new(GenericArray::from_slice(key)).encrypt_block(register),
        }
    };
    for part in text.chunks_mut(16) {
        block(&mut register);
        for (byte, mask) in part.iter_mut().zip(&mut register) {
            *byte ^= *mask;
            *mask = *byte;
        }
    }
}

#[derive(Clone, Copy)]
enum Hash {
    Sha256,
    Sha384,
}

impl Hash {
    fn of(endorser: &Endorser) -> Hash {
        match endorser {
            Endorser::Rsa2048 { .. } | Endorser::P256(_) => Hash::Sha256,
            Endorser::P384(_) => Hash::Sha384,
        }
    }

    fn length(self) -> usize {
        match self {
            Hash::Sha256 => 32,
            Hash::Sha384 => 48,
        }
    }

    /// How long the key of the cipher is that goes with it in the templates.
    fn cipher_bits(self) -> usize {
        match self {
            Hash::Sha256 => 128,
            Hash::Sha384 => 256,
        }
    }

    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Hash::Sha256 => &digest::SHA256,
            Hash::Sha384 => &digest::SHA384,
        }
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Hash::Sha256 => hmac::HMAC_SHA256,
            Hash::Sha384 => hmac::HMAC_SHA384,
        }
    }

    /// `KDFa` (Part 1, 11.4.10.2).
    fn derive(self, key: &[u8], label: &[u8], u: &[u8], v: &[u8], bits: usize) -> Vec<u8> {
        let key = hmac::Key::new(self.hmac(), key);
        let size = (bits as u32).to_be_bytes();
        self.fill(bits, |counter| {
            hmac::sign(&key, &[counter, label, u, v, &size].concat())
                .as_ref()
                .to_vec()
        })
    }

    /// `KDFe` (Part 1, 11.4.10.3).
    fn agree(self, shared: &[u8], u: &[u8], v: &[u8]) -> Vec<u8> {
        self.fill(self.length() * 8, |counter| {
            let text = [counter, shared, b"IDENTITY\0", u, v].concat();
            digest::digest(self.digest(), &text).as_ref().to_vec()
        })
    }

    fn fill(self, bits: usize, block: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let blocks = (1u32..).flat_map(|counter| block(&counter.to_be_bytes()));
        blocks.take(bits / 8).collect()
    }

    /// The mask of OAEP (RFC 8017, B.2.1).
    fn mask(self, seed: &[u8], length: usize) -> Vec<u8> {
        let blocks = (0u32..).flat_map(|counter| {
            let text = [seed, &counter.to_be_bytes()].concat();
            digest::digest(self.digest(), &text).as_ref().to_vec()
        });
        blocks.take(length).collect()
    }
}

/// A random seed, and it in OAEP under the label `IDENTITY` (Part 1, B.10.4).
///
/// The exponent is public and the seed is used once, so that how long the power takes tells nothing that is of use later.
fn by_rsa(hash: Hash, modulus: &[u8], exponent: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    const SIZE: usize = 256;
    let (n, e) = (
        BigUint::from_bytes_be(modulus),
        BigUint::from_bytes_be(exponent),
    );
    if n.bits() != 8 * SIZE as u64 || !n.bit(0) || e.bits() > 32 || e < BigUint::from(3u8) {
        return Err(Error::Wrong(
            "the endorsement key is not an RSA key of 2048 bits",
        ));
    }
    let (mut seed, mut salt) = (vec![0; hash.length()], vec![0; hash.length()]);
    draw(&mut seed)?;
    draw(&mut salt)?;
    let mut block = digest::digest(hash.digest(), b"IDENTITY\0")
        .as_ref()
        .to_vec();
    block.resize(SIZE - 1 - hash.length() - seed.len() - 1, 0);
    block.push(1);
    block.extend(&seed);
    xor(&mut block, &hash.mask(&salt, SIZE - 1 - hash.length()));
    xor(&mut salt, &hash.mask(&block, hash.length()));
    let message = BigUint::from_bytes_be(&[&salt[..], &block].concat());
    let sent = message.modpow(&e, &n).to_bytes_be();
    let mut padded = vec![0; SIZE - sent.len()];
    padded.extend(sent);
    Ok((seed, padded))
}

/// A seed that both sides agree on, and our half of that (Part 1, C.6.4).
fn by_curve(
    hash: Hash,
    curve: &'static agreement::Algorithm,
    point: &[u8],
) -> Result<(Vec<u8>, Vec<u8>)> {
    const OTHER: Error = Error::Wrong("the endorsement key is not a point on its curve");
    let random = SystemRandom::new();
    let ours = agreement::EphemeralPrivateKey::generate(curve, &random).map_err(|_| NO_RANDOM)?;
    let public = ours.compute_public_key().map_err(|_| NO_RANDOM)?;
    let theirs = agreement::UnparsedPublicKey::new(curve, point);
    let half = hash.length();
    let x = |point: &[u8]| point.get(1..=half).map(<[u8]>::to_vec);
    let (Some(u), Some(v)) = (x(public.as_ref()), x(point)) else {
        return Err(OTHER);
    };
    let seed = agreement::agree_ephemeral(ours, &theirs, |shared| hash.agree(shared, &u, &v))
        .map_err(|_| OTHER)?;
    let (x, y) = public.as_ref()[1..].split_at(half);
    Ok((seed, Writer::default().sized(x).sized(y).0))
}

const NO_RANDOM: Error = Error::Wrong("the kernel gives no random bytes");

fn draw(into: &mut [u8]) -> Result<()> {
    SystemRandom::new().fill(into).map_err(|_| NO_RANDOM)
}

fn xor(text: &mut [u8], mask: &[u8]) {
    text.iter_mut().zip(mask).for_each(|(a, b)| *a ^= b);
}
