//! What is asked of a provider over HTTP: what it is (OpenID Connect Discovery 1.0), its keys (RFC 7517), and tokens for
//! codes (RFC 6749, 4.1.3). Nothing is followed elsewhere, and no body or token is logged.

use super::OidcSpec;
use crate::pin::{self, Trust};
use crate::secret_backend::is_here;
use model::{Error, Result};
use runtime::Cx;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// How long a connection and a whole call may take.
const CONNECT: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_secs(15);
/// More is not read of an answer.
const LONGEST: usize = 1 << 18;

/// What a provider says of itself, as far as we need it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Facts {
    /// Who it is.
    pub issuer: String,
    /// Where browsers log in.
    pub authorization_endpoint: String,
    /// Where codes become tokens.
    pub token_endpoint: String,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Where more is said of somebody.
    #[serde(default)]
    pub userinfo_endpoint: Option<String>,
    /// How we may prove who we are.
    #[serde(default)]
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// Where browsers log out.
    #[serde(default)]
    pub end_session_endpoint: Option<String>,
    /// Which PKCE it knows; most say nothing.
    #[serde(default)]
    pub code_challenge_methods_supported: Option<Vec<String>>,
}

/// A provider that can be asked. Cheap to clone.
#[derive(Clone)]
pub(super) struct Provider {
    name: String,
    issuer: String,
    http: reqwest::Client,
}

impl Provider {
    pub(super) fn new(cx: &Cx, name: &str, spec: &OidcSpec) -> Result<Provider> {
        let trust = match &spec.ca {
            Some(pem) => Trust::Only(pem.clone()),
            None => Trust::System(None),
        };
        let http = pin::http(cx, &trust)
            .map_err(|error| match spec.ca {
                Some(_) => Error::refused(format!("realm `{name}`: its `ca` holds no certificate"))
                    .because(error),
                None => error,
            })?
            .connect_timeout(CONNECT)
            .timeout(CALL)
            .build()
            .map_err(|e| Error::internal("the HTTP client cannot be set up").because(e))?;
        Ok(Provider {
            name: name.to_owned(),
            issuer: spec.issuer.clone(),
            http,
        })
    }

    /// What it says of itself; an error when it is another one, or wants to be asked in the clear.
    pub(super) async fn discover(&self) -> Result<Facts> {
        let url = format!(
            "{}/.well-known/openid-configuration",
            self.issuer.trim_end_matches('/')
        );
        let said = self.get(&url).await?;
        let facts: Facts = serde_json::from_value(said)
            .map_err(|e| self.wrong(&format!("describes itself unreadably: {e}")))?;
        self.fits(&facts)?;
        Ok(facts)
    }

    fn fits(&self, facts: &Facts) -> Result<()> {
        // Section 4.3 of Discovery: exactly the same, or it speaks for another one.
        if facts.issuer != self.issuer {
            let theirs: String = facts.issuer.chars().take(200).collect();
            return Err(self
                .wrong(&format!("calls itself `{}`", theirs.escape_debug()))
                .hint("write `issuer` exactly as the provider does, also the slash at its end"));
        }
        let places = [
            Some(&facts.authorization_endpoint),
            Some(&facts.token_endpoint),
            Some(&facts.jwks_uri),
            facts.end_session_endpoint.as_ref(),
            facts.userinfo_endpoint.as_ref(),
        ];
        for place in places.into_iter().flatten() {
            let safe = place.starts_with("https://")
                || (self.issuer.starts_with("http://") && is_here(place));
            if !safe || !place.is_ascii() || place.chars().any(|c| c.is_ascii_control() || c == ' ')
            {
                return Err(self.wrong("names an address of its own that is not `https`"));
            }
        }
        let pkce = facts.code_challenge_methods_supported.as_ref();
        if pkce.is_some_and(|known| !known.iter().any(|m| m == "S256")) {
            return Err(self.wrong("does not know PKCE with S256"));
        }
        Ok(())
    }

    /// Its keys.
    pub(super) async fn keys(&self, facts: &Facts) -> Result<Value> {
        self.get(&facts.jwks_uri).await
    }

    async fn get(&self, url: &str) -> Result<Value> {
        let request = self.http.get(url).header("accept", "application/json");
        let (status, body) = self.send(request).await?;
        match (status, body) {
            (200, Some(body)) => Ok(body),
            (200, None) => Err(self.wrong("answers with what is no JSON")),
            (status, _) => Err(self.answers(status, url)),
        }
    }

