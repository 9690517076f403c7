//! Small files that must be whole and only ours: the keys and heads of the trail.

use model::{Error, Result};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

pub(super) fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    Error::unavailable(format!("{doing} {}: {error}", path.display())).because(error)
}

/// Makes a folder that only we may enter.
pub(super) fn folder(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| failed("making", path, e))
}

/// Reads a file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("reading", path, error)),
    }
}

/// Puts a file in the place of another, durable: afterwards there is the old one or the new one, never a part. What the
/// old one held is overwritten first, so that a key which must be gone is not left on a disk that writes in place.
pub(super) fn replace(path: &Path, text: &str) -> Result<()> {
    let part = path.with_extension("part");
    let work = || -> io::Result<()> {
        let mut file = private(&part, true)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        let old = OpenOptions::new().write(true).open(path);
        fs::rename(&part, path)?;
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        // Only now: until the new one is durable, the old one is all there is.
        if let Ok(mut old) = old {
            let size = old.metadata()?.len();
            old.write_all(&vec![0; usize::try_from(size).unwrap_or(0)])?;
            old.sync_data()?;
        }
        Ok(())
    };
    work().map_err(|e| failed("writing", path, e))
}

/// Adds to a file, durable.
pub(super) fn append(path: &Path, text: &str) -> Result<()> {
    let work = || -> io::Result<()> {
        let mut file = private(path, false)?;
        file.write_all(text.as_bytes())?;
        file.sync_data()
    };
    work().map_err(|e| failed("adding to", path, e))
}

fn private(path: &Path, fresh: bool) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .append(!fresh)
        .truncate(fresh)
        .mode(0o600)
        .open(path)
}
