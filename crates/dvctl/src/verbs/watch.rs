//! `watch`, and waiting for an object to become something. Both survive a restart of the server.

use super::{given, text};
use crate::connect::{Frame, Request, Socket, query};
use crate::failure::{Failure, Result};
use crate::grammar::at;
use crate::output::{Format, now, shown};
use crate::registry::KindDef;
use crate::session::{Session, Target};
use clap::ArgMatches;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How long the server may be away while we wait for something.
const AWAY: Duration = Duration::from_secs(60);
/// Between two tries to reach it again.
const AGAIN: Duration = Duration::from_millis(500);
/// A watch may be silent; after this long the object is read once more all the same.
const SILENCE: Duration = Duration::from_secs(15);

/// The revision of an object.
pub fn revision(object: &Value) -> Option<&str> {
    at(object, "metadata.revision").and_then(Value::as_str)
}

/// Opens a watch of a kind.
async fn open(
    s: &Session,
    kind: &str,
    project: Option<&str>,
    name: Option<&str>,
    selector: Option<&str>,
    after: Option<&str>,
) -> Result<Socket> {
    let mut pairs = vec![("kind", kind.to_owned())];
    pairs.extend(project.map(|p| ("project", p.to_owned())));
    pairs.extend(name.map(|n| ("name", n.to_owned())));
    pairs.extend(selector.map(|l| ("selector", l.to_owned())));
    pairs.extend(after.map(|r| ("after", r.to_owned())));
    s.client.socket(&format!("/watch{}", query(&pairs))).await
}

/// Waits until `look` finds what it wants in the object; it is called with `None` when the object does not exist. `Ok(None)` when the time
/// is over.
pub async fn until<T>(
    s: &Session,
    target: &Target,
    limit: Option<Duration>,
    mut look: impl FnMut(Option<&Value>) -> Option<Result<T>>,
) -> Result<Option<T>> {
    // A century is as good as no limit, and is a time that the clock can hold.
    let end = Instant::now() + limit.unwrap_or(Duration::from_secs(3_153_600_000));
    let mut away: Option<Instant> = None;
    loop {
        let round = timeout_at(end, round(s, target, &mut look)).await;
        match round {
            Err(_) => return Ok(None),
            Ok(Ok(Some(found))) => return found.map(Some),
            Ok(Ok(None)) => away = None,
            // Exit code 6 is "not reachable, not available": it may be restarting.
            Ok(Err(failure)) if failure.exit == 6 => {
                let since = *away.get_or_insert_with(Instant::now);
                if since.elapsed() > AWAY {
                    return Err(failure);
                }
            }
            Ok(Err(failure)) => return Err(failure),
        }
        if timeout_at(end, sleep(AGAIN)).await.is_err() {
            return Ok(None);
        }
    }
}

/// Reads the object, then follows its changes until found, or until the watch ends.
async fn round<T>(
    s: &Session,
    target: &Target,
    look: &mut impl FnMut(Option<&Value>) -> Option<T>,
) -> Result<Option<T>> {
    let answer = s.client.ask(Request::get(target.path())).await?;
    let object = match answer.status {
        404 => None,
        status if status >= 400 => return Err(crate::connect::problem(status, &answer.body)),
        _ => Some(answer.json()?),
    };
    if let Some(found) = look(object.as_ref()) {
        return Ok(Some(found));
    }
    let after = object.as_ref().and_then(revision);
    let mut watch = open(
        s,
        &target.kind,
        target.project.as_deref(),
        Some(&target.name),
        None,
        after,
    )
    .await?;
    loop {
        let frame = match timeout_at(Instant::now() + SILENCE, watch.next()).await {
            Err(_) => return Ok(None),
            Ok(frame) => frame?,
        };
        let Some(Frame::Control(event)) = frame else {
            return Ok(None);
        };
        let about_it = at(&event, "key.name").and_then(Value::as_str) == Some(target.name.as_str());
        let found = match event.get("type").and_then(Value::as_str) {
            Some("put") if about_it => look(event.get("object")),
            Some("delete") if about_it => look(None),
            Some("compacted" | "error") => return Ok(None),
            _ => None,
        };
        if found.is_some() {
            watch.close().await;
            return Ok(found);
        }
    }
}

