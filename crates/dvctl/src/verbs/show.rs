//! `show`: one object, for people or as the API gave it.

use super::targets;
use crate::connect::Request;
use crate::failure::Result;
use crate::grammar::{at, word};
use crate::output::{Format, Table, indent, name_of, now, shown, tidy, yaml};
use crate::registry::KindDef;
use crate::session::Session;
use clap::ArgMatches;
use serde_json::Value;
use std::fmt::Write as _;

/// Shows objects.
pub async fn run(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    for (i, target) in targets(s, kind, m).await?.iter().enumerate() {
        let answer = s.client.send(Request::get(target.path())).await?;
        let between = i > 0;
        match s.format {
            Format::Json => s.screen.put_bytes(&indent(&answer.body))?,
            Format::Yaml => {
                let mark = if between { "---\n" } else { "" };
                s.screen.put(&format!("{mark}{}", yaml(&answer.json()?)?))?;
            }
            Format::Name => s.screen.put(&format!("{}\n", name_of(&answer.json()?)))?,
            Format::Table | Format::Wide => {
                let gap = if between { "\n" } else { "" };
                let text = describe(kind, &answer.json()?, s.screen.color)?;
                s.screen.put(&format!("{gap}{text}"))?;
            }
        }
    }
    Ok(())
}

/// An object for people: what the tables say of it, its conditions and claims, and its spec.
pub fn describe(kind: &KindDef, object: &Value, color: bool) -> Result<String> {
    let now = now();
    let text = |path: &str| {
        let found = at(object, path).and_then(Value::as_str);
        found.map(tidy).filter(|t| !t.is_empty())
    };
    let (bold, off) = if color {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    let mut out = format!(
        "{bold}{} {}{off}\n",
        kind.name,
        text("metadata.name").unwrap_or_default()
    );
    let mut lines: Vec<(String, String)> = Vec::new();
    for (heading, path) in [
        ("display name", "metadata.display_name"),
        ("project", "metadata.project"),
    ] {
        lines.extend(text(path).map(|t| (heading.to_owned(), t)));
    }
    for column in &kind.columns {
        let cell = shown(at(object, &column.path), &column.unit, now);
        if !cell.is_empty() && !column.path.starts_with("metadata.") {
            lines.push((column.name.clone(), cell));
        }
    }
    if let Some(labels) = at(object, "metadata.labels").filter(|l| l.is_object()) {
        lines.push(("labels".into(), shown(Some(labels), "", now)));
    }
    if let Some(owner) = at(object, "metadata.owner") {
        lines.push(("owner".into(), shown(Some(owner), "", now)));
    }
    for (heading, path) in [
        ("created", "metadata.created"),
        ("deletion", "metadata.deletion_requested"),
    ] {
        if text(path).is_some() {
            let ago = shown(at(object, path), "age", now);
            let who = text("metadata.created_by").filter(|_| heading == "created");
            let by = who.map_or(String::new(), |w| format!(" by {w}"));
            lines.push((heading.into(), format!("{ago} ago{by}")));
        }
    }
    if at(object, "metadata.protection") == Some(&Value::Bool(true)) {
        lines.push(("protection".into(), "deletion is refused".into()));
    }
    let width = lines.iter().map(|(h, _)| h.len()).max().unwrap_or(0);
    for (heading, value) in lines {
        _ = writeln!(out, "  {heading:width$}  {value}");
    }
    out.push_str(&conditions(object, color));
    out.push_str(&claims(object));
    if let Some(spec) = object.get("spec").filter(|v| !v.is_null()) {
        _ = write!(
            out,
            "{bold}spec{off}\n{}",
            shifted(&yaml(&readable(&kind.spec, spec))?)
        );
    }
    Ok(out)
}

/// The conditions as a table, empty when there are none.
pub fn conditions(object: &Value, color: bool) -> String {
    let list = at(object, "status.conditions").and_then(Value::as_array);
    let Some(list) = list.filter(|l| !l.is_empty()) else {
        return String::new();
    };
    let now = now();
    let mut table = Table::new(["condition", "status", "since", "message"]);
    for c in list {
        let cell = |name: &str, unit: &str| shown(c.get(name), unit, now);
        table.row(vec![
            cell("type", ""),
            cell("status", ""),
            cell("since", "age"),
            match cell("message", "") {
                empty if empty.is_empty() => cell("reason", ""),
                message => message,
            },
        ]);
    }
    shifted(&table.text(color))
}

fn claims(object: &Value) -> String {
    let list = at(object, "metadata.claims").and_then(Value::as_array);
    let mut out = String::new();
    for claim in list.into_iter().flatten() {
        let now = now();
        let cell = |name: &str| shown(claim.get(name), "", now);
        _ = writeln!(
            out,
            "  claimed by task {} ({})",
            cell("task"),
            cell("scopes")
        );
    }
    out
}

/// Two spaces before each line.
pub fn shifted(text: &str) -> String {
    text.lines().map(|l| format!("  {l}\n")).collect()
}

/// A spec with sizes and durations as people write them.
fn readable(schema: &Value, value: &Value) -> Value {
    match value {
        Value::Number(n) => {
            let unit = word(schema, model::schema::UNIT).and_then(Value::as_str);
            match (unit, n.as_u64()) {
                // Only when the text means the same number.
                (Some("bytes"), Some(n)) => {
                    let text = model::Bytes(n).to_string();
                    match text.parse::<model::Bytes>() {
                        Ok(back) if back.0 == n => Value::from(text),
                        _ => value.clone(),
                    }
                }
                (Some("seconds"), Some(n)) => Value::from(model::Seconds(n).to_string()),
                (Some("millis"), Some(n)) => Value::from(model::Millis(n).to_string()),
                _ => value.clone(),
            }
        }
        Value::Object(map) => map
            .iter()
            .filter(|(_, v)| !v.is_null())
            .map(|(k, v)| {
                let inner = model::schema::property(schema, k).unwrap_or(&Value::Null);
                (k.clone(), readable(inner, v))
            })
            .collect(),
        Value::Array(list) => {
            let items = word(schema, "items").unwrap_or(schema);
            Value::Array(list.iter().map(|v| readable(items, v)).collect())
        }
        other => other.clone(),
    }
}
