//! An action of a kind: its flags become the parameters, its task is followed.

use super::follow::{self, Patience};
use super::{batch, confirm, given, present, targets};
use crate::connect::{Request, query};
use crate::failure::Result;
use crate::grammar::{ACTION, flags_of};
use crate::output::{Format, yaml};
use crate::registry::{ActionDef, KindDef};
use crate::session::{Session, Target};
use clap::ArgMatches;
use serde_json::{Value, json};

/// Carries out an action on the named object, or on many as one task.
pub async fn run(s: &Session, kind: &KindDef, action: &ActionDef, m: &ArgMatches) -> Result<()> {
    let targets = targets(s, kind, m).await?;
    let mut params = json!({});
    for flag in flags_of(&action.input, ACTION) {
        flag.take(m, &mut params)?;
    }
    let mut dry = given(m, "dry-run");
    // An action that can say itself what it would change is asked that, and not only whether it may be asked.
    if dry && action.input.pointer("/properties/dry_run").is_some() {
        params["dry_run"] = true.into();
        dry = false;
    }
    if batch::meant(m, &targets) {
        let wish = batch::Wish {
            verb: &action.verb,
            danger: &action.danger,
            params,
            keep: Vec::new(),
        };
        return batch::run(s, kind, &targets, wish, m).await;
    }
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
    for target in targets {
        let answer = submit(s, &target, &action.verb, &params, dry, given(m, "force")).await?;
        finish(s, &target, action, &answer, Patience::of(m), dry).await?;
    }
    Ok(())
}

/// Asks for an action; the answer is its task.
pub async fn submit(
    s: &Session,
    target: &Target,
    verb: &str,
    params: &Value,
    dry: bool,
    force: bool,
) -> Result<crate::connect::Answer> {
    let mut pairs: Vec<(&str, String)> = Vec::new();
    pairs.extend(dry.then(|| ("dry_run", "true".into())));
    pairs.extend(force.then(|| ("force", "true".into())));
    let path = format!("{}/actions/{verb}{}", target.path(), query(&pairs));
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
    // An action on a task answers that task, or the one that it has made.
    let itself = target.kind == "task" && follow::task_target(&task).name == target.name;
    if !is_task || itself {
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
