//! gRPC on its own port: one generic service over the registry, with reflection and health.
//!
//! TLS with a required client certificate is done by the listener; here every call becomes the same request for the
//! gate as in REST. It names no kind.

mod convert;
mod health;
mod resources;

use crate::app::{App, Call};
use crate::front;
use crate::net::{Answerer, Peer};
use crate::perimeter::Counted;
use axum::Router;
use axum::body::Body;
use futures::FutureExt;
use http::Request;
use model::{Error, Result};
use parking_lot::Mutex;
use prost::Message;
use runtime::Op;
use runtime::limit::Class;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tower::ServiceExt;
use tracing::Instrument;

/// What `build.rs` makes of `proto/debvisor.proto`.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("debvisor.v1");
}

/// What `build.rs` makes of the health service's definition.
#[allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
mod health_v1 {
    tonic::include_proto!("grpc.health.v1");
}

const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");

/// The methods of the generic service, as its descriptor has them.
pub(crate) fn methods() -> Result<BTreeSet<String>> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS)
        .map_err(|e| Error::internal("the descriptors of the gRPC services").because(e))?;
    Ok(set
        .file
        .iter()
        .flat_map(|file| &file.service)
        .filter(|service| service.name() == "Resources")
        .flat_map(|service| &service.method)
        .map(|method| method.name().to_owned())
        .collect())
}

/// Largest message of a client; the same as a JSON body.
const MESSAGE: usize = 1024 * 1024;

/// Answers gRPC requests.
pub(crate) fn service(app: Arc<App>) -> Result<Answerer> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .build_v1()
        .map_err(|e| Error::internal("the descriptors of the gRPC services").because(e))?;
    let resources = v1::resources_server::ResourcesServer::new(resources::Resources)
        .max_decoding_message_size(MESSAGE);
    let health = health_v1::health_server::HealthServer::new(health::Health(app.clone()));
    let router: Router = tonic::service::Routes::new(resources)
        .add_service(health)
        .add_service(reflection)
        .prepare()
        .into_axum_router();
    Ok(Arc::new(move |peer: Peer, request: Request<Body>| {
        answer(app.clone(), router.clone(), peer, request).boxed()
    }))
}

/// How a call stands with the narrowest limit that has counted it, filled in where it is known what it asks for.
type Told = Arc<Mutex<Counted>>;

/// Counts a call as a request and, unless it is one of `Resources`, as a call: what those ask for is known only when they
/// are read.
fn count(call: &Call, path: &str) -> Counted {
    let counted = call.count(Class::Principal);
    match counted.admitted().is_ok() && !path.starts_with("/debvisor.v1.Resources/") {
        true => call.count(Class::Grpc),
        false => counted,
    }
}

/// Counts what a call asks for: by the limit of its kind and verb when they have one, else as a call and, when it changes
/// something, as a change.
fn count_op(call: &Call, op: &Op) -> Counted {
    let (verb, reads) = match op {
        Op::Get { .. } => ("get", true),
        Op::List { .. } => ("list", true),
        Op::Watch { .. } => ("watch", true),
        Op::Stream { stream, .. } => (&**stream, true),
        Op::Create { .. } => ("create", false),
        Op::Update { .. } | Op::Patch { .. } => ("update", false),
        Op::Delete { .. } => ("delete", false),
        Op::Act { verb, .. } | Op::Batch { verb, .. } => (&**verb, false),
    };
    if let Some(counted) = call.count_named(op.kind(), verb) {
        return counted;
    }
    let counted = call.count(Class::Grpc);
    match counted.admitted().is_ok() && !reads {
        true => call.count(Class::GrpcChange),
        false => counted,
    }
}

async fn answer(
    app: Arc<App>,
    router: Router,
    peer: Peer,
    mut request: Request<Body>,
) -> axum::response::Response {
    let begun = Instant::now();
    let (id, trace) = front::ids(&app, request.headers());
    let path = request.uri().path().to_owned();
    let ids = (id.clone(), trace.clone());
    let surface = runtime::Surface::Grpc;
    let call = Call::new(app.clone(), ids, peer, surface, &request);
    let actor = call.actor_name().to_owned();
    let counted = count(&call, &path);
    // Reflection and health are for whoever is known, like everything here.
    let known = counted
        .admitted()
        .and_then(|()| call.need("registry", "read"));
    let told: Told = Arc::new(Mutex::new(counted));
    let from = call.peer.ip();
    let mut response = match known {
        Err(error) => convert::status(&error, &id).into_http(),
        Ok(_) => {
            request.extensions_mut().insert(call);
            request.extensions_mut().insert(told.clone());
            let span = tracing::info_span!(
                "asked",
                request_id = id,
                correlation_id = trace.correlation_id,
                trace_id = trace.trace_id()
            );
            let routed = AssertUnwindSafe(router.oneshot(request).instrument(span)).catch_unwind();
            match routed.await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(_) => {
                    let error = Error::internal("the handler of this request panicked");
                    convert::status(&error, &id).into_http()
                }
            }
        }
    };
    told.lock().tell(&mut response);
    front::mark(&mut response, &id, &trace);
    let took = begun.elapsed();
    let code = response
        .headers()
        .get("grpc-status")
        .and_then(|v| v.to_str().ok())
        .unwrap_or("0")
        .to_owned();
    app.metrics
        .answered("grpc", code.parse().unwrap_or(0), took);
    tracing::info!(
        request_id = id,
        correlation_id = trace.correlation_id,
        trace_id = trace.trace_id(),
        path,
        grpc_status = code,
        actor,
        from = from.map(tracing::field::display),
        ms = took.as_secs_f64() * 1000.0,
        "request"
    );
    response
}
