//! One verb over many objects: one task, one line of progress, one table of results.

use super::follow::{self, Patience};
use super::{confirm, given, present, text};
use crate::connect::{Answer, Request, query};
use crate::failure::{Failure, Result};
use crate::grammar::at;
use crate::output::{Format, Table, tidy};
use crate::registry::KindDef;
use crate::session::{Session, Target};
use clap::ArgMatches;
use serde_json::{Value, json};

/// What is to be done with many.
pub struct Wish<'a> {
    /// The verb: an action or `delete`.
    pub verb: &'a str,
    /// `none`, `disrupts`, `destroys`.
    pub danger: &'a str,
    /// Parameters of the action.
    pub params: Value,
    /// With `delete`: what stays.
    pub keep: Vec<String>,
}

/// Whether the command line means many objects.
pub fn meant(m: &ArgMatches, targets: &[Target]) -> bool {
    text(m, "selector").is_some() || targets.len() > 1
}

/// Carries a verb out on many objects.
pub async fn run(
    s: &Session,
    kind: &KindDef,
    targets: &[Target],
    wish: Wish<'_>,
    m: &ArgMatches,
) -> Result<()> {
    let selector = text(m, "selector");
    let place = place(s, kind, targets)?;
    let mut body = match selector {
        Some(selector) => json!({ "selector": selector }),
        None => json!({ "names": targets.iter().map(|t| &t.name).collect::<Vec<_>>() }),
    };
    if wish.params.as_object().is_some_and(|p| !p.is_empty()) {
        body["params"] = wish.params.clone();
    }
    if !wish.keep.is_empty() {
        body["keep"] = json!(wish.keep);
    }
    if let Some(parallel) = m.try_get_one::<u32>("parallel").ok().flatten() {
        body["parallel"] = json!(parallel);
    }
    if let Some(word) = text(m, "on-error") {
        body["on_error"] = json!(word);
    }
    let path = format!("{}/actions/{}", place.collection(), wish.verb);
    let ask = async |dry: bool| -> Result<Answer> {
        let mut pairs: Vec<(&str, String)> = Vec::new();
        pairs.extend(dry.then(|| ("dry_run", "true".into())));
        pairs.extend(given(m, "force").then(|| ("force", "true".into())));
        let path = format!("{path}{}", query(&pairs));
        let request = Request::change(http::Method::POST, path).json(&body);
        s.client.send(request).await
    };
    if given(m, "dry-run") {
        let answer = ask(true).await?;
        let table = results(&answer.json()?, kind)?;
        return show(s, &answer, &table);
    }
    // Names were typed one by one; what a selector picks is shown before anything is interrupted.
    let harm = wish.danger == "destroys" || wish.danger == "disrupts" && selector.is_some();
    if harm && !given(m, "yes") {
        let picked = ask(true).await?.json()?;
        let rows = rows(&picked);
        s.screen.say(results(&picked, kind)?.trim_end());
        let word = match (wish.verb, wish.danger) {
            ("delete", _) => "deletes",
            (_, "destroys") => "destroys data of",
            _ => "interrupts",
        };
        let what = match rows.len() {
            1 => format!("1 {}", kind.name),
            n => format!("{n} {}", kind.plural),
        };
        let what = format!("`{} {}` {word} {what}", kind.name, wish.verb);
        confirm::destruction(s, false, &what)?;
    }
    let answer = ask(false).await?;
    let task = answer.json()?;
    let name = follow::task_target(&task).name;
    let patience = Patience::of(m);
    if !patience.wait {
        return present::object(s, &answer, &format!("task/{name}"));
    }
    let what = format!("{} {}", kind.plural, wish.verb);
    let ended = follow::end(s, &task, &what, patience).await?;
    match s.format {
        Format::Table | Format::Wide => s.screen.put(&results(&ended, kind)?)?,
        _ => present::value(s, &ended, "")?,
    }
    match at(&ended, "status.state").and_then(Value::as_str) {
        Some("succeeded") => Ok(()),
        _ => Err(why(&ended, &what, &name)),
    }
}

/// The one place where all of them lie.
fn place(s: &Session, kind: &KindDef, targets: &[Target]) -> Result<Target> {
    let Some(first) = targets.first() else {
        return Ok(Target::of(kind, &s.project, ""));
    };
    match targets.iter().find(|t| t.project != first.project) {
        None => Ok(first.clone()),
        Some(other) => Err(Failure::usage(format!(
            "{first} and {other} lie in different projects"
        ))
        .hint("one command for each project")),
    }
}

fn rows(task: &Value) -> &[Value] {
    at(task, "status.targets")
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// A line for each object.
fn results(task: &Value, kind: &KindDef) -> Result<String> {
    let mut table = Table::new([kind.name.as_str(), "result", "task", "message"]);
    for row in rows(task) {
        let word = |field: &str| tidy(row.get(field).and_then(Value::as_str).unwrap_or(""));
        table.row(vec![
            word("name"),
            word("state").replace('_', " "),
            word("task"),
            word("message"),
        ]);
    }
    Ok(table.text(false))
}

fn show(s: &Session, answer: &Answer, table: &str) -> Result<()> {
    match s.format {
        Format::Table | Format::Wide => s.screen.put(table),
        _ => present::object(s, answer, ""),
    }
}

/// Why a batch did not succeed. Its exit code is that of the first object that failed.
fn why(task: &Value, what: &str, name: &str) -> Failure {
    let message = at(task, "status.message").and_then(Value::as_str);
    let failed = rows(task)
        .iter()
        .find(|row| row.get("state").and_then(Value::as_str) == Some("failed"));
    let code = failed
        .and_then(|row| row.get("reason").and_then(Value::as_str))
        .or_else(|| at(task, "status.reason").and_then(Value::as_str))
        .unwrap_or_default();
    let state = at(task, "status.state").and_then(Value::as_str);
    let exit = follow::exit(code, state.unwrap_or_default());
    Failure::new(exit, format!("{what}: {}", message.unwrap_or_default()))
        .hint(format!("`dvctl task log {name}` shows what it did"))
}
