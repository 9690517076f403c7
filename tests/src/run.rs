//! Runs a program to its end, with a limit, and keeps all it said.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub line: String,
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Outcome {
    /// Itself when the exit code was 0, else an error with what it said.
    pub fn ok(self) -> Result<Outcome> {
        self.exit(0)
    }

    /// Itself when the exit code was that one, else an error with what it said.
    pub fn exit(self, wanted: i32) -> Result<Outcome> {
        if self.code != wanted {
            bail!(
                "`{}` ended with {} and not {wanted}\n--- out\n{}\n--- err\n{}",
                self.line,
                self.code,
                self.out,
                self.err
            );
        }
        Ok(self)
    }

    /// Itself when it said all of these words, in either output.
    pub fn says(self, words: &[&str]) -> Result<Outcome> {
        for word in words {
            if !self.out.contains(word) && !self.err.contains(word) {
                bail!(
                    "`{}` does not say `{word}`\n--- out\n{}\n--- err\n{}",
                    self.line,
                    self.out,
                    self.err
                );
            }
        }
        Ok(self)
    }
}

/// Runs it with an empty input; it is killed after `limit`, which is an error.
pub fn run(command: &mut Command, limit: Duration) -> Result<Outcome> {
    run_with_input(command, b"", limit)
}

/// Runs it with that input.
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Result<Outcome> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<_> = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let line = line.join(" ");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // A program that ends without reading its input is no fault.
        thread::spawn(move || stdin.write_all(&input).is_ok());
    }
    let out = read(child.stdout.take());
    let err = read(child.stderr.take());
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            bail!("`{line}` was ended after {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(10));
    };
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        let bytes = reader.join().unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Outcome {
        line,
        code: status.code().unwrap_or(-1),
        out: text(out),
        err: text(err),
    })
}

fn read(from: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What was read until the pipe broke is still worth showing.
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}
