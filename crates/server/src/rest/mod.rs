//! REST: one set of generic routes for every declared kind, under `/api/v1`.
//!
//! A path becomes a [`path::Route`], a route and a method become an operation, the gate decides, the desk carries out,
//! and the answer becomes a response. Nothing here knows what a kind means.

mod auth;
mod body;
pub(crate) mod events;
mod objects;
mod params;
pub(crate) mod path;
mod session;
pub(crate) mod versions;

pub(crate) use body::{form, read as read_json};
pub(crate) use params::Params;

use crate::app::Call;
use crate::reply::{self, Failure, Outcome};
use crate::{streams, watch};
use axum::body::Body;
use http::{Method, Request, StatusCode};
use path::Route;

/// Answers a request below `/api/v1`. Also says under which name it is counted.
pub(crate) async fn answer(
    call: Call,
    request: Request<Body>,
    rest: &str,
) -> (&'static str, Outcome) {
    if let Err(failure) = versions::check(request.headers()) {
        return ("version", Err(failure));
    }
    let app = call.app.clone();
    let route = match path::parse(app.cx.registry(), rest) {
        Ok(Route::Auth { step, .. }) => Route::Auth {
            by_get: auth::by_get(&call, &step),
            step,
        },
        Ok(route) => route,
        // Whoever is unknown does not learn which kinds there are.
        Err(error) => {
            return (
                "unknown",
                Err(call
                    .need("registry", "read")
                    .map_or_else(Into::into, |_| error.into())),
            );
        }
    };
    let name = route.name(request.method());
    if !route.allows(request.method()) {
        if request.method() == Method::OPTIONS {
            let mut response = reply::empty(StatusCode::NO_CONTENT);
            reply::set(
                &mut response,
                http::header::ALLOW,
                &reply::join(&route.methods()),
            );
            return (name, Ok(response));
        }
        return (name, Err(Failure::Method(route.methods())));
    }
    let outcome = match route {
        Route::Registry => match call.need("registry", "read") {
            // Every run of `dvctl` asks for it, and it changes with a release only.
            Ok(_) => Ok(reply::tagged(request.headers(), app.registry.clone())),
            Err(error) => Err(error.into()),
        },
        Route::Surfaces => match call.need("registry", "read") {
            Ok(_) => Ok(reply::tagged(request.headers(), app.surfaces.clone())),
            Err(error) => Err(error.into()),
        },
        Route::Whoami => session::whoami(&call),
        Route::Login => session::login(&call, request).await,
        Route::LoginCode => session::make_code(&call).await,
        Route::Auth { step, .. } => auth::answer(&call, step, request).await,
        Route::Watch => watch::answer(call, request).await,
        Route::Events => events::answer(call, request).await,
        Route::Explain { target } => objects::explain(&call, target).await,
        Route::Objects { kind, project } => {
            objects::collection(&call, kind, project, request).await
        }
        Route::Object { kind, target } => objects::one(&call, kind, target, request).await,
        Route::Action { target, verb } => objects::act(&call, target, verb, request).await,
        Route::Batch {
            kind,
            project,
            verb,
        } => objects::batch(&call, kind, project, verb, request).await,
        Route::Stream { stream, target } => streams::answer(call, target, stream, request).await,
        Route::Ticket { stream, target } => streams::ticket(&call, target, stream),
    };
    (name, outcome)
}
