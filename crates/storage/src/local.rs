//! Where storage keeps things on this node.

use std::path::PathBuf;
use std::time::Duration;

/// What storage needs to know of the node it runs on: a part that the agent's context is started with.
#[derive(Debug, Clone)]
pub struct Local {
    /// Folder for pools that name none themselves.
    pub pools: PathBuf,
    /// Folder where recipes keep what they have built; see [`crate::image::recipe::default_cache`].
    pub cache: PathBuf,
    /// How files are fetched.
    pub fetch: FetchLimits,
}

/// Limits of fetching a file from an address.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Without a byte for this long, the fetch has failed.
    pub stall: Duration,
    /// The most bytes that are fetched.
    pub size: u64,
    /// Certificates in PEM that are trusted beside those of the system.
    pub trust: Vec<String>,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            stall: Duration::from_secs(60),
            size: 1 << 40,
            trust: Vec::new(),
        }
    }
}
