//! Starts and follows other programs.
//!
//! [`Run`] describes one program run. A short one is awaited ([`Run::output`], [`Run::lines`]): its output is bounded, its
//! whole process group dies with the future, and a failure carries the end of what it said. A long one that must outlive us
//! is started by [`Run::spawn_detached`], and known again after our own restart by its [`Identity`] (pid, start time, boot):
//! a recycled pid is never taken for it.
//!
//! Secrets never stand on a command line, where every user of the machine could read them: they go in by
//! [`Run::stdin_bytes`] or by [`Run::secret`]. Neither is ever printed; nor are the values of environment variables.
//!
//! Nothing here decides what to run, and nothing is ever run through a shell.

mod detached;
mod error;
mod identity;
mod packages;
mod run;

pub use detached::Stderr;
pub use error::{Exit, ProcessError};
pub use identity::{Identity, Process};
pub use packages::debian_package;
pub use run::{Limits, Output, Run};

#[cfg(test)]
mod tests;
