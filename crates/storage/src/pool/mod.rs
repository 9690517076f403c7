//! Pools: places where disks are kept.

#[cfg(test)]
mod conformance;
mod dir;
mod driver;
mod types;

pub use dir::Dir;
pub use driver::{Driver, ImageRecord, Layer, Make, Origin, Seen, Usage};
pub use types::{Content, DriverKind, KIND, Pool, PoolSpec, PoolState, PoolStatus};
