//! Objects: list, get, create, apply, patch, delete, act.

use super::{Params, path, read_json};
use crate::app::Call;
use crate::reply::{self, Failure, Outcome};
use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION};
use http::{HeaderMap, Method, Request, StatusCode};
use model::{Error, Kind, ObjectRef, VERSION};
use runtime::{Answer, Listed, Op};
use serde::Deserialize;
use serde_json::Value;

/// `GET` or `POST` on the objects of a kind.
pub(super) async fn collection(
    call: &Call,
    kind: &'static Kind,
    project: Option<String>,
    request: Request<Body>,
) -> Outcome {
    if request.method() == Method::POST {
        return create(call, kind, project, request).await;
    }
    let params = Params::read(
        request.uri(),
        &["limit", "after", "selector", "fields", "sort", "search"],
    )?;
    let op = Op::List {
        kind: kind.name.into(),
        project,
        query: params.query()?,
    };
    match call.carry_out(call.request(op)?).await? {
        Answer::List(listed) => Ok(list(kind, &listed)),
        answer => respond(call, answer, false),
    }
}

/// A page, glued together from the bytes that the cache holds.
fn list(kind: &Kind, listed: &Listed) -> Response {
    let size: usize = listed.items.iter().map(|item| item.len() + 1).sum();
    let mut out = BytesMut::with_capacity(size + 256);
    out.put_slice(
        format!(
            "{{\"version\":\"{VERSION}\",\"kind\":\"{}-list\",\"revision\":\"{}\",\"total\":{}",
            kind.name, listed.revision, listed.total
        )
        .as_bytes(),
    );
    if let Some(next) = &listed.next {
        out.put_slice(b",\"next\":");
        out.put_slice(Value::from(next.as_str()).to_string().as_bytes());
    }
    out.put_slice(b",\"items\":[");
    for (at, item) in listed.items.iter().enumerate() {
        if at > 0 {
            out.put_u8(b',');
        }
        out.put_slice(item);
    }
    out.put_slice(b"]}");
    reply::raw(StatusCode::OK, out.freeze(), "application/json")
}

async fn create(
    call: &Call,
    kind: &'static Kind,
    project: Option<String>,
    request: Request<Body>,
) -> Outcome {
    let params = Params::read(request.uri(), &["dry_run"])?;
    let (parts, body) = request.into_parts();
    // Nobody's body is read before he is known.
    call.somebody()?;
    let body = read_json(call, &parts.headers, body, &["application/json"]).await?;
    let op = Op::Create {
        kind: kind.name.into(),
        project,
        body,
    };
    write(call, &parts.headers, &params, op).await
}

/// `GET`, `PUT`, `PATCH` or `DELETE` on one object.
pub(super) async fn one(
    call: &Call,
    kind: &'static Kind,
    target: ObjectRef,
    request: Request<Body>,
) -> Outcome {
    let (parts, body) = request.into_parts();
    let method = parts.method.as_str();
    match method {
        "PUT" | "PATCH" => {
            let params = Params::read(&parts.uri, &["dry_run"])?;
            call.somebody()?;
            let op = if method == "PUT" {
                let body = read_json(call, &parts.headers, body, &["application/json"]).await?;
                // With If-Match the object must be there; without, apply makes it.
                let create = !parts.headers.contains_key(IF_MATCH);
                Op::Update {
                    target,
                    body,
                    create,
                }
            } else {
                let kinds = ["application/merge-patch+json", "application/json"];
                let body = read_json(call, &parts.headers, body, &kinds).await?;
                Op::Patch { target, body }
            };
            write(call, &parts.headers, &params, op).await
        }
        "DELETE" => {
            let params = Params::read(&parts.uri, &["dry_run", "keep", "force"])?;
            let keep = keep(call, kind, &params.words("keep"))?;
            write(call, &parts.headers, &params, Op::Delete { target, keep }).await
        }
        _ => {
            Params::read(&parts.uri, &[])?;
            let answer = call.carry_out(call.request(Op::Get { target })?).await?;
            if let Answer::Object { revision, .. } = &answer
                && let Some(known) = parts.headers.get(IF_NONE_MATCH)
                && tags(known.to_str().unwrap_or_default()).any(|tag| tag == *revision)
            {
                let mut response = reply::empty(StatusCode::NOT_MODIFIED);
                reply::set(&mut response, ETAG, &format!("\"{revision}\""));
                return Ok(response);
            }
            respond(call, answer, false)
        }
    }
}

