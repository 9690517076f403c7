//! What a TPM says about itself and signs: a quote over its registers, and that it holds a key.

use crate::public::Signer;
use crate::wire::{Reader, alg};
use crate::{Error, Result};
use ring::{digest, signature};
use std::collections::BTreeMap;

/// "TPM": nothing but a TPM puts it at the beginning of what a restricted key signs.
const MAGIC: u32 = 0xff54_4347;
const CERTIFY: u16 = 0x8017;
const QUOTE: u16 = 0x8018;
/// The longest statement that is read.
const LONGEST: usize = 4096;

/// Registers and their SHA-256 values.
pub type Registers = BTreeMap<u8, [u8; 32]>;

/// Checks that a quote was made just now, by the TPM of this key, over exactly these values of registers.
///
/// # Errors
/// When the signature, the nonce, the registers or their values are others.
pub fn check_quote(
    by: &Signer,
    statement: &[u8],
    signature: &[u8],
    nonce: &[u8],
    registers: &Registers,
) -> Result<()> {
    let mut reader = opened(by, statement, signature, nonce, QUOTE)?;
    let count = reader.u32()?;
    if count != 1 || reader.u16()? != alg::SHA256 {
        return Err(Error::Wrong("the quote is not over the SHA-256 registers"));
    }
    let length = reader.u8()?;
    let chosen = reader.bytes(usize::from(length))?;
    let quoted = reader.sized()?;
    reader.end()?;
    let bits = chosen.iter().enumerate().flat_map(|(byte, bits)| {
        (0..8).filter_map(move |bit| (bits >> bit & 1 == 1).then_some(byte * 8 + bit))
    });
    if !bits.eq(registers.keys().map(|register| usize::from(*register))) {
        return Err(Error::Wrong(
            "the quote is over other registers than were asked for",
        ));
    }
    let mut hash = digest::Context::new(&digest::SHA256);
    registers.values().for_each(|value| hash.update(value));
    match hash.finish().as_ref() == quoted {
        true => Ok(()),
        false => Err(Error::Wrong(
            "the quote is over other values of the registers than were sent",
        )),
    }
}

/// Checks that the TPM of `by` holds the key `about`, as it said just now.
///
/// # Errors
/// When the signature or the nonce is another, or it is about another key.
pub fn check_certified(
    by: &Signer,
    statement: &[u8],
    signature: &[u8],
    nonce: &[u8],
    about: &Signer,
) -> Result<()> {
    let mut reader = opened(by, statement, signature, nonce, CERTIFY)?;
    let name = reader.sized()?;
    reader.sized()?;
    reader.end()?;
    match name == about.name() {
        true => Ok(()),
        false => Err(Error::Wrong("the TPM vouches for another key")),
    }
}

/// The part of a statement that is of its own sort, when all before that is right.
fn opened<'a>(
    by: &Signer,
    statement: &'a [u8],
    signed: &[u8],
    nonce: &[u8],
    sort: u16,
) -> Result<Reader<'a>> {
    if !by.vouches() {
        return Err(Error::Wrong(
            "the key that vouches is not one that only its TPM can use, for its own statements",
        ));
    }
    if statement.len() > LONGEST {
        return Err(Error::Wrong("a statement of the TPM is too long"));
    }
    let key =
        signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, &by.point()[..]);
    key.verify(statement, &fixed(signed)?).map_err(|_| {
        Error::Wrong("a statement of the TPM was not signed by the key that the challenge was for")
    })?;
    let mut reader = Reader(statement);
    if reader.u32()? != MAGIC || reader.u16()? != sort {
        return Err(Error::Wrong("a statement of the TPM is of another sort"));
    }
    // Who signed it, by name: the signature has said so already.
    reader.sized()?;
    if reader.sized()? != nonce {
        return Err(Error::Wrong(
            "a statement of the TPM has another nonce: it was not made for this challenge",
        ));
    }
    // Clock, resets, restarts, whether the clock is safe; the firmware's version.
    reader.bytes(8 + 4 + 4 + 1 + 8)?;
    Ok(reader)
}

/// A `TPMT_SIGNATURE` as the two numbers, 32 bytes each.
pub(crate) fn fixed(signature: &[u8]) -> Result<[u8; 64]> {
    const OTHER: Error = Error::Wrong("a signature of the TPM is not ECDSA with SHA-256");
    let mut reader = Reader(signature);
    if reader.u16()? != alg::ECDSA || reader.u16()? != alg::SHA256 {
        return Err(OTHER);
    }
    let mut out = [0; 64];
    for half in out.chunks_mut(32) {
        let number = reader.sized()?;
        let room = half.len().checked_sub(number.len()).ok_or(OTHER)?;
        half[room..].copy_from_slice(number);
    }
    reader.end()?;
    Ok(out)
}
