//! GraphQL from the registry: a type, a page, a change and the mutations of every kind, made at start.
//!
//! `POST /graphql` for queries and mutations, a WebSocket (`graphql-transport-ws`) for all of them and subscriptions.
//! Nothing is answered to who is not logged in, introspection included.

mod answers;
mod changes;
mod fields;
mod objects;
mod shape;
mod socket;
mod types;
mod weigh;
mod writes;

pub(crate) use shape::lower_camel;

use crate::app::Call;
use crate::reply::{self, Failure, Outcome};
use crate::rest::read_json;
use crate::watch::socket as websocket;
use async_graphql::{Executor, Request as Graph, Response as Answered};
use axum::body::Body;
use http::{Method, Request, StatusCode};
use model::{Error, Result, What};
use runtime::limit::Class;
use runtime::{Registry, Surface};
use serde_json::Value;

/// Most requests in one batch.
const BATCH: usize = 100;

/// The schema of one server.
pub(crate) type Schema = async_graphql::dynamic::Schema;

/// Makes the schema. An error is a mistake in a declaration.
pub(crate) fn schema(registry: &Registry) -> Result<Schema> {
    let mut types = types::Types::new(registry.clone());
    let mut roots = fields::Roots::new();
    objects::common(&mut types)?;
    roots.common()?;
    for declared in registry.iter() {
        roots.kind(declared, &mut types)?;
    }
    let mut builder = Schema::build("Query", Some("Mutation"), Some("Subscription"))
        .register(roots.query)
        .register(roots.mutation)
        .register(roots.subscription);
    for ty in types.into_all() {
        builder = builder.register(ty);
    }
    builder
        .limit_directives(16)
        .finish()
        .map_err(|e| Error::internal(format!("the GraphQL schema: {e}")))
}

/// The schema in GraphQL's own language, as it is committed. Empty lines only when a declaration is mistaken, which a
/// server refuses to start with.
pub fn graphql_sdl(registry: &Registry) -> String {
    match schema(registry) {
        Ok(schema) => schema.sdl(),
        Err(error) => format!("# {error}\n"),
    }
}

/// Runs for one caller what is not too deep, not too dear, and not too much.
#[derive(Clone)]
struct Bounded(Schema, Call);

impl Bounded {
    /// Each operation that comes by a socket is asked for by somebody who is still in, and counts as a request, too.
    fn check(&self, request: &Graph) -> Result<()> {
        self.1.is_in()?;
        let weight = weigh::check(request, 0)?;
        self.1.count(Class::Principal).admitted()?;
        counted(&self.1, weight)
    }
}

/// Each change of a mutation counts as if it had come alone; the first is the request that brought them.
fn counted(call: &Call, weight: weigh::Weight) -> Result<()> {
    if !weight.mutates {
        return call.count(Class::GraphQlQuery).admitted();
    }
    for nth in 0..weight.changes.max(1) {
        if nth > 0 {
            call.count(Class::Principal).admitted()?;
        }
        call.count(Class::GraphQlMutation).admitted()?;
    }
    Ok(())
}

impl Executor for Bounded {
    async fn execute(&self, request: Graph) -> Answered {
        match self.check(&request) {
            Ok(()) => self.0.execute(request).await,
            Err(error) => refused(&error),
        }
    }

    fn execute_stream(
        &self,
        request: Graph,
        session: Option<std::sync::Arc<async_graphql::Data>>,
    ) -> futures::stream::BoxStream<'static, Answered> {
        match self.check(&request) {
            Ok(()) => Executor::execute_stream(&self.0, request, session),
            Err(error) => Box::pin(futures::stream::once(async move { refused(&error) })),
        }
    }
}

fn refused(error: &Error) -> Answered {
    let mut told = async_graphql::ServerError::new(error.to_string(), None);
    let mut extensions = async_graphql::ErrorExtensionValues::default();
    extensions.set("code", error.code());
    if let What::Quota(Some(after)) = error.what {
        extensions.set("retry_after", after.as_secs());
    }
    told.extensions = Some(extensions);
    Answered::from_errors(vec![told])
}

/// Runs requests one after the other, as far as all of them together are not too dear.
async fn run(call: &Call, requests: Vec<Value>) -> Outcome<Vec<Answered>> {
    let read = |one: Value| {
        serde_json::from_value::<Graph>(one).map_err(|_| {
            Error::new(What::Unparseable, "the body is not a GraphQL request")
                .hint("send {\"query\": \"...\", \"variables\": {...}, \"operationName\": \"...\"}")
        })
    };
    let requests: Vec<Graph> = requests.into_iter().map(read).collect::<Result<_>>()?;
    let mut spent = 0;
    let mut out = Vec::with_capacity(requests.len());
    for request in requests {
        let checked = weigh::check(&request, spent).and_then(|weight| {
            spent = weight.spent;
            counted(call, weight)
        });
        out.push(match checked {
            Ok(()) => call.app.graphql.execute(request.data(call.clone())).await,
            Err(error) => refused(&error),
        });
    }
    Ok(out)
}

/// `/graphql`.
pub(crate) async fn answer(call: Call, request: Request<Body>) -> Outcome {
    call.need("registry", "read")?;
    let call = call.through(Surface::GraphQl);
    if websocket::wanted(&request) {
        return socket::upgrade(call, request).await;
    }
    if request.method() != Method::POST {
        return Err(Failure::Method(vec![Method::POST]));
    }
    let (parts, body) = request.into_parts();
    let kinds = ["application/json", "application/graphql-response+json"];
    let body = read_json(&call, &parts.headers, body, &kinds).await?;
    let requests: Vec<Value> = match body {
        Value::Array(batch) if batch.is_empty() || batch.len() > BATCH => {
            return Err(
                Error::field("body", format!("{} requests are in the batch", batch.len()))
                    .hint(format!("send 1 to {BATCH}"))
                    .into(),
            );
        }
        Value::Array(batch) => batch,
        one => {
            let answered = run(&call, vec![one]).await?;
            return Ok(reply::json(StatusCode::OK, &answered[0]));
        }
    };
    Ok(reply::json(StatusCode::OK, &run(&call, requests).await?))
}
