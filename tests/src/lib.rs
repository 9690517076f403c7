//! What the end-to-end tests stand on: an instance of DebVisor started as a user starts it, and its CLI.
//!
//! It knows the binaries only, and imports no crate of ours: what it sees is what a user sees.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "drives the real programs from outside, as a user's shell does"
)]

mod daemon;
mod instance;
mod run;
mod world;

pub use daemon::{Around, ask};
pub use instance::Instance;
pub use run::{Outcome, run, run_with_input};
pub use world::{alive, netns_exists, pids_of, until};
