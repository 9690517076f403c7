//! One set of rules for every call to the world outside: each goes through a named [`Dependency`] with its retry,
//! breaker and bulkhead. How they stand is told in `/metrics` and `/health/detail`.
//!
//! Two sorts of call have rules of their own instead: programs that try again by themselves (apt and mmdebstrap, for an image
//! recipe that is then mostly built from a cache), and what never leaves this machine (systemd, netlink, QMP).

mod breaker;
mod dependency;
mod retry;

pub use breaker::{Breaker, BreakerState};
pub use dependency::{Dependencies, Dependency, Standing};
pub use retry::Retry;
