//! Reads and writes the files of the pki folder: whole or not at all, secrets readable by their owner alone.

use model::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Makes the folder, mode 0700, when it is missing.
pub(crate) fn folder(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| trouble("make the folder", path, e))
}

/// The content of a file, or `None` when there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(trouble("read", path, e)),
    }
}

/// Like [`read`], but refuses a secret that others can read.
pub(crate) fn read_secret(path: &Path) -> Result<Option<String>> {
    if let Ok(meta) = fs::metadata(path)
        && meta.mode() & 0o077 != 0
    {
        return Err(Error::refused(format!(
            "{} holds a private key and is readable by others (mode {:o})",
            path.display(),
            meta.permissions().mode() & 0o777
        ))
        .hint("treat the key as known to others: move the pki folder away, start again, and let clients log in anew; or `chmod 600` it when you know that nobody read it"));
    }
    read(path)
}

/// Replaces a file in one step, on disk when it returns.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    write_bytes(path, text.as_bytes(), mode)
}

/// Like [`write()`], for what is no text.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let draft = path.with_extension("new");
    let put = || -> std::io::Result<()> {
        let _ = fs::remove_file(&draft);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    put().map_err(|e| trouble("write", path, e))
}

fn trouble(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::internal(format!("cannot {what} {}", path.display())).because(error)
}
