//! What every way of keeping disks can do. The kinds above know nothing else of a pool, and one conformance suite
//! checks every driver.
//!
//! Each call is idempotent and may be dropped half-way: what it left is finished or swept by the same call made
//! again, or by `delete`.

use crate::volume::{Provisioned, VolumeFormat};
use futures::future::BoxFuture;
use model::{Result, Uid};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Space of a pool, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Used, by whomever.
    pub used: u64,
    /// Free for us.
    pub free: u64,
}

impl Usage {
    /// Used share in percent, 0 to 100.
    pub fn percent(self) -> u8 {
        match u128::from(self.used) + u128::from(self.free) {
            0 => 100,
            total => u8::try_from(u128::from(self.used) * 100 / total).unwrap_or(100),
        }
    }
}

/// A volume to make.
#[derive(Debug, Clone)]
pub struct Make {
    /// Size of its disk, in bytes.
    pub size: u64,
    /// How its file is written.
    pub format: VolumeFormat,
    /// Whether its space is taken at once.
    pub provisioned: Provisioned,
    /// What is in it.
    pub from: Option<Origin>,
}

/// Where a new volume's content comes from.
#[derive(Debug, Clone)]
pub enum Origin {
    /// An image of the same pool.
    Image(Uid),
    /// A qcow2 file of another pool, which is copied.
    File(PathBuf),
}

/// A volume as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where it is, for people.
    pub path: PathBuf,
    /// Size of its disk, in bytes.
    pub size: u64,
    /// Space that it takes, in bytes.
    pub allocated: u64,
    /// How its file is written.
    pub format: VolumeFormat,
    /// The image of the same pool that it is a layer upon.
    pub layer_on: Option<Uid>,
}

/// One opened layer of a volume. QEMU gets it by descriptor and needs no right to any path.
#[derive(Debug)]
pub struct Layer {
    /// The open file: for reading and writing when `writable`, else only for reading.
    pub file: File,
    /// How it is written.
    pub format: VolumeFormat,
    /// Whether it is the topmost layer, which the guest writes to.
    pub writable: bool,
}

/// An image as it is, kept beside its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Size of the disk in it, in bytes.
    pub virtual_size: u64,
    /// SHA-256 of the file that it was imported from, in hex.
    pub sha256: String,
    /// Format of the file that it was imported from.
    pub imported_as: crate::image::Format,
}

/// Keeps disks in one pool.
pub trait Driver: Send + Sync {
    /// Makes the pool usable. `first` says that it never was: only then is a missing place made, because later it
    /// means that a disk is missing.
    fn prepare(&self, first: bool) -> BoxFuture<'_, Result<()>>;
    /// Its space.
    fn usage(&self) -> BoxFuture<'_, Result<Usage>>;
    /// Makes a volume, or does nothing when it is there.
    fn create<'a>(&'a self, volume: Uid, make: &'a Make) -> BoxFuture<'a, Result<()>>;
    /// A volume as it is; `None` when it is not there. Works while a guest has it open.
    fn look(&self, volume: Uid) -> BoxFuture<'_, Result<Option<Seen>>>;
    /// Grows a volume to `size` bytes. A volume that is as large already is left alone; one that a guest has open is
    /// refused with `Unavailable`: the guest's QEMU grows it.
    fn grow(&self, volume: Uid, size: u64, provisioned: Provisioned) -> BoxFuture<'_, Result<()>>;
    /// Opens a volume for QEMU: its layers from the topmost down.
    fn open(&self, volume: Uid) -> BoxFuture<'_, Result<Vec<Layer>>>;
    /// Removes a volume and whatever was left of making it.
    fn delete(&self, volume: Uid) -> BoxFuture<'_, Result<()>>;
    /// All volumes that are there, finished ones only.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Uid>>>;
    /// Space for intermediate files named by `owner`, from where [`Driver::publish`] takes over at no cost. The folder
    /// is made by the caller.
    fn staging(&self, owner: Uid) -> PathBuf;
    /// Turns a finished qcow2 file of the staging space into an image.
    fn publish<'a>(
        &'a self,
        image: Uid,
        staged: &'a Path,
        record: &'a ImageRecord,
    ) -> BoxFuture<'a, Result<()>>;
    /// An image as it is, with its file and the space it takes; `None` when it is not there.
    fn image(&self, image: Uid) -> BoxFuture<'_, Result<Option<(ImageRecord, PathBuf, u64)>>>;
    /// Removes an image.
    fn delete_image(&self, image: Uid) -> BoxFuture<'_, Result<()>>;
    /// Gives up an empty pool: removes what [`Driver::prepare`] made.
    fn abandon(&self) -> BoxFuture<'_, Result<()>>;
}
