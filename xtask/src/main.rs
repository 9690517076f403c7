//! Developer commands: `cargo xtask NAME`.
//!
//! It builds, starts, tests and measures DebVisor and checks the rules of the tree. It never runs on a production host, is linked into nothing, and needs few crates, because every
//! other command waits for it to compile.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a developer's tool, not the daemon: starting cargo, apt and the daemons is its whole work, and it reads the wall clock only to time them"
)]

mod api;
mod bench;
mod deb;
mod deny;
mod down;
mod instance;
mod lab;
mod packages;
mod scanner;
mod sh;
mod test;
mod tidy;
mod timings;
mod tree;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Developer commands of DebVisor.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build, start an instance, and boot a first guest in it
    Up(up::Args),
    /// Stop an instance; guests go on unless told otherwise
    Down(down::Args),
    /// Write `api/`: what the declarations look like from outside
    Api(api::Args),
    /// Name the Debian packages this tree needs, say which are missing and why, and install them
    Packages {
        /// Only say what is missing; change nothing
        #[arg(long)]
        check: bool,
    },
    /// Check formatting, lints, rules of the tree and golden files, and run every test, real guests included
    Test(test::Args),
    /// Check the rules of the tree: import table, file sizes, forbidden words, ADR list, links
    Tidy,
    /// Measure DebVisor beside something else in the same run
    Bench(bench::Args),
    /// Build the Debian package of the daemon and the CLI
    Deb,
    /// Check licences, bans and sources of every dependency with cargo-deny, which it installs when missing
    Deny,
    /// Show what a change in the lowest crate costs to rebuild, crate by crate
    Timings,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Up(args) => up::command(&args),
        Command::Down(args) => down::command(&args),
        Command::Api(args) => api::command(&args),
        Command::Packages { check } => packages::command(check),
        Command::Test(args) => test::command(&args),
        Command::Tidy => tidy::command(),
        Command::Bench(args) => bench::command(&args),
        Command::Deb => deb::command(),
        Command::Deny => deny::command(),
        Command::Timings => timings::command(),
    }
}
