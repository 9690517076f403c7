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
use prost::Message;
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

/// Each call counts as a request, as a call, and, when it changes something, as a change; the narrowest says how it stands.
fn count(call: &Call, path: &str) -> Counted {
    const READS: [&str; 3] = ["Get", "List", "Watch"];
    let method = path.strip_prefix("/debvisor.v1.Resources/");
    let mut counted = call.count(Class::Principal);
    for (class, counts) in [
        (Class::Grpc, true),
        (
            Class::GrpcChange,
            method.is_some_and(|m| !READS.contains(&m)),
        ),
    ] {
        if counts && counted.admitted().is_ok() {
            counted = call.count(class);
        }
    }
    counted
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
    let from = call.peer.ip();
    let mut response = match known {
        Err(error) => convert::status(&error, &id).into_http(),
        Ok(_) => {
            request.extensions_mut().insert(call);
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
    counted.tell(&mut response);
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
