//! The way every HTTP request goes: id, phase, origin, route, headers, count, one log line.

use crate::app::{App, Call};
use crate::door::{self, Head};
use crate::net::{self, Peer};
use crate::reply::{self, Failure, Outcome};
use crate::{compress, graphql, health, pages, pki, rest};
use axum::body::Body;
use axum::response::Response;
use futures::FutureExt;
use http::header::{CACHE_CONTROL, CONNECTION, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use model::{Error, What};
use runtime::limit::Class;
use runtime::{Surface, Trace};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::Instrument;

/// Answers one request.
pub(crate) async fn answer(app: Arc<App>, peer: Peer, request: Request<Body>) -> Response {
    let begun = Instant::now();
    let (id, trace) = ids(&app, request.headers());
    let encodings = compress::asked(request.headers());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let ids = (id.clone(), trace.clone());
    let call = Call::new(app.clone(), ids, peer, Surface::Rest, &request);
    let actor = call.actor_name().to_owned();
    let from = call.peer.ip();
    let span = tracing::info_span!(
        "asked",
        request_id = id,
        correlation_id = trace.correlation_id,
        trace_id = trace.trace_id()
    );
    let proof = net::proof::read(request.headers()).ok().flatten();
    let head = Head::read(&app, &request, proof.as_ref());
    let counted = call.count(Class::Principal);
    let admitted = match counted.admitted() {
        Ok(()) => head.admit(&call, &request),
        Err(error) => Err(error.into()),
    };
    let (name, outcome) = match admitted {
        Err(failure) => {
            door::on_record(&call, &request, &failure);
            ("door", Err(failure))
        }
        Ok(Some(response)) => ("door", Ok(response)),
        Ok(None) => {
            let routed = route(call, request, &path).instrument(span);
            match AssertUnwindSafe(routed).catch_unwind().await {
                Ok(answered) => answered,
                Err(_) => (
                    "panic",
                    Err(Error::internal("the handler of this request panicked").into()),
                ),
            }
        }
    };
    let mut response = match outcome {
        Ok(response) => response,
        Err(failure) => failure.response(&id),
    };
    response = compress::answer(encodings, &path, response).await;
    seal(&app, &mut response, &path);
    head.seal(&mut response, &path);
    counted.tell(&mut response);
    mark(&mut response, &id, &trace);
    let took = begun.elapsed();
    let status = response.status().as_u16();
    app.metrics.answered(name, status, took);
    tracing::info!(
        request_id = id,
        correlation_id = trace.correlation_id,
        trace_id = trace.trace_id(),
        method = %method,
        path,
        status,
        actor,
        from = from.map(tracing::field::display),
        ms = took.as_secs_f64() * 1000.0,
        "request"
    );
    response
}

async fn route(call: Call, request: Request<Body>, path: &str) -> (&'static str, Outcome) {
    // Live says that the process lives, also while it ends.
    if path == "/health/live" {
        return ("health", health::live(request.method()));
    }
    if call.app.closing.is_cancelled() {
        let error = Error::new(
            What::Unavailable(Duration::from_secs(5)),
            "this process is shutting down",
        );
        return ("closing", Err(error.into()));
    }
    if let Some(rest) = path.strip_prefix("/api/v1/") {
        return rest::answer(call, request, rest).await;
    }
    let method = request.method().clone();
    let reads = method == Method::GET || method == Method::HEAD;
    let only_reads = |name, outcome: Outcome| match reads {
        true => (name, outcome),
        false => (name, Err(Failure::Method(vec![Method::GET]))),
    };
    match path {
        "/graphql" => ("graphql", graphql::answer(call, request).await),
        "/health/ready" | "/health/startup" | "/health/detail" => {
            let outcome = health::answer(&call, path).await;
            only_reads("health", outcome)
        }
        "/metrics" => only_reads("metrics", metrics(&call)),
        "/api/openapi.json" => only_reads("openapi", openapi(&call)),
        "/api/docs" => only_reads("docs", pages::docs(&call)),
        "/api/versions" => only_reads("versions", rest::versions::answer(None)),
        _ => {
            if let Some(document) = path.strip_prefix("/pki/") {
                return ("pki", pki::answer(call, request, document).await);
            }
            if let Some(which) = path.strip_prefix("/api/versions/") {
                return only_reads("versions", rest::versions::answer(Some(which)));
            }
            if path == "/api" || path.starts_with("/api/") || path.starts_with("/health/") {
                let error = Error::not_found(format!("there is nothing at {path}"))
                    .hint("the API begins at /api/v1; /api/docs describes it");
                return ("unknown", Err(error.into()));
            }
            only_reads("panel", pages::panel(path))
        }
    }
}

fn metrics(call: &Call) -> Outcome {
    call.need("metrics", "read")?;
    let cx = &call.app.cx;
    let text = call
        .app
        .metrics
        .text(&cx.cache().counts(), &cx.dependencies().standings());
    Ok(reply::raw(
        StatusCode::OK,
        text.into(),
        "text/plain; version=0.0.4; charset=utf-8",
    ))
}

fn openapi(call: &Call) -> Outcome {
    call.need("registry", "read")?;
    Ok(reply::raw(
        StatusCode::OK,
        call.app.openapi.clone(),
        "application/json",
    ))
}

/// The id that follows the request through every log: the caller's when it is harmless there, else a new one. And where
/// the request stands among others.
pub(crate) fn ids(app: &App, headers: &HeaderMap) -> (String, Trace) {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let id = header("x-request-id")
        .and_then(runtime::trace::kept)
        .unwrap_or_else(|| app.cx.clock().uid().to_string());
    (id, Trace::read(header, rand::random(), rand::random()))
}

/// Tells the caller under which ids his request is found.
pub(crate) fn mark(response: &mut Response, id: &str, trace: &Trace) {
    let ids = [
        ("x-request-id", Some(id)),
        (
            "x-correlation-id",
            Some(trace.correlation_id.as_deref().unwrap_or(id)),
        ),
        ("x-causation-id", trace.causation_id.as_deref()),
        ("traceparent", trace.traceparent.as_deref()),
        ("tracestate", trace.tracestate.as_deref()),
    ];
    for (name, value) in ids {
        if let Some(value) = value {
            reply::set(response, HeaderName::from_static(name), value);
        }
    }
}

/// Headers that every response has.
fn seal(app: &App, response: &mut Response, path: &str) {
    const ALL: [(&str, &str); 6] = [
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        (
            "permissions-policy",
            "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        ),
    ];
    let headers = response.headers_mut();
    for (name, value) in ALL {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    let csp = HeaderName::from_static("content-security-policy");
    headers.entry(csp).or_insert(HeaderValue::from_static(
        "default-src 'none'; frame-ancestors 'none'",
    ));
    if path.starts_with("/api/v1/") {
        // What somebody was shown is in no cache for the next one at that browser.
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
    }
    if path.starts_with("/api/") {
        headers.insert(
            HeaderName::from_static("x-api-version"),
            HeaderValue::from_static("v1"),
        );
    }
    let ends = app.closing.is_cancelled() && response.status() != StatusCode::SWITCHING_PROTOCOLS;
    if ends && response.version() == http::Version::HTTP_11 {
        reply::set(response, CONNECTION, "close");
    }
}
