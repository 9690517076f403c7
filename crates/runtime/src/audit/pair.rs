//! The pair of rows about a request that changes something.

use super::catalogue::Tag;
use super::format::{canonical, mask};
use super::row::{Phase, Row};
use super::{Durable, PARAMS};
use crate::gate::{Op, Request};
use crate::key::PERSON;
use crate::registry::Declared;
use crate::task::BatchInput;
use crate::{ActorKind, Cx};
use model::schema::{self, PERSONAL, REF, SECRET, SUBJECT, property};
use model::{Error, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An open pair of rows.
pub(crate) struct Pair {
    row: Row,
    begun: tokio::time::Instant,
}

/// Writes the intent of a request that changes something; `None` when it changes nothing or there is no trail.
pub(crate) async fn intent(cx: &Cx, request: &Request) -> Result<Option<Pair>> {
    let Some(trail) = cx.trail() else {
        return Ok(None);
    };
    let declared = cx.registry().need(request.op.kind())?;
    if request.dry_run || request.op.reads(declared) {
        return Ok(None);
    }
    let params = asked(declared, &request.op);
    let (kind, project, name) = (request.op.kind(), request.op.project(), request.op.name());
    let object = name
        .map(|name| crate::object_key(kind, project, name))
        .and_then(|key| cx.cache().row(kind, &key));
    let personal = personal(declared, &request.op, &params);
    let subject = subject(declared, &request.op, &params);
    let only_his = subject.is_some();
    let about = subject
        .or_else(|| named(&declared.spec, &params["spec"]))
        .or_else(|| owner(&params));
    let whole = canonical(&params);
    let asked = match personal.is_empty() {
        true => Sha256::digest(whole.as_bytes()),
        false => {
            let mut shown = params.clone();
            mask(&mut shown, &personal);
            Sha256::digest(canonical(&shown).as_bytes())
        }
    };
    let params = match whole.len() {
        ..=PARAMS => params,
        _ => Value::Null,
    };
    let mut tags = vec![Tag::Soc2, Tag::Iso27001];
    if declared.has_personal {
        tags.insert(0, Tag::Gdpr);
    }
    let user = request.actor.user.as_deref();
    let row = Row {
        time: cx.clock().now(),
        phase: Phase::Intent,
        actor: request.actor.name.clone(),
        user: user
            .filter(|user| *user != request.actor.name)
            .map(str::to_owned),
        user_agent: request.user_agent.clone(),
        actor_kind: request.actor.kind,
        surface: request.surface,
        address: request.from.map(|a| a.to_string()),
        request_id: request.id.clone(),
        trace: request.trace.clone(),
        action: format!("{kind}.{}", request.op.privilege_verb()),
        kind: Some(kind.to_owned()),
        uid: object.map(|row| row.uid),
        project: project.map(str::to_owned),
        name: name.map(str::to_owned),
        change: request.change,
        asked: hex::encode(asked),
        tags,
        is_person: kind == PERSON,
        ..Row::default()
    };
    let when = match (&request.op, request.actor.kind) {
        // Our own loops repeat what they do until it is done: their rows need not be on disk first.
        (_, ActorKind::System) => Durable::Later,
        // No commit comes with it.
        (Op::Stream { .. }, _) => Durable::Now,
        _ => Durable::WithChange,
    };
    // The outcome says again who and what; what exactly was asked stands in the intent.
    let outcome = row.clone();
    let intent = Row {
        params,
        personal,
        about,
        only_his,
        ..row
    };
    trail.keep(intent, when).await?;
    Ok(Some(Pair {
        row: outcome,
        begun: tokio::time::Instant::now(),
    }))
}

/// Writes how it ended.
pub(crate) async fn outcome(cx: &Cx, pair: Option<Pair>, error: Option<&Error>) {
    let (Some(pair), Some(trail)) = (pair, cx.trail()) else {
        return;
    };
    let mut row = pair.row;
    // What was made by this has an identity only now.
    if let (None, Some(kind), Some(name)) = (row.uid, &row.kind, &row.name) {
        let key = crate::object_key(kind, row.project.as_deref(), name);
        row.uid = cx.cache().row(kind, &key).map(|object| object.uid);
    }
    let row = Row {
        time: cx.clock().now(),
        phase: Phase::Outcome,
        result: Some(error.map_or("ok", |e| e.code()).to_owned()),
        duration_ms: Some(pair.begun.elapsed().as_millis() as u64),
        ..row
    };
    if let Err(error) = trail.keep(row, Durable::Later).await {
        tracing::error!(?error, "the outcome of a change could not be kept");
    }
}

/// A pair that stays open while a stream is: its outcome is written too when nobody waits for the stream any more.
pub(crate) struct Open {
    cx: Cx,
    pair: Option<Pair>,
}

impl Open {
    pub(crate) fn new(cx: &Cx, pair: Option<Pair>) -> Open {
        let cx = cx.clone();
        Open { cx, pair }
    }

    /// The stream has ended.
    pub(crate) async fn close(mut self, error: Option<&Error>) {
        outcome(&self.cx, self.pair.take(), error).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(pair) = self.pair.take() {
            let cx = self.cx.clone();
            self.cx
                .life()
                .spawn("audit of a closed stream", async move {
                    outcome(&cx, Some(pair), None).await;
                });
        }
    }
}

/// What a request asks for, fit to be kept.
fn asked(declared: &Declared, op: &Op) -> Value {
    let file = |body: &Value| {
        let mut out = json!({});
        if let Some(meta) = body.get("metadata") {
            out["metadata"] = known(meta, crate::desk::THEIRS);
        }
        if let Some(spec) = body.get("spec") {
            out["spec"] = masked(&declared.spec, spec);
        }
        out
    };
    let input = |verb: &str, params: &Value| match declared.input(verb) {
        Some(schema) => masked(schema, params),
        None => Value::Null,
    };
    match op {
        Op::Create { body, .. } | Op::Update { body, .. } | Op::Patch { body, .. } => file(body),
        Op::Delete { keep, .. } if keep.is_empty() => Value::Null,
        Op::Delete { keep, .. } => json!({ "keep": keep }),
        Op::Act { verb, params, .. } => input(verb, params),
        Op::Batch { verb, body, .. } => {
            let mut body = masked(schema::of::<BatchInput>().as_value(), body);
            if let Some(params) = body.get_mut("params") {
                *params = input(verb, params);
            }
            body
        }
        Op::Stream { .. } | Op::Get { .. } | Op::List { .. } | Op::Watch { .. } => Value::Null,
    }
}

/// Of a map what has one of these names: what else stands there may be anything, also a misplaced secret.
fn known(value: &Value, names: &[&str]) -> Value {
    match value {
        Value::Object(map) => {
            let known = map.iter().filter(|(name, _)| names.contains(&&***name));
            let known = known.map(|(name, value)| (name.clone(), value.clone()));
            Value::Object(known.collect())
        }
        _ => Value::Null,
    }
}

/// Fields that are personal by their names, also where nobody has marked them.
const NAMES: &[&str] = &[
    "email",
    "phone",
    "full_name",
    "first_name",
    "last_name",
    "postal_address",
    "birth_date",
    "iban",
    "account_number",
    "card_number",
];

/// Where personal values stand in what is asked.
fn personal(declared: &Declared, op: &Op, params: &Value) -> Vec<String> {
    let mut out = Vec::new();
    match op {
        Op::Create { .. } | Op::Update { .. } | Op::Patch { .. } => {
            places(&declared.spec, &params["spec"], "/spec", &mut out);
            for name in ["name", "display_name"] {
                let place = format!("/metadata/{name}");
                let there = op.kind() == PERSON && params.pointer(&place).is_some();
                out.extend(there.then_some(place));
            }
            if owner(params).is_some() {
                out.push(OWNER.to_owned());
            }
        }
        Op::Act { verb, .. } => {
            if let Some(schema) = declared.input(verb) {
                places(schema, params, "", &mut out);
            }
        }
        Op::Batch { verb, .. } => {
            if let Some(schema) = declared.input(verb) {
                places(schema, &params["params"], "/params", &mut out);
            }
        }
        _ => {}
    }
    out
}

/// Where a body names what an object belongs to.
const OWNER: &str = "/metadata/owner/name";

/// The person that an object is to belong to.
fn owner(params: &Value) -> Option<String> {
    let kind = params.pointer("/metadata/owner/kind")?;
    let name = params.pointer(OWNER)?.as_str()?;
    (kind == PERSON).then(|| name.to_owned())
}

/// The person whom an action is all about.
fn subject(declared: &Declared, op: &Op, params: &Value) -> Option<String> {
    let Op::Act { verb, .. } = op else {
        return None;
    };
    let (schema, given) = (declared.input(verb)?, params.as_object()?);
    given.iter().find_map(|(name, value)| {
        let ours = marked(property(schema, name)?, SUBJECT);
        value.as_str().filter(|_| ours).map(str::to_owned)
    })
}

/// The first person that a spec names.
fn named(schema: &Value, value: &Value) -> Option<String> {
    match value {
        Value::String(name) => (schema.get(REF) == Some(&json!(PERSON))).then(|| name.clone()),
        Value::Object(map) => map
            .iter()
            .find_map(|(name, value)| named(property(schema, name)?, value)),
        _ => None,
    }
}

fn places(schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let part = property(schema, name).unwrap_or(&Value::Null);
                // A JSON pointer writes `~` and `/` of a name in another way (RFC 6901).
                let here = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                let names_him = value.is_string() && part.get(REF) == Some(&json!(PERSON));
                let marked = marked(part, PERSONAL) || names_him || NAMES.contains(&name.as_str());
                match marked && !value.is_null() {
                    true => out.push(here),
                    false => places(part, value, &here, out),
                }
            }
        }
        Value::Array(list) => {
            let items = schema::items(schema).unwrap_or(&Value::Null);
            for (n, value) in list.iter().enumerate() {
                places(items, value, &format!("{at}/{n}"), out);
            }
        }
        _ => {}
    }
}

