//! `cargo xtask down`: stops the daemons of an instance; with `--guests` removes all there is of it.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    instance::{
        self, Instance,
        daemons::{self, Role},
    },
    sh,
};

/// Options of `cargo xtask down`.
#[derive(clap::Args)]
pub struct Args {
    /// End guests too, and remove the instance: its network namespace, disks, state and sockets
    #[arg(long)]
    guests: bool,
    /// The instance to stop
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        env = "DEBVISOR_INSTANCE",
        conflicts_with = "all"
    )]
    instance: String,
    /// Every instance of this checkout
    #[arg(long)]
    all: bool,
}

/// How long processes of an instance may take to end when asked.
const GRACE: Duration = Duration::from_secs(5);

/// `cargo xtask down`.
pub fn command(args: &Args) -> Result<()> {
    let instances = if args.all {
        Instance::all()
    } else {
        vec![Instance::named(&args.instance)?]
    };
    for one in &instances {
        down(one, args.guests)?;
    }
    if args.guests && Instance::all().is_empty() {
        let _ = fs::remove_dir_all(instance::home());
    }
    Ok(())
}

/// Stops the daemons; with `guests` removes the instance.
pub fn down(instance: &Instance, guests: bool) -> Result<()> {
    let mut stopped = Vec::new();
    // The agent first: it says farewell to the api.
    for role in [Role::Agent, Role::Api] {
        if daemons::stop(instance, role)? {
            stopped.push(role.name());
        }
    }
    let name = &instance.name;
    match (stopped.as_slice(), guests) {
        ([], false) => eprintln!("instance `{name}`: nothing runs"),
        ([], true) => {}
        (roles, _) => eprintln!("instance `{name}`: stopped {}", roles.join(" and ")),
    }
    if guests {
        remove(instance)?;
        eprintln!("instance `{name}`: removed");
    } else if let left = belonging(instance).len()
        && left > 0
    {
        eprintln!(
            "instance `{name}`: {left} processes of guests and networks go on; `cargo xtask down --guests` ends them"
        );
    }
    Ok(())
}

fn remove(instance: &Instance) -> Result<()> {
    let left = belonging(instance);
    daemons::signal("-TERM", &left)?;
    let end = Instant::now() + GRACE;
    loop {
        let left = belonging(instance);
        if left.is_empty() {
            break;
        }
        if Instant::now() > end {
            daemons::signal("-KILL", &left)?;
        }
        if Instant::now() > end + GRACE {
            bail!(
                "processes {left:?} of instance `{}` do not end",
                instance.name
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
    remove_network(instance)?;
    sh::run(
        sh::as_root("rm")?
            .arg("-rf")
            .arg(instance.run_dir())
            .arg(instance.dir())
            .arg(instance.secrets_dir()),
    )
}

/// The daemon knows what it made outside its namespace, and takes it away; then the namespace goes.
fn remove_network(instance: &Instance) -> Result<()> {
    let program = instance.dir().join("bin/debvisord");
    if program.exists() {
        let mut command = sh::as_root(&program.to_string_lossy())?;
        command
            .args(["--role", "agent", "--instance", &instance.name, "--config"])
            .arg(instance.config())
            .arg("--remove-uplink");
        sh::output(&mut command)?;
    }
    if Path::new("/run/netns").join(instance.netns()).exists() {
        sh::output(sh::as_root("ip")?.args(["netns", "delete", &instance.netns()]))?;
    }
    Ok(())
}

/// Processes of the instance apart from the daemons: in its namespace, or with its folders or its name in their command line.
fn belonging(instance: &Instance) -> Vec<u32> {
    let marks = [
        format!("{}/", instance.run_dir().display()),
        format!("{}/", instance.dir().display()),
        format!("dv-{}-", instance.name),
    ];
    let in_namespace = pids_in_namespace(instance);
    let own = own_ancestors();
    let named = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        let program = line.split('\0').next().unwrap_or_default();
        let ours = ["qemu-system-x86_64", "swtpm", "dnsmasq", "qemu-img"];
        Path::new(program)
            .file_name()
            .is_some_and(|name| ours.iter().any(|one| name == *one))
            && marks.iter().any(|mark| line.contains(mark.as_str()))
    };
    sh::pids()
        .into_iter()
        .filter(|pid| !own.contains(pid) && (in_namespace.contains(pid) || named(pid)))
        .collect()
}

fn pids_in_namespace(instance: &Instance) -> Vec<u32> {
    if !Path::new("/run/netns").join(instance.netns()).exists() {
        return Vec::new();
    }
    let Ok(mut command) = sh::as_root("ip") else {
        return Vec::new();
    };
    let text = sh::output(command.args(["netns", "pids", &instance.netns()])).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// We ourselves and who started us: never to be ended, even when a developer's shell is in the namespace.
fn own_ancestors() -> Vec<u32> {
    let mut own = vec![std::process::id()];
    while let Some(parent) = own
        .last()
        .and_then(|&pid| sh::parent_of(pid))
        .filter(|&pid| pid > 0)
    {
        own.push(parent);
    }
    own
}
