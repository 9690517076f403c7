//! The format of the store file and the steps from one format to the next.
//!
//! A step is never changed once released: its checksum is kept in the file and compared at every open. A file of a
//! newer format than this program knows is refused, never guessed at.

use super::error::{corrupt, explain};
use crate::{Result, StoreError};
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};
use std::path::Path;

/// Marks the file as ours ("DVst").
const APPLICATION: i32 = 0x4456_7374;

/// One step of the format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// The format after it, counted from 1.
    pub(super) version: u32,
    /// What it does, in a few words.
    pub(super) name: &'static str,
    /// The statements that take it.
    pub(super) up: &'static str,
    /// The statements that take it back; objects stay.
    pub(super) down: &'static str,
}

impl Step {
    fn checksum(&self) -> String {
        let mut hash = Sha256::new();
        for part in [self.name, "\n", self.up, "\n", self.down] {
            hash.update(part);
        }
        hex::encode(hash.finalize())
    }
}

/// All steps, oldest first.
pub(super) const STEPS: &[Step] = &[Step {
    version: 1,
    name: "entries and leases",
    // `id` keeps values out of the index by key, which therefore stays small and warm.
    up: "
        CREATE TABLE entries (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL UNIQUE,
            value BLOB NOT NULL,
            created INTEGER NOT NULL,
            modified INTEGER NOT NULL,
            lease INTEGER
        ) STRICT;
        CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
        CREATE TABLE leases (id INTEGER PRIMARY KEY, ttl_ms INTEGER NOT NULL) STRICT;
        CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
        INSERT INTO meta VALUES ('revision', 0), ('clean', 1);
    ",
    down: "DROP TABLE meta; DROP TABLE leases; DROP TABLE entries;",
}];

/// The format a file has; 0 for an empty one.
pub(super) fn version(db: &Connection, file: &Path) -> Result<u32> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(|e| explain("reading the format", file, &e))
}

/// Refuses what is not ours, newer than `steps`, or made by other steps than these. Returns the file's format.
pub(super) fn check(db: &Connection, file: &Path, steps: &[Step]) -> Result<u32> {
    let has = version(db, file)?;
    let knows = steps.last().map_or(0, |s| s.version);
    let fail = |e: rusqlite::Error| explain("reading the format", file, &e);
    let application: i32 = db
        .pragma_query_value(None, "application_id", |row| row.get(0))
        .map_err(fail)?;
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(fail)?;
    if tables > 0 && application != APPLICATION {
        return Err(StoreError::Unusable(format!(
            "{} is an SQLite file of another program; name a folder that holds a DebVisor store or nothing",
            file.display()
        )));
    }
    if has > knows {
        return Err(StoreError::Unusable(format!(
            "{} has format {has}, this program knows formats up to {knows}; install the newer DebVisor that wrote it, \
             or run that version's `debvisord store downgrade --to {knows}` first",
            file.display()
        )));
    }
    if tables > 0 && has == 0 {
        return Err(corrupt(file, "its format number is missing"));
    }
    for step in steps.iter().filter(|s| s.version <= has) {
        let sum: Option<String> = db
            .query_row(
                "SELECT checksum FROM steps WHERE version = ?1",
                [step.version],
                |row| row.get(0),
            )
            .optional()
            .map_err(fail)?;
        if sum != Some(step.checksum()) {
            return Err(StoreError::Unusable(format!(
                "{}: format step {} (`{}`) differs from the one this program knows; it was written by a build that \
                 was never released; use that build, or run `debvisord store restore`",
                file.display(),
                step.version,
                step.name
            )));
        }
    }
    Ok(has)
}

/// Takes one step up. All or nothing.
pub(super) fn step_up(db: &mut Connection, file: &Path, step: &Step, wall: i64) -> Result<()> {
    let doing = format!("format step {} (`{}`)", step.version, step.name);
    let fail = |e: rusqlite::Error| explain(&doing, file, &e);
    let txn = db.transaction().map_err(fail)?;
    if step.version == 1 {
        txn.pragma_update(None, "application_id", APPLICATION)
            .map_err(fail)?;
        let steps = "CREATE TABLE steps (version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, \
                     applied INTEGER NOT NULL) STRICT";
        txn.execute_batch(steps).map_err(fail)?;
    }
    txn.execute_batch(step.up).map_err(fail)?;
    let row = params![step.version, step.name, step.checksum(), wall];
    txn.execute("INSERT INTO steps VALUES (?1, ?2, ?3, ?4)", row)
        .map_err(fail)?;
    txn.pragma_update(None, "user_version", step.version)
        .map_err(fail)?;
    txn.commit().map_err(fail)
}

/// Takes one step back. All or nothing. The first step is never taken back: that would be an empty store.
pub(super) fn step_down(db: &mut Connection, file: &Path, step: &Step) -> Result<()> {
    let doing = format!("taking back format step {} (`{}`)", step.version, step.name);
    let fail = |e: rusqlite::Error| explain(&doing, file, &e);
    let txn = db.transaction().map_err(fail)?;
    txn.execute_batch(step.down).map_err(fail)?;
    txn.execute("DELETE FROM steps WHERE version = ?1", [step.version])
        .map_err(fail)?;
    txn.pragma_update(None, "user_version", step.version - 1)
        .map_err(fail)?;
    txn.commit().map_err(fail)
}

/// Looks through the whole file. `quick` leaves out comparing indexes with their tables.
pub(super) fn integrity(db: &Connection, file: &Path, quick: bool) -> Result<()> {
    let pragma = if quick {
        "PRAGMA quick_check(3)"
    } else {
        "PRAGMA integrity_check(10)"
    };
    let fail = |e: rusqlite::Error| explain("checking the file", file, &e);
    let mut statement = db.prepare(pragma).map_err(fail)?;
    let rows = statement
        .query_map([], |row| row.get::<_, String>(0))
        .map_err(fail)?;
    let found = rows.collect::<rusqlite::Result<Vec<_>>>().map_err(fail)?;
    if found == ["ok"] {
        Ok(())
    } else {
        Err(corrupt(file, &found.join("; ")))
    }
}
