//! Talks to a TPM 2.0, and checks what one has said: keys that cannot leave it, quotes over its registers, and
//! challenges that only it can answer.
//!
//! Two halves. [`Tpm`] sends commands to a device of this machine and is used by whoever wants to prove something.
//! [`attest`], [`public`] and [`credential`] need no TPM: whoever wants a proof makes challenges and checks answers with
//! them. Every byte that they read was written by somebody else; nothing there trusts a length.
//!
//! Part and section numbers are those of the TCG's *TPM 2.0 Library*, revision 1.59.

pub mod attest;
mod client;
pub mod credential;
mod device;
pub mod public;
mod wire;

#[cfg(test)]
mod software;
#[cfg(test)]
mod tests;

pub use client::{Answered, Ask, Blob, Endorsement, Tpm};
pub use device::Device;

/// Registers that a quote may be about: 0 to 23.
pub const REGISTERS: u8 = 24;

/// What goes wrong with a TPM, or with what one is said to have said.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device cannot be opened, read or written.
    #[error("the TPM at {device} cannot be used: {why}")]
    Device {
        /// Its path.
        device: String,
        /// What the kernel says.
        why: String,
    },
    /// The TPM refuses a command.
    #[error("the TPM refuses to {doing}: code {code:#05x}")]
    Refused {
        /// What it was asked for.
        doing: &'static str,
        /// Its answer (Part 2, 6.6).
        code: u32,
    },
    /// Bytes are not what they should be.
    #[error("{0}")]
    Wrong(&'static str),
}

/// What comes back.
pub type Result<T> = std::result::Result<T, Error>;
