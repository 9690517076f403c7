//! The questions we ask, each as one function.

use super::agent::Agent;
use super::error::QgaError;
use super::types::{
    Address, AgentInfo, Exec, ExecOutcome, FreezeState, Interface, OsInfo, ShutdownMode,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

type Result<T> = std::result::Result<T, QgaError>;

/// How much of a file is read or written in one question, in bytes.
const CHUNK: usize = 48 * 1024;

#[derive(Deserialize)]
struct RawCommand {
    name: String,
    enabled: bool,
}

#[derive(Deserialize)]
struct RawInfo {
    version: String,
    supported_commands: Vec<RawCommand>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawInterface {
    name: String,
    hardware_address: Option<String>,
    #[serde(default)]
    ip_addresses: Vec<RawAddress>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawAddress {
    ip_address: String,
    prefix: u8,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RawStatus {
    exited: bool,
    exitcode: Option<i32>,
    signal: Option<i32>,
    #[serde(default)]
    out_data: String,
    #[serde(default)]
    err_data: String,
    #[serde(default)]
    out_truncated: bool,
    #[serde(default)]
    err_truncated: bool,
}

fn decoded(command: &str, text: &str) -> Result<Vec<u8>> {
    BASE64.decode(text).map_err(|error| QgaError::Unexpected {
        command: command.to_owned(),
        cause: error.to_string(),
    })
}

fn missing(command: &str, what: &str) -> QgaError {
    QgaError::Unexpected {
        command: command.to_owned(),
        cause: format!("it has no {what}"),
    }
}

/// All functions fail as [`Agent::ask`] does.
impl Agent {
    /// Whether it is there.
    pub async fn ping(&self) -> Result<()> {
        self.ask_within("guest-ping", Value::Null, Duration::from_secs(3))
            .await
            .map(drop)
    }

    /// Its version and what it can do.
    pub async fn info(&self) -> Result<AgentInfo> {
        let raw: RawInfo = self.query("guest-info", Value::Null).await?;
        let enabled = raw.supported_commands.into_iter().filter(|c| c.enabled);
        Ok(AgentInfo {
            version: raw.version,
            commands: enabled.map(|c| c.name).collect(),
        })
    }

    /// What system the guest runs.
    pub async fn os_info(&self) -> Result<OsInfo> {
        self.query("guest-get-osinfo", Value::Null).await
    }

    /// The guest's host name.
    pub async fn host_name(&self) -> Result<String> {
        let command = "guest-get-host-name";
        let answer = self.ask(command, Value::Null).await?;
        let name = answer.get("host-name").and_then(Value::as_str);
        name.map(str::to_owned)
            .ok_or_else(|| missing(command, "name"))
    }

    /// The guest's network interfaces and addresses. Those that cannot be read are left out.
    pub async fn interfaces(&self) -> Result<Vec<Interface>> {
        let raw: Vec<RawInterface> = self
            .query("guest-network-get-interfaces", Value::Null)
            .await?;
        let address = |raw: RawAddress| {
            // A link-local address may carry its zone.
            let ip = raw.ip_address.split('%').next()?.parse().ok()?;
            Some(Address {
                ip,
                prefix: raw.prefix,
            })
        };
        Ok(raw
            .into_iter()
            .map(|raw| Interface {
                name: raw.name,
                mac: raw.hardware_address,
                addresses: raw.ip_addresses.into_iter().filter_map(address).collect(),
            })
            .collect())
    }

    /// Starts a program in the guest and returns its process id there. Ask [`Agent::exec_status`] until it has ended, or the
    /// agent keeps its output for ever.
    pub async fn exec_start(&self, exec: &Exec) -> Result<i64> {
        let command = "guest-exec";
        let mut arguments = json!({
            "path": exec.path,
            "arg": exec.args,
            "capture-output": true,
        });
        if !exec.env.is_empty() {
            arguments["env"] = json!(exec.env);
        }
        if !exec.input.is_empty() {
            arguments["input-data"] = json!(BASE64.encode(&exec.input));
        }
        let answer = self.ask(command, arguments).await?;
        let pid = answer.get("pid").and_then(Value::as_i64);
        pid.ok_or_else(|| missing(command, "pid"))
    }

    /// How a program started by [`Agent::exec_start`] ended; `None` while it runs. The outcome is told once.
    pub async fn exec_status(&self, pid: i64) -> Result<Option<ExecOutcome>> {
        let command = "guest-exec-status";
        let raw: RawStatus = self.query(command, json!({ "pid": pid })).await?;
        if !raw.exited {
            return Ok(None);
        }
        Ok(Some(ExecOutcome {
            code: raw.exitcode,
            signal: raw.signal,
            stdout: decoded(command, &raw.out_data)?,
            stderr: decoded(command, &raw.err_data)?,
            truncated: raw.out_truncated || raw.err_truncated,
        }))
    }

    /// Runs a program in the guest to its end, `limit` at most. Past it the program runs on in the guest: the agent cannot
    /// stop it.
    pub async fn exec(&self, exec: &Exec, limit: Duration) -> Result<ExecOutcome> {
        let pid = self.exec_start(exec).await?;
        let wait = async {
            let mut pause = Duration::from_millis(10);
            loop {
                if let Some(outcome) = self.exec_status(pid).await? {
                    return Ok(outcome);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 3 / 2).min(Duration::from_secs(1));
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(done) => done,
            Err(_) => Err(QgaError::Timeout {
                command: format!("exec {}", exec.path),
                after: limit,
            }),
        }
    }

    /// Reads a file of the guest, `most` bytes at most.
    pub async fn file_read(&self, path: &str, most: usize) -> Result<Vec<u8>> {
        let handle = self.file_open(path, "r").await?;
        let read = self.file_read_all(handle, path, most).await;
        self.file_close(handle).await;
        read
    }

    async fn file_read_all(&self, handle: i64, path: &str, most: usize) -> Result<Vec<u8>> {
        let command = "guest-file-read";
        let mut bytes = Vec::new();
        loop {
            let arguments = json!({ "handle": handle, "count": CHUNK });
            let answer = self.ask(command, arguments).await?;
            let text = answer.get("buf-b64").and_then(Value::as_str);
            let chunk = decoded(command, text.ok_or_else(|| missing(command, "data"))?)?;
            bytes.extend_from_slice(&chunk);
            if bytes.len() > most {
                return Err(QgaError::TooLarge {
                    path: path.to_owned(),
                    most,
                });
            }
            if chunk.is_empty() || answer.get("eof") == Some(&Value::Bool(true)) {
                return Ok(bytes);
            }
        }
    }

    /// Writes a file of the guest, replacing what is there. A failure on the way leaves a part of it.
    pub async fn file_write(&self, path: &str, bytes: &[u8]) -> Result<()> {
        let handle = self.file_open(path, "w").await?;
        let written = self.file_write_all(handle, bytes).await;
        self.file_close(handle).await;
        written
    }

    async fn file_write_all(&self, handle: i64, bytes: &[u8]) -> Result<()> {
        let command = "guest-file-write";
        for mut chunk in bytes.chunks(CHUNK) {
            while !chunk.is_empty() {
                let arguments = json!({ "handle": handle, "buf-b64": BASE64.encode(chunk) });
                let answer = self.ask(command, arguments).await?;
                let count = answer.get("count").and_then(Value::as_u64).unwrap_or(0);
                match usize::try_from(count) {
                    Ok(count) if count > 0 && count <= chunk.len() => chunk = &chunk[count..],
                    _ => return Err(missing(command, "sensible count")),
                }
            }
        }
        // Buffered in the agent until told so; its close reports no failure.
        let flushed = self.ask("guest-file-flush", json!({ "handle": handle }));
        flushed.await.map(drop)
    }

    async fn file_open(&self, path: &str, mode: &str) -> Result<i64> {
        let command = "guest-file-open";
        let arguments = json!({ "path": path, "mode": mode });
        let handle = self.ask(command, arguments).await?;
        handle.as_i64().ok_or_else(|| missing(command, "handle"))
    }

    async fn file_close(&self, handle: i64) {
        let closed = self.ask("guest-file-close", json!({ "handle": handle }));
        if let Err(error) = closed.await {
            tracing::debug!(%error, "a file stays open in the guest agent");
        }
    }

    /// Flushes and freezes the guest's file systems, and returns how many. Nothing in the guest can write until
    /// [`Agent::thaw`]: thaw in every case, also after an error here, which may come after some were frozen.
    pub async fn freeze(&self) -> Result<u64> {
        let command = "guest-fsfreeze-freeze";
        // Flushing a busy guest takes its time.
        let limit = Duration::from_secs(60);
        let answer = self.ask_within(command, Value::Null, limit).await?;
        answer.as_u64().ok_or_else(|| missing(command, "count"))
    }

    /// Thaws the guest's file systems, and returns how many were frozen.
    pub async fn thaw(&self) -> Result<u64> {
        let command = "guest-fsfreeze-thaw";
        let limit = Duration::from_secs(30);
        let answer = self.ask_within(command, Value::Null, limit).await?;
        answer.as_u64().ok_or_else(|| missing(command, "count"))
    }

    /// Whether the guest's file systems are frozen.
    pub async fn freeze_state(&self) -> Result<FreezeState> {
        self.query("guest-fsfreeze-status", Value::Null).await
    }

    /// Asks the guest to end. It does so later, or not at all: its state tells.
    pub async fn shutdown(&self, mode: ShutdownMode) -> Result<()> {
        let mode = match mode {
            ShutdownMode::PowerOff => "powerdown",
            ShutdownMode::Reboot => "reboot",
            ShutdownMode::Halt => "halt",
        };
        self.tell("guest-shutdown", json!({ "mode": mode })).await
    }
}