    fn answers(&self, status: u16, url: &str) -> Error {
        let what = format!("realm `{}`: {url} answers with {status}", self.name);
        match status {
            429 | 500.. => Error::unavailable(what),
            _ => Error::refused(what),
        }
    }

    pub(super) async fn send(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<(u16, Option<Value>)> {
        let failed = |e: reqwest::Error| {
            Error::unavailable(format!(
                "realm `{}`: the provider {} does not answer",
                self.name, self.issuer
            ))
            .hint("local users can log in; `dvctl realm show` says since when")
            .because(e.without_url())
        };
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status().as_u16();
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if text.len() + chunk.len() > LONGEST {
                return Err(self.wrong(&format!("answers with more than {LONGEST} bytes")));
            }
            text.extend_from_slice(&chunk);
        }
        Ok((status, serde_json::from_slice(&text).ok()))
    }

    pub(super) fn wrong(&self, what: &str) -> Error {
        Error::refused(format!(
            "realm `{}`: the provider {} {what}",
            self.name, self.issuer
        ))
    }
}

/// What we show a provider for who we are, and what a code is traded with (RFC 6749 4.1.3, RFC 7636 4.5).
pub(super) struct Trade<'a> {
    pub client_id: &'a str,
    pub secret: Option<&'a str>,
    pub code: &'a str,
    pub verifier: &'a str,
    pub redirect_uri: &'a str,
}

/// What a code was traded for.
pub(super) struct Traded {
    pub id_token: String,
    pub access_token: Option<String>,
}

impl Provider {
    /// Trades a code for tokens.
    pub(super) async fn trade(&self, facts: &Facts, trade: &Trade<'_>) -> Result<Traded> {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", trade.code),
            ("redirect_uri", trade.redirect_uri),
            ("code_verifier", trade.verifier),
        ];
        let mut request = self
            .http
            .post(&facts.token_endpoint)
            .header("accept", "application/json")
            .header("content-type", "application/x-www-form-urlencoded");
        // Basic is what all must know when they say nothing.
        let known = facts.token_endpoint_auth_methods_supported.as_ref();
        let basic = known.is_none_or(|known| known.iter().any(|m| m == "client_secret_basic"));
        match trade.secret {
            Some(secret) if basic => {
                // RFC 6749, 2.3.1: both are form-encoded first.
                request = request.basic_auth(encoded(trade.client_id), Some(encoded(secret)));
            }
            Some(secret) => {
                form.extend([("client_id", trade.client_id), ("client_secret", secret)]);
            }
            None => form.push(("client_id", trade.client_id)),
        }
        let body: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect();
        let (status, said) = self.send(request.body(body.join("&"))).await?;
        let said = said.unwrap_or_default();
        let text = |name: &str| said.get(name).and_then(Value::as_str).map(str::to_owned);
        if status != 200 {
            let why = text("error").map(|why| word(&why)).unwrap_or_default();
            return Err(match status {
                429 | 500.. => self.answers(status, &facts.token_endpoint),
                _ => self
                    .wrong(&format!("does not take the code: {status} {why}"))
                    .hint("for `invalid_client` see `client_id` and `client_secret` of the realm"),
            });
        }
        Ok(Traded {
            id_token: text("id_token").ok_or_else(|| self.wrong("gives no ID token"))?,
            access_token: text("access_token"),
        })
    }

    /// What it says of somebody besides his token; nothing when it says nothing.
    pub(super) async fn userinfo(&self, facts: &Facts, access_token: &str) -> Result<Value> {
        let Some(place) = &facts.userinfo_endpoint else {
            return Ok(Value::Null);
        };
        let request = self
            .http
            .get(place)
            .header("accept", "application/json")
            .bearer_auth(access_token);
        match self.send(request).await? {
            (200, Some(said)) => Ok(said),
            (200, None) => Err(self.wrong("answers `userinfo` with what is no JSON")),
            (status, _) => Err(self.answers(status, place)),
        }
    }
}

/// An error code of a provider: no text of its is shown that it could choose freely.
pub(super) fn word(text: &str) -> String {
    let good = |c: &char| c.is_ascii_alphanumeric() || "_-.".contains(*c);
    text.chars().filter(good).take(60).collect()
}

/// `application/x-www-form-urlencoded`, of one value.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}
