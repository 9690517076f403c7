//! dnsmasq: DHCP, router advertisements and names of one network, in a process of its own that outlives us.
//!
//! ```text
//! absent --start--> running --hosts added--> running (SIGHUP)
//!                      |-- config changed, or a leased address taken away --> stopped --> running
//!                      '-- died --> absent
//! ```
//! Everything it serves is written by us beforehand: it hands out only the addresses that are allocated, never one of its own choice.
//! It starts as root to bind its ports and then becomes an unprivileged user.

mod config;
mod lease;
mod server;

pub use config::{Config, HostEntry, Ipv4, Ipv6};
pub use lease::Lease;
pub use server::{Dnsmasq, Outcome, check_installed};
