//! Messages to a log server over TLS (RFC 5425), and questions to a time stamp authority over HTTP. One connection for
//! each: they are few, at most one in a minute or a thousand rows.

use futures::future::BoxFuture;
use model::{Error, Result};
use runtime::audit::Carrier;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long a server that has everything may take to say goodbye. It need not.
const GOODBYE: Duration = Duration::from_secs(2);

/// Carries messages with our own TLS.
pub struct Syslog;

impl Carrier for Syslog {
    fn carry<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        ca: &'a Path,
        message: &'a [u8],
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let tls = known(ca).await?;
            let name = ServerName::try_from(host.to_owned()).map_err(|e| {
                Error::refused(format!("`{host}` is no name of a server")).because(e)
            })?;
            let broke = |doing: &str, e: std::io::Error| {
                Error::unavailable(format!("{doing} the log server {host}:{port}: {e}")).because(e)
            };
            let tcp = TcpStream::connect((host, port))
                .await
                .map_err(|e| broke("reaching", e))?;
            let mut tls = TlsConnector::from(tls)
                .connect(name, tcp)
                .await
                .map_err(|e| broke("trusting", e))?;
            tls.write_all(message)
                .await
                .map_err(|e| broke("writing to", e))?;
            tls.shutdown().await.map_err(|e| broke("writing to", e))?;
            // The protocol has no acknowledgement. What the server refuses after the handshake, it says now.
            let mut rest = [0; 256];
            let goodbye = async {
                while tls.read(&mut rest).await? > 0 {}
                std::io::Result::Ok(())
            };
            match tokio::time::timeout(GOODBYE, goodbye).await {
                Ok(Err(e)) if e.kind() == ErrorKind::InvalidData => Err(broke("writing to", e)),
                _ => Ok(()),
            }
        })
    }

    fn post<'a>(
        &'a self,
        url: &'a str,
        content_type: &'a str,
        body: Vec<u8>,
        longest: usize,
    ) -> BoxFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            // Another part of the process may have chosen it already, which is as good.
            let _ = default_provider().install_default();
            let broke =
                |e: reqwest::Error| Error::unavailable(format!("asking {url}: {e}")).because(e);
            let client = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .build()
                .map_err(|e| Error::internal("the HTTP client cannot be set up").because(e))?;
            let asked = client.post(url).header("content-type", content_type);
            let mut answer = asked.body(body).send().await.map_err(broke)?;
            let status = answer.status();
            if !status.is_success() {
                return Err(Error::unavailable(format!("{url} answers {status}")));
            }
            let mut out = Vec::new();
            while let Some(part) = answer.chunk().await.map_err(broke)? {
                if out.len() + part.len() > longest {
                    return Err(Error::unavailable(format!(
                        "{url} answers with more than {longest} bytes"
                    )));
                }
                out.extend_from_slice(&part);
            }
            Ok(out)
        })
    }
}

/// Trusts the authorities of one file, and nobody else.
async fn known(ca: &Path) -> Result<Arc<ClientConfig>> {
    let wrong = |why: String| {
        Error::refused(format!(
            "the certificate authority {} of the log server: {why}",
            ca.display()
        ))
    };
    let pem = tokio::fs::read(ca)
        .await
        .map_err(|e| wrong(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| wrong(e.to_string()))?;
        roots.add(certificate).map_err(|e| wrong(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("the file holds no certificate".into()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|e| wrong(e.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    /// A log server with a certificate for this name: takes one connection and answers what it got.
    #[allow(clippy::disallowed_methods, reason = "the test holds the handle")]
    async fn server(name: &str) -> (String, u16, tokio::task::JoinHandle<Vec<u8>>) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut got = Vec::new();
            if let Ok(mut tls) = TlsAcceptor::from(Arc::new(config)).accept(tcp).await {
                let _ = tls.read_to_end(&mut got).await;
            }
            got
        });
        (made.cert.pem(), port, serving)
    }

    #[tokio::test]
    async fn a_message_comes_to_the_server_that_is_known_and_to_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        let (pem, port, serving) = server("localhost").await;
        std::fs::write(&ca, pem).unwrap();
        let message = b"9 <109>1 - ";
        Syslog.carry("localhost", port, &ca, message).await.unwrap();
        assert_eq!(serving.await.unwrap(), message);

        let (_, port, serving) = server("localhost").await;
        let error = Syslog.carry("localhost", port, &ca, message).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("trusting"), "{error}");
        assert_eq!(serving.await.unwrap(), b"");

        std::fs::write(&ca, "nothing").unwrap();
        let error = Syslog.carry("localhost", port, &ca, message).await;
        assert!(error.unwrap_err().to_string().contains("no certificate"));
    }
}
