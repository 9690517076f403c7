//! Speaks to the provider: HTTP with verified TLS, bounded answers, errors in our words.

use super::types::AcmeAccountSpec;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AccountBuilder, AccountCredentials, BodyWrapper, BytesResponse, HttpClient,
};
use model::{Error, Result};
use std::pin::Pin;
use std::time::Duration;

/// Longest answer that is read.
const LONGEST: usize = 1 << 20;

/// HTTP to one provider.
struct Http(reqwest::Client);

type Failed = instant_acme::Error;

impl HttpClient for Http {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = std::result::Result<BytesResponse, Failed>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let url = parts.uri.to_string();
            let sent = client.request(parts.method, url).headers(parts.headers);
            let mut answer = sent.body(body).send().await.map_err(other)?;
            let mut read = BytesMut::new();
            while let Some(part) = answer.chunk().await.map_err(other)? {
                if read.len() + part.len() > LONGEST {
                    return Err(Failed::Str("the answer of the provider is too long"));
                }
                read.extend_from_slice(&part);
            }
            let mut response = http::Response::new(Full::new(read.freeze()));
            *response.status_mut() = answer.status();
            *response.headers_mut() = answer.headers().clone();
            Ok(BytesResponse::from(response))
        })
    }
}

fn other(error: reqwest::Error) -> Failed {
    Failed::Other(Box::new(error))
}

/// A client with verified TLS; `trust` is trusted besides what the system trusts.
pub(super) fn http(trust: Option<&str>) -> Result<reqwest::Client> {
    // Another part of the process may have chosen it already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(10))
        .timeout(Duration::from_secs(30));
    if let Some(pem) = trust {
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
            .map_err(|e| Error::field("spec.directory_ca", format!("holds no certificate: {e}")))?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder
        .build()
        .map_err(|e| Error::internal("the HTTP client cannot be set up").because(e))
}

/// Where an account is made or opened.
pub(super) fn builder(spec: &AcmeAccountSpec) -> Result<AccountBuilder> {
    let http = http(spec.directory_ca.as_deref())?;
    Ok(Account::builder_with_http(Box::new(Http(http))))
}

/// The account that was registered.
pub(super) async fn open(spec: &AcmeAccountSpec) -> Result<Account> {
    let Some(credentials) = &spec.credentials else {
        return Err(Error::unavailable("the ACME account is not registered yet")
            .hint("`dvctl acme-account show NAME` says why"));
    };
    let credentials: AccountCredentials = serde_json::from_str(credentials)
        .map_err(|_| Error::refused("the stored credentials of the ACME account cannot be read"))?;
    builder(spec)?
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
