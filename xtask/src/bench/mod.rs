//! `cargo xtask bench NAME`: measures us beside something else in the same run and prints how they compare.
//!
//! A figure is compared with what it must reach; a miss is printed as a miss and never fails the command, because a number is to be read.

mod figure;
mod hand;
mod idle;
mod many;
mod vm_start;
mod world;

use anyhow::{Result, bail};

use crate::{sh, tree};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// What is measured
    #[arg(value_parser = NAMES)]
    name: String,
    /// One JSON object per figure in place of the table
    #[arg(long)]
    json: bool,
    /// How often everything is measured
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

const NAMES: [&str; 8] = [
    "store", "api", "gate", "audit", "verify", "vm-start", "many", "idle",
];

/// `cargo xtask bench`.
pub fn command(args: &Args) -> Result<()> {
    match args.name.as_str() {
        "store" => example("store", "store_bench", &[], args),
        "api" => example("server", "api_bench", &[], args),
        "gate" => example("server", "gate_bench", &[], args),
        what @ ("audit" | "verify") => example("runtime", "audit_bench", &[what], args),
        "vm-start" => show(vm_start::run(args.rounds.unwrap_or(7))?, args.json),
        "many" => show(many::run(args.rounds.unwrap_or(3))?, args.json),
        "idle" => show(idle::run()?, args.json),
        other => bail!("no benchmark `{other}`"),
    }
}

fn show(figures: Vec<figure::Figure>, json: bool) -> Result<()> {
    figure::print(&figures, json);
    Ok(())
}

/// A benchmark that is an example of its crate, because it measures the crate and not the daemons.
fn example(package: &str, name: &str, words: &[&str], args: &Args) -> Result<()> {
    let mut command = tree::cargo();
    command.args([
        "run",
        "--release",
        "--locked",
        "--quiet",
        "-p",
        package,
        "--example",
        name,
        "--",
    ]);
    command.args(words);
    if args.json {
        command.arg("--json");
    }
    if let Some(rounds) = args.rounds {
        command.args(["--rounds", &rounds.to_string()]);
    }
    sh::run(&mut command)
}
