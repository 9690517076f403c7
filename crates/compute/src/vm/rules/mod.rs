//! Decides, in pure code: which specs are accepted, what is pinned in them, which changes a running guest can take, and
//! what to do next. Never reads the store, the clock or the host.

mod admit;
mod change;
mod check;
mod phase;
mod pin;
mod plan;
mod turn;

pub use admit::admit;
pub use change::{Change, Difference, difference};
pub use check::check;
pub use phase::{allowed, phase};
pub use pin::{MACHINES, pin};
pub use plan::{Crashed, Guest, Seen, Step, back_off, plan};
pub use turn::{Other, turn};

#[cfg(test)]
mod tests;
