//! An action of a kind: its flags become the parameters, its task is followed.

use super::follow::{self, Patience};
use super::{confirm, given, present, targets};
use crate::connect::Request;
use crate::failure::{Failure, Result};
use crate::grammar::{ACTION, flags_of};
use crate::output::{Format, yaml};
use crate::registry::{ActionDef, KindDef};
use crate::session::{Session, Target};
use clap::ArgMatches;
use serde_json::{Value, json};

/// Carries out an action on each named object: all are asked for first, then all are waited for.
pub async fn run(s: &Session, kind: &KindDef, action: &ActionDef, m: &ArgMatches) -> Result<()> {
    let targets = targets(s, kind, m).await?;
    let mut params = json!({});
    for flag in flags_of(&action.input, ACTION) {
        flag.take(m, &mut params)?;
    }
    let dry = given(m, "dry-run");
    if action.danger == "destroys" && !dry {
        let what: Vec<String> = targets.iter().map(Target::to_string).collect();
        confirm::destruction(
            s,
            given(m, "yes"),
            &format!(
                "`{} {}` destroys data of {}",
                kind.name,
                action.verb,
                what.join(", ")
            ),
        )?;
    }
    let mut asked = Vec::new();
    let mut first_failure = None;
    for target in targets {
        match submit(s, &target, &action.verb, &params, dry).await {
            Ok(answer) => asked.push((target, answer)),
            Err(failure) => keep(s, &mut first_failure, failure),
        }
    }
    for (target, answer) in asked {
        if let Err(failure) = finish(s, &target, action, &answer, Patience::of(m), dry).await {
            keep(s, &mut first_failure, failure);
        }
    }
    first_failure.map_or(Ok(()), Err)
}

/// The last failure is shown at the end; earlier ones at once.
fn keep(s: &Session, kept: &mut Option<Failure>, failure: Failure) {
    if let Some(earlier) = kept.replace(failure) {
        s.screen
            .say(earlier.lines(s.screen.err_tty && s.screen.color).trim_end());
    }
}

/// Asks for an action; the answer is its task.
pub async fn submit(
    s: &Session,
    target: &Target,
    verb: &str,
    params: &Value,
    dry: bool,
) -> Result<crate::connect::Answer> {
    let query = if dry { "?dry_run=true" } else { "" };
    let path = format!("{}/actions/{verb}{query}", target.path());
    let request = Request::change(http::Method::POST, path).json(params);
    s.client.send(request).await
}

/// Waits for the task of an action and shows the outcome.
pub async fn finish(
    s: &Session,
    target: &Target,
    action: &ActionDef,
    answer: &crate::connect::Answer,
    patience: Patience,
    dry: bool,
) -> Result<()> {
    let task = answer.json()?;
    let what = format!("{} {} {}", target.kind, action.verb, target.name);
    let is_task = task.get("kind").and_then(Value::as_str) == Some("task");
    if dry {
        return present::object(
            s,
            answer,
            &format!("{} would {}", target.short(), action.verb),
        );
    }
    if !is_task || target.kind == "task" {
        return present::object(s, answer, &format!("{} {}", target.short(), past(action)));
    }
    let name = follow::task_target(&task).name;
    if !patience.wait {
        // The task's name alone on standard output, so that a script can keep it.
        return present::object(s, answer, &format!("task/{name}"));
    }
    let done = follow::task(s, &task, &what, patience).await?;
    present::value(s, &done, &format!("{} {}", target.short(), past(action)))?;
    let result = crate::grammar::at(&done, "status.result").filter(|r| !r.is_null());
    match (s.format, result) {
        (Format::Table | Format::Wide, Some(Value::String(text))) => {
            s.screen.put(&format!("{}\n", text.trim_end()))
        }
        (Format::Table | Format::Wide, Some(Value::Object(map))) if map.is_empty() => Ok(()),
        (Format::Table | Format::Wide, Some(result)) => s.screen.put(&yaml(result)?),
        _ => Ok(()),
    }
}

fn past(action: &ActionDef) -> String {
    match action.event.rsplit('.').next().filter(|e| !e.is_empty()) {
        Some(event) => event.to_owned(),
        None => format!("{}: done", action.verb),
    }
}
