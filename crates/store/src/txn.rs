//! What goes into a commit and what comes out of a read.

use crate::Key;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The global revision: each commit that writes raises it by one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub u64);

impl Revision {
    /// Before the first commit; also "does not exist" in a conflict.
    pub const ZERO: Revision = Revision(0);
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A lease, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Its value.
    pub value: Bytes,
    /// The revision that created it.
    pub created: Revision,
    /// The revision that last changed it.
    pub modified: Revision,
    /// The lease it hangs on.
    pub lease: Option<LeaseId>,
}

/// Which part of a listing is wanted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Page {
    /// Most entries to return; 0 means all.
    pub limit: usize,
    /// Return keys greater than this one.
    pub after: Option<Key>,
}

impl Page {
    /// Everything in one page.
    pub const ALL: Page = Page {
        limit: 0,
        after: None,
    };
}

/// A page of entries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Listing {
    /// The revision at which this was true.
    pub revision: Revision,
    /// In key order.
    pub entries: Vec<Entry>,
    /// Whether keys remain behind the last entry.
    pub more: bool,
}

/// What a transaction expects of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Expect {
    /// The key does not exist.
    Absent(Key),
    /// The key exists.
    Present(Key),
    /// The key was last changed at this revision.
    At(Key, Revision),
}

/// One write of a transaction.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Write {
    /// Creates or replaces.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Bytes,
        /// Deleted when this lease ends.
        lease: Option<LeaseId>,
    },
    /// Deletes; a key that does not exist is no error and makes no change.
    Delete(Key),
}

impl Expect {
    /// The key it is about.
    pub fn key(&self) -> &Key {
        match self {
            Expect::Absent(key) | Expect::Present(key) | Expect::At(key, _) => key,
        }
    }
}

impl Write {
    /// The key it writes.
    pub fn key(&self) -> &Key {
        match self {
            Write::Put { key, .. } | Write::Delete(key) => key,
        }
    }
}

/// Expectations and writes: all or nothing. A key is written at most once in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Txn {
    /// All must hold.
    pub expect: Vec<Expect>,
    /// All are done.
    pub writes: Vec<Write>,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Self {
        Txn::default()
    }

    /// Adds an expectation.
    pub fn expect(mut self, expect: Expect) -> Self {
        self.expect.push(expect);
        self
    }

    /// Adds a put.
    pub fn put(mut self, key: Key, value: impl Into<Bytes>) -> Self {
        self.writes.push(Write::Put {
            key,
            value: value.into(),
            lease: None,
        });
        self
    }

    /// Adds a put of a key that is deleted when `lease` ends.
    pub fn put_leased(mut self, key: Key, value: impl Into<Bytes>, lease: LeaseId) -> Self {
        self.writes.push(Write::Put {
            key,
            value: value.into(),
            lease: Some(lease),
        });
        self
    }

    /// Adds a create: the key must not exist.
    pub fn create(self, key: Key, value: impl Into<Bytes>) -> Self {
        self.expect(Expect::Absent(key.clone())).put(key, value)
    }

    /// Adds a replace: the key must still be at `revision`.
    pub fn replace(self, key: Key, revision: Revision, value: impl Into<Bytes>) -> Self {
        self.expect(Expect::At(key.clone(), revision))
            .put(key, value)
    }

    /// Adds a delete.
    pub fn delete(mut self, key: Key) -> Self {
        self.writes.push(Write::Delete(key));
        self
    }
}

/// One change that a watcher sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The revision of the commit it belongs to.
    pub revision: Revision,
    /// What happened.
    pub kind: ChangeKind,
    /// Whether it is the last change of its revision for this watcher; only then the watcher has a consistent state.
    pub last: bool,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It was created or replaced.
    Put(Entry),
    /// It was deleted.
    Delete(Key),
}

impl ChangeKind {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            ChangeKind::Put(entry) => &entry.key,
            ChangeKind::Delete(key) => key,
        }
    }
}
