//! HTTP/1.1 over one kept connection: requests, answers, problem documents as failures.

use super::{Place, Tokens, Wire, tls};
use crate::failure::{Failure, Result};
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use model::Problem;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// The body of a request.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// How long a server may take to accept a connection, shake hands, and begin an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one server.
pub struct Client {
    place: Place,
    pub(super) tokens: Mutex<Option<Tokens>>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    sender: Option<SendRequest<Body>>,
    // Drives the connections; ends with the client.
    drivers: JoinSet<()>,
}

/// A request to be sent.
pub struct Request {
    method: http::Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

/// An answer, read whole.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header `etag`.
    pub etag: Option<String>,
    /// Its body.
    pub body: Bytes,
}

impl Request {
    /// A request; `path` begins after `/api/v1` (or with `/api/`, `/health/`, or is `/metrics`) and may carry a
    /// query.
    pub fn new(method: http::Method, path: impl Into<String>) -> Self {
        Request {
            method,
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// GET.
    pub fn get(path: impl Into<String>) -> Self {
        Request::new(http::Method::GET, path)
    }

    /// A request that changes something. It carries an idempotency key, so that sending it again is safe.
    pub fn change(method: http::Method, path: impl Into<String>) -> Self {
        Request::new(method, path).header("idempotency-key", random_key())
    }

    /// Adds a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a JSON body.
    pub fn json(self, value: &serde_json::Value) -> Self {
        let body = value.to_string();
        self.typed("application/json", body)
    }

    /// With an RFC 7396 patch as the body.
    pub fn merge_patch(self, value: &serde_json::Value) -> Self {
        let body = value.to_string();
        self.typed("application/merge-patch+json", body)
    }

    fn typed(self, kind: &str, body: String) -> Self {
        let mut with = self.header("content-type", kind);
        with.body = body.into();
        with
    }

    /// Only when the object's revision is still this one.
    pub fn if_match(self, revision: Option<&str>) -> Self {
        match revision {
            Some(revision) => {
                self.header("if-match", format!("\"{}\"", revision.trim_matches('"')))
            }
            None => self,
        }
    }
}

/// 128 random bits as text, from the kernel.
fn random_key() -> String {
    use std::io::Read as _;
    let mut bytes = [0u8; 16];
    match std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)) {
        Ok(()) => hex::encode(bytes),
        // Without randomness the address of a fresh allocation and our pid still tell two calls apart.
        Err(_) => format!("{}-{:p}", std::process::id(), Box::new(0u8)),
    }
}

impl Client {
    /// A client of the server at a place; connects with the first request.
    pub fn new(place: Place) -> Self {
        let tokens = match &place {
            Place::Remote(login) => login.tokens.clone(),
            Place::Socket(_) => None,
        };
        Client {
            place,
            tokens: Mutex::new(tokens),
            kept: Mutex::default(),
        }
    }

    /// Where the server is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A new connection.
    pub(super) async fn dial(&self) -> Result<Box<dyn Wire>> {
        let dialled = tokio::time::timeout(PATIENCE, async {
            match &self.place {
                Place::Remote(login) => tls::connect(login).await,
                Place::Socket(path) => match UnixStream::connect(path).await {
                    Ok(stream) => Ok(Box::new(stream) as Box<dyn Wire>),
                    Err(e) => {
                        let denied = e.kind() == std::io::ErrorKind::PermissionDenied;
                        let why = match e.kind() {
                            std::io::ErrorKind::NotFound => "there is no such socket".into(),
                            std::io::ErrorKind::ConnectionRefused => "nobody listens on it".into(),
                            std::io::ErrorKind::PermissionDenied => "permission denied".into(),
                            _ => e.to_string(),
                        };
                        Err(Failure::unreachable(format!(
                            "cannot reach the server at {}: {why}",
                            path.display()
                        ))
                        .hint(self.place.remedy(denied)))
                    }
                },
            }
        });
        dialled.await.unwrap_or_else(|_| Err(self.silence()))
    }

    fn silence(&self) -> Failure {
        Failure::unreachable(format!(
            "{} did not answer within {} s",
            self.place.shown(),
            PATIENCE.as_secs()
        ))
        .hint(self.place.remedy(false))
    }

    fn lost(&self, e: impl std::fmt::Display) -> Failure {
        Failure::unreachable(format!(
            "the connection to {} broke: {e}",
            self.place.shown()
        ))
        .hint("the server may be restarting: try again; what was started there goes on")
    }

    /// The value for the `host` header.
    pub(super) fn host(&self) -> String {
        match &self.place {
            Place::Socket(_) => "localhost".into(),
            Place::Remote(login) => login
                .url
                .trim_start_matches("https://")
                .trim_end_matches('/')
                .into(),
        }
    }

