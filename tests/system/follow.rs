//! One request is followed through both processes by its id.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use system_tests::{Around, Instance, until};

use crate::{
    crashes::kill,
    harness::Stage,
    transcript::{state, uptime},
};

/// The id of the request behind the newest task of an action.
fn request_of(on: &Instance, action: &str) -> Result<String> {
    let out = on.dvctl(&["task", "list", "-o", "json"])?.ok()?.out;
    let tasks: Value = serde_json::from_str(&out).context("tasks are no JSON")?;
    let items = tasks["items"].as_array().or(tasks.as_array());
    let newest = items
        .into_iter()
        .flatten()
        .filter(|task| task["spec"]["action"] == action)
        .max_by_key(|task| task["metadata"]["created"].as_str().map(str::to_owned))
        .with_context(|| format!("there is no task `{action}`"))?;
    let id = newest["spec"]["request_id"].as_str();
    Ok(id.context("a task without a request")?.to_owned())
}

/// What a role logged since `from` about this request: the message of each line, with its fields.
fn about(on: &Instance, role: &str, from: usize, id: &str) -> Result<Vec<String>> {
    let text = fs::read(on.log(role))?;
    let text = String::from_utf8_lossy(&text[from.min(text.len())..]).into_owned();
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.contains(id)) {
        let parsed: Value = serde_json::from_str(line)
            .with_context(|| format!("a line of the {role}'s log is no JSON: {line}"))?;
        let message = parsed["message"].as_str().unwrap_or_default();
        let command = parsed["command"].as_str().unwrap_or_default();
        found.push(format!("{message} {command}").trim().to_owned());
    }
    Ok(found)
}

pub fn request_id(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    let daemons = || {
        let mut both = on.daemons("agent");
        both.extend(on.daemons("api"));
        both
    };
    kill(&daemons())?;
    let length = |role| -> Result<usize> { Ok(fs::metadata(on.log(role))?.len() as usize) };
    let (api, agent) = (length("api")?, length("agent")?);
    on.start_both(&Around::default().env("DEBVISOR_LOG_FORMAT", "json"))?;
    let outcome = (|| -> Result<()> {
        on.dvctl(&["vm", "stop", "hello"])?.ok()?;
        state(on, "hello", "stopped")?;
        on.dvctl(&["vm", "start", "hello"])?.ok()?;
        state(on, "hello", "running")?;
        let id = request_of(on, "vm.start")?;
        let follows = |role: &str, from: usize, wanted: &[&str]| {
            let mut seen = Vec::new();
            let all = until("the request is in the log", Duration::from_secs(20), || {
                seen = about(on, role, from, &id)?;
                let all = wanted
                    .iter()
                    .all(|word| seen.iter().any(|line| line == word));
                Ok(all.then_some(()))
            });
            all.with_context(|| format!("the {role} says of request {id}: {seen:?}"))
        };
        follows("api", api, &["request", "request admitted", "task created"])?;
        follows(
            "agent",
            agent,
            &["a step is carried out", "QMP command cont"],
        )?;
        let other = request_of(on, "vm.stop")?;
        ensure!(other != id, "two requests, one id");
        let stopped = about(on, "agent", agent, &other)?;
        ensure!(
            !stopped.iter().any(|line| line == "QMP command cont"),
            "a start is logged under the id of the stop: {stopped:?}"
        );
        Ok(())
    })();
    kill(&daemons())?;
    on.again(&["--bare"])?.ok()?;
    outcome?;
    uptime(on, "hello")?;
    Ok(())
}
