//! `exec`: a command in the guest. The agent runs it and keeps what it writes; we hand that over when it has ended.

use super::super::hypervisor::{Ask, Hypervisor, Reply, VmId};
use super::guest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, Result};
use runtime::{Cx, Msg, StreamIo, StreamRequest};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// What the client sends first.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    /// Program and arguments.
    command: Vec<String>,
    /// What it reads, as text.
    #[serde(default)]
    stdin: String,
    /// Its environment, as `NAME=value`.
    #[serde(default)]
    env: Vec<String>,
}

/// First and longest pause between two looks whether the command has ended.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

pub(super) async fn open(cx: Cx, request: StreamRequest, mut io: StreamIo) -> Result<()> {
    let (id, hypervisor) = guest(&cx, &request, "exec").await?;
    let command = loop {
        match io.recv().await {
            None => return Ok(()),
            Some(Msg::Data(_)) => {}
            Some(Msg::Control(value)) => {
                break serde_json::from_value::<Command>(value)
                    .map_err(|e| Error::field("command", e.to_string()))?;
            }
        }
    };
    let Some((path, args)) = command.command.split_first() else {
        return Err(Error::field("command", "is empty").hint("give a program and its arguments"));
    };
    let mut arguments =
        json!({ "path": path, "arg": args, "capture-output": true, "env": command.env });
    if !command.stdin.is_empty() {
        arguments["input-data"] = json!(STANDARD.encode(&command.stdin));
    }
    let started = agent(&*hypervisor, &id, "guest-exec", arguments).await?;
    let mut pause = PAUSE.0;
    loop {
        let arguments = json!({ "pid": started["pid"] });
        let status = agent(&*hypervisor, &id, "guest-exec-status", arguments).await?;
        if status["exited"].as_bool().unwrap_or(false) {
            return finish(&io, &status).await;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // The command runs on in the guest; nobody is there to hear of it.
            () = io.closed() => return Ok(()),
        }
        pause = (pause * 2).min(PAUSE.1);
    }
}

async fn finish(io: &StreamIo, status: &Value) -> Result<()> {
    for (stream, field, cut) in [
        ("stdout", "out-data", "out-truncated"),
        ("stderr", "err-data", "err-truncated"),
    ] {
        let Some(text) = status[field].as_str() else {
            continue;
        };
        let bytes = STANDARD
            .decode(text)
            .map_err(|e| Error::internal("the guest agent sent no base64").because(e))?;
        let truncated = status[cut].as_bool().unwrap_or(false);
        io.send(Msg::Control(
            json!({ "stream": stream, "truncated": truncated }),
        ))
        .await?;
        io.data(bytes).await?;
    }
    // Ended by a signal: as a shell says it.
    let signal = status["signal"].as_i64().map(|s| 128 + s);
    let exit = status["exitcode"].as_i64().or(signal).unwrap_or(0);
    io.send(Msg::Control(json!({ "exit": exit }))).await
}

async fn agent(
    hypervisor: &dyn Hypervisor,
    id: &VmId,
    command: &'static str,
    arguments: Value,
) -> Result<Value> {
    match hypervisor
        .ask(id, Ask::Agent { command, arguments })
        .await?
    {
        Reply::Json(value) => Ok(value),
        other => Err(Error::internal(format!(
            "the guest agent answered {other:?}"
        ))),
    }
}
