//! Reads JSON bodies: of the right type, not too large, not too slow.

use crate::app::Call;
use crate::reply::{Failure, Outcome};
use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::{Error, What};
use serde_json::Value;

/// The whole body as JSON; an empty one is `null`. `kinds` are the media types that are taken.
///
/// A body without a type, or with one that a foreign page's form could send, is refused: see 8.6 of the reference.
pub(crate) async fn read(
    call: &Call,
    headers: &HeaderMap,
    body: Body,
    kinds: &[&str],
) -> Outcome<Value> {
    let bytes = bytes(call, body).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .map(|v| v.trim().to_ascii_lowercase())
        .unwrap_or_default();
    if !kinds.contains(&kind.as_str()) {
        return Err(Failure::http(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            format!("the body is `{kind}`"),
            Some(format!("send Content-Type: {}", kinds.join(" or "))),
        ));
    }
    parse(&bytes).map_err(Into::into)
}

/// Reads JSON; the error says where it stops being JSON.
pub(crate) fn parse(bytes: &[u8]) -> model::Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|e| Error::new(What::Unparseable, format!("the body is not JSON: {e}")))
}

/// A form of another program, as pairs.
pub(crate) async fn form(call: &Call, body: Body) -> Outcome<Vec<(String, String)>> {
    let bytes = bytes(call, body).await?;
    let wrong = |what: &str| {
        Error::new(
            What::Unparseable,
            format!("the form cannot be read: {what}"),
        )
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not UTF-8"))?;
    let uri = http::Uri::builder()
        .path_and_query(format!("/?{text}"))
        .build()
        .map_err(|_| wrong("it holds letters that no form has"))?;
    Ok(super::Params::any(&uri)?.pairs().to_vec())
}

async fn bytes(call: &Call, body: Body) -> Outcome<Bytes> {
    let limit = call.app.limits.body_bytes;
    let collected = tokio::time::timeout(call.app.limits.body, Limited::new(body, limit).collect());
    match collected.await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(Failure::http(
            StatusCode::PAYLOAD_TOO_LARGE,
            "BODY_TOO_LARGE",
            format!("the body is larger than {limit} bytes"),
            Some("send less; large data goes through a stream such as an upload".to_owned()),
        )),
        Ok(Err(error)) => {
            Err(Error::new(What::Unparseable, format!("the body broke off: {error}")).into())
        }
        Err(_) => Err(Failure::http(
            StatusCode::REQUEST_TIMEOUT,
            "REQUEST_TIMEOUT",
            format!(
                "the body did not arrive within {} s",
                call.app.limits.body.as_secs()
            ),
            None,
        )),
    }
}
