//! The QEMU Machine Protocol: JSON lines over a unix socket, by which a running QEMU is asked and tells.
//!
//! [`Qmp`] is one connection. Commands carry an id, so any number may be under way; each has a time limit; events go to
//! every subscriber through a bounded channel. [`Message::parse`] is pure and takes any bytes without a panic; a line is
//! at most [`MAX_LINE`] long, because the other side has run a guest and is not trusted.
//!
//! The client is our own: the crates that exist generate closed enums from one QEMU version's schema, so a newer QEMU's
//! value is a parse error, and they cannot pass descriptors. What we use is small, and is typed here by hand with room
//! for unknown values.
//!
//! It never reconnects: a connection that broke stays broken ([`QmpError::Closed`]), and its owner decides.

mod client;
mod commands;
mod error;
mod types;
mod wire;

pub use client::{Event, Qmp};
pub use error::QmpError;
pub use types::{
    BlockNode, CpuFast, HotpluggableCpu, Machine, MemoryDevice, Migration, Property, QomType,
    Status, Version,
};
pub(crate) use wire::Lines;
pub use wire::{MAX_LINE, Message, WireError};

#[cfg(test)]
mod tests;
