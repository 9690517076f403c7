//! `api actions` and `api parity`: what is offered, and where.

use super::present;
use crate::connect::Request;
use crate::failure::{Failure, Result};
use crate::output::{Format, Table, indent, yaml};
use crate::session::Session;
use serde_json::{Value, json};

/// Every verb of every kind.
pub fn actions(s: &Session) -> Result<()> {
    let mut table = Table::new(["kind", "verb", "style", "danger", "what it does"]);
    let mut list = Vec::new();
    for kind in s.registry.all()? {
        for (verb, doc) in crate::grammar::kind_verbs(&kind) {
            let action = kind.action(&verb);
            let style = match (action, kind.stream(&verb)) {
                (Some(action), _) => action.style.clone(),
                (None, Some(_)) => "stream".into(),
                (None, None) => "common".into(),
            };
            let danger = match action {
                Some(action) => action.danger.clone(),
                None if verb == "delete" => "destroys".into(),
                None => "none".into(),
            };
            let doc = doc.split("\n\n").next().unwrap_or("").replace('\n', " ");
            list.push(json!({ "kind": kind.name, "verb": verb, "style": style, "danger": danger, "doc": doc }));
            table.row(vec![kind.name.clone(), verb, style, danger, doc]);
        }
    }
    show(s, &table, &Value::Array(list))
}

fn show(s: &Session, table: &Table, value: &Value) -> Result<()> {
    match s.format {
        Format::Json => s.screen.put_bytes(&indent(value.to_string().as_bytes())),
        Format::Yaml => s.screen.put(&yaml(value)?),
        _ => s.screen.put(&table.text(s.screen.color)),
    }
}

/// Whether the server's OpenAPI document has a path for every verb that the registry declares, and this `dvctl` a command.
pub async fn parity(s: &Session) -> Result<()> {
    let document = s.client.json("/api/openapi.json").await?;
    let paths = document.get("paths").and_then(Value::as_object);
    let has = |ending: &str| paths.is_some_and(|paths| paths.keys().any(|p| p.ends_with(ending)));
    let mut table = Table::new(["kind", "verb", "rest", "dvctl"]);
    let mut list = Vec::new();
    let mut missing = 0;
    for kind in s.registry.all()? {
        for (verb, _) in crate::grammar::kind_verbs(&kind) {
            let generic = |text: &str| has(&format!("/{}{text}", kind.plural));
            let rest = match (kind.action(&verb), kind.stream(&verb), verb.as_str()) {
                (Some(_), _, _) => {
                    generic(&format!("/{{name}}/actions/{verb}"))
                        || generic("/{name}/actions/{verb}")
                }
                (None, Some(_), _) => {
                    generic(&format!("/{{name}}/streams/{verb}"))
                        || generic("/{name}/streams/{stream}")
                }
                (None, None, "list" | "create") => generic(""),
                (None, None, "watch" | "wait") => has("/watch"),
                (None, None, "explain") => {
                    paths.is_some_and(|p| p.keys().any(|k| k.contains("/explain/")))
                }
                _ => generic("/{name}"),
            };
            missing += usize::from(!rest);
            let word = if rest { "yes" } else { "MISSING" };
            list.push(json!({ "kind": kind.name, "verb": verb, "rest": rest, "dvctl": true }));
            table.row(vec![kind.name.clone(), verb, word.into(), "yes".into()]);
        }
    }
    show(s, &table, &Value::Array(list))?;
    match missing {
        0 => Ok(()),
        n => Err(Failure::new(
            1,
            format!("{n} verbs are missing in a surface"),
        )),
    }
}

/// A one-time code for somebody who logs in from another machine.
pub async fn login_code(s: &Session) -> Result<()> {
    let request = Request::change(http::Method::POST, "/login/code").json(&json!({}));
    let answer = s.client.send(request).await?;
    let made = answer.json()?;
    let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or("");
    present::object(s, &answer, text("code"))?;
    if s.format.is_table() && !text("expires").is_empty() {
        s.screen
            .say(&format!("good for one login until {}", text("expires")));
    }
    Ok(())
}
