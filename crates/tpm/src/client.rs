//! The commands that we need (Part 3). What is loaded is unloaded again, so that a TPM without a resource manager never
//! runs full.

use crate::attest::{Registers, fixed};
use crate::credential::Challenge;
use crate::device::Device;
use crate::public::Template;
use crate::wire::{Reader, Writer, alg};
use crate::{Error, Result};
use std::path::Path;
use std::time::Duration;

/// Command codes.
mod code {
    pub const CREATE_PRIMARY: u32 = 0x131;
    pub const ACTIVATE_CREDENTIAL: u32 = 0x147;
    pub const CERTIFY: u32 = 0x148;
    pub const NV_READ: u32 = 0x14e;
    pub const POLICY_SECRET: u32 = 0x151;
    pub const CREATE: u32 = 0x153;
    pub const LOAD: u32 = 0x157;
    pub const QUOTE: u32 = 0x158;
    pub const SIGN: u32 = 0x15d;
    pub const FLUSH: u32 = 0x165;
    pub const NV_READ_PUBLIC: u32 = 0x169;
    pub const START_SESSION: u32 = 0x176;
    pub const PCR_READ: u32 = 0x17e;
}

/// Handles that are always there.
mod handle {
    pub const OWNER: u32 = 0x4000_0001;
    pub const NULL: u32 = 0x4000_0007;
    pub const PASSWORD: u32 = 0x4000_0009;
    pub const ENDORSEMENT: u32 = 0x4000_000b;
}

/// Where the TCG has certificates of endorsement keys kept (EK Credential Profile, 2.2.1.4), and for which keys.
const CERTIFICATES: [(u32, Template); 3] = [
    (0x01c0_0002, Template::Rsa2048),
    (0x01c0_000a, Template::P256),
    (0x01c0_0016, Template::P384),
];
/// From where on the certificates that lead to the maker are kept (2.2.1.5.2), and how many of them are read at most.
const CHAIN: u32 = 0x01c0_0100;
const CHAIN_PARTS: u32 = 16;
/// There is nothing at a handle.
const NO_HANDLE: u32 = 0x18b;
/// What one reading of the memory that keeps asks for: each TPM can do that.
const PIECE: u16 = 512;
/// The TPM is busy; ask again (`TPM_RC_RETRY`, `TPM_RC_YIELDED`, `TPM_RC_TESTING`).
const BUSY: [u32; 3] = [0x922, 0x908, 0x90a];
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// A TPM of this machine.
pub struct Tpm(Device);

/// A key, or something sealed, as it can be kept outside: only the TPM that made it can use it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The public area (`TPMT_PUBLIC`).
    pub public: Vec<u8>,
    /// The rest, encrypted by the TPM.
    pub private: Vec<u8>,
}

/// A certificate that the maker of a TPM has put into it.
#[derive(Clone)]
pub struct Endorsement {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    key: Template,
}

/// Two fresh keys that wait for a challenge.
pub struct Ask {
    /// Vouches for the other one. Only good for one challenge.
    pub voucher: Blob,
    /// What shall stand for this machine.
    pub key: Blob,
}

/// The answer to a challenge.
pub struct Answered {
    /// The secret that was in it, which is the nonce of the rest.
    pub secret: Vec<u8>,
    /// A quote over the registers, and its signature.
    pub quote: (Vec<u8>, Vec<u8>),
    /// That the key is in this TPM, and its signature.
    pub certified: (Vec<u8>, Vec<u8>),
    /// What the registers hold.
    pub registers: Registers,
}

/// How a handle is used.
#[derive(Clone, Copy)]
enum By {
    /// With an empty password.
    Password,
    /// By what a session has proven.
    Session(u32),
}

impl Tpm {
    /// Opens one: [`Device::STANDARD`] as a rule.
    ///
    /// # Errors
    /// When there is none, or it may not be opened.
    pub fn open(path: &Path) -> Result<Tpm> {
        Device::open(path).map(Tpm)
    }

    /// The certificates that its maker has put into it; none when he has not.
    pub fn endorsements(&mut self) -> Result<Vec<Endorsement>> {
        let mut found = Vec::new();
        for (index, key) in CERTIFICATES {
            let certificate = self.kept(index)?;
            found.extend(certificate.map(|certificate| Endorsement {
                certificate: first_element(&certificate),
                key,
            }));
        }
        Ok(found)
    }

