//! `health`: what the server finds when it looks at itself, and how the things that it calls outside stand.

use crate::connect::{Request, problem};
use crate::failure::{Failure, Result};
use crate::output::{Format, Table, indent, yaml};
use crate::session::Session;
use serde_json::Value;

/// Shows `/health/detail`; not ready is exit code 6.
pub async fn show(s: &Session) -> Result<()> {
    let answer = s.client.ask(Request::get("/health/detail")).await?;
    // Not ready is an answer like ready; everything else is none.
    if !matches!(answer.status, 200 | 503) {
        return Err(problem(answer.status, &answer.body));
    }
    let found = answer.json()?;
    let text = |value: &Value, name: &str| match &value[name] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let list = |name: &str| found[name].as_array().cloned().unwrap_or_default();
    match s.format {
        Format::Json => s.screen.put_bytes(&indent(found.to_string().as_bytes()))?,
        Format::Yaml => s.screen.put(&yaml(&found)?)?,
        _ => {
            let mut checks = Table::new(["check", "state", "ms", "message"]);
            for check in list("checks") {
                let ms = check["ms"].as_f64().unwrap_or_default();
                checks.row(vec![
                    text(&check, "name"),
                    text(&check, "state"),
                    format!("{ms:.1}"),
                    text(&check, "message"),
                ]);
            }
            s.screen.put(&checks.text(s.screen.color))?;
            let mut outside = Table::new([
                "dependency",
                "node",
                "breaker",
                "calls",
                "failed",
                "refused",
                "mean ms",
            ]);
            for one in list("dependencies") {
                let calls = one["calls"].as_f64().unwrap_or_default();
                let seconds = one["seconds"].as_f64().unwrap_or_default();
                outside.row(vec![
                    text(&one, "name"),
                    text(&one, "node"),
                    text(&one, "state").replace('_', " "),
                    text(&one, "calls"),
                    text(&one, "failures"),
                    text(&one, "refused"),
                    format!("{:.0}", seconds * 1000.0 / calls.max(1.0)),
                ]);
            }
            if !list("dependencies").is_empty() {
                s.screen.put("\n")?;
                s.screen.put(&outside.text(s.screen.color))?;
            }
        }
    }
    let state = text(&found, "status");
    match state.as_str() {
        "ready" => Ok(()),
        _ => Err(Failure::new(6, format!("the server is {state}"))),
    }
}
