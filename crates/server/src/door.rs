//! What is refused before anybody looks at what is wanted: a head that two readers could read two ways, a page of another
//! site, a browser's request that its own page did not make.
//!
//! A browser sends cookies and client certificates along with whatever page asks, so neither proves that our page asks.
//! Two things do: the `Origin`, which no page can set, and a token that only a page of ours can have read.

use crate::app::{App, Call};
use crate::reply::{self, Failure, Outcome};
use axum::body::Body;
use axum::response::Response;
use http::header::{
    CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue, IF_MATCH, ORIGIN, SET_COOKIE,
    TRANSFER_ENCODING, VARY,
};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use runtime::Proof;
use runtime::audit::{Note, REQUEST_REFUSED};
use runtime::setting::CORS_ORIGINS;
use sha2::{Digest as _, Sha256};

/// Where a page of ours shows that it is one.
pub(crate) const TOKEN: HeaderName = HeaderName::from_static("x-csrf-token");

/// Headers of which a second one could mean something else to another reader. (Two `Authorization` prove nobody.)
const ONCE: [HeaderName; 7] = [
    HOST,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    TRANSFER_ENCODING,
    ORIGIN,
    IF_MATCH,
    TOKEN,
];

/// What a page of another site may send and see, once it is let in.
const SENT: &str = "authorization, content-type, accept, api-version, if-match, if-none-match, idempotency-key, x-request-id, x-correlation-id, x-causation-id, traceparent, tracestate";
const SEEN: &str = "etag, location, retry-after, x-request-id, x-correlation-id, ratelimit-limit, ratelimit-remaining, ratelimit-reset";

/// So much of a foreign origin is put on record.
const ORIGIN_SHOWN: usize = 256;

/// What a request's head says about where it comes from.
pub(crate) struct Head {
    /// The origin of another site that may read the answer.
    shared_with: Option<HeaderValue>,
    /// The request itself shows who sends it, as no browser does by itself.
    bearer: bool,
    /// The token that a page of the same login is told.
    token: Option<String>,
    /// The connection ends with this request: it came in chunks, and a length that stood beside them, which another reader
    /// may have believed, was dropped by the library.
    last: bool,
}

impl Head {
    /// Reads it before anything else is done.
    pub(crate) fn read(app: &App, request: &Request<Body>, proof: Option<&Proof<'_>>) -> Head {
        let headers = request.headers();
        let origin = headers.get(ORIGIN);
        let shared = origin.filter(|o| !is_ours(request, o) && is_listed(app, o));
        Head {
            shared_with: shared.cloned(),
            bearer: matches!(proof, Some(Proof::Bearer(_))),
            token: match proof {
                Some(Proof::Cookie(cookie)) => Some(token(cookie)),
                _ => None,
            },
            last: request.version() <= Version::HTTP_11 && headers.contains_key(TRANSFER_ENCODING),
        }
    }

    /// Lets a request in, answers it when it only asks whether another site may, or refuses it.
    pub(crate) fn admit(&self, call: &Call, request: &Request<Body>) -> Outcome<Option<Response>> {
        one_meaning(request)?;
        let headers = request.headers();
        let harmless = matches!(*request.method(), Method::GET | Method::HEAD)
            && !crate::watch::socket::wanted(request);
        if let Some(origin) = headers.get(ORIGIN) {
            let ours = is_ours(request, origin);
            let asks = request.method() == Method::OPTIONS
                && headers.contains_key("access-control-request-method");
            if asks && self.shared_with.is_some() {
                return Ok(Some(reply::empty(StatusCode::NO_CONTENT)));
            }
            if !harmless && !ours && self.shared_with.is_none() {
                return Err(foreign());
            }
            // A browser sends a client certificate along with whatever page asks.
            if !harmless && !ours && !self.bearer && call.somebody().is_ok() {
                return Err(Failure::http(
                    StatusCode::FORBIDDEN,
                    "FOREIGN_ORIGIN",
                    "a page of another site acts with a bearer token of its own, not with the certificate or cookie of its visitor",
                    "Authorization: Bearer TOKEN".to_owned(),
                ));
            }
        }
        // A cookie that proves nobody gives no rights that a page could abuse.
        let somebody = call.somebody().is_ok();
        let Some(token) = self.token.as_ref().filter(|_| somebody && !harmless) else {
            return Ok(None);
        };
        let shown = headers.get(TOKEN).map(HeaderValue::as_bytes);
        // A page cannot set headers of a socket; there its origin, which a browser always sends, must be ours.
        let socket = crate::watch::socket::wanted(request);
        let ours = headers.get(ORIGIN).is_some_and(|o| is_ours(request, o));
        match socket {
            true if ours => Ok(None),
            true => Err(foreign()),
            false if shown.is_some_and(|shown| same(shown, token.as_bytes())) => Ok(None),
            false => Err(Failure::http(
                StatusCode::FORBIDDEN,
                "CSRF_TOKEN",
                "a request with a login cookie must show the token of its login",
                "send the X-CSRF-Token that the login and GET /api/v1/whoami answer with; a program uses a bearer token, which needs none".to_owned(),
            )),
        }
    }

