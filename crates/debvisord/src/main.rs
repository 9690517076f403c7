//! The daemon of DebVisor, in two roles that never share a process outside tests: `api` is unprivileged, listens and
//! owns the store; `agent` is root, listens on nothing and runs guests.

mod agent;
mod api;
mod config;
#[cfg(test)]
mod copied_away;
mod facts;
mod first_start;
mod keys;
mod kinds;
#[cfg(test)]
mod laws;
mod logs;
mod notify;
mod offline;
mod print;
mod rates;
mod signals;
mod syslog;

use clap::{Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs one role of a DebVisor node.
#[derive(Parser)]
#[command(
    name = "debvisord",
    version,
    about,
    max_term_width = 100,
    subcommand_negates_reqs = true
)]
struct Args {
    /// Which role this process has.
    #[arg(long, value_enum, required_unless_present_any = ["print", "check"])]
    role: Option<Role>,
    /// The configuration file.
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        default_value = "/etc/debvisor/debvisord.toml"
    )]
    config: PathBuf,
    /// Name of the instance; keeps several on one machine apart.
    #[arg(long, value_name = "NAME", global = true)]
    instance: Option<String>,
    /// Overrides one key of the configuration, for example `--set listen.https=127.0.0.1:9443`.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,
    /// Checks the configuration file and ends.
    #[arg(long)]
    check: bool,
    /// Takes away what the agent of this instance made in the root network namespace, and ends. For after its guests
    /// and daemons have ended.
    #[arg(long, requires = "instance")]
    remove_uplink: bool,
    /// Prints a description that is made from the declared kinds, and ends.
    #[arg(long, value_enum, value_name = "WHAT")]
    print: Option<print::What>,
    /// Work on files while the daemon is stopped.
    #[command(subcommand)]
    offline: Option<Offline>,
}

/// What is done without a running daemon.
#[derive(Subcommand)]
enum Offline {
    /// Looks after the store file: copies, check, restore, downgrade.
    #[command(subcommand)]
    Store(offline::StoreTool),
    /// Looks after the keys that secrets are sealed with: make, rotate, status.
    #[command(subcommand)]
    Key(keys::KeyTool),
    /// Looks whether an audit trail is as it was written.
    #[command(subcommand)]
    Audit(offline::AuditTool),
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Listens, decides, owns the store; needs no privilege.
    Api,
    /// Runs guests on this machine; needs root.
    Agent,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("debvisord: {error:#}");
            tracing::error!(error = format!("{error:#}"), "debvisord cannot run");
            ExitCode::from(2)
        }
    }
}

fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(what) = args.print {
        print::print(what)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(Offline::Audit(tool)) = &args.offline
        && tool.names_all()
    {
        // A copy of a trail is looked at anywhere, also where there is no instance.
        let sound = tool.run(Path::new(""))?;
        return Ok(ExitCode::from(u8::from(!sound)));
    }
    let config = config::Config::load(&args.config, args.instance.as_deref(), &args.set)?;
    if args.check {
        println!("{} is good", args.config.display());
        return Ok(ExitCode::SUCCESS);
    }
    match args.offline {
        Some(Offline::Store(tool)) => {
            tool.run(&config.state_dir)?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(Offline::Audit(tool)) => {
            let sound = tool.run(&config.state_dir)?;
            return Ok(ExitCode::from(u8::from(!sound)));
        }
        Some(Offline::Key(tool)) => {
            tool.run(&config)?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    if let (true, Some(instance)) = (args.remove_uplink, &config.instance) {
        runtime.block_on(host::net::uplink::remove(instance))?;
        return Ok(ExitCode::SUCCESS);
    }
    let levels = logs::start(&config.log)?;
    let forced = match args.role {
        Some(Role::Api) => runtime.block_on(api::run(config, levels))?,
        Some(Role::Agent) => runtime.block_on(agent::run(config, levels))?,
        None => false,
    };
    // What still blocks a thread must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    Ok(if forced {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    })
}