    /// The certificates that lead from those to the maker, one after the other, DER; empty when it keeps none.
    pub fn chain(&mut self) -> Result<Vec<u8>> {
        let mut all = Vec::new();
        for part in 0..CHAIN_PARTS {
            match self.kept(CHAIN + part)? {
                Some(part) => all.extend(part),
                None => break,
            }
        }
        Ok(all)
    }

    /// Makes what a challenge is asked for with. A key from before is used again when it is given.
    pub fn ask(&mut self, key: Option<Blob>) -> Result<Ask> {
        self.below_storage(|tpm, storage| {
            let key = match key {
                Some(key) => key,
                None => tpm.make(storage, Template::Standing)?,
            };
            let voucher = tpm.make(storage, Template::Voucher)?;
            Ok(Ask { voucher, key })
        })
    }

    /// Answers a challenge for what was asked: the secret in it is the nonce of all that is said.
    pub fn answer(
        &mut self,
        asked: &Ask,
        by: &Endorsement,
        challenge: &Challenge,
        registers: &[u8],
    ) -> Result<Answered> {
        self.below_storage(|tpm, storage| {
            let voucher = tpm.load(storage, &asked.voucher)?;
            tpm.within(voucher, |tpm| {
                let nonce = tpm.activate(voucher, by, challenge)?;
                let chosen = select(registers);
                let quote = tpm.command(
                    "make a quote",
                    code::QUOTE,
                    &[voucher],
                    &[By::Password],
                    &Writer::default()
                        .sized(&nonce)
                        .u16(alg::NULL)
                        .bytes(&chosen)
                        .0,
                )?;
                let key = tpm.load(storage, &asked.key)?;
                let certified = tpm.within(key, |tpm| {
                    tpm.command(
                        "vouch for a key",
                        code::CERTIFY,
                        &[key, voucher],
                        &[By::Password; 2],
                        &Writer::default().sized(&nonce).u16(alg::NULL).0,
                    )
                })?;
                Ok(Answered {
                    secret: nonce,
                    quote: statement(&quote)?,
                    certified: statement(&certified)?,
                    registers: tpm.registers(registers)?,
                })
            })
        })
    }

    /// Signs a SHA-256 digest with a key that stands for this machine: the two numbers of ECDSA, 32 bytes each.
    pub fn sign(&mut self, key: &Blob, digest: &[u8; 32]) -> Result<[u8; 64]> {
        self.below_storage(|tpm, storage| {
            let key = tpm.load(storage, key)?;
            tpm.within(key, |tpm| {
                // No ticket: what is signed was not made by the TPM.
                let params = Writer::default()
                    .sized(digest)
                    .u16(alg::NULL)
                    .u16(0x8024)
                    .u32(handle::NULL)
                    .sized(&[]);
                let signed = tpm.command("sign", code::SIGN, &[key], &[By::Password], &params.0)?;
                fixed(&signed)
            })
        })
    }

    /// What these registers hold.
    pub fn registers(&mut self, which: &[u8]) -> Result<Registers> {
        let mut found = Registers::new();
        // It tells at most eight at a time.
        for some in which.chunks(8) {
            let answer = self.command("read registers", code::PCR_READ, &[], &[], &select(some))?;
            let mut reader = Reader(&answer);
            reader.u32()?;
            reader.bytes(select(some).len())?;
            let mut sorted = some.to_vec();
            sorted.sort_unstable();
            if reader.u32()? as usize != sorted.len() {
                return Err(Error::Wrong("the TPM has no SHA-256 registers"));
            }
            for register in sorted {
                let value = reader.sized()?.try_into();
                let value = value.map_err(|_| Error::Wrong("a register is not 32 bytes long"))?;
                found.insert(register, value);
            }
        }
        Ok(found)
    }