    /// Writes what the browser must know.
    pub(crate) fn seal(&self, response: &mut Response, path: &str) {
        let mut set = |name: &'static str, value: &str| {
            reply::set(response, HeaderName::from_static(name), value);
        };
        if let Some(origin) = &self.shared_with {
            set(
                "access-control-allow-origin",
                origin.to_str().unwrap_or_default(),
            );
            set(
                "access-control-allow-methods",
                "GET, POST, PUT, PATCH, DELETE, OPTIONS",
            );
            set("access-control-allow-headers", SENT);
            set("access-control-expose-headers", SEEN);
            set("access-control-max-age", "3600");
            response
                .headers_mut()
                .append(VARY, HeaderValue::from_static("origin"));
        }
        if self.last {
            reply::set(response, http::header::CONNECTION, "close");
        }
        let token = match given(response.headers()) {
            Some(cookie) => Some(token(&cookie)),
            None if path == "/api/v1/whoami" => self.token.clone(),
            None => None,
        };
        if let Some(token) = token {
            reply::set(response, TOKEN, &token);
        }
    }
}

/// Puts on record what was refused by its head. Never waits; what comes again in the minute is counted, not written.
pub(crate) fn on_record(call: &Call, request: &Request<Body>, failure: &Failure) {
    let Failure::Http { code, .. } = failure else {
        return;
    };
    let note = match call.actor() {
        Ok(actor) => Note::by(&REQUEST_REFUSED, &actor),
        Err(_) => Note::new(&REQUEST_REFUSED, call.actor_name()),
    };
    let note = note
        .via(call.surface)
        .from(call.peer.ip())
        .user_agent(call.agent.as_deref())
        .request(&call.id, &call.trace)
        .failed(code)
        .with("method", request.method().as_str());
    let origin = request.headers().get(ORIGIN).and_then(|o| o.to_str().ok());
    let note = match origin {
        Some(origin) => note.with(
            "origin",
            origin.chars().take(ORIGIN_SHOWN).collect::<String>(),
        ),
        None => note,
    };
    runtime::audit::refusal(&call.app.cx, note);
}

/// The value of a login cookie that an answer sets.
fn given(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(SET_COOKIE).iter();
    let mut cookies = all.filter_map(|cookie| cookie.to_str().ok()?.split_once('='));
    let (_, rest) = cookies.find(|(name, _)| *name == runtime::COOKIE)?;
    let value = rest.split(';').next().unwrap_or_default();
    (!value.is_empty()).then(|| value.to_owned())
}

/// The token of a login: who knows it need not know the cookie, and who has neither can guess neither.
fn token(cookie: &str) -> String {
    hex::encode(Sha256::digest(format!("debvisor csrf token of {cookie}")))
}

/// Compares in a time that says nothing.
fn same(one: &[u8], other: &[u8]) -> bool {
    let differing = one
        .iter()
        .zip(other)
        .fold(one.len() ^ other.len(), |all, (a, b)| {
            all | usize::from(a ^ b)
        });
    std::hint::black_box(differing) == 0
}

fn foreign() -> Failure {
    Failure::http(
        StatusCode::FORBIDDEN,
        "FOREIGN_ORIGIN",
        "a page of another site may not do this",
        "the setting cors-origins lists the sites that may".to_owned(),
    )
}

/// Refuses a head that has two meanings.
fn one_meaning(request: &Request<Body>) -> Result<(), Failure> {
    let headers = request.headers();
    let twice = ONCE
        .into_iter()
        .find(|name| headers.get_all(name).iter().count() > 1);
    let named = request.uri().authority().map(|a| a.as_str().as_bytes());
    let host = headers.get(HOST).map(HeaderValue::as_bytes);
    let two_hosts = matches!((named, host), (Some(a), Some(b)) if !a.eq_ignore_ascii_case(b));
    let no_host = request.version() == Version::HTTP_11 && host.is_none();
    let wrong = match twice {
        Some(name) => format!("there are two `{name}` headers"),
        None if two_hosts => "two hosts are named".to_owned(),
        None if no_host => "no host is named".to_owned(),
        None => return Ok(()),
    };
    Err(Failure::http(
        StatusCode::BAD_REQUEST,
        "AMBIGUOUS_REQUEST",
        format!("the head of this request has no single meaning: {wrong}"),
        None,
    ))
}

/// Whether an origin is the one under which the caller reaches us.
fn is_ours(request: &Request<Body>, origin: &HeaderValue) -> bool {
    let host = request.headers().get(HOST).and_then(|h| h.to_str().ok());
    let ours = request.uri().authority().map(|a| a.as_str()).or(host);
    let theirs = origin
        .to_str()
        .ok()
        .and_then(|o| o.strip_prefix("https://"));
    matches!((ours, theirs), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b))
}

/// Whether an origin is in the list of those that may.
fn is_listed(app: &App, origin: &HeaderValue) -> bool {
    let list = CORS_ORIGINS.text(&app.cx);
    list.split_whitespace()
        .any(|one| one.as_bytes() == origin.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_belongs_to_its_cookie() {
        assert_eq!(token("a"), token("a"));
        assert_ne!(token("a"), token("b"));
        assert!(same(token("a").as_bytes(), token("a").as_bytes()));
        for other in ["", "a", &token("b"), &format!("{}0", token("a"))] {
            assert!(!same(token("a").as_bytes(), other.as_bytes()));
        }
    }

    #[test]
    fn only_a_login_cookie_that_is_given_has_a_token() {
        let of = |cookie: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(SET_COOKIE, cookie.parse().unwrap());
            given(&headers)
        };
        assert_eq!(of("__Host-debvisor=x; Path=/"), Some("x".into()));
        assert_eq!(of("__Host-debvisor=; Max-Age=0"), None);
        assert_eq!(of("other=x"), None);
    }
}
