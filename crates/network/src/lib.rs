//! Networks of guests: kinds `network` and `address`, and the taps that connect a guest's NIC to them.
//!
//! A node has one [`Fabric`]: the namespace, bridges, rules and dnsmasq processes that the controllers here bring to what the objects want.
//! Addresses are allocated at admission, as unique keys in the transaction of the VM that needs them ([`allocate()`]); when its NIC
//! is plugged in ([`plug()`]), an `address` object says so to everybody else: the guard of the NIC, DHCP and DNS.
//!
//! **Invariant:** this crate knows no VM. It sees names, MACs and taps.

pub mod address;
pub mod network;

mod allocate;
mod fabric;
mod plug;

pub use allocate::{Held, Wish, allocate};
pub use fabric::Fabric;
pub use plug::{Plug, Plugged, plug, unplug};

/// The subsystems of this crate.
pub static SUBSYSTEMS: &[&runtime::Subsystem] = &[&network::SUBSYSTEM, &address::SUBSYSTEM];

#[cfg(test)]
mod tests;
