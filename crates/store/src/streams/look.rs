//! Reading the folder of a stream without opening the stream: nothing is locked, repaired or removed, so that a folder
//! can be examined while its owner appends to it, and a copy of one as evidence.

use super::StreamError;
use super::record::Record;
use super::segment::{self, Closed, Head};
use bytes::Bytes;
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::path::{Path, PathBuf};

/// How often a segment is looked for that its owner has compressed or removed meanwhile.
const TRIES: usize = 10;

/// Shows every sound record of a folder in order, until `see` has had enough. What is damaged is left out: a gap in the
/// numbers. Holds one segment in memory at most. Blocks.
///
/// # Errors
/// When the folder or a file cannot be read, or is of a newer version.
pub fn look(dir: &Path, see: &mut dyn FnMut(Record) -> ControlFlow<()>) -> Result<(), StreamError> {
    let mut shown = 0;
    let mut missing = 0;
    let mut begun = None;
    loop {
        // Looked up anew for each: the owner may have closed one and begun another.
        let Some((first, path)) = next(dir, begun)? else {
            return Ok(());
        };
        match show(&path, &mut shown, see) {
            Ok(Break(())) => return Ok(()),
            Ok(Continue(())) | Err(StreamError::Damaged(_)) => (begun, missing) = (Some(first), 0),
            Err(StreamError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound && missing < TRIES =>
            {
                missing += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The segment after the one that begins with `after`; its closed form when both are there.
fn next(dir: &Path, after: Option<u64>) -> Result<Option<(u64, PathBuf)>, StreamError> {
    let failed = |error| StreamError::io("listing", dir, error);
    let mut best: Option<(u64, bool, PathBuf)> = None;
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let open = match path.extension().and_then(|e| e.to_str()) {
            Some("zst") => false,
            Some("seg") => true,
            _ => continue,
        };
        let stem = path.file_stem().and_then(|s| s.to_str());
        let Some(first) = stem.and_then(|s| s.parse::<u64>().ok()) else {
            continue;
        };
        let later = after.is_none_or(|after| first > after);
        let sooner = |(at, other, _): &(u64, bool, PathBuf)| (first, open) < (*at, *other);
        if later && best.as_ref().is_none_or(sooner) {
            best = Some((first, open, path));
        }
    }
    Ok(best.map(|(first, _, path)| (first, path)))
}

/// Shows the records of one segment whose numbers are above `shown`.
fn show(
    path: &Path,
    shown: &mut u64,
    see: &mut dyn FnMut(Record) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, StreamError> {
    let mut fresh = |record: Record| {
        if record.seq <= *shown {
            return Continue(());
        }
        *shown = record.seq;
        see(record)
    };
    if path.extension().is_some_and(|e| e == "zst") {
        let closed = Closed::open(path)?;
        for block in closed.blocks_from(0) {
            for record in closed.records(block)? {
                if fresh(record).is_break() {
                    return Ok(Break(()));
                }
            }
        }
        return Ok(Continue(()));
    }
    let file = File::open(path).map_err(|e| StreamError::io("reading", path, e))?;
    let head = Head::read(&file, path)?.ok_or_else(|| StreamError::Damaged(path.to_owned()))?;
    let bytes = Bytes::from(segment::slurp(&file, path)?);
    for (at, place) in segment::scan(&bytes, &head).places {
        if fresh(place.record(&bytes, at)).is_break() {
            return Ok(Break(()));
        }
    }
    Ok(Continue(()))
}