    fn build(
        &self,
        request: &Request,
        bearer: Option<&str>,
        body: Body,
    ) -> Result<http::Request<Body>> {
        let mut out = http::Request::builder()
            .method(request.method.clone())
            .uri(match request.path.as_str() {
                path if path.starts_with("/api/")
                    || path.starts_with("/health/")
                    || path == "/metrics" =>
                {
                    path.to_owned()
                }
                _ => format!("/api/v1{}", request.path),
            })
            .header("host", self.host())
            .header("user-agent", concat!("dvctl/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = bearer {
            out = out.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &request.headers {
            out = out.header(*name, value);
        }
        out.body(body)
            .map_err(|e| Failure::usage(format!("{} cannot be sent: {e}", request.path)))
    }

    async fn connect(&self, kept: &mut Kept) -> Result<SendRequest<Body>> {
        let wire = self.dial().await?;
        let (sender, connection) = handshake(TokioIo::new(wire))
            .await
            .map_err(|e| self.lost(e))?;
        kept.drivers.spawn(async move {
            // A broken connection shows in the request that used it.
            _ = connection.await;
        });
        Ok(sender)
    }

    /// Sends, on the kept connection when it lives, once more on a new one when it broke.
    async fn exchange(&self, request: &Request) -> Result<http::Response<Incoming>> {
        let bearer = self.bearer().await?;
        let mut kept = self.kept.lock().await;
        let mut tries = 0;
        loop {
            tries += 1;
            let mut sender = match kept.sender.take() {
                Some(sender) if !sender.is_closed() => sender,
                _ => self.connect(&mut kept).await?,
            };
            let body = Full::new(request.body.clone())
                .map_err(|never| match never {})
                .boxed();
            let message = self.build(request, bearer.as_deref(), body)?;
            let sent = async {
                sender.ready().await?;
                sender.send_request(message).await
            };
            match tokio::time::timeout(PATIENCE, sent).await {
                Err(_) => return Err(self.silence()),
                Ok(Ok(response)) => {
                    kept.sender = Some(sender);
                    return Ok(response);
                }
                // Reads and keyed changes may be sent twice; a kept connection may just have been closed.
                Ok(Err(_)) if tries < 2 => {}
                Ok(Err(e)) => return Err(self.lost(e)),
            }
        }
    }

    /// Sends and reads the whole answer, whatever its status.
    pub async fn ask(&self, request: Request) -> Result<Answer> {
        let response = self.exchange(&request).await?;
        let status = response.status().as_u16();
        let etag = response
            .headers()
            .get("etag")
            .and_then(|v| v.to_str().ok())
            .map(str::to_owned);
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|e| self.lost(e))?
            .to_bytes();
        Ok(Answer { status, etag, body })
    }

    /// Sends and reads the whole answer; a problem document is a failure.
    pub async fn send(&self, request: Request) -> Result<Answer> {
        let answer = self.ask(request).await?;
        if answer.status < 400 {
            return Ok(answer);
        }
        Err(problem(answer.status, &answer.body))
    }

    /// GET that gives JSON.
    pub async fn json(&self, path: &str) -> Result<serde_json::Value> {
        self.send(Request::get(path)).await?.json()
    }

    /// GET whose answer arrives piece by piece, on its own connection.
    pub async fn chunks(
        &self,
        path: &str,
        accept: &str,
    ) -> Result<impl futures::Stream<Item = Result<Bytes>> + Unpin> {
        let request = Request::get(path).header("accept", accept);
        let empty = Full::new(Bytes::new())
            .map_err(|never| match never {})
            .boxed();
        let response = self.alone(&request, empty).await?;
        let place = self.place.shown();
        Ok(response.into_body().into_data_stream().map(move |part| {
            part.map_err(|e| Failure::unreachable(format!("the connection to {place} broke: {e}")))
        }))
    }

    /// Sends a body piece by piece (an upload), on its own connection.
    pub async fn upload(
        &self,
        path: &str,
        parts: impl futures::Stream<Item = std::io::Result<Bytes>> + Send + Sync + 'static,
    ) -> Result<Answer> {
        let request = Request::new(http::Method::PUT, path)
            .header("content-type", "application/octet-stream");
        let body = BodyExt::boxed(http_body_util::StreamBody::new(
            parts.map(|p| p.map(Frame::data)),
        ));
        let response = self.alone(&request, body).await?;
        let status = response.status().as_u16();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|e| self.lost(e))?
            .to_bytes();
        Ok(Answer {
            status,
            etag: None,
            body,
        })
    }

    /// One request on a connection of its own, without a limit on how long it takes.
    async fn alone(&self, request: &Request, body: Body) -> Result<http::Response<Incoming>> {
        let bearer = self.bearer().await?;
        let mut sender = {
            let mut kept = self.kept.lock().await;
            self.connect(&mut kept).await?
        };
        let message = self.build(request, bearer.as_deref(), body)?;
        let response = sender
            .send_request(message)
            .await
            .map_err(|e| self.lost(e))?;
        let status = response.status().as_u16();
        if status < 400 {
            return Ok(response);
        }
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|e| self.lost(e))?
            .to_bytes();
        Err(problem(status, &body))
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        if self.body.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        serde_json::from_slice(&self.body)
            .map_err(|e| Failure::unreachable(format!("the server's answer is not JSON: {e}")))
    }
}

/// A failure from an answer that is not a success.
pub fn problem(status: u16, body: &[u8]) -> Failure {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Failure::from(problem),
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            let line = text.lines().next().unwrap_or("").trim();
            let exit = match status {
                400 | 422 => 2,
                401 | 403 => 5,
                404 => 4,
                409 | 412 | 429 => 3,
                500 => 1,
                _ => 6,
            };
            let line = if line.is_empty() {
                "no explanation"
            } else {
                line
            };
            Failure::new(exit, format!("the server answered {status}: {line}"))
        }
    }
}
