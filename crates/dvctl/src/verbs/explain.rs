//! `explain`: why an object is as it is.

use super::show::{conditions, shifted};
use super::target;
use crate::connect::{Request, escape};
use crate::failure::Result;
use crate::output::{Format, Table, indent, now, shown, yaml};
use crate::registry::KindDef;
use crate::session::Session;
use clap::ArgMatches;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Explains an object.
pub async fn run(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    let target = target(s, kind, m).await?;
    let path = format!(
        "/explain/{}/{}/{}",
        kind.name,
        escape(target.project.as_deref().unwrap_or("-")),
        escape(&target.name)
    );
    let answer = s.client.send(Request::get(path)).await?;
    match s.format {
        Format::Json => s.screen.put_bytes(&indent(&answer.body)),
        Format::Yaml => s.screen.put(&yaml(&answer.json()?)?),
        Format::Name => s.screen.put(&format!("{}\n", target.short())),
        Format::Table | Format::Wide => {
            let text = text(&target.to_string(), &answer.json()?, s.screen.color)?;
            s.screen.put(&text)
        }
    }
}

/// The sections in the order they come, each as a table when it is a list of objects.
fn text(what: &str, answer: &Value, color: bool) -> Result<String> {
    let (bold, off) = if color {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    let mut out = format!("{bold}{what}{off}\n");
    for (name, value) in answer.as_object().into_iter().flatten() {
        if matches!(
            name.as_str(),
            "version" | "kind" | "key" | "object" | "revision"
        ) {
            continue;
        }
        let heading = name.replace('_', " ");
        let empty = match value {
            Value::Null => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if empty {
            continue;
        }
        let body = match value {
            Value::Array(_) if name == "conditions" => {
                conditions(&json!({ "status": { "conditions": value } }), color)
            }
            Value::Array(list) if list.iter().all(is_short) => {
                let parts: Vec<String> = list.iter().map(|v| shown(Some(v), "", now())).collect();
                _ = writeln!(out, "{bold}{heading}{off}  {}", parts.join(", "));
                continue;
            }
            Value::Array(list) => shifted(&listed(list, color)),
            Value::Object(_) if name == "observation" => {
                shifted(&yaml(&without_conditions(value))?)
            }
            Value::Object(_) => shifted(&yaml(value)?),
            other => {
                _ = writeln!(
                    out,
                    "{bold}{heading}{off}  {}",
                    shown(Some(other), "age", now())
                );
                continue;
            }
        };
        _ = write!(out, "{bold}{heading}{off}\n{body}");
    }
    Ok(out)
}

/// Whether a value is a word or names an object.
fn is_short(value: &Value) -> bool {
    match value {
        Value::Object(map) => {
            map.contains_key("kind")
                && map
                    .keys()
                    .all(|k| matches!(k.as_str(), "kind" | "project" | "name"))
        }
        Value::Array(_) => false,
        _ => true,
    }
}

/// What was observed, but for the conditions, which have a table of their own.
fn without_conditions(observation: &Value) -> Value {
    let mut out = observation.clone();
    if let Some(status) = out.get_mut("status").and_then(Value::as_object_mut) {
        status.shift_remove("conditions");
        status.shift_remove("observed_generation");
    }
    out
}

/// A list of objects as a table of their fields; tasks and events show the few that matter.
fn listed(list: &[Value], color: bool) -> String {
    let now = now();
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    for item in list {
        let mut cells = Vec::new();
        if let Some(spec) = item.get("spec").filter(|_| item.get("metadata").is_some()) {
            // A whole object: its name, what it is about, its state.
            for (head, value) in [
                ("name", item.pointer("/metadata/name")),
                ("action", spec.get("action").or_else(|| spec.get("verb"))),
                ("state", item.pointer("/status/state")),
                ("step", item.pointer("/status/step")),
                ("age", item.pointer("/metadata/created")),
            ] {
                cells.push((
                    head.to_owned(),
                    shown(value, if head == "age" { "age" } else { "" }, now),
                ));
            }
        } else if let Value::Object(map) = item {
            // Numbers and identities for programs are in the other formats.
            let for_people = |head: &str| !matches!(head, "seq" | "request_id" | "about" | "trace");
            for (head, value) in map.iter().filter(|(head, _)| for_people(head)) {
                let is_time = matches!(head.as_str(), "time" | "at" | "since" | "created");
                let unit = if is_time { "age" } else { "" };
                cells.push((head.clone(), shown(Some(value), unit, now)));
            }
        } else {
            cells.push(("what".to_owned(), shown(Some(item), "", now)));
        }
        for (head, _) in &cells {
            if !columns.iter().any(|(h, _)| h == head) {
                columns.push((head.clone(), Vec::new()));
            }
        }
        for (head, column) in &mut columns {
            let cell = cells
                .iter()
                .find(|(h, _)| h == head)
                .map(|(_, c)| c.clone());
            column.push(cell.unwrap_or_default());
        }
    }
    let rows = columns.iter().map(|(_, c)| c.len()).max().unwrap_or(0);
    let mut table = Table::new(columns.iter().map(|(h, _)| h.clone()));
    for i in 0..rows {
        // A column that came later is shorter at the top.
        let cell = |c: &Vec<String>| {
            let missing = rows - c.len();
            i.checked_sub(missing)
                .and_then(|i| c.get(i))
                .cloned()
                .unwrap_or_default()
        };
        table.row(columns.iter().map(|(_, c)| cell(c)).collect());
    }
    table.text(color)
}
