//! The surfaces: REST, OpenAPI, watch, GraphQL, gRPC, health, metrics and the panel's files, over TLS 1.3 and the local
//! socket.
//!
//! Every surface interprets the one registry at run time and turns what it gets into a [`runtime::Request`] for the
//! gate. **Invariant:** `server` names no kind: a kind that is declared tomorrow appears in every surface without an
//! edit here. It keeps no state of its own but open connections, tickets and counters.

mod app;
mod compress;
mod door;
mod front;
mod graphql;
mod grpc;
mod health;
mod limits;
mod metrics;
mod net;
mod openapi;
mod pages;
mod perimeter;
mod pki;
mod reference;
mod reply;
mod rest;
mod server;
mod streams;
mod watch;

pub use graphql::graphql_sdl;
pub use health::{Check, Finding};
pub use limits::Limits;
pub use net::Listeners;
pub use openapi::openapi;
pub use reference::{Offered, commands, privileges, surfaces};
pub use server::{Builder, Ended, Server};

/// The gRPC messages and the service, generated from `proto/debvisor.proto`.
pub use grpc::v1 as grpc_v1;

/// The gRPC service definition, as it is committed under `api/`.
pub const PROTO: &str = include_str!("../proto/debvisor.proto");
