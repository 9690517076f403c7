//! What can be done to the store while the daemon is stopped: look, check, go back to a copy, go back a format. And to
//! the audit trail, at any time and also to a copy of it on another machine: look whether it is as it was written.
//!
//! The store tool takes the same lock as the daemon, so it refuses while one runs. It never deletes a store file. The
//! audit tool changes nothing, locks nothing and needs no key.

use crate::api::{AUDIT_KEYS, TRAIL};
use anyhow::Context;
use clap::Subcommand;
use runtime::audit;
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

/// Looks at the audit trail of the instance that `--config` and `--instance` name, or at a copy of one.
#[derive(Subcommand)]
pub enum AuditTool {
    /// Looks through a trail and names the first row that is not as it was written; exit code 1 when there is one.
    Verify {
        /// The folder of the rows; the instance's own when left out.
        #[arg(long, value_name = "DIR")]
        folder: Option<PathBuf>,
        /// A file of heads that was kept elsewhere: an anchor, or the file `heads` beside the keys. May be repeated; the
        /// instance's own when left out.
        #[arg(long, value_name = "FILE")]
        against: Vec<PathBuf>,
    },
}

/// Heads of anchors that are compared at most.
const HEADS: usize = 1_000_000;

impl AuditTool {
    /// Whether it needs no instance.
    pub fn names_all(&self) -> bool {
        let AuditTool::Verify { folder, .. } = self;
        folder.is_some()
    }

    /// Does it and says what was found; answers whether all is well.
    pub fn run(&self, state: &Path) -> anyhow::Result<bool> {
        let AuditTool::Verify { folder, against } = self;
        let own = against.is_empty() && folder.is_none();
        let folder = folder.clone().unwrap_or_else(|| state.join(TRAIL));
        let mut heads = match own {
            true => audit::own_heads(&state.join(AUDIT_KEYS), HEADS)?,
            false => Vec::new(),
        };
        if own && heads.is_empty() {
            anyhow::bail!(
                "{} holds no heads of an audit chain",
                state.join(AUDIT_KEYS).display()
            );
        }
        for file in against {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("reading the heads in {}", file.display()))?;
            let found = audit::heads_of(&text, HEADS);
            if found.is_empty() {
                anyhow::bail!("{} holds no heads of an audit chain", file.display());
            }
            heads.extend(found);
        }
        let verdict = audit::verify(&folder, heads)?;
        println!("{}", verdict.sentence());
        if verdict.sound && own {
            println!(
                "compared with what lies on this machine: who took it over is found with --against FILE only"
            );
        }
        Ok(verdict.sound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use store::seal::{RootSource, Sealer};
    use store::{Key, Sqlite, Store, Txn};

    #[tokio::test]
    async fn a_copy_of_a_trail_is_verified_without_any_key() {
        use runtime::audit::{FileTrail, Row, Trail, TrailOptions};
        let state = tempfile::tempdir().unwrap();
        let keys = state.path().join(AUDIT_KEYS);
        std::fs::create_dir(state.path().join("keys")).unwrap();
        let root = RootSource::File(state.path().join("root.key"));
        let seal = Sealer::open(root, state.path().join("keys")).unwrap();
        let options = TrailOptions::new(&state.path().join(TRAIL), &keys, Arc::new(seal));
        let trail = FileTrail::open(options).await.unwrap();
        for _ in 0..3 {
            let row = Row::default();
            trail.keep(row, audit::Durable::Now).await.unwrap();
        }
        trail.seal().await.unwrap();
        let verify = |folder: Option<PathBuf>, against: Vec<PathBuf>| {
            AuditTool::Verify { folder, against }.run(state.path())
        };
        assert!(verify(None, vec![]).unwrap(), "while it is in use");
        trail.close().await;
        let copy = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(state.path().join(TRAIL)).unwrap() {
            let file = file.unwrap();
            let mut bytes = std::fs::read(file.path()).unwrap();
            let at = bytes.len() - 400;
            bytes[at] ^= 1;
            std::fs::write(copy.path().join(file.file_name()), bytes).unwrap();
        }
        let heads = vec![keys.join(audit::HEADS)];
        let folder = Some(copy.path().to_owned());
        assert!(!verify(folder.clone(), heads).unwrap());
        std::fs::write(copy.path().join("none"), "").unwrap();
        assert!(verify(folder, vec![copy.path().join("none")]).is_err());
    }

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
