//! Runs the tests in order and shares one instance among them.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Result, anyhow};
use system_tests::Instance;

/// One test.
pub struct Test {
    pub name: &'static str,
    pub run: fn(&mut Stage) -> Result<()>,
}

/// What tests share.
#[derive(Default)]
pub struct Stage {
    instance: Option<Instance>,
}

impl Stage {
    /// The shared instance with its tiny guest `hello`, made by the first test that asks.
    pub fn tiny(&mut self) -> Result<&Instance> {
        if self.instance.is_none() {
            self.instance = Some(Instance::up("systest", &["--tiny"])?);
        }
        self.instance.as_ref().ok_or_else(|| anyhow!("no instance"))
    }

    /// Removes the shared instance now.
    pub fn take(&mut self) -> Option<Instance> {
        self.instance.take()
    }
}

/// Runs those whose name holds one of the arguments that are no options; all when there is none.
pub fn main(tests: &[Test]) -> ExitCode {
    let words: Vec<_> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wanted =
        |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let mut stage = Stage::default();
    let (mut passed, mut failed) = (0, Vec::new());
    for test in tests.iter().filter(|test| wanted(test.name)) {
        let start = Instant::now();
        println!("test {} ...", test.name);
        let outcome = catch_unwind(AssertUnwindSafe(|| (test.run)(&mut stage)));
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("it panicked; its message is above")));
        let took = start.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok ({took:.1} s)", test.name);
            }
            Err(error) => {
                failed.push(test.name);
                println!("test {} ... FAILED ({took:.1} s)\n{error:#}", test.name);
            }
        }
    }
    drop(stage);
    println!("\nsystem: {passed} passed, {} failed", failed.len());
    for name in &failed {
        println!("    {name}");
    }
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
