//! The border to Linux: processes, clocks, QEMU and its tools, netlink, nft.
//!
//! Everything that asks the machine for something goes through here, so that a reader finds every privileged act in one
//! crate and tests can put a stand-in at one place. It decides nothing: what should run is decided by the domain crates
//! in pure code, this crate carries it out and says exactly what the machine answered.
//!
//! It never reads or writes the store, never listens on TCP, and never puts a secret on a command line.

pub mod accel;
pub mod clock;
pub mod img;
pub mod net;
pub mod notice;
pub mod process;
pub mod qemu;
pub mod qga;
pub mod qmp;
