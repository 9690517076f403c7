//! A file through a stream both ways: the other side says where it stands, and what has arrived is never sent again. A
//! connection that breaks is opened again, for as long as the server is not away for too long.
//!
//! A kind whose spec has fields marked `x-file` is made from a file: `dvctl KIND STREAM FILE` fills in its size and
//! SHA-256, so that what arrives is checked, and sends it.

use super::{Channel, address, control};
use crate::connect::{Frame, Request};
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::grammar::{at, parse_path, put};
use crate::output::Progress;
use crate::registry::{KindDef, StreamDef};
use crate::session::{Session, Target};
use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;

/// How long the server may be away.
const AWAY: Duration = Duration::from_secs(60);
/// Between two tries to reach it again.
const AGAIN: Duration = Duration::from_millis(500);
/// Exit code of what a later try may mend.
const UNREACHABLE: u8 = 6;

/// Sends a file, and goes on where it stopped when the connection breaks.
pub(super) async fn send(
    s: &Session,
    target: &Target,
    stream: &StreamDef,
    params: &Value,
    name: &str,
) -> Result<()> {
    let mut safe = 0;
    let mut broken: Option<Instant> = None;
    loop {
        let before = safe;
        let failure = match once(s, target, stream, params, name, &mut safe).await {
            Err(failure) if failure.exit == UNREACHABLE => failure,
            ended => return ended,
        };
        // Whoever gets on is not away.
        if safe > before {
            broken = None;
        }
        match broken {
            Some(since) if since.elapsed() > AWAY => return Err(failure),
            Some(_) => {}
            None => {
                broken = Some(Instant::now());
                s.screen.say(&format!(
                    "{}; going on when the server is back",
                    failure.message
                ));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            _ = tokio::signal::ctrl_c() => return Err(Failure::silent(INTERRUPTED)),
        }
    }
}

/// Sends a file to the other side, which says from where on, how much has arrived, and when it is complete.
async fn once(
    s: &Session,
    target: &Target,
    stream: &StreamDef,
    params: &Value,
    name: &str,
    safe: &mut u64,
) -> Result<()> {
    let path = address(s, target, stream, params).await?;
    let mut socket = s.client.socket(&path).await?;
    let wrong = |e: std::io::Error| Failure::usage(format!("reading {name}: {e}"));
    let mut file = tokio::fs::File::open(name).await.map_err(wrong)?;
    let total = file.metadata().await.map_err(wrong)?.len();
    let mut progress = Progress::new(s.screen, !s.format.is_table());
    let what = format!("{} {} {}", target.kind, stream.name, target.name);
    // Nothing is sent before the other side has said where it stands.
    let mut sending = false;
    let mut buffer = vec![0u8; 256 * 1024];
    loop {
        tokio::select! {
            biased;
            frame = socket.next() => {
                let Some(frame) = frame? else {
                    return Err(Failure::unreachable(format!("{target} ended the stream before the file was complete"))
                        .hint("send it again: it goes on where it stopped"));
                };
                let Frame::Control(value) = frame else {
                    continue;
                };
                if let Some(offset) = value.get("offset").and_then(Value::as_u64) {
                    if offset > total {
                        return Err(Failure::usage(format!("{name} has {total} bytes, but {offset} have arrived already: this is another file")));
                    }
                    *safe = offset;
                    tokio::io::AsyncSeekExt::seek(&mut file, std::io::SeekFrom::Start(offset)).await.map_err(wrong)?;
                    sending = true;
                } else if let Some(done) = value.get("received").and_then(Value::as_u64) {
                    *safe = done;
                    if s.screen.err_tty {
                        progress.show(&what, "", None, Some((done, total)));
                    }
                }
                if value.get("complete") == Some(&Value::Bool(true)) {
                    progress.clear();
                    return s.screen.put(&format!("{} {}: complete\n", target.short(), stream.name));
                }
                if let Some(Err(failure)) = control(s, &value, &mut Channel::Out) {
                    return Err(failure);
                }
            }
            count = file.read(&mut buffer), if sending => match count.map_err(wrong)? {
                0 => sending = false,
                // When this fails the other side has said why: it is read next.
                n => sending = socket.send(Frame::Data(Bytes::copy_from_slice(&buffer[..n]))).await.is_ok(),
            },
            _ = tokio::signal::ctrl_c() => {
                progress.clear();
                s.screen.say("\nbroken off; send it again to go on");
                return Err(Failure::silent(INTERRUPTED));
            }
        }
    }
}

/// Whether an object of a kind is made from this file: no name of an object has a dot or a slash, and a file has one.
pub(super) fn makes(kind: &KindDef, name: &str) -> bool {
    let mut found = Vec::new();
    marked(&kind.spec, "", &mut found);
    !found.is_empty() && name.contains(['.', '/']) && Path::new(name).is_file()
}

/// The fields of a spec that say something about the file that is sent: their dotted path, and `size` or `sha256`.
fn marked(schema: &Value, path: &str, found: &mut Vec<(String, String)>) {
    if let Some(word) = schema.get("x-file").and_then(Value::as_str) {
        found.push((path.to_owned(), word.to_owned()));
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, part) in properties.into_iter().flatten() {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        marked(part, &path, found);
    }
    for branch in ["anyOf", "oneOf", "allOf"] {
        let parts = schema.get(branch).and_then(Value::as_array);
        for part in parts.into_iter().flatten() {
            marked(part, path, found);
        }
    }
}

/// The object that a file becomes: made now, or left from a try that was broken off.
pub(super) async fn object(s: &Session, kind: &KindDef, file: &str) -> Result<Target> {
    let name = named_after(file).ok_or_else(|| {
        Failure::usage(format!("no name can be made from {file}")).hint(format!(
            "make the object first: `dvctl {} create NAME`",
            kind.name
        ))
    })?;
    let target = Target::of(kind, &s.project, &name);
    let (size, sha256) = measured(s, file).await?;
    let mut found = Vec::new();
    marked(&kind.spec, "", &mut found);
    let mut spec = json!({});
    for (path, word) in &found {
        let value = match word.as_str() {
            "size" => json!(size),
            _ => json!(sha256),
        };
        put(&mut spec, &parse_path(path)?, value, false)?;
    }
    let body = json!({ "metadata": { "name": name }, "spec": spec });
    let made = s
        .client
        .ask(Request::change(http::Method::POST, target.collection()).json(&body))
        .await?;
    if made.status < 400 {
        s.screen.say(&format!("{} created", target.short()));
        return Ok(target);
    }
    let failure = crate::connect::problem(made.status, &made.body);
    if made.status != 409 {
        return Err(failure);
    }
    // It is there: ours, when it waits for this very file.
    let old = s.client.json(&target.path()).await?;
    let same = found.iter().all(|(path, word)| {
        let was = at(&old["spec"], path);
        let now = match word.as_str() {
            "size" => json!(size),
            _ => json!(sha256),
        };
        was == Some(&now)
    });
    match same {
        true => Ok(target),
        false => Err(failure.hint(format!(
            "it was made from another file: delete it, or send this one under another name (`dvctl {0} create NAME ...`, `dvctl {0} ... NAME {file}`)",
            kind.name
        ))),
    }
}

/// `images/Debian-12.4.qcow2` as `debian-12-4`.
fn named_after(file: &str) -> Option<String> {
    let stem = Path::new(file).file_stem()?.to_str()?;
    let plain = |c: char| match c.is_ascii_alphanumeric() {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    let name: String = stem.chars().map(plain).take(63).collect();
    let name = name.trim_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

/// Bytes and SHA-256 of a file.
async fn measured(s: &Session, name: &str) -> Result<(u64, String)> {
    let wrong = |e: std::io::Error| Failure::usage(format!("reading {name}: {e}"));
    let mut file = tokio::fs::File::open(name).await.map_err(wrong)?;
    let total = file.metadata().await.map_err(wrong)?.len();
    let mut progress = Progress::new(s.screen, !s.format.is_table());
    let (mut hash, mut done) = (Sha256::new(), 0);
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let count = file.read(&mut buffer).await.map_err(wrong)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        done += count as u64;
        if s.screen.err_tty {
            progress.show(
                &format!("checksum of {name}"),
                "",
                None,
                Some((done, total)),
            );
        }
    }
    progress.clear();
    Ok((done, hex::encode(hash.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files() {
        for (file, name) in [
            ("a.qcow2", Some("a")),
            ("/x/Debian 12.4.qcow2", Some("debian-12-4")),
            ("./-._", None),
        ] {
            assert_eq!(named_after(file).as_deref(), name, "{file}");
        }
    }

    #[test]
    fn fields_that_a_file_fills() {
        let schema = json!({ "properties": { "source": { "properties": {
            "upload": { "anyOf": [{ "properties": { "size": { "x-file": "size" } } }, { "type": "null" }] },
            "sha256": { "x-file": "sha256" } } } } });
        let mut found = Vec::new();
        marked(&schema, "", &mut found);
        let mut spec = json!({});
        for (path, word) in &found {
            put(&mut spec, &parse_path(path).unwrap(), json!(word), false).unwrap();
        }
        assert_eq!(
            spec,
            json!({ "source": { "upload": { "size": "size" }, "sha256": "sha256" } })
        );
    }
}
