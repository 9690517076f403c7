//! `cargo xtask up`: from a checkout to a guest that answers, on one command. Twice changes nothing.

mod config;
mod first;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    instance::{
        self, Instance,
        daemons::{self, Role},
    },
    packages::{self, Group},
    sh, tree,
};

/// Options of `cargo xtask up`.
#[derive(clap::Args)]
pub struct Args {
    /// Use a guest of a few megabytes, ready in seconds, in place of Debian 12
    #[arg(long, conflicts_with = "bare")]
    pub tiny: bool,
    /// Start the daemons and make nothing
    #[arg(long)]
    pub bare: bool,
    /// Build optimised daemons: slower to build, for measurements
    #[arg(long)]
    pub release: bool,
    /// The instance to start; several run side by side
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        env = "DEBVISOR_INSTANCE"
    )]
    pub instance: String,
}

/// How long the daemons may take until they are ready.
const READY: Duration = Duration::from_secs(60);

/// `cargo xtask up`.
pub fn command(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let instance = Instance::named(&args.instance)?;
    packages::ensure(&[Group::Build, Group::Run])?;
    start(&instance, args.release)?;
    if !args.bare {
        first::make(
            &instance,
            if args.tiny {
                first::Sort::Tiny
            } else {
                first::Sort::Debian
            },
        )?;
    }
    first::tell(&instance, !args.bare, begin.elapsed())
}

/// Project, pool, network and the tiny image, without a guest.
pub fn ground(instance: &Instance) -> Result<()> {
    first::ground(instance, first::Sort::Tiny).map(|_| ())
}

/// Builds and starts the daemons of an instance, or leaves those that run what was built.
pub fn start(instance: &Instance, release: bool) -> Result<()> {
    let mut cargo = tree::cargo();
    cargo.args(["build", "--locked", "-p", "debvisord", "-p", "dvctl"]);
    if release {
        cargo.arg("--release");
    }
    eprintln!("building debvisord and dvctl");
    sh::run(&mut cargo)?;
    let _one_at_a_time = prepare(instance)?;
    let program = instance.dir().join("bin/debvisord");
    let changed = instance::install("debvisord", release, &program)?;
    instance::install("dvctl", release, &dvctl_path())?;
    name_default(instance)?;
    let changed = config::write(instance)? || changed;
    for role in Role::BOTH {
        if changed && daemons::stop(instance, role)? {
            eprintln!(
                "stopped the {} of instance `{}`: a newer one is here",
                role.name(),
                instance.name
            );
        }
        if daemons::pids(instance, role).is_empty() {
            eprintln!(
                "starting the {} of instance `{}`",
                role.name(),
                instance.name
            );
            daemons::start(instance, role, &program)?;
        }
    }
    daemons::wait_ready(instance, READY)
}

/// The folders of an instance, owned by whom its api runs as; the lock keeps a second `up` of it waiting.
fn prepare(instance: &Instance) -> Result<fs::File> {
    let dir = instance.dir();
    for folder in [dir.join("log"), instance.secrets_dir()] {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let lock = fs::File::create(dir.join("up.lock"))?;
    lock.lock()
        .with_context(|| format!("cannot lock {}", dir.display()))?;
    let uid = daemons::api_uid()?.to_string();
    // The run folder is on a file system that a reboot empties. Root makes it and gives it away.
    let mut make = sh::as_root("install")?;
    sh::output(
        make.args(["-d", "-m", "755", "-o", &uid])
            .arg(instance.run_dir()),
    )?;
    if sh::is_root() {
        sh::output(
            Command::new("chown")
                .arg(&uid)
                .arg(&dir)
                .arg(dir.join("log"))
                .arg(instance.secrets_dir()),
        )?;
    }
    Ok(lock)
}

/// The instance that `.dev/bin/dvctl` means when nothing is said: the first that was started here.
fn name_default(instance: &Instance) -> Result<()> {
    let file = instance::home().join("default-instance");
    let named = fs::read_to_string(&file).unwrap_or_default();
    let stands = Instance::named(named.trim()).is_ok_and(|other| other.config().exists());
    if !stands || instance.name == "default" {
        fs::write(&file, &instance.name)
            .with_context(|| format!("cannot write {}", short(&file)))?;
    }
    Ok(())
}

/// The CLI of this checkout.
pub fn dvctl_path() -> PathBuf {
    instance::home().join("bin/dvctl")
}

/// The CLI, speaking to this instance.
pub fn dvctl(instance: &Instance) -> Command {
    let mut command = Command::new(dvctl_path());
    command
        .args(["--instance", &instance.name])
        .current_dir(tree::root());
    command
}

/// Shown to people: relative to the checkout when it is in there.
fn short(path: &Path) -> String {
    path.strip_prefix(tree::root())
        .unwrap_or(path)
        .display()
        .to_string()
}
