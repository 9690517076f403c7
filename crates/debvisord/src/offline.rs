//! What can be done to the store while the daemon is stopped: look, check, go back to a copy, go back a format.
//!
//! It takes the same lock as the daemon, so it refuses while one runs. It never deletes a store file.

use anyhow::Context;
use clap::Subcommand;
use std::path::{Path, PathBuf};
use store::clock::SystemClock;
use store::sqlite;

/// Works on the files of the instance that `--config` and `--instance` name. The daemon must be stopped.
#[derive(Subcommand)]
pub enum StoreTool {
    /// Lists the daily copies, newest first.
    Copies,
    /// Looks through the whole store file.
    Check,
    /// Puts a copy in the place of the store file; the file that stood there is kept under another name.
    Restore {
        /// The copy; the newest daily one when left out.
        copy: Option<PathBuf>,
    },
    /// Takes the store file back to an older format, before an older version is installed.
    Downgrade {
        /// The format to go back to.
        #[arg(long, value_name = "FORMAT")]
        to: u32,
        /// Says what would be done, and does nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

impl StoreTool {
    /// Does it to the store of this state folder and says what was done.
    pub fn run(self, state: &Path) -> anyhow::Result<()> {
        let dir = state.join("store");
        match self {
            StoreTool::Copies => {
                let copies = sqlite::list_copies(&dir)
                    .with_context(|| format!("listing the copies in {}", dir.display()))?;
                for copy in copies {
                    println!("{}", copy.display());
                }
            }
            StoreTool::Check => {
                let format = sqlite::check(&dir)?;
                println!(
                    "{} is sound, format {format}",
                    dir.join(sqlite::FILE).display()
                );
            }
            StoreTool::Restore { copy } => {
                let restored = sqlite::restore(&dir, copy.as_deref(), &SystemClock)?;
                println!("the store is now {}", restored.from.display());
                if let Some(before) = restored.before {
                    println!("what stood there before is kept as {}", before.display());
                }
            }
            StoreTool::Downgrade { to, dry_run } => {
                for step in sqlite::downgrade(&dir, to, dry_run)? {
                    println!("{step}");
                }
                if dry_run {
                    println!("nothing was done");
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::{Key, Sqlite, Store, Txn};

    #[tokio::test]
    async fn a_lost_store_comes_back_from_its_copy() {
        let state = tempfile::tempdir().unwrap();
        let dir = state.path().join("store");
        let store = Sqlite::open(&dir).unwrap();
        store
            .commit(Txn::new().put(Key::new("a"), "1"))
            .await
            .unwrap();
        store.daily_copy().await.unwrap();
        assert!(
            StoreTool::Check.run(state.path()).is_err(),
            "the daemon still has it"
        );
        store.close().await;
        StoreTool::Check.run(state.path()).unwrap();
        std::fs::write(dir.join(sqlite::FILE), "not a store").unwrap();
        let error = Sqlite::open(&dir).err().unwrap().to_string();
        assert!(error.contains("debvisord store restore"), "{error}");
        assert!(StoreTool::Check.run(state.path()).is_err());
        StoreTool::Restore { copy: None }.run(state.path()).unwrap();
        let store = Sqlite::open(&dir).unwrap();
        assert!(store.get(&Key::new("a")).await.unwrap().is_some());
    }
}
