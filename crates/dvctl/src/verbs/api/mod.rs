//! `api`: what is offered, where, and how well it is answered.

mod parity;
mod stats;

pub use parity::parity;
pub use stats::stats;

use super::present;
use crate::connect::Request;
use crate::failure::Result;
use crate::output::{Format, Table, indent, yaml};
use crate::session::Session;
use serde_json::{Value, json};

/// Every verb of every kind.
pub fn actions(s: &Session) -> Result<()> {
    let mut table = Table::new([
        "kind",
        "verb",
        "style",
        "danger",
        "privilege",
        "what it does",
    ]);
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
            // As the gate asks for it: reading is one privilege, changing fields another.
            let privilege = match verb.as_str() {
                "list" | "show" | "watch" | "explain" | "wait" => "read",
                "set" | "edit" => "update",
                verb => verb,
            };
            let privilege = format!("{}.{privilege}", kind.name);
            let doc = doc.split("\n\n").next().unwrap_or("").replace('\n', " ");
            list.push(json!({ "kind": kind.name, "verb": verb, "style": style, "danger": danger, "privilege": privilege, "doc": doc }));
            table.row(vec![kind.name.clone(), verb, style, danger, privilege, doc]);
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
