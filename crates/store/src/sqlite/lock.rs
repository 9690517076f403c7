//! One daemon per state folder: an advisory lock that the kernel releases when its holder dies.

use crate::{Result, StoreError};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

/// Name of the lock file in the state folder.
const NAME: &str = "store.lock";

/// Held as long as the store is open.
#[derive(Debug)]
pub(super) struct Lock(#[allow(dead_code, reason = "the open file is the lock")] File);

impl Lock {
    /// Takes the lock of a state folder, or says who has it.
    pub(super) fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(NAME);
        let failed = |doing: &str, error: &dyn std::fmt::Display| {
            StoreError::Unusable(format!(
                "cannot {doing} the lock file {}: {error}",
                path.display()
            ))
        };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| failed("open", &e))?;
        own_as_folder(dir, &path).map_err(|e| failed("give its folder's owner", &e))?;
        match crate::lock_file(&file) {
            Ok(true) => {}
            Ok(false) => {
                let mut holder = String::new();
                let holder = match file.read_to_string(&mut holder) {
                    Ok(_) if !holder.trim().is_empty() => format!("process {}", holder.trim()),
                    _ => "another process".to_string(),
                };
                return Err(StoreError::Unusable(format!(
                    "the state folder {} is in use by {holder}; stop that daemon first, or give this one a state \
                     folder of its own (`--instance NAME` in development)",
                    dir.display()
                )));
            }
            Err(e) => return Err(failed("lock", &e)),
        }
        // The number is only for people; the lock itself is the kernel's.
        let told = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        told.map_err(|e| failed("write", &e))?;
        Ok(Lock(file))
    }
}

/// What root makes while it looks after a stopped daemon's folder must still be open to that daemon's user.
pub(super) fn own_as_folder(dir: &Path, path: &Path) -> std::io::Result<()> {
    let (folder, file) = (std::fs::metadata(dir)?, std::fs::metadata(path)?);
    if nix::unistd::geteuid().is_root() && (folder.uid(), folder.gid()) != (file.uid(), file.gid())
    {
        chown(path, Some(folder.uid()), Some(folder.gid()))?;
    }
    Ok(())
}
