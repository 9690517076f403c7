//! The HTTP API of HashiCorp Vault and OpenBao, as far as we use it. It never logs a body or a token.

use super::{AuthMethod, BackendSpec};
use crate::pin::{self, Trust};
use model::{Error, Result};
use reqwest::{Method, StatusCode};
use runtime::Cx;
use serde_json::{Value, json};
use std::time::Duration;

/// How long a connection and a whole call may take.
const CONNECT: Duration = Duration::from_secs(5);
const CALL: Duration = Duration::from_secs(15);
/// More is not read of an answer.
const LONGEST: usize = 1 << 20;

/// A connection to one key server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client {
    name: String,
    spec: BackendSpec,
    http: reqwest::Client,
}

/// How it is.
pub(super) struct Health {
    pub version: String,
}

/// What lets us in, and for how long; `None` for a token that never ends.
#[derive(Clone)]
pub(super) struct Token {
    pub text: String,
    pub life: Option<Duration>,
    pub renewable: bool,
}

impl Client {
    pub(super) fn new(cx: &Cx, name: &str, spec: &BackendSpec) -> Result<Client> {
        // With a CA of its own, that and no other.
        let trust = match &spec.ca {
            Some(pem) => Trust::Only(pem.clone()),
            None => Trust::System(None),
        };
        let builder = pin::http(cx, &trust).map_err(|error| {
            Error::refused(format!("secret-backend `{name}`: its `ca`: {error}"))
        })?;
        let builder = builder.connect_timeout(CONNECT).timeout(CALL);
        let http = builder
            .build()
            .map_err(|e| Error::internal("the HTTP client cannot be set up").because(e))?;
        Ok(Client {
            name: name.to_owned(),
            spec: spec.clone(),
            http,
        })
    }

    /// How it is; an error when it does not answer or is sealed.
    pub(super) async fn health(&self) -> Result<Health> {
        let path = "sys/health?standbyok=true&perfstandbyok=true";
        let (status, body) = self.send(Method::GET, path, None, None).await?;
        let version = body["version"].as_str().unwrap_or_default().to_owned();
        match status.as_u16() {
            200 | 429 | 472 | 473 => Ok(Health { version }),
            501 => Err(self.down("is not initialised")),
            503 => Err(self.down("is sealed: unseal it")),
            other => Err(self.down(&format!("answers its health with {other}"))),
        }
    }

    /// Logs in with what proves us.
    pub(super) async fn log_in(&self, proof: &str) -> Result<Token> {
        let auth = &self.spec.auth;
        let name = auth.name.as_deref().unwrap_or_default();
        let (path, body) = match auth.method {
            AuthMethod::Token => {
                let path = "auth/token/lookup-self";
                let found = self.ask(Method::GET, path, Some(proof), None).await?;
                let data = &found["data"];
                return Ok(Token {
                    text: proof.to_owned(),
                    life: seconds(&data["ttl"]),
                    renewable: data["renewable"] == true,
                });
            }
            AuthMethod::Approle => (
                format!("auth/{}/login", auth.mount.as_deref().unwrap_or("approle")),
                json!({ "role_id": name, "secret_id": proof }),
            ),
            AuthMethod::Userpass => (
                format!("auth/{}/login/{name}", self.userpass()),
                json!({ "password": proof }),
            ),
        };
        let found = self.ask(Method::POST, &path, None, Some(body)).await?;
        self.token(&found)
    }

    /// Makes a token live on.
    pub(super) async fn renew(&self, token: &str) -> Result<Token> {
        let path = "auth/token/renew-self";
        let found = self
            .ask(Method::POST, path, Some(token), Some(json!({})))
            .await?;
        self.token(&found)
    }

    /// Reads one field of what lies at a path of the key-value store.
    pub(super) async fn read(&self, token: &str, path: &str, field: &str) -> Result<String> {
        let at = format!("{}/data/{path}", self.spec.mount);
        let found = self.ask(Method::GET, &at, Some(token), None).await?;
        match &found["data"]["data"][field] {
            Value::Null => Err(Error::not_found(format!(
                "secret-backend `{}` has no field `{field}` at {}/{path}",
                self.name, self.spec.mount
            ))),
            Value::String(text) => Ok(text.clone()),
            other => Ok(other.to_string()),
        }
    }

    /// Changes the password that we log in with.
    pub(super) async fn set_password(&self, token: &str, password: &str) -> Result<()> {
        let name = self.spec.auth.name.as_deref().unwrap_or_default();
        let path = format!("auth/{}/users/{name}/password", self.userpass());
        let body = json!({ "password": password });
        self.ask(Method::POST, &path, Some(token), Some(body))
            .await
            .map(drop)
    }

    fn userpass(&self) -> &str {
        self.spec.auth.mount.as_deref().unwrap_or("userpass")
    }

    fn token(&self, found: &Value) -> Result<Token> {
        let auth = &found["auth"];
        let text = auth["client_token"].as_str().filter(|t| !t.is_empty());
        let text = text.ok_or_else(|| self.down("has let us in without a token"))?;
        Ok(Token {
            text: text.to_owned(),
            life: seconds(&auth["lease_duration"]),
            renewable: auth["renewable"] == true,
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Value> {
        let (status, found) = self.send(method, path, token, body).await?;
        if status.is_success() {
            return Ok(found);
        }
        // What it says of an error names paths and policies, never values.
        let said: String = found["errors"][0]
            .as_str()
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        let what = format!(
            "secret-backend `{}` answers {path} with {status}",
            self.name
        );
        let what = match said.is_empty() {
            true => what,
            false => format!("{what}: {said}"),
        };
        Err(match status {
            StatusCode::NOT_FOUND => Error::not_found(what),
            s if s.is_server_error() || s == StatusCode::TOO_MANY_REQUESTS => {
                Error::unavailable(what)
            }
            _ => Error::refused(what),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value)> {
        let url = format!("{}/v1/{path}", self.spec.address);
        let mut request = self
            .http
            .request(method, url)
            .header("X-Vault-Request", "true");
        if let Some(namespace) = &self.spec.namespace {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(token) = token {
            let mut value = reqwest::header::HeaderValue::from_str(token)
                .map_err(|_| Error::refused("the token holds letters that no token has"))?;
            value.set_sensitive(true);
            request = request.header("X-Vault-Token", value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let failed = |e: reqwest::Error| self.down("does not answer").because(e.without_url());
        let mut answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if text.len() + chunk.len() > LONGEST {
                return Err(Error::refused(format!(
                    "secret-backend `{}` answers {path} with more than {LONGEST} bytes",
                    self.name
                )));
            }
            text.extend_from_slice(&chunk);
        }
        Ok((status, serde_json::from_slice(&text).unwrap_or(Value::Null)))
    }

    fn down(&self, what: &str) -> Error {
        Error::unavailable(format!(
            "secret-backend `{}` at {} {what}",
            self.name, self.spec.address
        ))
    }
}

fn seconds(value: &Value) -> Option<Duration> {
    value.as_u64().filter(|s| *s > 0).map(Duration::from_secs)
}
