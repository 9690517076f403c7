//! The seed of cloud-init's data source NoCloud: a small read-only disk labelled `cidata` with `meta-data`, `user-data`,
//! `vendor-data` and `network-config`.
//!
//! Pure: documents in, bytes of a disk out. Secrets in it never touch a command line or a file of ours other than the
//! seed itself, which only its guest's user can read.

mod check;
mod documents;
mod iso;

pub use check::check;
pub use documents::{Facts, NicFacts, Seed, documents};
pub use iso::iso;

/// Largest seed, in bytes.
pub const MAX: usize = 10 << 20;

#[cfg(test)]
mod tests;
