//! Which API versions there are, and which one a request wants.

use crate::reply::{self, Failure, Outcome};
use http::header::ACCEPT;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

/// The one version there is.
const NOW: &str = "v1";

fn version() -> Value {
    json!({ "version": NOW, "state": "current", "path": "/api/v1" })
}

/// `/api/versions`, `/api/versions/current`, `/api/versions/v1`.
pub(crate) fn answer(which: Option<&str>) -> Outcome {
    match which {
        None => Ok(reply::json(
            StatusCode::OK,
            &json!({ "versions": [version()] }),
        )),
        Some("current" | NOW) => Ok(reply::json(StatusCode::OK, &version())),
        Some(other) => Err(unsupported(other)),
    }
}

/// Refuses a request that asks for another version by `API-Version` or `Accept`.
pub(crate) fn check(headers: &HeaderMap) -> Outcome<()> {
    if let Some(wanted) = headers.get("api-version") {
        let wanted = wanted.to_str().unwrap_or("?");
        if wanted.trim_start_matches('v') != NOW.trim_start_matches('v') {
            return Err(unsupported(wanted));
        }
    }
    for accept in headers.get_all(ACCEPT) {
        for kind in accept.to_str().unwrap_or_default().split(',') {
            let kind = kind.split(';').next().unwrap_or_default().trim();
            if let Some(rest) = kind.strip_prefix("application/vnd.debvisor.")
                && rest.strip_suffix("+json").unwrap_or(rest) != NOW
            {
                return Err(unsupported(rest.strip_suffix("+json").unwrap_or(rest)));
            }
        }
    }
    Ok(())
}

fn unsupported(wanted: &str) -> Failure {
    let shown: String = wanted.chars().take(40).collect();
    Failure::http(
        StatusCode::BAD_REQUEST,
        "VERSION_NOT_SUPPORTED",
        format!("there is no version `{shown}` of the API"),
        Some(format!("use {NOW}; /api/versions lists all")),
    )
}
