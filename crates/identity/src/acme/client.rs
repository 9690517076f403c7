//! Speaks to the provider: HTTP with verified TLS, bounded answers, errors in our words. Each provider is a named
//! dependency with its breaker: one that is down is left alone.

use super::types::AcmeAccountSpec;
use crate::pin::{self, Trust};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AccountBuilder, AccountCredentials, BodyWrapper, BytesResponse, HttpClient,
};
use model::{Error, Result};
use runtime::Cx;
use runtime::resilience::Dependency;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Longest answer that is read.
const LONGEST: usize = 1 << 20;

/// HTTP to one provider.
struct Http {
    client: reqwest::Client,
    dependency: Arc<Dependency>,
}

type Failed = instant_acme::Error;
type Answer = http::Response<Bytes>;

impl HttpClient for Http {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<BytesResponse, Failed>> + Send>> {
        let (client, dependency) = (self.client.clone(), self.dependency.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            // What it says with a 5xx is kept: the breaker counts it, people read it.
            let refused = parking_lot::Mutex::new(None);
            let ask = || async {
                let answer = send(&client, &parts, body.clone()).await?;
                if !answer.status().is_server_error() {
                    return Ok(answer);
                }
                let status = answer.status();
                *refused.lock() = Some(answer);
                Err(Error::unavailable(format!("it answers {status}")))
            };
            // What is signed has a nonce, and is sent again by who signs it.
            let asked = match parts.method.is_safe() {
                true => dependency.call(ask).await,
                false => dependency.once(ask()).await,
            };
            let answer = match (asked, refused.into_inner()) {
                (Ok(answer), _) | (Err(_), Some(answer)) => answer,
                (Err(error), None) => return Err(Failed::Other(Box::new(error))),
            };
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}

async fn send(
    client: &reqwest::Client,
    parts: &http::request::Parts,
    body: Bytes,
) -> Result<Answer> {
    let url = parts.uri.to_string();
    let sent = client
        .request(parts.method.clone(), url)
        .headers(parts.headers.clone());
    let mut answer = sent.body(body).send().await.map_err(other)?;
    let mut read = BytesMut::new();
    while let Some(part) = answer.chunk().await.map_err(other)? {
        if read.len() + part.len() > LONGEST {
            return Err(Error::refused("the answer of the provider is too long"));
        }
        read.extend_from_slice(&part);
    }
    let mut response = http::Response::new(read.freeze());
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    Ok(response)
}

/// What went wrong on the way, in the words of who knows it best.
fn other(error: reqwest::Error) -> Error {
    let mut deepest: &dyn std::error::Error = &error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    Error::unavailable(deepest.to_string())
}

/// A client with verified TLS, held to pins; `trust` is trusted besides what the system trusts.
pub(super) fn http(cx: &Cx, trust: Option<&str>) -> Result<reqwest::Client> {
    pin::http(cx, &Trust::System(trust.map(str::to_owned)))?
        .connect_timeout(Duration::from_secs(10))
        .timeout(Duration::from_secs(30))
        .build()
        .map_err(|e| Error::internal("the HTTP client cannot be set up").because(e))
}

/// Where an account is made or opened.
pub(super) fn builder(cx: &Cx, spec: &AcmeAccountSpec) -> Result<AccountBuilder> {
    let url = reqwest::Url::parse(spec.url()).ok();
    let host = url.as_ref().and_then(|url| url.host_str());
    let name = format!("ACME provider {}", host.unwrap_or(spec.url()));
    Ok(Account::builder_with_http(Box::new(Http {
        client: http(cx, spec.directory_ca.as_deref())?,
        dependency: cx.dependencies().named(&name),
    })))
}

/// The account that was registered.
pub(super) async fn open(cx: &Cx, spec: &AcmeAccountSpec) -> Result<Account> {
    let Some(credentials) = &spec.credentials else {
        return Err(Error::unavailable("the ACME account is not registered yet")
            .hint("`dvctl acme-account show NAME` says why"));
    };
    let credentials: AccountCredentials = serde_json::from_str(credentials)
        .map_err(|_| Error::refused("the stored credentials of the ACME account cannot be read"))?;
    builder(cx, spec)?
        .from_credentials(credentials)
        .await
        .map_err(said(spec))
}

/// An error of the provider, or on the way to it, in our words.
pub(super) fn said(spec: &AcmeAccountSpec) -> impl Fn(Failed) -> Error + use<> {
    let url = spec.url().to_owned();
    move |error| match &error {
        Failed::Api(problem) => {
            let limited = problem
                .r#type
                .as_deref()
                .is_some_and(|t| t.ends_with(":rateLimited"));
            let text = format!("{url} refused: {problem}");
            match limited || problem.status.is_some_and(|s| s >= 500) {
                true => Error::unavailable(text),
                false => Error::refused(text),
            }
        }
        Failed::Timeout(_) => {
            Error::unavailable(format!("{url} did not come to an end within the time"))
        }
        Failed::Other(cause) => {
            let mut deepest: &dyn std::error::Error = &**cause;
            while let Some(source) = deepest.source() {
                deepest = source;
            }
            Error::unavailable(format!("the provider is down: {url}: {deepest}"))
        }
        _ => Error::unavailable(format!("{url}: {error}")),
    }
}
