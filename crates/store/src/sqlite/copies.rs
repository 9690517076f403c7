//! Copies of the store file: made while it is in use, kept seven, and put back when the file is lost.

use super::error::explain;
use super::lock::{Lock, own_as_folder};
use super::{FILE, open_plain, schema};
use crate::{Clock, Result, StoreError};
use rusqlite::Connection;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where copies lie, inside the state folder.
const FOLDER: &str = "copies";
/// Daily copies that are kept.
pub const KEPT: usize = 7;
/// How far a restored store jumps ahead, so that no revision that somebody remembers is ever given again.
const JUMP: i64 = 1_000_000_000;

/// What [`restore`] did.
#[derive(Debug)]
pub struct Restored {
    /// The copy that is the store now.
    pub from: PathBuf,
    /// Where the file that stood there before lies now; nothing is deleted.
    pub before: Option<PathBuf>,
}

/// All daily copies of a state folder, newest first.
pub fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = match fs::read_dir(dir.join(FOLDER)) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut copies = Vec::new();
    for entry in folder {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if name.starts_with("store-") && name.ends_with(".db") {
            copies.push(path);
        }
    }
    // The name carries the time, so the order of names is the order of age.
    copies.sort();
    copies.reverse();
    Ok(copies)
}

pub(super) fn newest(dir: &Path) -> io::Result<Option<PathBuf>> {
    Ok(list(dir)?.into_iter().next())
}

/// A stamp for file names, `20260131T235959Z`.
fn stamp(wall: Duration) -> String {
    let time = jiff::Timestamp::from_second(wall.as_secs().cast_signed())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// Whether the newest copy is of an earlier day than `wall`.
pub(super) fn due(dir: &Path, wall: Duration) -> bool {
    let today = &stamp(wall)[..8];
    let newest = newest(dir).ok().flatten();
    let newest = newest
        .as_deref()
        .and_then(Path::file_name)
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    !newest.starts_with(&format!("store-{today}"))
}

/// Copies the open store while others read and write it, and removes daily copies beyond [`KEPT`]. `name` begins the
/// name of the file. Blocks.
pub(super) fn make(dir: &Path, name: &str, wall: Duration) -> Result<PathBuf> {
    let file = dir.join(FILE);
    let folder = dir.join(FOLDER);
    let path = folder.join(format!("{name}-{}.db", stamp(wall)));
    let part = folder.join(format!("{name}.part"));
    let failed = |e: io::Error| {
        StoreError::Unavailable(format!(
            "copying the store to {}: {e}; nothing was changed",
            path.display()
        ))
    };
    private_folder(&folder).map_err(failed)?;
    remove(&part).map_err(failed)?;
    let db = open_plain(&file)?;
    let copied = db.execute("VACUUM INTO ?1", [part.to_string_lossy()]);
    if let Err(error) = copied {
        let _ = remove(&part);
        return Err(explain("copying the store", &part, &error));
    }
    let kept = sync(&part)
        .and_then(|()| fs::rename(&part, &path))
        .and_then(|()| sync(&folder));
    kept.map_err(failed)?;
    for old in list(dir).map_err(failed)?.into_iter().skip(KEPT) {
        remove(&old).map_err(failed)?;
    }
    Ok(path)
}

/// Puts a copy in the place of the store file; without `copy`, the newest daily one. The store must not be open. The
/// copy is checked first, the file that stood there is renamed and kept. Blocks.
pub fn restore(dir: &Path, copy: Option<&Path>, clock: &dyn Clock) -> Result<Restored> {
    let _lock = Lock::take(dir)?;
    let failed = |doing: &str, e: io::Error| {
        StoreError::Unusable(format!(
            "restoring the store in {}: {doing}: {e}",
            dir.display()
        ))
    };
    let from = match copy {
        Some(copy) => copy.to_owned(),
        None => newest(dir)
            .map_err(|e| failed("looking for copies", e))?
            .ok_or_else(|| {
                StoreError::Unusable(format!(
                    "there is no daily copy in {}",
                    dir.join(FOLDER).display()
                ))
            })?,
    };
    let part = dir.join("store.part");
    remove(&part).map_err(|e| failed("removing an earlier try", e))?;
    fs::copy(&from, &part).map_err(|e| failed(&format!("reading {}", from.display()), e))?;
    let prepared = prepare(&part, &from);
    if let Err(error) = prepared {
        let _ = remove(&part);
        return Err(error);
    }
    let file = dir.join(FILE);
    let before = file
        .exists()
        .then(|| dir.join(format!("store-before-restore-{}.db", stamp(clock.wall()))));
    if let Some(before) = &before {
        for end in ["-wal", "-shm", ""] {
            let (old, new) = (with_end(&file, end), with_end(before, end));
            if old.exists() {
                fs::rename(&old, &new).map_err(|e| failed("setting the old file aside", e))?;
            }
        }
    }
    own_as_folder(dir, &part).map_err(|e| failed("giving the copy its folder's owner", e))?;
    let placed = fs::rename(&part, &file).and_then(|()| sync(dir));
    placed.map_err(|e| failed("putting the copy in place", e))?;
    Ok(Restored { from, before })
}

fn prepare(part: &Path, from: &Path) -> Result<()> {
    let fail = |e: rusqlite::Error| explain("preparing the copy", from, &e);
    let db = Connection::open(part).map_err(fail)?;
    let refused = |e| {
        StoreError::Unusable(format!(
            "the copy {} cannot be restored: {e}",
            from.display()
        ))
    };
    schema::check(&db, from, schema::STEPS).map_err(refused)?;
    schema::integrity(&db, from, false).map_err(refused)?;
    db.execute(
        "UPDATE meta SET value = value + ?1 WHERE name = 'revision'",
        [JUMP],
    )
    .map_err(fail)?;
    db.close().map_err(|(_, e)| fail(e))?;
    sync(part).map_err(|e| StoreError::Unusable(format!("writing {}: {e}", part.display())))
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(end);
    path.into()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}
