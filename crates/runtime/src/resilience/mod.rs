//! One set of rules for every call to the world outside: each goes through a named [`Dependency`] with its retry,
//! breaker and bulkhead. How they stand is told in `/metrics` and `/health/detail`.

mod breaker;
mod dependency;
mod retry;

pub use breaker::{Breaker, BreakerState};
pub use dependency::{Dependencies, Dependency, Standing};
pub use retry::Retry;
