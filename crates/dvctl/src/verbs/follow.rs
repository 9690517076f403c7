//! Follows a task to its end, with progress, and asks what ^C means.

use super::{given, timeout, watch};
use crate::connect::Request;
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::grammar::at;
use crate::output::Progress;
use crate::session::{Session, Target};
use clap::ArgMatches;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a second ^C cancels the task.
const SECOND: Duration = Duration::from_secs(3);

/// Whether and how long to wait.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// `--no-wait` is absent.
    pub wait: bool,
    /// `--timeout`.
    pub limit: Option<Duration>,
}

impl Patience {
    /// From the command line.
    pub fn of(m: &ArgMatches) -> Patience {
        Patience {
            wait: !given(m, "no-wait"),
            limit: timeout(m),
        }
    }
}

/// The target that is a task's object.
pub fn task_target(task: &Value) -> Target {
    let text = |path: &str| at(task, path).and_then(Value::as_str).map(str::to_owned);
    Target {
        kind: "task".into(),
        plural: "tasks".into(),
        project: text("metadata.project"),
        name: text("metadata.name").unwrap_or_default(),
    }
}

/// A task that has ended, however; an error when it is gone.
fn over(task: Option<&Value>, name: &str) -> Option<Result<Value>> {
    let Some(task) = task else {
        return Some(Err(Failure::new(4, format!("task {name} is gone")).hint(
            "finished tasks are kept for an hour; `dvctl event list` shows how it ended",
        )));
    };
    match at(task, "status.state").and_then(Value::as_str)? {
        "pending" | "running" | "rolling_back" => None,
        _ => Some(Ok(task.clone())),
    }
}

/// Why a task did not succeed.
fn why(task: &Value, name: &str, state: &str) -> Failure {
    let text = |path: &str| at(task, path).and_then(Value::as_str).unwrap_or("");
    let word = state.replace('_', " ");
    let message = match text("status.message") {
        "" => format!("task {name}: {word}"),
        why => format!("task {name}: {word}: {why}"),
    };
    Failure::new(exit(text("status.reason"), state), message)
        .hint(format!("`dvctl task log {name}` shows what it did"))
}

/// The exit code of a task that did not succeed: a stable code has its own (reference 0.3).
pub fn exit(code: &str, state: &str) -> u8 {
    match (code, state) {
        ("", "cancelled" | "superseded") => 3,
        ("", _) => 1,
        ("DEADLINE", _) => 6,
        (code, _) => exit_of(code),
    }
}

/// The exit code of an error's code.
fn exit_of(code: &str) -> u8 {
    let problem = json!({ "type": "", "title": "", "status": 0, "detail": "", "code": code, "retryable": false, "request_id": "" });
    match serde_json::from_value::<model::Problem>(problem) {
        Ok(problem) => problem.exit_code(),
        Err(_) => 1,
    }
}

/// Draws where a task is.
fn draw(progress: &mut Progress, what: &str, task: &Value) {
    let number = |path: &str| at(task, path).and_then(Value::as_u64);
    // Of a batch the count says more than the name of what was begun last.
    let batch = at(task, "spec.batch").is_some();
    let words = match batch {
        true => ["status.message", "status.step"],
        false => ["status.step", "status.message"],
    };
    let step = words
        .iter()
        .find_map(|p| {
            at(task, p)
                .and_then(Value::as_str)
                .filter(|t| !t.is_empty())
        })
        .unwrap_or("");
    let bytes = number("status.bytes_done");
    let total = number("status.bytes_total").unwrap_or(0);
    let bytes = bytes
        .filter(|done| *done > 0 || total > 0)
        .map(|done| (done, total));
    let percent = number("status.progress").filter(|p| *p > 0);
    progress.show(what, step, percent, bytes);
}

/// Waits for a task to succeed. `what` says in progress and messages what it is about.
pub async fn task(s: &Session, task: &Value, what: &str, patience: Patience) -> Result<Value> {
    let ended = end(s, task, what, patience).await?;
    match at(&ended, "status.state").and_then(Value::as_str) {
        Some("succeeded") | None => Ok(ended),
        Some(state) => Err(why(&ended, &task_target(task).name, state)),
    }
}