/// Shows changes until interrupted.
pub async fn run(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    let name = text(m, "name");
    let target = Target::of(kind, &s.project, name.unwrap_or(""));
    let everywhere = given(m, "all-projects") || (kind.scope == "any" && !s.project_named);
    let columns = super::list::columns(kind, &[], s.format == Format::Wide, everywhere)?;
    let mut shown_before = false;
    let mut away: Option<Instant> = None;
    let mut after: Option<String> = None;
    loop {
        let project = target.project.as_deref().filter(|_| !everywhere);
        let opened = open(
            s,
            &kind.name,
            project,
            name.map(|_| target.name.as_str()),
            text(m, "selector"),
            after.as_deref(),
        )
        .await;
        let mut socket = match opened {
            Ok(socket) => socket,
            Err(failure) if failure.exit == 6 => {
                let first = away.is_none();
                let since = *away.get_or_insert_with(Instant::now);
                if since.elapsed() > AWAY || after.is_none() {
                    return Err(failure);
                }
                if first {
                    s.screen.say("the server does not answer; waiting for it");
                }
                sleep(AGAIN).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        away = None;
        loop {
            let event = match socket.next().await {
                Ok(Some(Frame::Control(event))) => event,
                Ok(Some(Frame::Data(_))) => continue,
                Ok(None) | Err(_) => break,
            };
            let kind_of = event.get("type").and_then(Value::as_str).unwrap_or("");
            if let Some(revision) = event.get("revision").and_then(Value::as_str) {
                after = Some(revision.to_owned());
            }
            match kind_of {
                "compacted" => {
                    s.screen
                        .say("changes were missed: the server no longer keeps them");
                    after = None;
                    break;
                }
                "error" => {
                    let detail = event.get("problem").or_else(|| event.get("error"));
                    let problem = detail
                        .cloned()
                        .and_then(|p| serde_json::from_value::<model::Problem>(p).ok());
                    return Err(match problem {
                        Some(problem) => problem.into(),
                        None => Failure::unreachable("the server ended the watch with an error"),
                    });
                }
                "put" | "delete" => {}
                _ => continue,
            }
            if name.is_some()
                && at(&event, "key.name").and_then(Value::as_str) != Some(&target.name)
            {
                continue;
            }
            match s.format {
                Format::Json => s.screen.put(&format!("{event}\n"))?,
                Format::Yaml => s
                    .screen
                    .put(&format!("---\n{}", crate::output::yaml(&event)?))?,
                Format::Name => {
                    let name = at(&event, "key.name").and_then(Value::as_str).unwrap_or("");
                    s.screen.put(&format!("{}/{name}\n", kind.name))?;
                }
                Format::Table | Format::Wide => {
                    let empty = json!({ "metadata": event.get("key") });
                    let object = event
                        .get("object")
                        .filter(|o| o.is_object())
                        .unwrap_or(&empty);
                    let now = now();
                    let cells: Vec<String> = columns
                        .iter()
                        .map(|c| shown(at(object, &c.path), &c.unit, now))
                        .collect();
                    let what = if kind_of == "put" {
                        "changed"
                    } else {
                        "deleted"
                    };
                    if !shown_before {
                        let heads: Vec<String> =
                            columns.iter().map(|c| c.name.to_uppercase()).collect();
                        s.screen.put(&row("CHANGE", &heads))?;
                        shown_before = true;
                    }
                    s.screen.put(&row(what, &cells))?;
                }
            }
        }
        sleep(AGAIN).await;
    }
}

/// A line whose columns keep their place although later rows are not known.
fn row(what: &str, cells: &[String]) -> String {
    let mut line = format!("{what:<9}");
    for cell in cells {
        line.push_str(&format!("{cell:<16}  "));
    }
    format!("{}\n", line.trim_end())
}