    /// The secret of a challenge.
    fn activate(
        &mut self,
        voucher: u32,
        by: &Endorsement,
        challenge: &Challenge,
    ) -> Result<Vec<u8>> {
        let endorser = self.primary(handle::ENDORSEMENT, by.key)?;
        self.within(endorser, |tpm| {
            let params = Writer::default()
                .sized(&challenge.credential)
                .sized(&challenge.seed)
                .0;
            let activate = |tpm: &mut Tpm, how| {
                let handles = [voucher, endorser];
                let how = [By::Password, how];
                tpm.command(
                    "answer the challenge",
                    code::ACTIVATE_CREDENTIAL,
                    &handles,
                    &how,
                    &params,
                )
            };
            let answer = match by.key {
                // The newer templates let the password do.
                Template::P384 => activate(tpm, By::Password)?,
                _ => {
                    let session = tpm.session()?;
                    tpm.within(session, |tpm| {
                        tpm.vouch_for_endorsement(session)?;
                        activate(tpm, By::Session(session))
                    })?
                }
            };
            Ok(Reader(&answer).sized()?.to_vec())
        })
    }

    /// A session in which something is proven.
    fn session(&mut self) -> Result<u32> {
        const POLICY: u8 = 1;
        let params = Writer::default()
            .sized(&[0; 16])
            .sized(&[])
            .u8(POLICY)
            .u16(alg::NULL)
            .u16(alg::SHA256);
        let nobody = [handle::NULL; 2];
        let answer = self.raw(
            "begin a session",
            code::START_SESSION,
            &nobody,
            &[],
            &params.0,
        )?;
        Reader(&answer).u32()
    }

    /// Proves in a session that we know the password of the endorsement hierarchy, which is empty.
    fn vouch_for_endorsement(&mut self, session: u32) -> Result<()> {
        let params = Writer::default().sized(&[]).sized(&[]).sized(&[]).u32(0);
        let handles = [handle::ENDORSEMENT, session];
        self.command(
            "use its endorsement hierarchy",
            code::POLICY_SECRET,
            &handles,
            &[By::Password],
            &params.0,
        )
        .map(drop)
    }

    /// The content of a place in the memory that keeps; `None` when there is no such place.
    fn kept(&mut self, index: u32) -> Result<Option<Vec<u8>>> {
        let public = self.command(
            "say what it keeps",
            code::NV_READ_PUBLIC,
            &[index],
            &[],
            &[],
        );
        let public = match public {
            Err(Error::Refused { code, .. }) if code & 0xfff == NO_HANDLE => return Ok(None),
            other => other?,
        };
        let public = Reader(&public).sized()?;
        let mut reader = Reader(public);
        reader.bytes(4 + 2 + 4)?;
        reader.sized()?;
        let size = reader.u16()?;
        let mut content = Vec::new();
        while content.len() < usize::from(size) {
            let offset = content.len() as u16;
            let params = Writer::default().u16(PIECE.min(size - offset)).u16(offset);
            let doing = "show a certificate that it keeps";
            let handles = [index; 2];
            let read = self.command(doing, code::NV_READ, &handles, &[By::Password], &params.0);
            let read = match read {
                Ok(read) => read,
                // Made room for, never written.
                Err(Error::Refused { code: 0x14a, .. }) => return Ok(None),
                Err(other) => return Err(other),
            };
            let piece = Reader(&read).sized()?;
            if piece.is_empty() {
                return Err(Error::Wrong("the TPM keeps less than it says"));
            }
            content.extend(piece);
        }
        Ok(Some(content))
    }

    /// Does something below the storage key, which is the same each time.
    fn below_storage<T>(&mut self, work: impl FnOnce(&mut Tpm, u32) -> Result<T>) -> Result<T> {
        let storage = self.primary(handle::OWNER, Template::Storage)?;
        self.within(storage, |tpm| work(tpm, storage))
    }

    fn primary(&mut self, hierarchy: u32, template: Template) -> Result<u32> {
        let params = creation(template);
        let answer = self.raw(
            "make a key of its own; has somebody set a password for the hierarchy?",
            code::CREATE_PRIMARY,
            &[hierarchy],
            &[By::Password],
            &params,
        )?;
        Reader(&answer).u32()
    }

    fn make(&mut self, parent: u32, template: Template) -> Result<Blob> {
        let params = creation(template);
        let doing = "make a key";
        let answer = self.command(doing, code::CREATE, &[parent], &[By::Password], &params)?;
        let mut reader = Reader(&answer);
        let (private, public) = (reader.sized()?.to_vec(), reader.sized()?.to_vec());
        Ok(Blob { public, private })
    }