/// Kinds of owned objects that stay. A word is a kind, singular or plural, or a field of the spec: then the kinds that
/// references in it name (`disks` of a machine whose disks name volumes).
fn keep(call: &Call, kind: &Kind, words: &[String]) -> model::Result<Vec<String>> {
    let registry = call.app.cx.registry();
    let declared = registry.need(kind.name)?;
    let mut out = Vec::new();
    for word in words {
        if let Some(known) = registry.get(word) {
            out.push(known.kind().name.to_owned());
            continue;
        }
        if let Some(field) = model::schema::property(&declared.spec, word) {
            named_in(field, &mut out);
            continue;
        }
        let known = registry.by_plural(word).map_err(|e| {
            let mut wrong = model::Violation::new(
                "?keep",
                format!("`{word}` is neither a kind nor a field of {}", kind.name),
            );
            wrong.hint = e.hint;
            Error::invalid(vec![wrong])
        })?;
        out.push(known.kind().name.to_owned());
    }
    out.sort();
    out.dedup();
    Ok(out)
}

/// The kinds that references anywhere in a schema name.
fn named_in(schema: &Value, out: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(kind)) = map.get(model::schema::REF) {
                out.push(kind.clone());
            }
            map.values().for_each(|part| named_in(part, out));
        }
        Value::Array(list) => list.iter().for_each(|part| named_in(part, out)),
        _ => {}
    }
}

/// `POST` on an action.
pub(super) async fn act(
    call: &Call,
    target: ObjectRef,
    verb: String,
    request: Request<Body>,
) -> Outcome {
    let params = Params::read(request.uri(), &["dry_run", "force"])?;
    let (parts, body) = request.into_parts();
    call.somebody()?;
    let input = read_json(call, &parts.headers, body, &["application/json"]).await?;
    let op = Op::Act {
        target,
        verb,
        params: input,
    };
    write(call, &parts.headers, &params, op).await
}

/// `POST` on one verb over many objects of a kind.
pub(super) async fn batch(
    call: &Call,
    kind: &'static Kind,
    project: Option<String>,
    verb: String,
    request: Request<Body>,
) -> Outcome {
    let params = Params::read(request.uri(), &["dry_run", "force"])?;
    let (parts, body) = request.into_parts();
    call.somebody()?;
    let mut body = read_json(call, &parts.headers, body, &["application/json"]).await?;
    // The words for what stays are those of a single deletion.
    if let Some(words) = body.get("keep").and_then(Value::as_array) {
        let words: Vec<String> = words
            .iter()
            .filter_map(|w| w.as_str().map(str::to_owned))
            .collect();
        body["keep"] = keep(call, kind, &words)?.into();
    }
    let op = Op::Batch {
        kind: kind.name.into(),
        project,
        verb,
        body,
    };
    write(call, &parts.headers, &params, op).await
}

/// Everything that writes: preconditions and dry run come from headers and parameters.
async fn write(call: &Call, headers: &HeaderMap, params: &Params, op: Op) -> Outcome {
    let mut request = call.request(op)?;
    request.dry_run = params.flag("dry_run")?;
    request.force = params.flag("force")?;
    request.if_match = if_match(headers)?;
    request.idempotency = text(headers, "idempotency-key")?;
    let dry_run = request.dry_run;
    let answer = call.carry_out(request).await?;
    respond(call, answer, dry_run)
}

