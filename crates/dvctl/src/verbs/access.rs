//! `access`: may somebody do something, why, and who else may.

use crate::connect::Request;
use crate::failure::{Failure, Result};
use crate::output::{Format, Table, indent, yaml};
use crate::session::Session;
use clap::ArgMatches;
use http::Method;
use serde_json::{Value, json};

/// Carries out `access check|who-can|matrix`.
pub async fn run(s: &Session, what: &str, m: &ArgMatches) -> Result<()> {
    let text = |name: &str| m.get_one::<String>(name).cloned();
    let mut body = json!({ "object": text("object").unwrap_or_else(|| "/".into()) });
    for name in ["user", "action", "from"] {
        if let Some(value) = m.try_get_one::<String>(name).ok().flatten() {
            body[name] = json!(value);
        }
    }
    if m.try_get_one::<bool>("mfa").ok().flatten() == Some(&true) {
        body["mfa"] = json!(true);
    }
    let request = Request::change(Method::POST, format!("/auth/access/{what}")).json(&body);
    let answer = s.client.send(request).await?.json()?;
    match s.format {
        Format::Json => s.screen.put_bytes(&indent(answer.to_string().as_bytes()))?,
        Format::Yaml => s.screen.put(&yaml(&answer)?)?,
        _ => show(s, what, &answer)?,
    }
    match what == "check" && answer["allowed"] != true {
        // For scripts: no is no success.
        true => Err(Failure::silent(5)),
        false => Ok(()),
    }
}

fn show(s: &Session, what: &str, answer: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |name: &str| answer[name].as_array().cloned().unwrap_or_default();
    match what {
        "check" => {
            let word = if answer["allowed"] == true {
                "yes"
            } else {
                "no"
            };
            s.screen
                .put(&format!("{word}: {}\n", text(&answer["verdict"])))?;
            let mut table = Table::new(["grant", "role", "scope", "says", "decides", "why not"]);
            for grant in list("grants") {
                let failed = grant["failed"].as_array().cloned().unwrap_or_default();
                table.row(vec![
                    text(&grant["grant"]),
                    text(&grant["role"]),
                    text(&grant["scope"]),
                    text(&grant["says"]),
                    if grant["decides"] == true { "yes" } else { "" }.into(),
                    failed.iter().map(text).collect::<Vec<_>>().join(", "),
                ]);
            }
            if !list("grants").is_empty() {
                s.screen.put("\n")?;
                s.screen.put(&table.text(s.screen.color))?;
            }
        }
        "who-can" => {
            let mut table = Table::new(["user", "now", "by", "if"]);
            for one in list("users") {
                let ways = one["conditions"].as_array().cloned().unwrap_or_default();
                table.row(vec![
                    text(&one["subject"]),
                    if one["allowed"] == true { "yes" } else { "no" }.into(),
                    text(&one["verdict"]),
                    ways.iter().map(text).collect::<Vec<_>>().join("; or "),
                ]);
            }
            s.screen.put(&table.text(s.screen.color))?;
        }
        _ => {
            let mut table = Table::new(["privilege", "allowed"]);
            for one in list("privileges") {
                let word = if one["allowed"] == true { "yes" } else { "no" };
                table.row(vec![text(&one["action"]), word.into()]);
            }
            s.screen.put(&table.text(s.screen.color))?;
        }
    }
    Ok(())
}
