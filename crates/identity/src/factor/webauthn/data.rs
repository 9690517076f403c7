//! What an authenticator says about itself and what it did: `authData` (WebAuthn Level 3, 6.1).

use super::{Wrong, cbor, cose::Key};

const PRESENT: u8 = 1;
const VERIFIED: u8 = 1 << 2;
const MAY_BE_COPIED: u8 = 1 << 3;
const IS_COPIED: u8 = 1 << 4;
const HAS_KEY: u8 = 1 << 6;
const HAS_MORE: u8 = 1 << 7;
/// Longest id of a key that a browser may hand on.
const LONGEST_ID: usize = 1023;

/// It, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// SHA-256 of the name that the key is bound to.
    pub party: &'a [u8],
    flags: u8,
    /// How often it has signed, or 0 when it does not count.
    pub counter: u32,
    /// The key that it made.
    pub made: Option<Made<'a>>,
}

/// A new key.
#[derive(Debug, PartialEq, Eq)]
pub struct Made<'a> {
    /// Which make of authenticator; zeros when it does not say.
    pub make: [u8; 16],
    /// How the key is called.
    pub id: &'a [u8],
    /// The key itself.
    pub key: Key,
}

impl<'a> Data<'a> {
    /// Takes bytes apart. Nothing may be missing and nothing left over.
    pub fn read(bytes: &'a [u8]) -> Result<Data<'a>, Wrong> {
        let short = || Wrong("AUTHENTICATOR_DATA");
        let (party, rest) = bytes.split_at_checked(32).ok_or_else(short)?;
        let (flags, rest) = rest.split_first().ok_or_else(short)?;
        let (counter, mut rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        let mut made = None;
        if flags & HAS_KEY != 0 {
            let (make, after) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let (long, after) = after.split_first_chunk::<2>().ok_or_else(short)?;
            let long = usize::from(u16::from_be_bytes(*long));
            let (id, after) = after.split_at_checked(long).ok_or_else(short)?;
            if id.is_empty() || id.len() > LONGEST_ID {
                return Err(short());
            }
            let (key, after) = cbor::read(after)?;
            rest = after;
            made = Some(Made {
                make: *make,
                id,
                key: Key::read(&key)?,
            });
        }
        if flags & HAS_MORE != 0 {
            let (more, after) = cbor::read(rest)?;
            if !more.is_map() {
                return Err(short());
            }
            rest = after;
        }
        if !rest.is_empty() {
            return Err(short());
        }
        Ok(Data {
            party,
            flags: *flags,
            counter: u32::from_be_bytes(*counter),
            made,
        })
    }

    /// Whether the key may lie in several places at once.
    pub fn may_be_copied(&self) -> bool {
        self.flags & MAY_BE_COPIED != 0
    }

    /// Whether somebody was there, and was the right one by a finger or a PIN.
    pub fn check(&self) -> Result<(), Wrong> {
        match () {
            () if self.flags & PRESENT == 0 => Err(Wrong("NOBODY_PRESENT")),
            () if self.flags & VERIFIED == 0 => Err(Wrong("NOT_VERIFIED")),
            () if self.flags & IS_COPIED != 0 && !self.may_be_copied() => {
                Err(Wrong("AUTHENTICATOR_DATA"))
            }
            () => Ok(()),
        }
    }
}
