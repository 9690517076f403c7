//! What is done to the keys by hand, on the machine: make the root key, rotate, look. It never shows a key.

use crate::config::Config;
use clap::Subcommand;
use store::seal::{RootSource, Sealer};

/// Works on the keys of the instance that `--config` and `--instance` name.
#[derive(Subcommand)]
pub enum KeyTool {
    /// Makes the file of the root key with a new key, mode 0600. Does nothing when it is there.
    Make,
    /// Takes a new root key: both keys, then all data keys wrapped anew, then the old one goes. Cut off, do it again.
    /// Daemons go on with what they have; start them again when it is done, so that they know the new one.
    Rotate {
        /// A new data key for the cluster and each project too. The api seals everything anew at its next start.
        #[arg(long)]
        data: bool,
    },
    /// Says where the root key comes from and which data keys there are.
    Status,
}

impl KeyTool {
    /// Does it and says what was done.
    pub fn run(self, config: &Config) -> anyhow::Result<()> {
        let source = config.root_source()?;
        let shown = source.path().display().to_string();
        let keys = config.state_dir.join("keys");
        match self {
            KeyTool::Make if source.exists() => println!("{shown} is there already"),
            KeyTool::Make => {
                // Beside data keys of another root key, a new one would only hide that the right one is missing.
                // Not to be let look is not the same as nothing there.
                let ring = keys.join("ring");
                let there = ring.try_exists();
                if there.map_err(|e| anyhow::anyhow!("looking for {}: {e}", ring.display()))? {
                    anyhow::bail!(
                        "{} was wrapped with a root key that {shown} no longer holds: put it back from your backup",
                        keys.join("ring").display()
                    );
                }
                source.make()?;
                println!("made {shown}: keep a copy of it apart from your backups of the state");
            }
            KeyTool::Rotate { data } => {
                let sealer = Sealer::join(source, &keys)?;
                sealer.rotate_root()?;
                println!("{shown} holds a new root key: keep a copy, and start the daemons again");
                if data {
                    sealer.rotate()?;
                    println!("new secrets have new data keys");
                }
            }
            KeyTool::Status => {
                let from = match &source {
                    RootSource::Credential(_) => "a credential of systemd",
                    RootSource::File(_) => "a file",
                };
                println!("root key: {from}, {shown}");
                for (id, scope, version) in Sealer::join(source, &keys)?.keys()? {
                    println!("data key: {scope} version {version}, {id}");
                }
            }
        }
        Ok(())
    }
}
