//! `cargo xtask test`: what CI runs, cheapest first, each step with a time limit, and one table at the end.
//!
//! A step that cannot run here says so loudly and is counted as skipped; it never passes silently.

mod cargo;

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{
    api, deny, lab,
    packages::{self, Group},
    scanner, tidy,
};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the end-to-end tests and the lab guest
    #[arg(long, conflicts_with = "lab")]
    fast: bool,
    /// Run the lab guest only
    #[arg(long)]
    lab: bool,
    /// Run only tests whose name holds this, and no other check
    filter: Option<String>,
}

/// How a step ended, when it did not fail.
enum Done {
    Passed,
    /// With the reason, which is printed.
    Skipped(String),
}

type Work<'a> = Box<dyn FnOnce() -> Result<Done> + 'a>;

struct Step<'a> {
    name: &'static str,
    work: Work<'a>,
}

fn step<'a>(name: &'static str, work: impl FnOnce() -> Result<Done> + 'a) -> Step<'a> {
    Step {
        name,
        work: Box::new(work),
    }
}

fn always<'a>(name: &'static str, work: impl FnOnce() -> Result<()> + 'a) -> Step<'a> {
    step(name, move || work().map(|()| Done::Passed))
}

/// `cargo xtask test`.
pub fn command(args: &Args) -> Result<()> {
    packages::ensure(&[Group::Build, Group::Run, Group::Test])?;
    if !args.fast {
        packages::ensure(&[Group::Lab])?;
    }
    let filter = args.filter.as_deref();
    let mut steps = Vec::new();
    if filter.is_none() && !args.lab {
        steps.extend([
            always("format", cargo::format),
            always("tidy", tidy::command),
            always("lints", cargo::lints),
            always("api", api::check),
            step("deny", || denied(args.fast)),
            step("scanner", || scanner(args.fast)),
            always("docs", cargo::docs),
        ]);
    }
    if !args.lab {
        steps.push(always("tests", || cargo::tests(filter, args.fast)));
    }
    if filter.is_none() && !args.lab {
        steps.push(always("doc tests", cargo::doc_tests));
    }
    if !args.lab && !args.fast {
        steps.push(always("system", || cargo::system_tests(filter)));
    }
    if filter.is_none() && !args.fast {
        steps.push(always("lab", lab::command));
    }
    report(steps)
}

/// Installing the tool takes minutes, once for a machine: `--fast` does not wait for it.
fn denied(fast: bool) -> Result<Done> {
    if fast && deny::installed().is_none() {
        return Ok(Done::Skipped(
            "cargo-deny is not installed; `cargo xtask deny` installs it".into(),
        ));
    }
    deny::command().map(|()| Done::Passed)
}

/// Without it the scan of the API says that it was skipped.
fn scanner(fast: bool) -> Result<Done> {
    if fast && !scanner::installed() {
        return Ok(Done::Skipped("schemathesis is not installed".into()));
    }
    Ok(match scanner::install() {
        Ok(()) => Done::Passed,
        Err(error) => Done::Skipped(format!("schemathesis cannot be had: {error:#}")),
    })
}

/// Runs every step, also after one failed, so that one run shows all that is wrong.
fn report(steps: Vec<Step<'_>>) -> Result<()> {
    let mut lines = Vec::new();
    let mut failed = Vec::new();
    let begin = Instant::now();
    for Step { name, work } in steps {
        println!("\n=== {name}");
        let start = Instant::now();
        let outcome = match work() {
            Ok(Done::Passed) => "passed".to_owned(),
            Ok(Done::Skipped(why)) => {
                println!("SKIPPED: {name}: {why}");
                format!("SKIPPED: {why}")
            }
            Err(error) => {
                println!("FAILED: {name}: {error:#}");
                failed.push(name);
                format!("FAILED: {error:#}")
            }
        };
        lines.push(format!(
            "{name:<12} {:>7}  {outcome}",
            Spent(start.elapsed())
        ));
    }
    println!("\n=== all steps, {}", Spent(begin.elapsed()));
    for line in &lines {
        println!("{line}");
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

struct Spent(Duration);

impl fmt::Display for Spent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&format!("{:.1} s", self.0.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_fails_the_run_after_the_others_ran() {
        let mut ran = false;
        let steps = vec![
            always("bad", || bail!("no")),
            step("skipped", || Ok(Done::Skipped("no tool".into()))),
            always("good", || {
                ran = true;
                Ok(())
            }),
        ];
        let error = report(steps).unwrap_err();
        assert_eq!(error.to_string(), "failed: bad");
        assert!(ran);
    }
}
