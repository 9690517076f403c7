//! `apply` and `diff`: what a file says becomes what people want.

use super::documents::{self, Document};
use super::follow::{self, Patience};
use super::{given, present, texts};
use crate::connect::{Answer, Request, problem};
use crate::failure::{Failure, Result};
use crate::output::{unified, yaml};
use crate::session::{Session, Target};
use clap::ArgMatches;
use serde_json::{Value, json};

/// The current object, when there is one.
async fn current(s: &Session, target: &Target) -> Result<Option<Value>> {
    let answer = s.client.ask(Request::get(target.path())).await?;
    match answer.status {
        404 => Ok(None),
        status if status >= 400 => Err(problem(status, &answer.body)),
        _ => answer.json().map(Some),
    }
}

/// How often a write is tried again when only the status moved meanwhile.
const TRIES: usize = 5;

/// Whether what people want of an object is still what it was when the document was read: the same object at the same generation. Its
/// revision moves with every change of its status.
fn same_intent(document: &Document, now: &Value) -> bool {
    ["uid", "generation"].iter().all(|field| {
        let then = document.object.get("metadata").and_then(|m| m.get(field));
        then.is_some() && then == now.get("metadata").and_then(|m| m.get(field))
    })
}

/// Replaces an object by a document. A revision in it must still hold, as far as what people want goes.
pub async fn replace(
    s: &Session,
    target: &Target,
    document: &Document,
    dry: bool,
) -> Result<Answer> {
    let mut tries = 0;
    loop {
        tries += 1;
        let mut revision = documents::revision(document).map(str::to_owned);
        let mut moved = false;
        if revision.is_some()
            && let Some(now) = current(s, target).await?
            && same_intent(document, &now)
        {
            revision = super::watch::revision(&now).map(str::to_owned);
            moved = true;
        }
        match put(s, target, document, revision.as_deref(), dry).await {
            Err(failure) if &*failure.code == "PRECONDITION_FAILED" && moved && tries < TRIES => {}
            answer => return answer,
        }
    }
}

async fn put(
    s: &Session,
    target: &Target,
    document: &Document,
    revision: Option<&str>,
    dry: bool,
) -> Result<Answer> {
    let query = if dry { "?dry_run=true" } else { "" };
    let request = Request::change(http::Method::PUT, format!("{}{query}", target.path()))
        .json(&documents::body(document))
        .if_match(revision);
    s.client.send(request).await.map_err(|mut failure| {
        failure.message = format!("{}: {}", document.place, failure.message);
        if &*failure.code == "PRECONDITION_FAILED" {
            failure.hint = Some(
                "somebody changed it since this was read: read it again, or take metadata.revision out to replace whatever is there".into(),
            );
        }
        failure
    })
}

/// What a person can compare: labels and the like, and the spec.
fn comparable(object: &Value) -> Value {
    let mut meta = serde_json::Map::new();
    for name in ["name", "project", "display_name", "labels", "protection"] {
        if let Some(value) = object.get("metadata").and_then(|m| m.get(name)) {
            meta.insert(name.into(), value.clone());
        }
    }
    json!({ "kind": object.get("kind"), "metadata": meta, "spec": object.get("spec") })
}

/// Creates or replaces each object of the files; goes on after a failure and ends with it.
pub async fn apply(s: &Session, m: &ArgMatches) -> Result<()> {
    let dry = given(m, "dry-run");
    let mut last: Option<Failure> = None;
    for document in documents::read(&texts(m, "file"))? {
        if let Err(failure) = apply_one(s, &document, dry, Patience::of(m)).await
            && let Some(earlier) = last.replace(failure)
        {
            s.screen.say(earlier.lines(false).trim_end());
        }
    }
    last.map_or(Ok(()), Err)
}

async fn apply_one(s: &Session, document: &Document, dry: bool, patience: Patience) -> Result<()> {
    let target = documents::target(s, document)?;
    let before = current(s, &target).await?;
    let answer = replace(s, &target, document, dry).await?;
    let after = answer.json()?;
    let word = match &before {
        None => "created",
        Some(before) if comparable(before) == comparable(&after) => "unchanged",
        Some(_) => "changed",
    };
    if !dry {
        follow::settled(s, &target, &after, patience).await?;
    }
    let suffix = if dry { " (dry run)" } else { "" };
    present::object(s, &answer, &format!("{} {word}{suffix}", target.short()))
}

/// Shows what `apply` would change. Exit code 1 when anything.
pub async fn diff(s: &Session, m: &ArgMatches) -> Result<()> {
    let mut differs = false;
    for document in documents::read(&texts(m, "file"))? {
        let target = documents::target(s, &document)?;
        let old = match current(s, &target).await? {
            Some(object) => yaml(&comparable(&object))?,
            None => String::new(),
        };
        let new = yaml(&comparable(
            &put(s, &target, &document, None, true).await?.json()?,
        ))?;
        let name = target.to_string();
        let text = unified(
            &old,
            &new,
            &format!("{name} (now)"),
            &format!("{name} ({})", document.place),
            s.screen.color,
        );
        differs |= !text.is_empty();
        s.screen.put(&text)?;
    }
    match differs {
        true => Err(Failure::silent(1)),
        false => Ok(()),
    }
}