fn text(headers: &HeaderMap, name: &str) -> model::Result<Option<String>> {
    headers
        .get(name)
        .map(|value| {
            value
                .to_str()
                .map(str::to_owned)
                .map_err(|_| Error::field(name, "must be visible ASCII"))
        })
        .transpose()
}

/// If-Match carries one revision, as ETag gave it, or `*`.
fn if_match(headers: &HeaderMap) -> Outcome<Option<String>> {
    let Some(text) = text(headers, "if-match")? else {
        return Ok(None);
    };
    let mut all = tags(&text);
    match (all.next(), all.next()) {
        (Some(one), None) if !text.trim_start().starts_with("W/") => Ok(Some(one.to_owned())),
        _ => Err(Failure::Error(
            Error::field("If-Match", format!("`{text}` is not one strong entity tag"))
                .hint("send the ETag of the object as it was read, in quotes"),
        )),
    }
}

fn tags(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(|tag| tag.trim().trim_start_matches("W/").trim_matches('"'))
}

/// The metadata of an answer that headers need.
#[derive(Deserialize)]
struct Head {
    kind: String,
    metadata: HeadMeta,
}

#[derive(Deserialize)]
struct HeadMeta {
    name: String,
    #[serde(default)]
    project: Option<String>,
}

fn location(call: &Call, json: &Bytes) -> Option<String> {
    let head: Head = serde_json::from_slice(json).ok()?;
    let kind = call.app.cx.registry().get(&head.kind)?.kind();
    Some(path::of(
        kind,
        head.metadata.project.as_deref(),
        &head.metadata.name,
    ))
}

fn respond(call: &Call, answer: Answer, dry_run: bool) -> Outcome {
    let json = |status, bytes| reply::raw(status, bytes, "application/json");
    let mut response = match answer {
        Answer::Object {
            json: bytes,
            revision,
            created,
        } => {
            let made = created && !dry_run;
            let at = if made { location(call, &bytes) } else { None };
            let status = if made {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            let mut response = json(status, bytes);
            // What a dry run would create has no revision yet.
            let stored = !(dry_run && created);
            if stored && !revision.is_empty() {
                reply::set(&mut response, ETAG, &format!("\"{revision}\""));
            }
            if let Some(at) = at {
                reply::set(&mut response, LOCATION, &at);
            }
            response
        }
        Answer::Accepted { task } if dry_run => json(StatusCode::OK, task),
        Answer::Accepted { task } => {
            let at = location(call, &task);
            let mut response = json(StatusCode::ACCEPTED, task);
            if let Some(at) = at {
                reply::set(&mut response, LOCATION, &at);
            }
            response
        }
        Answer::Deleting { json: bytes } if dry_run => json(StatusCode::OK, bytes),
        Answer::Deleting { json: bytes } => json(StatusCode::ACCEPTED, bytes),
        Answer::Deleted => reply::empty(StatusCode::NO_CONTENT),
        Answer::List(_) => {
            return Err(Error::internal("one object was asked for and a list was answered").into());
        }
    };
    if dry_run {
        reply::set(
            &mut response,
            http::HeaderName::from_static("x-dry-run"),
            "true",
        );
    }
    Ok(response)
}

/// Intent, observation, conditions, claims, open tasks and recent events of one object, in one answer.
pub(super) async fn explain(call: &Call, target: ObjectRef) -> Outcome {
    let admitted = call.admit(call.request(Op::Get { target })?, Some("explain"))?;
    let explained = call.app.desk.explain(admitted).await?;
    Ok(reply::json(StatusCode::OK, &explained))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_means_the_kinds_that_it_names() {
        let mut kinds = Vec::new();
        let field = json!({ "type": "array", "items": { "properties": {
            "volume": { "type": "string", "x-ref": "volume" }, "size": { "type": "integer" } } } });
        named_in(&field, &mut kinds);
        assert_eq!(kinds, ["volume"]);
    }
}
