//! `create`: the flags become the spec; `--then` and `--start` carry on with an action.

use super::act;
use super::change::{fields, metadata};
use super::follow::{self, Patience};
use super::{given, present, target, text};
use crate::connect::Request;
use crate::failure::{Failure, Result};
use crate::registry::KindDef;
use crate::session::Session;
use clap::ArgMatches;
use serde_json::{Value, json};

/// Creates an object.
pub async fn run(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    let target = target(s, kind, m).await?;
    let then = match (text(m, "then"), given(m, "start")) {
        (Some(verb), _) => Some(verb),
        (None, true) => Some("start"),
        (None, false) => None,
    };
    // A wrong verb is said before anything is made.
    let then = then
        .map(|verb| {
            kind.action(verb).ok_or_else(|| {
                let known: Vec<&str> = kind.actions.iter().map(|a| a.verb.as_str()).collect();
                Failure::usage(format!("--then: {} has no action `{verb}`", kind.name))
                    .nearest(verb, &known)
            })
        })
        .transpose()?;
    let mut spec = json!({});
    fields(kind, m, &mut spec, true)?;
    let mut meta = metadata(m)?;
    if let Value::Object(map) = &mut meta {
        map.insert("name".into(), json!(target.name));
        if let Some(project) = &target.project {
            map.insert("project".into(), json!(project));
        }
    }
    let body =
        json!({ "version": model::VERSION, "kind": kind.name, "metadata": meta, "spec": spec });
    let dry = given(m, "dry-run");
    let query = if dry { "?dry_run=true" } else { "" };
    let request = Request::change(
        http::Method::POST,
        format!("{}{query}", target.collection()),
    );
    let answer = s.client.send(request.json(&body)).await?;
    if dry {
        return present::object(s, &answer, &format!("{} would be created", target.short()));
    }
    let object = answer.json()?;
    let patience = Patience::of(m);
    let Some(action) = then else {
        follow::settled(s, &target, &object, patience).await?;
        return present::object(s, &answer, &format!("{} created", target.short()));
    };
    if s.format.is_table() {
        s.screen.put(&format!("{} created\n", target.short()))?;
    }
    let answer = act::submit(s, &target, &action.verb, &json!({}), false, false)
        .await
        .map_err(|mut failure| {
            failure.message = format!("{target} exists, but: {}", failure.message);
            failure
        })?;
    act::finish(s, &target, action, &answer, patience, false).await
}
