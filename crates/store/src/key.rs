//! Keys are paths: segments joined by `/`, ordered bytewise.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// The name of one entry, for example `o/vm/default/web1`. At most 512 bytes, never empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(Arc<str>);

impl Key {
    /// A key from its text. Callers build keys from checked names, so this does not check again.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Key(text.into())
    }

    /// A key from its segments.
    pub fn from_parts(parts: &[&str]) -> Self {
        Key(parts.join("/").into())
    }

    /// The text of the key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments of the key.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.0)
    }
}

/// All keys that begin with this text. The empty prefix is the whole store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prefix(Arc<str>);

impl Prefix {
    /// A prefix from its text; end it with `/` to mean a folder.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Prefix(text.into())
    }

    /// The text of the prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `key` lies under this prefix.
    pub fn contains(&self, key: &Key) -> bool {
        key.as_str().starts_with(&*self.0)
    }
}
