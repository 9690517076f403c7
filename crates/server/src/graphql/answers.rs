//! From arguments to requests for the gate, and from its answers to values of GraphQL.

use super::shape::{Part, Shape, json};
use super::types::project_of;
use crate::app::Call;
use async_graphql::dynamic::{FieldValue, ResolverContext};
use async_graphql::{ErrorExtensions, Value as Graph};
use model::{Error, Kind, ObjectRef, Result, Selector};
use runtime::{Answer, Op, Query};
use serde_json::{Map, Value};

type Out = async_graphql::Result<Option<FieldValue<'static>>>;

pub(super) fn argument(ctx: &ResolverContext<'_>, name: &str) -> Option<Graph> {
    ctx.args
        .get(name)
        .map(|value| value.as_value().clone())
        .filter(|value| *value != Graph::Null)
}

pub(super) fn text(ctx: &ResolverContext<'_>, name: &str) -> Option<String> {
    match argument(ctx, name)? {
        Graph::String(text) => Some(text),
        _ => None,
    }
}

pub(super) fn target(ctx: &ResolverContext<'_>, kind: &Kind) -> ObjectRef {
    ObjectRef {
        kind: kind.name.into(),
        project: text(ctx, "project"),
        name: text(ctx, "name").unwrap_or_default(),
    }
}

/// The body as a file has it.
pub(super) fn body(ctx: &ResolverContext<'_>, spec: &Shape) -> Value {
    let mut meta = Map::new();
    for name in ["name", "labels", "display_name", "protection"] {
        if let Some(value) = argument(ctx, name) {
            meta.insert(name.into(), json(&value));
        }
    }
    let mut out = Map::new();
    out.insert("metadata".into(), meta.into());
    if let Some(value) = argument(ctx, "spec") {
        out.insert("spec".into(), spec.take(&value));
    }
    out.into()
}

/// Through the gate, and carried out.
pub(super) async fn carry_out(call: &Call, op: Op) -> Result<Answer> {
    call.carry_out(call.request(op)?).await
}

pub(super) async fn write(ctx: &ResolverContext<'_>, call: &Call, op: Op) -> Result<Answer> {
    let mut request = call.request(op)?;
    request.if_match = text(ctx, "if_match");
    request.idempotency = text(ctx, "idempotency_key");
    request.dry_run = argument(ctx, "dry_run") == Some(Graph::Boolean(true));
    request.force = argument(ctx, "force") == Some(Graph::Boolean(true));
    call.carry_out(request).await
}

pub(super) async fn one(ctx: &ResolverContext<'_>, op: Op, writes: bool) -> Out {
    let call = ctx.data::<Call>()?;
    let answer = match writes {
        true => write(ctx, call, op).await,
        false => carry_out(call, op).await,
    };
    match answer {
        Ok(Answer::Object { json, .. } | Answer::Accepted { task: json }) => Ok(shown(&json)),
        Ok(_) => Err(told(
            call,
            &Error::internal("one object was asked for and none was answered"),
        )),
        Err(error) => Err(told(call, &error)),
    }
}

pub(super) async fn list(ctx: &ResolverContext<'_>, kind: &'static Kind) -> Out {
    let call = ctx.data::<Call>()?;
    let run = async {
        let limit = match argument(ctx, "limit") {
            Some(Graph::Number(n)) => n.as_u64().unwrap_or(0),
            _ => 0,
        };
        let query = Query {
            selector: Selector::parse(&text(ctx, "selector").unwrap_or_default())?,
            fields: Vec::new(),
            sort: text(ctx, "sort"),
            search: text(ctx, "search"),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            after: text(ctx, "after"),
        };
        let op = Op::List {
            kind: kind.name.into(),
            project: text(ctx, "project"),
            query,
        };
        match carry_out(call, op).await? {
            Answer::List(listed) => {
                let items: Vec<Value> = listed
                    .items
                    .iter()
                    .filter_map(|item| serde_json::from_slice(item).ok())
                    .collect();
                Ok(serde_json::json!({
                    "revision": listed.revision.to_string(),
                    "total": listed.total,
                    "next": listed.next,
                    "items": items,
                }))
            }
            _ => Err(Error::internal(
                "a list was asked for and none was answered",
            )),
        }
    };
    match run.await {
        Ok(page) => Ok(Some(FieldValue::owned_any(page))),
        Err(error) => Err(told(call, &error)),
    }
}

/// JSON bytes of an object, on their way out.
pub(super) fn shown(json: &[u8]) -> Option<FieldValue<'static>> {
    let value: Value = serde_json::from_slice(json).ok()?;
    Some(FieldValue::owned_any(Part {
        project: project_of(&value),
        value,
    }))
}

/// An error as GraphQL says it: message, and the problem document under `extensions`.
pub(super) fn told(call: &Call, error: &Error) -> async_graphql::Error {
    let problem = error.problem(&call.id);
    if error.what == model::What::Internal {
        tracing::error!(
            request_id = call.id,
            ?error,
            "a request failed by our fault"
        );
    }
    let message = problem.detail.clone();
    async_graphql::Error::new(message).extend_with(|_, extensions| {
        let map = serde_json::to_value(&problem).unwrap_or_default();
        for (name, value) in map.as_object().into_iter().flatten() {
            if let Ok(value) = Graph::from_json(value.clone()) {
                extensions.set(name, value);
            }
        }
    })
}
