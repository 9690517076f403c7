//! What SQLite's errors mean for who uses the store.

use crate::StoreError;
use rusqlite::ErrorCode;
use std::path::Path;

/// Says what was being done to which file, and what to do about it.
pub(super) fn explain(doing: &str, file: &Path, error: &rusqlite::Error) -> StoreError {
    let at = file.display();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            corrupt(file, &format!("{doing}: {error}"))
        }
        Some(ErrorCode::DiskFull) => StoreError::Unavailable(format!(
            "{doing}: no space is left for {at}; nothing was written; free space on its file system and ask again"
        )),
        Some(ErrorCode::SystemIoFailure) => StoreError::Unavailable(format!(
            "{doing}: reading or writing {at} failed ({error}); look at the disk's health and free space"
        )),
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            StoreError::Unusable(format!(
                "{doing}: {at} cannot be opened for writing ({error}); the user of the daemon must own it and its folder"
            ))
        }
        _ => StoreError::Unavailable(format!("{doing}: {at}: {error}")),
    }
}

/// The file is damaged. It is left as it is: a person or `debvisord store restore` decides.
pub(super) fn corrupt(file: &Path, detail: &str) -> StoreError {
    let newest = file
        .parent()
        .and_then(|dir| super::copies::newest(dir).ok().flatten());
    let copy = match newest {
        Some(copy) => format!("the newest copy is {}", copy.display()),
        None => "there is no daily copy yet".to_string(),
    };
    StoreError::Unusable(format!(
        "{} is damaged ({detail}); it was left untouched; stop the daemon and run `debvisord store restore` to go back \
         to a daily copy ({copy})",
        file.display()
    ))
}
