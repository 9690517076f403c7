//! What goes back: JSON, problem documents (RFC 9457), and the few failures that only HTTP knows.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
};
use http::{Method, StatusCode};
use model::{Error, Problem, What};
use serde::Serialize;
use sha2::Digest as _;

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// As in every surface.
    Error(Error),
    /// The path is known, the method is not: says which are.
    Method(Vec<Method>),
    /// Only HTTP has a word for it.
    Http {
        /// Status.
        status: StatusCode,
        /// Stable word.
        code: &'static str,
        /// For people.
        detail: String,
        /// What to do.
        hint: Option<String>,
    },
}

pub(crate) type Outcome<T = Response> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Error(error)
    }
}

impl Failure {
    pub(crate) fn http(
        status: StatusCode,
        code: &'static str,
        detail: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) -> Failure {
        Failure::Http {
            status,
            code,
            detail: detail.into(),
            hint: hint.into(),
        }
    }

    /// The problem document.
    pub(crate) fn problem(&self, request_id: &str) -> Problem {
        match self {
            Failure::Error(error) => error.problem(request_id),
            Failure::Method(allowed) => problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "METHOD_NOT_ALLOWED",
                "this method does nothing here".into(),
                Some(format!("allowed: {}", join(allowed))),
                request_id,
            ),
            Failure::Http {
                status,
                code,
                detail,
                hint,
            } => problem(*status, code, detail.clone(), hint.clone(), request_id),
        }
    }

    /// The response.
    pub(crate) fn response(&self, request_id: &str) -> Response {
        if let Failure::Error(error) = self
            && error.what == What::Internal
        {
            tracing::error!(request_id, ?error, "a request failed by our fault");
        }
        let problem = self.problem(request_id);
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json_as(status, &problem, "application/problem+json");
        let headers = response.headers_mut();
        match self {
            Failure::Method(allowed) => {
                if let Ok(value) = HeaderValue::from_str(&join(allowed)) {
                    headers.insert(ALLOW, value);
                }
            }
            Failure::Error(error) => {
                if let What::Unavailable(after) | What::Quota(Some(after)) = &error.what {
                    headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
                }
            }
            // The rest of the body is not read, so the connection cannot go on.
            Failure::Http { status, .. } if *status == StatusCode::PAYLOAD_TOO_LARGE => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Failure::Http { .. } => {}
        }
        response
    }
}

fn problem(
    status: StatusCode,
    code: &str,
    detail: String,
    hint: Option<String>,
    request_id: &str,
) -> Problem {
    Problem {
        kind: "about:blank".into(),
        title: status.canonical_reason().unwrap_or("Error").into(),
        status: status.as_u16(),
        detail,
        code: code.into(),
        hint,
        retryable: false,
        request_id: request_id.into(),
        more: serde_json::Map::new(),
    }
}

pub(crate) fn join(methods: &[Method]) -> String {
    methods
        .iter()
        .map(Method::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A value as JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    json_as(status, value, "application/json")
}

fn json_as(status: StatusCode, value: &impl Serialize, kind: &'static str) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => raw(status, bytes.into(), kind),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be written as JSON");
            raw(
                StatusCode::INTERNAL_SERVER_ERROR,
                Bytes::new(),
                "text/plain",
            )
        }
    }
}

/// Bytes as they are.
pub(crate) fn raw(status: StatusCode, bytes: Bytes, kind: &'static str) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// JSON that seldom changes: a client that has it already is told so and gets nothing (RFC 9110, If-None-Match).
pub(crate) fn tagged(asked: &http::HeaderMap, json: Bytes) -> Response {
    let digest = hex::encode(&sha2::Sha256::digest(&json)[..16]);
    let tag = format!("\"{digest}\"");
    let known = asked
        .get_all(http::header::IF_NONE_MATCH)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim() == tag);
    let mut response = match known {
        true => empty(StatusCode::NOT_MODIFIED),
        false => raw(StatusCode::OK, json, "application/json"),
    };
    set(&mut response, http::header::ETAG, &tag);
    set(&mut response, CACHE_CONTROL, "no-cache");
    response
}

/// Nothing but a status.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Sets a header when its value is one.
pub(crate) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_it_is_told_so() {
        let json = Bytes::from_static(b"{}");
        let first = tagged(&http::HeaderMap::new(), json.clone());
        let tag = first.headers()[http::header::ETAG].clone();
        let mut asked = http::HeaderMap::new();
        asked.insert(http::header::IF_NONE_MATCH, tag);
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(tagged(&asked, json).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(tagged(&asked, "[]".into()).status(), StatusCode::OK);
    }
}
