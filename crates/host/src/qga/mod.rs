//! The guest agent: a program inside the guest that answers over a virtio-serial port.
//!
//! An [`Agent`] is the host's end of that port. It answers one question at a time, so requests queue (bounded) and a
//! task of its own serves them in order. Before the first question, and after every failure, both sides are brought in step
//! by `guest-sync-delimited`: the byte 0xFF ends whatever was under way. Everything that comes from there was written by
//! the guest: it is bounded, and never trusted to be true.
//!
//! The port takes one opener at a time, so a connection that is idle for some seconds is closed again.
//! Nothing here decides what to do when no agent answers: guests without one are normal.

mod agent;
mod commands;
mod error;
mod types;

pub use agent::Agent;
pub use error::QgaError;
pub use types::{
    Address, AgentInfo, Exec, ExecOutcome, FreezeState, Interface, OsInfo, ShutdownMode,
};

#[cfg(test)]
mod tests;
