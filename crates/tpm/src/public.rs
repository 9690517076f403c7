//! The public half of a key inside a TPM: what it may be used for is part of its name, so that a name that was proven
//! proves that too.

use crate::wire::{Reader, Writer, alg, curve};
use crate::{Error, Result};
use ring::digest;

/// Attributes of an object (Part 2, 8.3).
pub mod attributes {
    /// It cannot be moved to another TPM.
    pub const FIXED_TPM: u32 = 1 << 1;
    /// It cannot be moved below another key.
    pub const FIXED_PARENT: u32 = 1 << 4;
    /// The TPM itself has drawn it.
    pub const ORIGIN: u32 = 1 << 5;
    /// Its password is enough for using it.
    pub const WITH_PASSWORD: u32 = 1 << 6;
    /// Its password is for administering it no longer: that takes its policy.
    pub const ADMIN_BY_POLICY: u32 = 1 << 7;
    /// Wrong passwords for it lock nothing.
    pub const NO_LOCKOUT: u32 = 1 << 10;
    /// It acts on what the TPM itself has made only.
    pub const RESTRICTED: u32 = 1 << 16;
    /// It decrypts.
    pub const DECRYPT: u32 = 1 << 17;
    /// It signs.
    pub const SIGN: u32 = 1 << 18;
    /// It was made inside and stays there.
    pub const STAYS: u32 = FIXED_TPM | FIXED_PARENT | ORIGIN;
}
use attributes::{NO_LOCKOUT, RESTRICTED, SIGN, STAYS, WITH_PASSWORD};

/// The longest public area that is read.
const LONGEST: usize = 1024;

/// A key for ECDSA over P-256 with SHA-256: the only sort that is taken as a proof, because every TPM 2.0 has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    area: Vec<u8>,
    attributes: u32,
    point: [u8; 65],
}

impl Signer {
    /// Reads a public area (`TPMT_PUBLIC`).
    ///
    /// # Errors
    /// When it is none, or that of another sort of key.
    pub fn read(area: &[u8]) -> Result<Signer> {
        const OTHER: Error = Error::Wrong(
            "the key is not one for ECDSA over P-256 with SHA-256, and no other is taken",
        );
        if area.len() > LONGEST {
            return Err(Error::Wrong("the public area of a key is too long"));
        }
        let mut reader = Reader(area);
        if reader.u16()? != alg::ECC || reader.u16()? != alg::SHA256 {
            return Err(OTHER);
        }
        let attributes = reader.u32()?;
        reader.sized()?;
        if reader.u16()? != alg::NULL || reader.u16()? != alg::ECDSA || reader.u16()? != alg::SHA256
        {
            return Err(OTHER);
        }
        if reader.u16()? != curve::P256 || reader.u16()? != alg::NULL {
            return Err(OTHER);
        }
        let (x, y) = (reader.sized()?, reader.sized()?);
        reader.end()?;
        let mut point = [0; 65];
        point[0] = 4;
        place(&mut point[1..33], x).ok_or(OTHER)?;
        place(&mut point[33..], y).ok_or(OTHER)?;
        Ok(Signer {
            area: area.to_vec(),
            attributes,
            point,
        })
    }

    /// Its name: what the TPM calls it by, a hash of all that is said of it here (Part 1, 16).
    pub fn name(&self) -> Vec<u8> {
        let hash = digest::digest(&digest::SHA256, &self.area);
        [&alg::SHA256.to_be_bytes(), hash.as_ref()].concat()
    }

    /// Whether it may vouch for others: it never leaves its TPM and signs only what that has made itself.
    pub fn vouches(&self) -> bool {
        let wanted = STAYS | RESTRICTED | SIGN;
        self.attributes & (wanted | attributes::DECRYPT) == wanted
    }

    /// Whether it may stand for its machine: it never leaves its TPM, and signs whatever its owner wants.
    pub fn stands(&self) -> bool {
        let wanted = STAYS | SIGN;
        self.attributes & (wanted | RESTRICTED | attributes::DECRYPT) == wanted
    }

