//! What is written down beside a running guest, so that it is taken up again, as it is, without the store.

use super::super::types::{Exit, ExitReason, VmSpec};
use model::{Error, ObjectRef, Result, Timestamp, Uid};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

const FILE: &str = "vm.json";
/// Format of the record.
pub(super) const VERSION: u32 = 1;

/// One guest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub version: u32,
    pub vm: Uid,
    pub object: ObjectRef,
    /// What it was started with and took over since; secrets are masked.
    pub spec: VmSpec,
    /// Which boot of the guest this is.
    pub incarnation: u64,
    pub started: Timestamp,
    /// In which boot of the host.
    pub boot: String,
    pub acceleration: String,
    pub qemu: String,
    /// Its disks and cards as QEMU has them, by which they are unplugged.
    pub disks: Vec<host::qemu::Disk>,
    pub nics: Vec<host::qemu::Nic>,
    /// Why its power is being cut, written before it is.
    pub ending: Option<(ExitReason, String)>,
    /// How it ended, once that was noticed.
    pub ended: Option<Exit>,
}

impl Record {
    pub(super) fn read(dir: &Path) -> Result<Option<Record>> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => {
                return Err(
                    Error::unavailable(format!("cannot read {}: {e}", path.display())).because(e),
                );
            }
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(|e| {
            Error::internal(format!(
                "the guest record {} cannot be read",
                path.display()
            ))
            .because(e)
        })?;
        if record.version != VERSION {
            return Err(Error::internal(format!(
                "the guest record {} has version {}, not {VERSION}",
                path.display(),
                record.version
            )));
        }
        Ok(Some(record))
    }

    /// Replaces the record as a whole. It need not survive a power cut: neither does the guest.
    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let new = dir.join("vm.json.new");
        let write = || -> std::io::Result<()> {
            let mut file = fs::File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            fs::rename(&new, dir.join(FILE))
        };
        write().map_err(|e| {
            Error::unavailable(format!(
                "cannot write the guest record in {}: {e}",
                dir.display()
            ))
            .because(e)
        })
    }

    pub(super) fn remove(dir: &Path) {
        let removed = fs::remove_file(dir.join(FILE));
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, dir = %dir.display(), "a guest record remains");
        }
    }
}
