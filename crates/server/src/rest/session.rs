//! Who am I, and how a remote person becomes somebody.

use super::read_json;
use crate::app::Call;
use crate::net::Peer;
use crate::reply::{self, Outcome};
use axum::body::Body;
use http::{Request, StatusCode};
use model::{Error, Violation};
use runtime::audit::{LOGIN_FAILED, LOGIN_SUCCEEDED, Note, TOKEN_ISSUED, note};
use runtime::{Actor, ActorKind};
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

/// A row about this request.
fn about(call: &Call, note: Note) -> Note {
    note.via(call.surface)
        .from(call.peer.ip())
        .user_agent(call.agent.as_deref())
        .request(&call.id, &call.trace)
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
    let tried = tokio::task::spawn_blocking(move || authority.login(&code, &csr, from)).await;
    let tried = tried.map_err(|e| Error::internal("the login broke off").because(e))?;
    let issued = match tried {
        Ok(issued) => issued,
        Err(error) => {
            let failed = about(call, Note::new(&LOGIN_FAILED, "anonymous"));
            note(&call.app.cx, failed.failed(error.code())).await?;
            return Err(error.into());
        }
    };
    // On record before it is of use to anybody.
    let came = about(call, Note::new(&LOGIN_SUCCEEDED, &*issued.account));
    note(&call.app.cx, came.with("by", "certificate")).await?;
    tracing::info!(
        request_id = call.id,
        account = issued.account,
        "somebody logged in"
    );
    Ok(reply::json(StatusCode::OK, &issued))
}

/// Refuses whoever is not the administrator on the machine itself. A code makes somebody for whom no rule holds, so no
/// privilege gives it, nor does a certificate that was got for one: it could make its own successor.
fn on_the_machine(call: &Call) -> Result<Actor, Error> {
    let actor = call.somebody()?;
    match (&call.peer, actor.kind) {
        (Peer::Local { .. }, ActorKind::Administrator) => Ok(actor),
        _ => Err(Error::denied(
            "login codes are made on the machine itself, by root or the owner of the instance",
        )
        .hint("there: dvctl api login-code")),
    }
}

/// `POST /login/code`: the administrator of the machine makes a one-time code for somebody remote.
pub(super) async fn make_code(call: &Call) -> Outcome {
    let actor = on_the_machine(call)?;
    let authority = call.app.authority.clone();
    let account = authority.account();
    let made = about(call, Note::by(&TOKEN_ISSUED, &actor));
    note(&call.app.cx, made.with("token", "login code")).await?;
    let code = tokio::task::spawn_blocking(move || authority.make_code(&account))
        .await
        .map_err(|e| Error::internal("making the code broke off").because(e))??;
    tracing::info!(request_id = call.id, "a login code was made");
    Ok(reply::json(StatusCode::CREATED, &code))
}
