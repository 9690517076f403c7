//! `cargo xtask timings`: where compile time goes.

use std::{fs, time::Instant};

use anyhow::Result;

use crate::{sh, tree};

/// Rebuilds our own crates with cargo's timing report, after a change to the lowest of them, and says where the report is.
pub fn command() -> Result<()> {
    sh::run(tree::cargo().args(["build", "--workspace", "--locked"]))?;
    let lowest = tree::root().join("crates/model/src/lib.rs");
    fs::File::options()
        .append(true)
        .open(&lowest)?
        .set_modified(now())?;
    let start = Instant::now();
    sh::run(tree::cargo().args(["build", "--workspace", "--locked", "--timings"]))?;
    println!(
        "a change in crates/model costs {:.1} s; by crate: {}",
        start.elapsed().as_secs_f64(),
        tree::target()
            .join("cargo-timings/cargo-timing.html")
            .display()
    );
    Ok(())
}

fn now() -> std::time::SystemTime {
    std::time::SystemTime::now()
}
