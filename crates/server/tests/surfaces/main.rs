//! The surfaces over real sockets: TLS and the local socket, with a demo kind that no surface knows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod abuse;
mod demo;
mod graphql;
mod grpc;
mod house;
mod law;
mod rest;
mod watch;
