//! `dvctl` as people run it: the real binary against a small server on a unix socket, and (in `real`) against the real
//! one.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]
#![allow(
    clippy::disallowed_types,
    reason = "these tests start the program they test; this crate has no host"
)]

mod audit;
mod batches;
mod completion;
#[path = "../../../server/tests/surfaces/demo.rs"]
mod demo;
mod errors;
mod flags;
#[allow(dead_code, reason = "the server's own tests use more of it")]
#[path = "../../../server/tests/surfaces/house.rs"]
mod house;
#[allow(dead_code, reason = "the server's own tests use more of it")]
#[path = "../../../server/tests/surfaces/idp.rs"]
mod idp;
mod logins;
mod objects;
mod real;
mod server;
mod sso;
mod tasks;
mod tpm;

use server::Server;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// A server, and `dvctl` standing in the `.dev/bin` of a checkout that names the server as its default instance.
pub(crate) struct Stage {
    pub server: Server,
    pub folder: tempfile::TempDir,
}

impl Stage {
    pub fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join(".dev/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dvctl"), bin.join("dvctl")).unwrap();
        let socket = folder.path().join("api.sock");
        let text = socket.to_str().unwrap();
        std::fs::write(folder.path().join(".dev/default-instance"), text).unwrap();
        Stage {
            server: Server::start(&socket),
            folder,
        }
    }

    pub fn dvctl(&self) -> PathBuf {
        self.folder.path().join(".dev/bin/dvctl")
    }

    /// The command, not yet started; words are split at spaces.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.dvctl());
        command
            .args(words)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a line whose words have no spaces.
    pub fn run(&self, line: &str) -> Said {
        let words: Vec<&str> = line.split_whitespace().collect();
        Said::of(self.command(&words).output().unwrap())
    }

    /// Runs with something on standard input.
    pub fn feed(&self, line: &str, input: &[u8]) -> Said {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut child = self
            .command(&words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        Said::of(child.wait_with_output().unwrap())
    }
}

/// What a run said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    fn of(output: Output) -> Said {
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Standard output when it went well.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.out
    }

    /// Everything in one text, for expectations.
    pub fn all(&self) -> String {
        format!("exit {}\n{}{}", self.code, self.out, self.err)
    }
}
