//! Keeps what DebVisor knows: a revisioned key-value store that can be watched, streams that only grow, and blobs.
//!
//! [`Store`] is the one trait; every backend passes the same [`conformance`] suite. It asks only for what etcd can
//! answer: compares on the create and modification revision of a key, up to [`MAX_WRITES`] writes in a transaction,
//! one global revision, watches that see each commit once and in order.

pub mod blobs;
pub mod clock;
pub mod conformance;
mod folder_lock;
mod history;
mod key;
mod leases;
pub mod memory;
pub mod remote;
mod rules;
pub mod seal;
pub mod sqlite;
pub mod streams;
mod txn;

pub use clock::Clock;
pub use folder_lock::lock_file;
pub use key::{Key, Prefix};
pub use memory::Memory;
pub use sqlite::Sqlite;
pub use txn::{Change, ChangeKind, Entry, Expect, LeaseId, Listing, Page, Revision, Txn, Write};

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use std::time::Duration;

/// Most writes that one transaction may carry (etcd's default is 128).
pub const MAX_WRITES: usize = 100;

/// Largest value of one key, in bytes.
pub const MAX_VALUE: usize = 256 * 1024;

/// Most expectations that one transaction may carry (etcd's default limit of compares).
pub const MAX_EXPECT: usize = 128;

/// Longest key, in bytes.
pub const MAX_KEY: usize = 512;

/// Largest sum of all keys and values that one transaction may write, in bytes (etcd refuses requests over 1.5 MiB).
pub const MAX_TXN: usize = 1024 * 1024;

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An expectation of the transaction did not hold; nothing was written.
    #[error("key `{key}` is not as the transaction expects: it is at {found}")]
    Conflict {
        /// The first key whose expectation failed.
        key: Key,
        /// The revision of its last change, or [`Revision::ZERO`] when it does not exist.
        found: Revision,
    },
    /// The watch, or the page, asks for a revision that is no longer kept: list again and watch from there.
    #[error("revision {asked} is compacted; the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest revision that can still be asked for.
        oldest: Revision,
    },
    /// The lease is not known: it ran out or was revoked.
    #[error("lease {0} has ended")]
    LeaseEnded(LeaseId),
    /// The transaction breaks a limit of the store: too many writes, too large, a key written twice, a key that is
    /// empty or too long. Asking again never helps.
    #[error("the transaction breaks a limit of the store: {0}")]
    TooLarge(String),
    /// The caller's link may not do this (remote stores that are scoped, for example an agent to its node).
    #[error("the store refuses this caller: {0}")]
    Denied(String),
    /// The store file cannot be used. Says what to do.
    #[error("the store cannot be used: {0}")]
    Unusable(String),
    /// The store does not answer now; asking again may help.
    #[error("the store does not answer: {0}")]
    Unavailable(String),
}

/// Result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// A revisioned, watchable key-value store.
pub trait Store: Send + Sync {
    /// The entry of one key, or `None`. Reads see every commit that has returned.
    fn get(&self, key: &Key) -> BoxFuture<'_, Result<Option<Entry>>>;
    /// Entries under a prefix in key order, and the revision at which the answer was true.
    fn list(&self, under: &Prefix, page: Page) -> BoxFuture<'_, Result<Listing>>;
    /// Checks all expectations and does all writes, or does nothing. Durable when it returns. An empty transaction
    /// answers the current revision.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision>>;
    /// Every change under `under` with a revision above `after`, in order, without end. Ends with
    /// [`StoreError::Compacted`] when `after` is too old or the watcher is too slow.
    fn watch(&self, under: &Prefix, after: Revision) -> BoxStream<'static, Result<Change>>;
    /// A new lease; keys put with it are deleted when it ends. `ttl` is counted on the boot clock and restarts in
    /// full when the store restarts.
    fn lease(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId>>;
    /// Extends a lease by its full ttl from now.
    fn keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>>;
    /// Ends a lease now and deletes its keys.
    fn revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<()>>;
}
