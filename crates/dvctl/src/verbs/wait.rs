//! `wait --for`: until a condition or state holds, a field has a value, or the object is gone.

use super::{follow, targets, text, timeout, watch};
use crate::connect::Request;
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::grammar::{at, parse_path};
use crate::output::tidy;
use crate::registry::KindDef;
use crate::session::Session;
use clap::ArgMatches;
use serde_json::Value;

/// What is waited for.
#[derive(Clone, Debug, PartialEq)]
enum For {
    Deleted,
    /// A condition with its status, or, with status `true`, a state of that word.
    Condition(String, String),
    Field(String, String),
}

impl For {
    fn parse(text: &str) -> Result<For> {
        if text == "deleted" {
            return Ok(For::Deleted);
        }
        let text = text.strip_prefix("condition=").unwrap_or(text);
        let (left, right) = match text.split_once('=') {
            Some((left, right)) => (left, right),
            None => (text, "true"),
        };
        if left.contains('.') {
            parse_path(left)?;
            return Ok(For::Field(left.into(), right.into()));
        }
        Ok(For::Condition(left.into(), right.to_lowercase()))
    }

    fn holds(&self, object: Option<&Value>) -> bool {
        let Some(object) = object else {
            return *self == For::Deleted;
        };
        match self {
            For::Deleted => false,
            For::Field(path, wanted) => at(object, path).is_some_and(|v| match v {
                Value::String(text) => text == wanted,
                other => wanted == &other.to_string(),
            }),
            For::Condition(name, wanted) => {
                let list = at(object, "status.conditions").and_then(Value::as_array);
                let condition = list.into_iter().flatten().any(|c| {
                    let is = |field: &str, word: &str| {
                        let found = c.get(field).and_then(Value::as_str);
                        found.is_some_and(|t| t.eq_ignore_ascii_case(word))
                    };
                    is("type", name) && is("status", wanted)
                });
                let state = at(object, "status.state").and_then(Value::as_str);
                let wanted_state = if name == "state" { wanted } else { name };
                let is_state = state.is_some_and(|s| s.eq_ignore_ascii_case(wanted_state));
                condition || (is_state && (name == "state" || wanted == "true"))
            }
        }
    }
}

/// Waits for each named object.
pub async fn run(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    let Some(wanted) = text(m, "for") else {
        return tasks(s, kind, m).await;
    };
    let wanted_for = For::parse(wanted)?;
    for target in targets(s, kind, m).await? {
        let waiting = watch::until(s, &target, timeout(m), |object| {
            match (object, &wanted_for) {
                (object, wanted) if wanted.holds(object) => Some(Ok(())),
                (None, _) => Some(Err(Failure::new(4, format!("{target} does not exist")))),
                _ => None,
            }
        });
        let found = tokio::select! {
            found = waiting => found?,
            _ = tokio::signal::ctrl_c() => return Err(Failure::silent(INTERRUPTED)),
        };
        if found.is_none() {
            return Err(
                Failure::new(3, format!("{target} did not become `{wanted}` in time")).hint(
                    format!("`dvctl {} explain {}` says why", kind.name, target.name),
                ),
            );
        }
        if s.format.is_table() {
            s.screen
                .put(&format!("{} {}\n", target.short(), tidy(wanted)))?;
        }
    }
    Ok(())
}

/// Waits until tasks have ended.
async fn tasks(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    let patience = follow::Patience {
        wait: true,
        limit: timeout(m),
    };
    for target in targets(s, kind, m).await? {
        let task = s.client.send(Request::get(target.path())).await?.json()?;
        let done = follow::task(s, &task, &target.short(), patience).await?;
        super::present::value(s, &done, &format!("{} succeeded", target.short()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_holds() {
        let object = json!({ "spec": { "vcpus": 2 }, "status": { "state": "running", "conditions": [{ "type": "AgentReady", "status": "false" }] } });
        let check = |text: &str, expected: bool| {
            assert_eq!(
                For::parse(text).unwrap().holds(Some(&object)),
                expected,
                "{text}"
            );
        };
        check("running", true);
        check("state=running", true);
        check("stopped", false);
        check("AgentReady", false);
        check("AgentReady=false", true);
        check("condition=agentready=False", true);
        check("spec.vcpus=2", true);
        check("deleted", false);
        assert!(For::Deleted.holds(None));
    }
}
