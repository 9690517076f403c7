//! Virtual machines: what they shall be, what they are, and the QEMU processes that run them.
//!
//! **Invariants.** A restart or crash of ours never stops a guest: it is adopted. Only the agent of the node that a VM is
//! assigned to writes the VM's status. No QEMU listens on TCP, runs as root, or is handed a path of somebody else's.

pub mod assignment;
pub mod vm;

pub use vm::hypervisor::{Guests, Hypervisor};

/// The subsystems of this crate.
pub static SUBSYSTEMS: &[&runtime::Subsystem] = &[&vm::SUBSYSTEM, &assignment::SUBSYSTEM];
