//! How often somebody may ask: every surface counts here before it does anything for a request.
//!
//! Who shows no valid identity is counted by address, everybody else by user. Root and the owner of the instance on the
//! local socket are not counted: they are the way in when everything else is closed. Nor are our own agents, which do
//! not come through a surface.

use crate::app::App;
use crate::net::Peer;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use model::{Error, Result};
use runtime::audit::{Note, RATE_LIMITED};
use runtime::limit::{self, Caller, Class, Standing};
use runtime::{Actor, ActorKind};
use std::time::{Duration, Instant};

/// Counts one of a class for whoever asks.
pub(crate) fn count(app: &App, peer: &Peer, actor: &Result<Actor>, class: Class) -> Counted {
    counted(app, peer, actor, &format!("{class:?}"), |who, caller| {
        let class = match (class, who) {
            (Class::Principal, Who::Nobody(_)) => Class::Anonymous,
            (class, _) => class,
        };
        Some(app.rates.take(&app.cx, class, caller, since_start()))
    })
    .unwrap_or(Counted::Free)
}

/// Counts one that is about this kind and verb, when they have a limit of their own.
pub(crate) fn count_named(
    app: &App,
    peer: &Peer,
    actor: &Result<Actor>,
    (kind, verb): (&str, &str),
) -> Option<Counted> {
    let name = format!("{kind}.{verb}");
    counted(app, peer, actor, &name, |_, caller| {
        let now = since_start();
        app.rates.take_named(&app.cx, (kind, verb), caller, now)
    })
}

/// What a limiter says of whoever asks; `None` when it has no such limit.
fn counted(
    app: &App,
    peer: &Peer,
    actor: &Result<Actor>,
    limit: &str,
    take: impl FnOnce(&Who<'_>, Caller<'_>) -> Option<Result<limit::Counted, (Error, Standing)>>,
) -> Option<Counted> {
    let Some(who) = caller(peer, actor) else {
        return Some(Counted::Free);
    };
    let uid;
    let caller = match &who {
        Who::Nobody(Peer::Remote { at, .. }) => Caller::Address(at.ip()),
        Who::Nobody(Peer::Local { uid: who }) => {
            uid = format!("uid{who}@unix");
            Caller::Name(&uid)
        }
        Who::Somebody(name) => Caller::Name(name),
    };
    Some(match take(&who, caller)? {
        Ok(within) => Counted::Within(within),
        Err((error, standing)) => {
            let note = match actor {
                Ok(actor) => Note::by(&RATE_LIMITED, actor),
                Err(_) => Note::new(&RATE_LIMITED, "refused"),
            };
            let note = note.from(peer.ip()).failed(error.code());
            runtime::audit::refusal(&app.cx, note.with("limit", limit));
            Counted::Beyond(error, standing)
        }
    })
}

/// How a request stands with its limit.
pub(crate) enum Counted {
    /// Nobody counts it.
    Free,
    /// It is let in.
    Within(limit::Counted),
    /// It is one too many.
    Beyond(Error, Standing),
}

impl Counted {
    /// Whether it is let in.
    pub(crate) fn admitted(&self) -> Result<()> {
        match self {
            Counted::Beyond(error, _) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Tells the caller how he stands.
    pub(crate) fn tell(&self, response: &mut Response) {
        let (standing, grace) = match self {
            Counted::Free => return,
            Counted::Within(within) => (&within.standing, within.grace),
            Counted::Beyond(_, standing) => (standing, None),
        };
        let headers = response.headers_mut();
        let mut set = |name: &'static str, value: u64| {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        };
        set("ratelimit-limit", standing.limit.into());
        set("ratelimit-remaining", standing.remaining.into());
        let seconds = standing.after.as_secs() + 1;
        set("ratelimit-reset", seconds);
        if let Some(grace) = grace {
            // Beyond the limit, and let in all the same: so many more are.
            set("ratelimit-grace", grace.into());
        }
        if matches!(self, Counted::Beyond(..)) {
            set("retry-after", seconds);
        }
    }
}

enum Who<'a> {
    Nobody(&'a Peer),
    Somebody(&'a str),
}

/// Who is counted; `None` for whom nobody counts.
fn caller<'a>(peer: &'a Peer, actor: &'a Result<Actor>) -> Option<Who<'a>> {
    match actor {
        Ok(actor) if actor.kind != ActorKind::Anonymous => {
            let trusted = actor.is_trusted() && actor.credential.is_none();
            if trusted && matches!(peer, Peer::Local { .. }) {
                return None;
            }
            Some(Who::Somebody(actor.user.as_deref().unwrap_or(&actor.name)))
        }
        _ => Some(Who::Nobody(peer)),
    }
}

/// A clock that only goes forward.
fn since_start() -> Duration {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    START.elapsed()
}