/// Waits for the end of a task, whichever it is.
pub async fn end(s: &Session, task: &Value, what: &str, patience: Patience) -> Result<Value> {
    let target = task_target(task);
    let mut progress = Progress::new(s.screen, !s.format.is_table() && !s.screen.err_tty);
    let waiting = watch::until(s, &target, patience.limit, |seen| {
        if let Some(seen) = seen {
            draw(&mut progress, what, seen);
        }
        over(seen, &target.name)
    });
    tokio::select! {
        found = waiting => {
            progress.clear();
            match found? {
                Some(task) => Ok(task),
                None => Err(Failure::new(3, format!("{what} takes longer than --timeout allows"))
                    .hint(format!("it goes on as task {}: `dvctl task wait {0}`", target.name))),
            }
        }
        pressed = tokio::signal::ctrl_c() => {
            progress.clear();
            match pressed {
                Ok(()) => Err(interrupted(s, &target).await),
                Err(e) => Err(Failure::io("waiting for ^C", e)),
            }
        }
    }
}

/// The first ^C detaches; a second one soon after cancels the task.
async fn interrupted(s: &Session, target: &Target) -> Failure {
    let name = &target.name;
    s.screen.say(&format!(
        "\nstill running as task {name}; ^C again within {} s cancels it, else it goes on without you",
        SECOND.as_secs()
    ));
    let second = tokio::time::timeout(SECOND, tokio::signal::ctrl_c()).await;
    if second.is_err() {
        s.screen
            .say(&format!("`dvctl task wait {name}` watches it again"));
        return Failure::silent(INTERRUPTED);
    }
    let cancel = Request::change(
        http::Method::POST,
        format!("{}/actions/cancel", target.path()),
    )
    .json(&json!({}));
    match s.client.send(cancel).await {
        Ok(_) => {
            s.screen.say(&format!("\ncancelling task {name}"));
            Failure::silent(INTERRUPTED)
        }
        Err(mut failure) => {
            failure.exit = INTERRUPTED;
            failure.message = format!("task {name} could not be cancelled: {}", failure.message);
            failure
        }
    }
}

/// Waits until an object's controllers have followed its spec: its observed generation has caught up and nothing says that it waits.
pub async fn settled(
    s: &Session,
    target: &Target,
    object: &Value,
    patience: Patience,
) -> Result<()> {
    let held = at(object, "metadata.holds").and_then(Value::as_array);
    // Without a hold no controller looks after it: there is nothing to wait for.
    if !patience.wait || held.is_none_or(Vec::is_empty) {
        return Ok(());
    }
    let mut progress = Progress::new(s.screen, !s.format.is_table() && !s.screen.err_tty);
    let what = target.short();
    let waiting = watch::until(s, target, patience.limit, |seen| {
        let Some(seen) = seen else {
            return Some(Err(Failure::new(
                3,
                format!("{target} was deleted meanwhile"),
            )));
        };
        let conditions = at(seen, "status.conditions").and_then(Value::as_array);
        let said = |kind: &str, status: &str| {
            conditions.into_iter().flatten().find_map(|c| {
                let is = |name: &str, word: &str| c.get(name).and_then(Value::as_str) == Some(word);
                (is("type", kind) && is("status", status)).then(|| {
                    c.get("message")
                        .and_then(Value::as_str)
                        .unwrap_or("")
                        .to_owned()
                })
            })
        };
        let number = |path: &str| at(seen, path).and_then(Value::as_u64);
        if let Some(message) = said("Reconciled", "false").or_else(|| said("Waiting", "true")) {
            progress.show(&what, &message, None, None);
            return None;
        }
        let state = at(seen, "status.state")
            .and_then(Value::as_str)
            .unwrap_or("");
        if state == "failed" {
            let why = conditions.into_iter().flatten().find_map(|c| {
                let message = c.get("message").and_then(Value::as_str)?;
                (!message.is_empty()).then(|| message.to_owned())
            });
            let why = why.map_or(String::new(), |w| format!(": {w}"));
            return Some(Err(Failure::new(1, format!("{target} failed{why}")).hint(
                format!("`dvctl {} explain {}` shows more", target.kind, target.name),
            )));
        }
        // Long work of a controller says how far it is here.
        if let Some(step) = at(seen, "status.progress.step").and_then(Value::as_str)
            && state != "ready"
        {
            progress.show(&what, step, number("status.progress.percent"), None);
            return None;
        }
        let done = number("status.observed_generation") >= number("metadata.generation");
        if !done {
            progress.show(&what, "", None, None);
        }
        done.then_some(Ok(()))
    });
    tokio::select! {
        found = waiting => {
            progress.clear();
            match found? {
                Some(()) => Ok(()),
                None => Err(Failure::new(3, format!("{target} is not ready within --timeout"))
                    .hint(format!("`dvctl {} explain {}` says why", target.kind, target.name))),
            }
        }
        _ = tokio::signal::ctrl_c() => {
            progress.clear();
            s.screen.say(&format!("\n{target} is stored and goes on without you; `dvctl {} explain {}` shows it", target.kind, target.name));
            Err(Failure::silent(INTERRUPTED))
        }
    }
}
