//! One set of rules for every call to the world outside: retry, breaker.

mod breaker;
mod retry;

pub use breaker::{Breaker, BreakerState};
pub use retry::Retry;
