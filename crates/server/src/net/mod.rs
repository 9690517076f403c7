//! Sockets: listening, TLS, who the peer is, and one task per connection. Knows bytes and HTTP framing, no route.

mod connection;
mod listen;
mod peer;
pub(crate) mod proof;
mod systemd;
mod tls;

pub(crate) use connection::{Acceptor, Answerer, Doors, Place};
pub use listen::Listeners;
pub(crate) use peer::Peer;
pub(crate) use tls::{ClientCertificate, Tls};
