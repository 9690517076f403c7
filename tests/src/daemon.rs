//! A daemon of an instance, started by hand: under another clock, in another boot, with another configuration.

use std::{
    fs::{self, File},
    io::{Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{Instance, until};

/// What stands around a daemon's own command line.
#[derive(Clone, Debug, Default)]
pub struct Around {
    /// A program and its arguments that become the daemon, such as `unshare --mount`.
    pub before: Vec<String>,
    /// Variables of its environment.
    pub env: Vec<(String, String)>,
}

impl Around {
    /// One more variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }
}

impl Instance {
    /// Starts a role as `up` does, with that around it. It goes on when the test ends, as after `up`.
    pub fn start(&self, role: &str, around: &Around) -> Result<()> {
        let mut words = vec!["setsid".to_owned()];
        words.extend(around.before.iter().cloned());
        let owner = fs::metadata(self.dir())?.uid();
        if role == "api" && owner != 0 {
            words.extend(["setpriv".to_owned(), format!("--reuid={owner}")]);
            words.extend([format!("--regid={owner}"), "--clear-groups".into()]);
            words.push("--no-new-privs".into());
        }
        words.push(self.daemon().display().to_string());
        words.extend(["--role", role, "--instance", self.name(), "--config"].map(str::to_owned));
        words.push(self.config().display().to_string());
        let log = File::options().append(true).open(self.log(role))?;
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .envs(around.env.iter().cloned())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start `{}`", words.join(" ")))?;
        // Reaped when it ends, so that it is never taken for one that lives.
        thread::spawn(move || child.wait());
        Ok(())
    }

    /// Starts both roles and waits until they are ready.
    pub fn start_both(&self, around: &Around) -> Result<()> {
        self.start("api", around)?;
        self.start("agent", around)?;
        self.ready(Duration::from_secs(60))
    }

    /// Waits until `/health/ready` says yes.
    pub fn ready(&self, limit: Duration) -> Result<()> {
        until("the daemons are ready", limit, || {
            Ok(self
                .ask("/health/ready")
                .is_ok_and(|(status, _)| status == 200)
                .then_some(()))
        })
    }

    /// `GET` on the local socket: status and body.
    pub fn ask(&self, path: &str) -> Result<(u16, String)> {
        ask(&self.socket(), path)
    }

    /// The local socket of the api.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("api.sock")
    }
}

/// `GET` on a local socket: status and body.
pub fn ask(socket: &Path, path: &str) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .with_context(|| format!("no HTTP answer: {text}"))?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((status, body.to_owned()))
}
