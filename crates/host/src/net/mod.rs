//! The border to Linux networking: namespaces, links, taps, nft, dnsmasq.
//!
//! Everything here acts inside one [`Netns`]: the root namespace on a production node, a namespace of its own for each
//! development instance. Rulesets and configurations are built by pure functions and applied by dull ones.
//!
//! **Never:** touches an nft table, a bridge or a tap that is not ours; flushes a ruleset; decides what a network should
//! look like (that is the `network` crate's job).

pub mod dnsmasq;
pub mod forwarding;
pub mod link;
pub mod names;
pub mod netns;
pub mod nft;
pub mod resolv;
pub mod route;
pub mod sysctl;
pub mod tap;
pub mod uplink;
pub mod watch;

pub use link::{Link, Links};
pub use names::Mac;
pub use netns::Netns;
pub use route::Route;

#[cfg(test)]
mod tests;
