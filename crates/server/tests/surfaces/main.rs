//! The surfaces over real sockets, TLS and local: they show a demo kind that none of them knows, decide alike, and keep
//! the laws over every kind that there is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod abuse;
mod alike;
mod batches;
mod bounds;
mod browser;
mod chromium;
mod demo;
mod ended;
mod follow;
mod fuzz;
mod graphql;
mod grpc;
mod house;
mod idp;
mod keys;
mod law;
mod login;
mod mail;
mod pki;
mod quota;
mod rates;
mod rest;
mod scan;
mod secrets;
mod sso;
mod watch;

/// Every kind that there is, and the demo kind.
pub fn everything() -> runtime::Registry {
    runtime::Registry::new(&[
        runtime::SUBSYSTEMS,
        identity::SUBSYSTEMS,
        storage::SUBSYSTEMS,
        network::SUBSYSTEMS,
        compute::SUBSYSTEMS,
        demo::SUBSYSTEMS,
    ])
    .unwrap()
}
