//! `/auth/{step}`: the conversations by which somebody becomes known. What the steps are and mean is none of ours.

use super::{Params, form, read_json};
use crate::app::Call;
use crate::reply::{self, Outcome};
use axum::body::Body;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, COOKIE, HOST, HeaderValue, LOCATION, SET_COOKIE, USER_AGENT,
};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use model::Error;
use runtime::{Known, Said, Talk};
use serde_json::{Map, Value};

/// Whether a browser may go to a step by `GET`.
pub(super) fn by_get(call: &Call, step: &str) -> bool {
    let known = call.app.cx.try_part::<Known>();
    known.is_some_and(|known| known.0.by_get().contains(&step))
}

/// `POST /auth/{step}`, and `GET` where a browser goes elsewhere and comes back.
pub(super) async fn answer(call: &Call, step: String, request: Request<Body>) -> Outcome {
    let Some(known) = call.app.cx.try_part::<Known>() else {
        return Err(Error::not_found("this process knows nobody to log in").into());
    };
    let (parts, body) = request.into_parts();
    let body = match parts.method {
        Method::GET => texts(Params::any(&parts.uri)?.pairs().iter().cloned()),
        _ if is_form(&parts.headers) => texts(form(call, body).await?),
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
        host: host(&parts.uri, &parts.headers),
        flow: flow(&parts.headers),
        request_id: call.id.clone(),
    };
    // A client that goes away in the middle must not leave a password half changed, nor hashing that counts for nobody.
    let (tell, told) = tokio::sync::oneshot::channel();
    let cx = call.app.cx.clone();
    call.app.cx.life().spawn("a step of a login", async move {
        let said = known.0.talk(&cx, talk).await;
        // Nobody may wait for it any more.
        let _ = tell.send(said);
    });
    let said = told
        .await
        .map_err(|e| Error::internal("the step broke off").because(e))??;
    Ok(response(said))
}

/// Pairs as an object, all of whose fields are texts; of two with one name the last.
fn texts(pairs: impl IntoIterator<Item = (String, String)>) -> Value {
    let text = |(name, value)| (name, Value::String(value));
    Value::Object(pairs.into_iter().map(text).collect::<Map<_, _>>())
}

/// Whether the body is a form of another program, as providers send it. What a browser sends has an origin, or says where
/// it comes from: a page of another site must not talk here.
fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let kind = kind.and_then(|v| v.split(';').next()).unwrap_or_default();
    let form = kind
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded");
    let browser = ["origin", "cookie", "sec-fetch-site", "sec-fetch-mode"];
    form && !browser.iter().any(|name| headers.contains_key(*name))
}

/// The host and port that the caller asks for.
fn host(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let named = headers.get(HOST).and_then(|v| v.to_str().ok());
    let host = uri.authority().map(|a| a.as_str()).or(named)?;
    let good = |b: u8| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b);
    (host.len() <= 255 && host.bytes().all(good)).then(|| host.to_owned())
}

/// The cookie that ties a login by another site to this browser; none when there are two.
fn flow(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(COOKIE);
    let mut found = all
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == runtime::FLOW_COOKIE);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value.to_owned()),
        _ => None,
    }
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
    let cookies = [
        (runtime::COOKIE, said.cookie),
        (runtime::FLOW_COOKIE, said.flow),
    ];
    for (name, cookie) in cookies {
        let Some((value, life)) = cookie else {
            continue;
        };
        let seconds = life.as_secs();
        let cookie =
            format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
    }
    response
}
