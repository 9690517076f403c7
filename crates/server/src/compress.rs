//! Compresses answers for clients that ask for it: whole JSON and text from 1 KiB on, never streams.
//!
//! Compression under TLS can tell somebody who makes a victim's browser send chosen text, and sees lengths, what stands
//! beside that text (BREACH). Here nothing stands beside it: a field marked secret is null in every answer, tokens for
//! browsers are sent in no body, and the few answers that are secrets themselves (login codes, tickets) are not
//! compressed at all.

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request};
use http_body::Body as _;
use std::convert::Infallible;
use tower::ServiceExt;
use tower_http::CompressionLevel;
use tower_http::compression::Compression;

/// Less than this gains nothing.
const LEAST: u64 = 1024;

/// Media types that shrink. What is sent as it comes (events, bytes of streams) is none of them, and has no length.
const KINDS: [&str; 4] = [
    "application/json",
    "application/problem+json",
    "text/html",
    "text/plain",
];

/// What a client says it can read.
pub(crate) fn asked(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(ACCEPT_ENCODING).cloned()
}

/// Whether answers at this path are secrets.
fn secret(path: &str) -> bool {
    path.starts_with("/api/v1/login") || path.ends_with("/ticket")
}

fn shrinks(response: &Response) -> bool {
    let kind = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .unwrap_or_default();
    let length = response.body().size_hint().exact();
    length.is_some_and(|length| length >= LEAST) && KINDS.contains(&kind)
}

/// The answer as the client wants it: zstd, gzip or as it is.
pub(crate) async fn answer(asked: Option<HeaderValue>, path: &str, response: Response) -> Response {
    let Some(asked) = asked.filter(|_| shrinks(&response) && !secret(path)) else {
        return response;
    };
    let mut request = Request::new(());
    request.headers_mut().insert(ACCEPT_ENCODING, asked);
    let mut held = Some(response);
    let inner = tower::service_fn(move |_: Request<()>| {
        let response = held.take().unwrap_or_default();
        async move { Ok::<_, Infallible>(response) }
    });
    // Whether it shrinks is decided above, where the length is known.
    let always = |_: http::StatusCode, _: http::Version, _: &HeaderMap, _: &http::Extensions| true;
    let compressing = Compression::new(inner)
        .quality(CompressionLevel::Fastest)
        .compress_when(always);
    match compressing.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}
