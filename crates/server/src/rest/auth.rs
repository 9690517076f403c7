//! `/auth/{step}`: the conversations by which somebody becomes known. What the steps are and mean is none of ours.

use super::{Params, read_json};
use crate::app::Call;
use crate::reply::{self, Outcome};
use axum::body::Body;
use http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE, USER_AGENT};
use http::{Method, Request, StatusCode};
use model::Error;
use runtime::{Known, Said, Talk};
use serde_json::{Map, Value};

/// `POST /auth/{step}`, and `GET` where a browser comes back from elsewhere.
pub(super) async fn answer(call: &Call, step: String, request: Request<Body>) -> Outcome {
    let Some(known) = call.app.cx.try_part::<Known>() else {
        return Err(Error::not_found("this process knows nobody to log in").into());
    };
    let (parts, body) = request.into_parts();
    let body = match parts.method {
        Method::GET => {
            let params = Params::any(&parts.uri)?;
            let pairs = params.pairs().iter().cloned();
            Value::Object(
                pairs
                    .map(|(name, value)| (name, Value::String(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        _ => read_json(call, &parts.headers, body, &["application/json"]).await?,
    };
    let agent = parts.headers.get(USER_AGENT).and_then(|v| v.to_str().ok());
    let talk = Talk {
        step,
        body,
        // A proof that has ended must not keep anybody from logging in again.
        actor: call.actor().unwrap_or_else(|_| runtime::Actor::anonymous()),
        from: call.peer.ip(),
        agent: agent.map(|text| text.chars().take(200).collect()),
        request_id: call.id.clone(),
    };
    let said = known.0.talk(&call.app.cx, talk).await?;
    Ok(response(said))
}

fn response(said: Said) -> axum::response::Response {
    let status = match said.redirect {
        Some(_) => StatusCode::SEE_OTHER,
        None => StatusCode::OK,
    };
    let mut response = reply::json(status, &said.body);
    // Tokens are in it.
    reply::set(&mut response, CACHE_CONTROL, "no-store");
    if let Some(place) = said.redirect {
        reply::set(&mut response, LOCATION, &place);
    }
    if let Some((value, life)) = said.cookie {
        let seconds = life.as_secs();
        let cookie = format!(
            "{}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}",
            runtime::COOKIE
        );
        reply::set(&mut response, SET_COOKIE, &cookie);
    }
    response
}
