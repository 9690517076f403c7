//! Streams of an object: a console in raw mode, a program's input and output with its exit code, logs, uploads.
//!
//! Control messages that are understood: `{"error": problem}`, `{"stream": "stderr"}` (what follows belongs there) with an optional `"data"`,
//! `{"exit_code": 3}` or `{"exit": 3}`, `{"missed": n}`; for files `{"offset": n}`, `{"received": n}`, `{"complete": true}`. We send `{"resize": {"columns", "rows"}}` for a terminal and `{"eof": true}` at the end of our input.

mod file;

use super::terminal::{self, ESCAPE, Raw};
use super::{given, target, text, texts};
use crate::connect::{Frame, Request, Socket, query};
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::grammar::{ACTION, flags_of};
use crate::output::Progress;
use crate::registry::{KindDef, StreamDef};
use crate::session::{Session, Target};
use bytes::Bytes;
use clap::ArgMatches;
use futures::StreamExt as _;
use serde_json::{Value, json};
use std::io::Write as _;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

/// Opens a stream and carries bytes until it ends.
pub async fn run(s: &Session, kind: &KindDef, stream: &StreamDef, m: &ArgMatches) -> Result<()> {
    let flags = flags_of(&stream.input, ACTION);
    let mut params = json!({});
    for flag in &flags {
        flag.take(m, &mut params)?;
    }
    if stream.way == "duplex" {
        if let Some(file) = text(m, "source") {
            let target = target(s, kind, m).await?;
            return file::send(s, &target, stream, &params, file).await;
        }
        if let Some(file) = text(m, "name").filter(|name| file::makes(kind, name)) {
            let target = file::object(s, kind, file).await?;
            return file::send(s, &target, stream, &params, file).await;
        }
    }
    let target = target(s, kind, m).await?;
    let path = address(s, &target, stream, &params).await?;
    match stream.way.as_str() {
        "read" => read(s, &path, text(m, "into")).await,
        "write" => {
            write(
                s,
                &target,
                stream,
                &path,
                &params,
                text(m, "source").unwrap_or("-"),
            )
            .await
        }
        _ => {
            let words = texts(m, "words");
            // A program has words after `--` and ends by itself; a console is a terminal.
            let program = !words.is_empty() || flags.iter().any(|f| f.trailing);
            let wants_tty = params.get("tty") == Some(&Value::Bool(true));
            let how = How {
                raw: s.screen.in_tty && s.screen.out_tty && (!program || wants_tty),
                program,
                reads: !program || given(m, "stdin"),
            };
            let mut socket = s.client.socket(&path).await?;
            if !words.is_empty() {
                let stdin = match how.reads {
                    true => std::io::read_to_string(std::io::stdin())
                        .map_err(|e| Failure::io("reading standard input", e))?,
                    false => String::new(),
                };
                let first = json!({ "command": words, "stdin": stdin });
                socket.send(Frame::Control(first)).await?;
                let how = How {
                    reads: false,
                    ..how
                };
                return duplex(s, &target, socket, how).await;
            }
            duplex(s, &target, socket, how).await
        }
    }
}

/// Where a stream is opened: parameters in the query, and a ticket when it needs one. Each opening needs its own.
async fn address(
    s: &Session,
    target: &Target,
    stream: &StreamDef,
    params: &Value,
) -> Result<String> {
    let mut pairs = pairs(params);
    if stream.ticketed {
        let path = format!("{}/streams/{}/ticket", target.path(), stream.name);
        let answer = s
            .client
            .send(Request::change(http::Method::POST, path).json(&json!({})))
            .await?
            .json()?;
        let ticket = answer.get("ticket").and_then(Value::as_str).unwrap_or("");
        pairs.push(("ticket".into(), ticket.into()));
    }
    let borrowed: Vec<(&str, String)> =
        pairs.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
    Ok(format!(
        "{}/streams/{}{}",
        target.path(),
        stream.name,
        query(&borrowed)
    ))
}

/// How a stream both ways is carried.
#[derive(Clone, Copy)]
struct How {
    /// Our terminal is raw.
    raw: bool,
    /// The other side is a program, not a console.
    program: bool,
    /// Our standard input is read.
    reads: bool,
}