/// Only what a schema knows, and of its secrets only that they are there: a misspelt secret stands under a name that
/// nobody knows to be secret.
fn masked(schema: &Value, value: &Value) -> Value {
    if marked(schema, SECRET) {
        return match value {
            Value::Null => Value::Null,
            _ => Value::String("***".into()),
        };
    }
    match value {
        Value::Object(map) => {
            let more = schema.get("additionalProperties").filter(|s| s.is_object());
            let known = map.iter().filter_map(|(name, value)| {
                let part = property(schema, name).or(more)?;
                Some((name.clone(), masked(part, value)))
            });
            // A schema without properties takes anything: nothing in it is declared secret.
            match has_properties(schema) || more.is_some() {
                true => Value::Object(known.collect()),
                false => value.clone(),
            }
        }
        Value::Array(list) => {
            let items = schema::items(schema).unwrap_or(&Value::Null);
            Value::Array(list.iter().map(|value| masked(items, value)).collect())
        }
        value => value.clone(),
    }
}

/// Whether a schema itself, or a branch of it, is marked.
fn marked(schema: &Value, word: &str) -> bool {
    schema::flagged(schema, word) || branches(schema).any(|part| marked(part, word))
}

fn has_properties(schema: &Value) -> bool {
    schema.get("properties").is_some() || branches(schema).any(has_properties)
}

fn branches(schema: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf", "allOf"]
        .into_iter()
        .filter_map(|word| schema.get(word).and_then(Value::as_array))
        .flatten()
}
