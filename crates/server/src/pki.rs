//! What the authority publishes for everybody, below `/pki/`: its certificate, its revocation list, OCSP. Which documents
//! there are is the authority's to know.

use crate::app::Call;
use crate::reply::{self, Failure, Outcome};
use axum::body::Body;
use http::header::CACHE_CONTROL;
use http::{Method, Request, StatusCode};
use model::Error;

/// Longest body that is read: an OCSP request.
const LONGEST: usize = 16 * 1024;

/// Answers a request for one document. No login is needed.
pub(crate) async fn answer(call: Call, request: Request<Body>, path: &str) -> Outcome {
    let path = path.to_owned();
    let body = match *request.method() {
        Method::GET | Method::HEAD => None,
        Method::POST => {
            let read = axum::body::to_bytes(request.into_body(), LONGEST);
            let read = tokio::time::timeout(call.app.limits.body, read).await;
            Some(read.map_err(|_| too_slow())?.map_err(|_| too_long())?)
        }
        _ => return Err(Failure::Method(vec![Method::GET, Method::POST])),
    };
    let authority = call.app.authority.clone();
    // A list may have to be signed, and a file read.
    let asked = path.clone();
    let document = tokio::task::spawn_blocking(move || authority.document(&asked, body.as_deref()))
        .await
        .map_err(|e| Error::internal("the document could not be made").because(e))?;
    let Some(document) = document else {
        return Err(Error::not_found(format!("there is no document at /pki/{path}")).into());
    };
    let document = document?;
    let mut response = reply::raw(StatusCode::OK, document.bytes.into(), document.content_type);
    let keep = match document.max_age.as_secs() {
        0 => "no-store".to_owned(),
        seconds => format!("public, max-age={seconds}"),
    };
    reply::set(&mut response, CACHE_CONTROL, &keep);
    Ok(response)
}

fn too_long() -> Failure {
    Failure::http(
        StatusCode::PAYLOAD_TOO_LARGE,
        "TOO_LARGE",
        format!("a request for a document may have at most {LONGEST} bytes"),
        None,
    )
}

fn too_slow() -> Failure {
    Failure::http(
        StatusCode::REQUEST_TIMEOUT,
        "REQUEST_TIMEOUT",
        "the body of the request did not come in time".to_owned(),
        None,
    )
}
