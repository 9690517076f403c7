//! Who am I, and how a remote person becomes somebody.

use super::read_json;
use crate::app::Call;
use crate::reply::{self, Outcome};
use axum::body::Body;
use http::{Request, StatusCode};
use model::{Error, Violation};
use serde_json::{Value, json};

/// `GET /whoami`.
pub(super) fn whoami(call: &Call) -> Outcome {
    let actor = call.somebody()?;
    Ok(reply::json(
        StatusCode::OK,
        &json!({
            "name": actor.name, "kind": actor.kind, "user": actor.user, "credential": actor.credential,
            "mfa": actor.mfa, "address": call.peer.ip(),
        }),
    ))
}

/// `POST /login {code, csr}`: anybody may try; tries are limited by address.
pub(super) async fn login(call: &Call, request: Request<Body>) -> Outcome {
    let (parts, body) = request.into_parts();
    let body = read_json(call, &parts.headers, body, &["application/json"]).await?;
    let text = |name: &str| -> Result<String, Violation> {
        match body.get(name).and_then(Value::as_str) {
            Some(text) if !text.is_empty() => Ok(text.to_owned()),
            _ => Err(Violation::new(name, "is required and must be a text")),
        }
    };
    let (code, csr) = match (text("code"), text("csr")) {
        (Ok(code), Ok(csr)) => (code, csr),
        (code, csr) => {
            let wrong = [code.err(), csr.err()].into_iter().flatten().collect();
            return Err(Error::invalid(wrong).into());
        }
    };
    let (authority, from) = (call.app.authority.clone(), call.peer.ip());
    let issued = tokio::task::spawn_blocking(move || authority.login(&code, &csr, from))
        .await
        .map_err(|e| Error::internal("the login broke off").because(e))??;
    tracing::info!(
        request_id = call.id,
        account = issued.account,
        "somebody logged in"
    );
    Ok(reply::json(StatusCode::OK, &issued))
}

/// `POST /login/code`: an administrator makes a one-time code for somebody remote.
pub(super) async fn make_code(call: &Call) -> Outcome {
    call.need("session", "create")?;
    let authority = call.app.authority.clone();
    let account = authority.account();
    let code = tokio::task::spawn_blocking(move || authority.make_code(&account))
        .await
        .map_err(|e| Error::internal("making the code broke off").because(e))??;
    tracing::info!(request_id = call.id, "a login code was made");
    Ok(reply::json(StatusCode::CREATED, &code))
}
