//! The tokens of a saved login: shown with each request, and traded for the next pair before they end.
//!
//! A token for the next pair works once, so of several `dvctl` at a time one trades and the others read what it saved:
//! they wait for one another at a lock beside the saved login.

use super::logins::{Login, Logins, Tokens};
use super::{Client, Place, Request};
use crate::failure::{Failure, Result};
use model::Timestamp;
use nix::fcntl::{Flock, FlockArg};
use serde_json::{Value, json};
use std::time::Duration;

/// A token that ends sooner than this is not used any more.
const MARGIN: Duration = Duration::from_secs(60);

impl Tokens {
    /// From what the server gives at a login and at a trade.
    pub fn of(answer: &Value) -> Option<Tokens> {
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        Some(Tokens {
            user: text("user")?.to_owned(),
            access: text("access")?.to_owned(),
            access_expires: Timestamp::parse(text("access_expires")?)?,
            refresh: text("refresh")?.to_owned(),
        })
    }

    fn are_fresh(&self) -> bool {
        crate::output::now().plus(MARGIN) < self.access_expires
    }
}

impl Client {
    /// The token to show; `None` where a certificate or the socket says who we are.
    pub(super) async fn bearer(&self) -> Result<Option<String>> {
        let Place::Remote(login) = self.place() else {
            return Ok(None);
        };
        if login.api_key.is_some() {
            return Ok(login.api_key.clone());
        }
        let mut held = self.tokens.lock().await;
        let Some(tokens) = held.as_ref() else {
            return Ok(None);
        };
        if !tokens.are_fresh() {
            *held = Some(next(login).await?);
        }
        Ok(held.as_ref().map(|tokens| tokens.access.clone()))
    }
}

/// The next pair: as another `dvctl` has just saved it, or by trading.
async fn next(login: &Login) -> Result<Tokens> {
    let logins = Logins::of_user();
    let name = login.name.clone();
    let wrong = |e: String| Failure::io("waiting for another dvctl", e);
    let lock = logins.lock_file(&name)?;
    // It is held for one request of another process at most.
    let _lock = tokio::task::spawn_blocking(move || Flock::lock(lock, FlockArg::LockExclusive))
        .await
        .map_err(|e| wrong(e.to_string()))?
        .map_err(|(_, e)| wrong(e.to_string()))?;
    let mut saved = logins.get(&name)?;
    let Some(tokens) = saved.tokens.clone() else {
        return Err(ended(login));
    };
    if tokens.are_fresh() {
        return Ok(tokens);
    }
    // Without a token: it is what we ask for.
    let client = Client::new(Place::Remote(Box::new(Login {
        tokens: None,
        ..saved.clone()
    })));
    let request = Request::new(http::Method::POST, "/auth/refresh");
    let answer = Box::pin(client.ask(request.json(&json!({ "refresh": tokens.refresh })))).await?;
    if answer.status == 401 {
        return Err(ended(login));
    }
    if answer.status >= 400 {
        return Err(super::problem(answer.status, &answer.body));
    }
    let tokens = Tokens::of(&answer.json()?)
        .ok_or_else(|| Failure::unreachable(format!("{} gave no tokens", login.url)))?;
    saved.tokens = Some(tokens.clone());
    logins.keep(&saved)?;
    Ok(tokens)
}

fn ended(login: &Login) -> Failure {
    Failure::new(5, format!("the login to {} has ended", login.url))
        .hint(format!("log in again: dvctl login {}", login.url))
}