    /// The key as a point, uncompressed: `04 x y`.
    pub fn point(&self) -> &[u8; 65] {
        &self.point
    }

    /// The key as a `SubjectPublicKeyInfo`, DER (RFC 5480).
    pub fn spki(&self) -> Vec<u8> {
        // SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING }
        const HEAD: [u8; 26] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        [&HEAD[..], &self.point].concat()
    }
}

/// Right-aligned: leading zeros may be left out.
fn place(field: &mut [u8], number: &[u8]) -> Option<()> {
    let room = field.len().checked_sub(number.len())?;
    field[room..].copy_from_slice(number);
    Some(())
}

/// What a new key is to be.
#[derive(Clone, Copy)]
pub(crate) enum Template {
    /// Vouches for others.
    Voucher,
    /// Stands for its machine.
    Standing,
    /// Wraps other keys: the storage key of the TCG's provisioning guidance.
    Storage,
    /// The endorsement key for an RSA certificate of 2048 bits (EK Credential Profile, L-1).
    Rsa2048,
    /// That for a certificate over P-256 (L-2).
    P256,
    /// That for a certificate over P-384 (H-3).
    P384,
}

/// `TPM2_PolicySecret` of the endorsement hierarchy, SHA-256.
const POLICY_A: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];
/// That or what the owner has authorised, SHA-384.
const POLICY_B: [u8; 48] = [
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
    0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
    0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
];

impl Template {
    /// As a `TPMT_PUBLIC`.
    pub(crate) fn area(self) -> Vec<u8> {
        use attributes::{ADMIN_BY_POLICY, DECRYPT};
        let key = |sort, hash, attributes, policy: &[u8]| {
            Writer::default()
                .u16(sort)
                .u16(hash)
                .u32(attributes)
                .sized(policy)
        };
        let cipher = |writer: Writer, bits| writer.u16(alg::AES).u16(bits).u16(alg::CFB);
        let signer = |more| {
            key(
                alg::ECC,
                alg::SHA256,
                STAYS | WITH_PASSWORD | NO_LOCKOUT | SIGN | more,
                &[],
            )
            .u16(alg::NULL)
            .u16(alg::ECDSA)
            .u16(alg::SHA256)
            .u16(curve::P256)
            .u16(alg::NULL)
            .sized(&[])
            .sized(&[])
        };
        let endorses = STAYS | ADMIN_BY_POLICY | RESTRICTED | DECRYPT;
        let zeros = [0; 256];
        let done = match self {
            Template::Voucher => signer(RESTRICTED),
            Template::Standing => signer(0),
            Template::Storage => {
                let attributes = STAYS | WITH_PASSWORD | NO_LOCKOUT | RESTRICTED | DECRYPT;
                cipher(key(alg::ECC, alg::SHA256, attributes, &[]), 128)
                    .u16(alg::NULL)
                    .u16(curve::P256)
                    .u16(alg::NULL)
                    .sized(&zeros[..32])
                    .sized(&zeros[..32])
            }
            Template::Rsa2048 => cipher(key(alg::RSA, alg::SHA256, endorses, &POLICY_A), 128)
                .u16(alg::NULL)
                .u16(2048)
                .u32(0)
                .sized(&zeros),
            Template::P256 => cipher(key(alg::ECC, alg::SHA256, endorses, &POLICY_A), 128)
                .u16(alg::NULL)
                .u16(curve::P256)
                .u16(alg::NULL)
                .sized(&zeros[..32])
                .sized(&zeros[..32]),
            Template::P384 => {
                let attributes = endorses | WITH_PASSWORD;
                cipher(key(alg::ECC, alg::SHA384, attributes, &POLICY_B), 256)
                    .u16(alg::NULL)
                    .u16(curve::P384)
                    .u16(alg::NULL)
                    .sized(&[])
                    .sized(&[])
            }
        };
        done.0
    }
}
