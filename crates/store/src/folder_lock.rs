//! Waiting a moment for an advisory lock whose holder is dying.

use std::fs::{File, TryLockError};
use std::time::{Duration, Instant};

/// How long a holder may take to die. The kernel frees the memory of a killed process, by which others tell that it is gone,
/// before it closes its files; with much memory that takes a while.
const DYING: Duration = Duration::from_secs(2);

/// Takes the exclusive lock of a file for as long as the file stays open (flock(2)). `false` when another process keeps it
/// for longer than a killed one could. Blocks for up to two seconds.
///
/// # Errors
/// When the file system refuses for another reason.
pub fn lock_file(file: &File) -> std::io::Result<bool> {
    let end = Instant::now() + DYING;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(true),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= end => return Ok(false),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
