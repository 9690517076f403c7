//! The store over a link: what an agent uses, and the end that serves it.
//!
//! It takes streams as they are given (from a multiplexed, authenticated connection) and never dials, listens or
//! authenticates itself. Who may do what is the serving end's rule, asked for every access.

mod client;
mod server;
mod wire;

pub use client::RemoteStore;
pub use server::{Scope, Unscoped, hidden, serve_store};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// A stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Any stream in both directions.
pub type BoxIo = Box<dyn Io>;

/// Opens streams to the end that has the store.
pub trait OpenStream: Send + Sync {
    /// A new stream. Asked again, after a pause, when it fails or the stream ends.
    fn open(&self) -> BoxFuture<'_, std::io::Result<BoxIo>>;
}

#[cfg(test)]
mod tests;
