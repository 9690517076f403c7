//! The launch record: what lies beside a running guest, so that it is found again without any database.
//!
//! It is written before QEMU starts (without its identity) and again after (with it). A crash in between leaves the first:
//! then the process is found by its exact command line, whose hash is in the record. The directory belongs to us and
//! not to QEMU's user, because what the record names is sent signals.

use super::launch::Sockets;
use crate::clock::{BootId, Clock};
use crate::process::{Identity, Process};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const FILE: &str = "launch.json";
const VERSION: u32 = 1;

/// What is written down about one launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRecord {
    /// Format of the record: 1.
    pub version: u32,
    /// The guest's name, as given to QEMU.
    pub name: String,
    /// The guest's UUID.
    pub uuid: String,
    /// Names this run of the guest, different for each launch: a late command carries it, so that it cannot hit the next run.
    pub incarnation: String,
    /// The boot in which it was launched; after another it is history.
    pub boot: BootId,
    /// When, by the host's calendar.
    pub launched: jiff::Timestamp,
    /// SHA-256 of the arguments, each ended by a zero byte.
    pub args_hash: String,
    /// Its sockets.
    pub sockets: Sockets,
    /// Whether its machine has PCI Express, behind whose ports devices are plugged.
    #[serde(default = "yes")]
    pub express: bool,
    /// The user it runs as, when not ours.
    pub user: Option<(u32, u32)>,
    /// The QEMU process; absent until it was started.
    pub qemu: Option<Identity>,
    /// SHA-256 of the arguments of its TPM's process, as `args_hash`; absent when it has none.
    pub tpm_args_hash: Option<String>,
    /// The TPM's process; absent until it was started.
    pub tpm: Option<Identity>,
    /// Its cgroup, when it has one.
    pub cgroup: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

impl LaunchRecord {
    pub(super) fn new(
        launch: &super::Launch,
        args: &[String],
        incarnation: String,
        clock: &dyn Clock,
    ) -> Self {
        Self {
            version: VERSION,
            name: launch.name.clone(),
            uuid: launch.uuid.clone(),
            incarnation,
            boot: clock.boot_id(),
            launched: clock.wall(),
            args_hash: hash(args.iter().map(String::as_bytes)),
            sockets: launch.sockets(),
            express: launch.express(),
            user: launch.user,
            qemu: None,
            tpm_args_hash: None,
            tpm: None,
            cgroup: None,
        }
    }

    /// Reads the record of the guest in `dir`; `None` when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is no record of a version we know.
    pub fn read(dir: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(dir.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let record: Self = serde_json::from_slice(&bytes)?;
        if record.version != VERSION {
            let why = format!("record version {} is not {VERSION}", record.version);
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(Some(record))
    }

    /// Replaces the record as a whole, on disk before this returns.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join("launch.json.new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_data()?;
        fs::rename(&new, dir.join(FILE))
    }

    /// Removes the record; none there is success.
    pub(super) fn remove(dir: &Path) -> io::Result<()> {
        match fs::remove_file(dir.join(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The QEMU process: the one written down, or else found by its arguments.
    pub(super) fn find_qemu(&self, clock: &dyn Clock) -> io::Result<Option<Process>> {
        self.find(self.qemu.as_ref(), Some(&self.args_hash), clock)
    }

    /// The TPM's process, likewise.
    pub(super) fn find_tpm(&self, clock: &dyn Clock) -> io::Result<Option<Process>> {
        self.find(self.tpm.as_ref(), self.tpm_args_hash.as_deref(), clock)
    }

    fn find(
        &self,
        known: Option<&Identity>,
        args_hash: Option<&str>,
        clock: &dyn Clock,
    ) -> io::Result<Option<Process>> {
        if self.boot != clock.boot_id() {
            return Ok(None);
        }
        let identity = match (known, args_hash) {
            (Some(known), _) => Some(known.clone()),
            (None, Some(hash)) => search(hash, clock)?,
            (None, None) => None,
        };
        match identity {
            Some(identity) => Process::adopt(&identity, clock),
            None => Ok(None),
        }
    }
}

/// Looks through the running processes for the one with exactly these arguments: for a record without identity.
fn search(args_hash: &str, clock: &dyn Clock) -> io::Result<Option<Identity>> {
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process that ends meanwhile, or is none of ours to read, is not the one.
        let Ok(cmdline) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        let Some(cmdline) = cmdline.strip_suffix(b"\0") else {
            continue;
        };
        let args = cmdline.split(|byte| *byte == 0).skip(1);
        if hash(args) == args_hash
            && let Ok(identity) = Identity::of(pid, clock)
        {
            return Ok(Some(identity));
        }
    }
    Ok(None)
}

/// SHA-256 over arguments, each ended by a zero byte.
pub(super) fn hash<'a>(args: impl Iterator<Item = &'a [u8]>) -> String {
    let mut sha = Sha256::new();
    for arg in args {
        sha.update(arg);
        sha.update([0]);
    }
    hex::encode(sha.finalize())
}
