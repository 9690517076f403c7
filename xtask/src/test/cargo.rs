//! The steps that are cargo's: format, lints, documentation, tests.

use std::time::Duration;

use anyhow::Result;

use crate::{sh, tree};

/// Package of the end-to-end tests; they have a step of their own.
pub const SYSTEM_TESTS: &str = "system-tests";

const CHECK: Duration = Duration::from_secs(30 * 60);
const TESTS: Duration = Duration::from_secs(40 * 60);

fn cargo(args: &[&str], limit: Duration) -> Result<()> {
    sh::run_within(tree::cargo().args(args), limit)
}

pub fn format() -> Result<()> {
    cargo(&["fmt", "--all", "--check"], CHECK)
}

pub fn lints() -> Result<()> {
    cargo(
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ],
        CHECK,
    )
}

/// Builds the documentation, so that a link in it that leads nowhere is an error. Missing documentation is one of the lints.
pub fn docs() -> Result<()> {
    let mut command = tree::cargo();
    command
        .args([
            "doc",
            "--workspace",
            "--no-deps",
            "--locked",
            "--quiet",
            "--document-private-items",
        ])
        .env(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        );
    sh::run_within(&mut command, CHECK)
}

/// Tests of every crate; without those that build images and boot whole Debians when it must be quick.
pub fn tests(filter: Option<&str>, fast: bool) -> Result<()> {
    let with_nextest = nextest();
    let mut args = if with_nextest {
        vec![
            "nextest",
            "run",
            "--no-fail-fast",
            "--status-level",
            "fail",
            "--final-status-level",
            "slow",
        ]
    } else {
        vec!["test", "--no-fail-fast", "--all-targets"]
    };
    args.extend(["--workspace", "--locked", "--exclude", SYSTEM_TESTS]);
    if fast && with_nextest {
        args.extend(["-E", "not binary(recipes)"]);
    }
    args.extend(filter);
    cargo(&args, TESTS)
}

pub fn doc_tests() -> Result<()> {
    cargo(
        &[
            "test",
            "--workspace",
            "--locked",
            "--doc",
            "--quiet",
            "--exclude",
            SYSTEM_TESTS,
        ],
        CHECK,
    )
}

/// The end-to-end tests: real binaries, real guests, one after another.
pub fn system_tests(filter: Option<&str>) -> Result<()> {
    let mut command = tree::cargo();
    command
        .args([
            "test",
            "--locked",
            "-p",
            SYSTEM_TESTS,
            "--test",
            "system",
            "--",
        ])
        .args(filter);
    command.env("DEBVISOR_XTASK", std::env::current_exe()?);
    sh::run_within(&mut command, TESTS)
}

/// Whether tests run each in a process of its own, with a limit each; the limits are in `.config/nextest.toml`.
fn nextest() -> bool {
    sh::find("cargo-nextest").is_some()
}
