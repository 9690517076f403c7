//! Small files that must be whole and only ours: the keys and heads of the trail.

use model::{Error, Result};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
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
pub(super) fn replace(path: &Path, text: impl AsRef<[u8]>) -> Result<()> {
    let part = path.with_extension("part");
    let work = || -> io::Result<()> {
        let mut file = private(&part, true)?;
        file.write_all(text.as_ref())?;
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

/// Makes durable what [`replace`] may have put in a place before it failed.
pub(super) fn settle(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| failed("syncing", folder, e))
}

/// Adds whole lines to a file, durable: all of them or nothing. Half a line that a crash or a full disk left there goes.
pub(super) fn append(path: &Path, text: &str) -> Result<()> {
    let work = || -> io::Result<()> {
        let mut file = private(path, false)?;
        let old = whole(&file)?;
        file.set_len(old)?;
        let added = file
            .write_all(text.as_bytes())
            .and_then(|()| file.sync_data());
        if added.is_err() {
            // When this fails too, the next one begins with it.
            file.set_len(old)?;
        }
        added
    };
    work().map_err(|e| failed("adding to", path, e))
}

/// How far a file has whole lines.
fn whole(file: &File) -> io::Result<u64> {
    let mut at = file.metadata()?.len();
    let mut byte = [0];
    while at > 0 {
        file.read_exact_at(&mut byte, at - 1)?;
        if byte[0] == b'\n' {
            break;
        }
        at -= 1;
    }
    Ok(at)
}

/// Takes away all but the last files of a folder, by name. What cannot be taken away now is tried again with the next.
pub(super) fn keep_last(folder: &Path, count: usize) -> io::Result<()> {
    let mut names: Vec<_> = fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    names.sort();
    let gone = names.len().saturating_sub(count);
    names.iter().take(gone).try_for_each(fs::remove_file)
}

fn private(path: &Path, fresh: bool) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .append(!fresh)
        .truncate(fresh)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_not_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        for (there, after) in [
            ("", "new\n"),
            ("one\n", "one\nnew\n"),
            ("one\nhal", "one\nnew\n"),
            ("half", "new\n"),
        ] {
            fs::write(&path, there).unwrap();
            append(&path, "new\n").unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), after);
        }
        append(Path::new("/dev/full"), "new\n").unwrap_err();
    }
}
