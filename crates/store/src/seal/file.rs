//! Files that hold keys: readable by their owner only, replaced whole or not at all.

use super::SealError;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Writes the file beside its place and moves it there, durable. It keeps the owner that it had: root may write what the
/// unprivileged half of a node must read.
pub(super) fn write(path: &Path, text: &str) -> Result<(), SealError> {
    let part = path.with_extension("part");
    let put = || -> io::Result<()> {
        match fs::remove_file(&part) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&part)?;
        if let Ok(old) = path.symlink_metadata() {
            let now = file.metadata()?;
            if (old.uid(), old.gid()) != (now.uid(), now.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        let folder = path
            .parent()
            .filter(|p| !p.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()
    };
    put().map_err(|e| bad(path, format!("cannot be written: {e}")))
}

/// Refuses a file that is not plain, that others may read, or that is somebody else's.
pub(super) fn check_mode(path: &Path, file: &File) -> Result<(), SealError> {
    let meta = file
        .metadata()
        .map_err(|e| bad(path, format!("cannot be examined: {e}")))?;
    let me = nix::unistd::geteuid().as_raw();
    if !meta.is_file() {
        return Err(bad(path, "is not a plain file".into()));
    }
    if meta.mode() & 0o077 != 0 {
        let mode = meta.mode() & 0o777;
        return Err(bad(
            path,
            format!(
                "has mode {mode:04o}, so others may read the keys; run `chmod 600` on it, and rotate the keys if anybody may have read them"
            ),
        ));
    }
    // Root reads what the unprivileged half of a node made: both halves share the keys.
    if me != 0 && meta.uid() != me && meta.uid() != 0 {
        return Err(bad(
            path,
            format!(
                "belongs to user {}, not to user {me} who runs the daemon; run `chown` on it",
                meta.uid()
            ),
        ));
    }
    Ok(())
}

pub(super) fn bad(path: &Path, reason: String) -> SealError {
    SealError::KeyFile {
        path: path.to_owned(),
        reason,
    }
}
