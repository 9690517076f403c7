//! An instance of DebVisor, started by `cargo xtask up` and removed when the test ends.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::{Outcome, run};

/// Longest that anything may take which builds nothing.
const LIMIT: Duration = Duration::from_secs(180);
/// `up` builds what is stale and boots a guest under software emulation.
const UP: Duration = Duration::from_secs(30 * 60);

/// One instance; dropping it removes it and all that belongs to it.
pub struct Instance {
    name: String,
}

impl Instance {
    /// Starts an instance of that name with those options of `up`; one that a killed test left is removed first.
    pub fn up(name: &str, options: &[&str]) -> Result<Instance> {
        let instance = Instance::fresh(name)?;
        instance.again(options)?.ok()?;
        Ok(instance)
    }

    /// An instance of that name that is not started yet.
    pub fn fresh(name: &str) -> Result<Instance> {
        let instance = Instance {
            name: name.to_owned(),
        };
        instance.down(&["--guests"])?.ok()?;
        Ok(instance)
    }

    /// `up` once more.
    pub fn again(&self, options: &[&str]) -> Result<Outcome> {
        run(
            xtask()
                .arg("up")
                .args(options)
                .args(["--instance", &self.name]),
            UP,
        )
    }

    /// `down` with those options.
    pub fn down(&self, options: &[&str]) -> Result<Outcome> {
        run(
            xtask()
                .arg("down")
                .args(options)
                .args(["--instance", &self.name]),
            LIMIT,
        )
    }

    /// Its CLI with these words.
    pub fn dvctl(&self, words: &[&str]) -> Result<Outcome> {
        run(&mut self.command(words), LIMIT)
    }

    /// Its CLI, not started yet.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(root().join(".dev/bin/dvctl"));
        command
            .args(["--instance", &self.name])
            .args(words)
            .current_dir(root());
        command
    }

    /// An object as JSON.
    pub fn show(&self, kind: &str, name: &str) -> Result<Value> {
        let shown = self.dvctl(&[kind, "show", name, "-o", "json"])?.ok()?;
        serde_json::from_str(&shown.out)
            .with_context(|| format!("`{}` printed no JSON", shown.line))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the daemon of a role says.
    pub fn log(&self, role: &str) -> PathBuf {
        self.dir().join("log").join(format!("{role}.log"))
    }

    /// Its folder in the checkout.
    pub fn dir(&self) -> PathBuf {
        root().join(".dev").join(&self.name)
    }

    /// Its sockets.
    pub fn run_dir(&self) -> PathBuf {
        PathBuf::from(format!("/run/dv-{}", self.name))
    }

    /// Its network namespace.
    pub fn netns(&self) -> String {
        format!("dv-{}", self.name)
    }

    /// The daemon's program.
    pub fn daemon(&self) -> PathBuf {
        self.dir().join("bin/debvisord")
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.dir().join("debvisord.toml")
    }

    /// The daemons of a role that run now.
    pub fn daemons(&self, role: &str) -> Vec<u32> {
        let config = self.config().display().to_string();
        // Not a shell or setpriv that is about to become it.
        crate::pids_of(&["bin/debvisord --role", role, &config])
            .into_iter()
            .filter(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| name.trim() == "debvisord")
            })
            .collect()
    }

    /// The QEMU of a guest.
    pub fn qemu(&self, vm: &str) -> Option<u32> {
        let name = format!("dv-{}-{vm}", self.name);
        crate::pids_of(&["qemu-system-x86_64", &format!("guest={name},")])
            .first()
            .copied()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::env::var_os("DEBVISOR_KEEP").is_some() {
            eprintln!("kept instance `{}`", self.name);
            return;
        }
        match self.down(&["--guests"]).and_then(Outcome::ok) {
            Ok(_) => {}
            Err(error) => eprintln!("instance `{}` was not removed: {error:#}", self.name),
        }
    }
}

/// The root of the checkout.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The developer's command: the one that started us, else through cargo.
fn xtask() -> Command {
    let mut command = match std::env::var_os("DEBVISOR_XTASK") {
        Some(program) => Command::new(program),
        None => {
            let mut command = Command::new("cargo");
            command.arg("xtask");
            command
        }
    };
    command.current_dir(root());
    command
}