/// Parameters as query pairs; a list is its name again and again.
fn pairs(params: &Value) -> Vec<(String, String)> {
    let plain = |v: &Value| match v {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut out = Vec::new();
    for (name, value) in params.as_object().into_iter().flatten() {
        match value {
            Value::Array(list) => out.extend(list.iter().map(|v| (name.clone(), plain(v)))),
            value => out.push((name.clone(), plain(value))),
        }
    }
    out
}

/// Bytes to standard output or into a file.
async fn read(s: &Session, path: &str, into: Option<&str>) -> Result<()> {
    let mut parts = s.client.chunks(path, "*/*").await?;
    let mut file = match into {
        Some(into) => Some(
            std::fs::File::create(into).map_err(|e| Failure::io(format!("writing {into}"), e))?,
        ),
        None => None,
    };
    loop {
        let part = tokio::select! {
            part = parts.next() => part,
            _ = tokio::signal::ctrl_c() => return Err(Failure::silent(INTERRUPTED)),
        };
        let Some(part) = part else {
            return Ok(());
        };
        let part = part?;
        match &mut file {
            Some(file) => file
                .write_all(&part)
                .map_err(|e| Failure::io(format!("writing {}", into.unwrap_or("")), e))?,
            None if s.screen.out_tty && part.contains(&0) => {
                return Err(
                    Failure::usage("these are not texts: the terminal would be garbled")
                        .hint("give --into FILE, or redirect standard output"),
                );
            }
            None => s.screen.put_bytes(&part)?,
        }
    }
}

/// A file to the server, from the offset that was asked for, with progress.
async fn write(
    s: &Session,
    target: &Target,
    stream: &StreamDef,
    path: &str,
    params: &Value,
    source: &str,
) -> Result<()> {
    let offset = params.get("offset").and_then(Value::as_u64).unwrap_or(0);
    let wrong = |e: std::io::Error| Failure::usage(format!("reading {source}: {e}"));
    let (mut reader, total): (Box<dyn tokio::io::AsyncRead + Send + Unpin>, u64) = match source {
        "-" => (Box::new(tokio::io::stdin()), 0),
        name => {
            let mut file = tokio::fs::File::open(name).await.map_err(wrong)?;
            let length = file.metadata().await.map_err(wrong)?.len();
            if offset > length {
                return Err(Failure::usage(format!(
                    "{name} has {length} bytes, less than --offset"
                )));
            }
            tokio::io::AsyncSeekExt::seek(&mut file, std::io::SeekFrom::Start(offset))
                .await
                .map_err(wrong)?;
            (Box::new(file), length)
        }
    };
    let (to, from) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(4);
    let mut progress = Progress::new(s.screen, !s.format.is_table());
    let what = format!("{} {} {}", target.kind, stream.name, target.name);
    let feed = async {
        let mut done = offset;
        loop {
            let mut buffer = bytes::BytesMut::with_capacity(256 * 1024);
            let part = match reader.read_buf(&mut buffer).await {
                Ok(0) => break,
                Ok(n) => {
                    done += n as u64;
                    Ok(buffer.freeze())
                }
                Err(e) => Err(e),
            };
            let failed = part.is_err();
            if to.send(part).await.is_err() || failed {
                break;
            }
            if s.screen.err_tty {
                progress.show(&what, "", None, Some((done, total)));
            }
        }
        drop(to);
        progress.clear();
    };
    let parts = futures::stream::unfold(from, |mut from| async {
        from.recv().await.map(|part| (part, from))
    });
    let sending = async { tokio::join!(s.client.upload(path, parts), feed).0 };
    let answer = tokio::select! {
        answer = sending => answer?,
        _ = tokio::signal::ctrl_c() => {
            s.screen.say("\nbroken off; go on with --offset where the server stands");
            return Err(Failure::silent(INTERRUPTED));
        }
    };
    match s.format.is_table() {
        true => s
            .screen
            .put(&format!("{} {}: done\n", target.short(), stream.name)),
        false => super::present::object(s, &answer, ""),
    }
}

/// Where data goes.
#[derive(Clone, Copy, PartialEq)]
enum Channel {
    Out,
    Err,
}

async fn duplex(s: &Session, target: &Target, mut socket: Socket, how: How) -> Result<()> {
    let How {
        raw,
        program,
        reads,
    } = how;
    let wrong = |e: std::io::Error| Failure::io("listening for signals", e);
    let mut resized = signal(SignalKind::window_change()).map_err(wrong)?;
    // Without a reader the channel is closed at once.
    let mut keys = match reads {
        true => terminal::input(),
        false => tokio::sync::mpsc::channel(1).1,
    };
    if raw {
        s.screen.say(&format!("connected to {target}; ^] leaves\r"));
    }
    let held = match raw {
        true => Some(Raw::enter()?),
        false => None,
    };
    if raw {
        resize(&mut socket).await?;
    }
    let mut channel = Channel::Out;
    let mut reading = reads;
    let ended = loop {
        tokio::select! {
            frame = socket.next() => match frame {
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
                Ok(Some(Frame::Data(bytes))) => put(s, channel, &bytes)?,
                Ok(Some(Frame::Control(value))) => {
                    if let Some(ended) = control(s, &value, &mut channel) {
                        break ended;
                    }
                }
            },
            part = keys.recv(), if reading => match part {
                Some(bytes) => {
                    let escape = bytes.iter().position(|b| (raw || !program) && *b == ESCAPE);
                    let sent = &bytes[..escape.unwrap_or(bytes.len())];
                    if !sent.is_empty() && let Err(failure) = socket.send(Frame::Data(bytes.slice(..sent.len()))).await {
                        break Err(failure);
                    }
                    if escape.is_some() {
                        socket.close().await;
                        break Ok(());
                    }
                }
                None => {
                    reading = false;
                    // A program may wait for the end of its input; a console without a terminal is only listened to.
                    if program && let Err(failure) = socket.send(Frame::Control(json!({ "eof": true }))).await {
                        break Err(failure);
                    }
                }
            },
            _ = resized.recv(), if raw => resize(&mut socket).await?,
            _ = tokio::signal::ctrl_c() => {
                socket.close().await;
                break Err(Failure::silent(INTERRUPTED));
            }
        }
    };
    let left = held.is_some();
    drop(held);
    if left {
        s.screen.say(&format!("\nleft {target}"));
    }
    ended
}

fn put(s: &Session, channel: Channel, bytes: &[u8]) -> Result<()> {
    match channel {
        Channel::Out => s.screen.put_bytes(bytes),
        Channel::Err => {
            let mut err = std::io::stderr().lock();
            err.write_all(bytes)
                .and_then(|()| err.flush())
                .map_err(|e| Failure::io("writing to standard error", e))
        }
    }
}

/// A control message; says how the stream ends, when it tells that.
fn control(s: &Session, value: &Value, channel: &mut Channel) -> Option<Result<()>> {
    if let Some(problem) = value.get("error").filter(|e| !e.is_null()) {
        return Some(Err(
            match serde_json::from_value::<model::Problem>(problem.clone()) {
                Ok(problem) => problem.into(),
                Err(_) => {
                    let text = problem
                        .as_str()
                        .map_or_else(|| problem.to_string(), str::to_owned);
                    Failure::new(1, text)
                }
            },
        ));
    }
    let exit = ["exit_code", "exit"]
        .iter()
        .find_map(|n| value.get(n)?.as_i64());
    if let Some(code) = exit {
        return Some(match code {
            0 => Ok(()),
            code => Err(Failure::silent(u8::try_from(code).unwrap_or(1))),
        });
    }
    if let Some(signal) = value.get("signal").and_then(Value::as_i64) {
        return Some(Err(Failure::silent(
            u8::try_from(128 + signal).unwrap_or(1),
        )));
    }
    match value.get("stream").and_then(Value::as_str) {
        Some("stderr") => *channel = Channel::Err,
        Some("stdout") => *channel = Channel::Out,
        _ => {}
    }
    if let Some(text) = value.get("data").and_then(Value::as_str) {
        return put(s, *channel, text.as_bytes()).err().map(Err);
    }
    if let Some(missed) = value.get("missed").and_then(Value::as_u64) {
        s.screen
            .say(&format!("\r\n[{missed} pieces were missed]\r"));
    }
    if let Some(text) = value.get("message").and_then(Value::as_str) {
        s.screen.say(&crate::output::tidy(text));
    }
    None
}

async fn resize(socket: &mut Socket) -> Result<()> {
    match terminal::size() {
        Some((columns, rows)) => {
            let size = json!({ "resize": { "columns": columns, "rows": rows } });
            socket.send(Frame::Control(size)).await
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_in_the_query() {
        let params = json!({ "command": ["uname", "-a"], "tty": true, "user": "x" });
        let all = pairs(&params);
        let joined: Vec<String> = all.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            joined,
            ["command=uname", "command=-a", "tty=true", "user=x"]
        );
    }
}