    fn load(&mut self, parent: u32, blob: &Blob) -> Result<u32> {
        let params = Writer::default().sized(&blob.private).sized(&blob.public);
        let doing = "load a key; it takes only those that it has made itself";
        let answer = self.raw(doing, code::LOAD, &[parent], &[By::Password], &params.0)?;
        Reader(&answer).u32()
    }

    /// Does something, and unloads a handle whatever came of it.
    fn within<T>(&mut self, handle: u32, work: impl FnOnce(&mut Tpm) -> Result<T>) -> Result<T> {
        let done = work(self);
        let params = Writer::default().u32(handle);
        let flushed = self.raw("unload a key", code::FLUSH, &[], &[], &params.0);
        match flushed {
            // A session that has done its work is gone already.
            Err(Error::Device { .. }) => flushed.and(done),
            _ => done,
        }
    }

    /// A command that answers with no handle: its parameters.
    fn command(
        &mut self,
        doing: &'static str,
        code: u32,
        handles: &[u32],
        how: &[By],
        params: &[u8],
    ) -> Result<Vec<u8>> {
        let answer = self.raw(doing, code, handles, how, params)?;
        match how {
            [] => Ok(answer),
            _ => {
                let mut reader = Reader(&answer);
                let size = reader.u32()?;
                Ok(reader.bytes(size as usize)?.to_vec())
            }
        }
    }

    /// A command: all that comes after the code of the answer.
    fn raw(
        &mut self,
        doing: &'static str,
        code: u32,
        handles: &[u32],
        how: &[By],
        params: &[u8],
    ) -> Result<Vec<u8>> {
        const PLAIN: u16 = 0x8001;
        const WITH_SESSIONS: u16 = 0x8002;
        let mut body = Writer::default().u32(code);
        for handle in handles {
            body = body.u32(*handle);
        }
        if !how.is_empty() {
            let mut area = Writer::default();
            for by in how {
                let (handle, attributes) = match by {
                    By::Password => (handle::PASSWORD, 0),
                    By::Session(session) => (*session, 0),
                };
                area = area.u32(handle).sized(&[]).u8(attributes).sized(&[]);
            }
            body = body.u32(area.0.len() as u32).bytes(&area.0);
        }
        let body = body.bytes(params).0;
        let tag = if how.is_empty() { PLAIN } else { WITH_SESSIONS };
        let command = Writer::default()
            .u16(tag)
            .u32(body.len() as u32 + 6)
            .bytes(&body)
            .0;
        let mut tries = 0;
        loop {
            let answer = self.0.exchange(&command)?;
            let mut reader = Reader(&answer);
            reader.bytes(6)?;
            match reader.u32()? {
                0 => return Ok(reader.0.to_vec()),
                code if BUSY.contains(&code) && tries < TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                code => return Err(Error::Refused { doing, code }),
            }
        }
    }
}

/// The parameters that a key is made with: no password, no secret of ours, nothing of the registers.
fn creation(template: Template) -> Vec<u8> {
    Writer::default()
        .sized(&[0; 4])
        .sized(&template.area())
        .sized(&[])
        .u32(0)
        .0
}

/// A selection of SHA-256 registers (`TPML_PCR_SELECTION`).
fn select(registers: &[u8]) -> Vec<u8> {
    let mut bits = [0u8; 3];
    for register in registers {
        if let Some(byte) = bits.get_mut(usize::from(register / 8)) {
            *byte |= 1 << (register % 8);
        }
    }
    Writer::default()
        .u32(1)
        .u16(alg::SHA256)
        .u8(3)
        .bytes(&bits)
        .0
}

/// A statement and its signature.
fn statement(answer: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut reader = Reader(answer);
    Ok((reader.sized()?.to_vec(), reader.0.to_vec()))
}

/// The first DER element of what is kept: some makers fill the rest of the place up.
fn first_element(kept: &[u8]) -> Vec<u8> {
    let length = match kept {
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
        [0x30, 0x81, short, ..] => 3 + usize::from(*short),
        _ => kept.len(),
    };
    kept[..length.min(kept.len())].to_vec()
}
