//! TLS to a server: only its pinned CA is trusted. Before a CA is pinned, one look takes the certificates the server
//! presents, so that a person can compare the fingerprint; nothing is sent on that connection.

use super::{Login, Wire};
use crate::failure::{Failure, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use url::Url;

/// Host and port of a URL that a login can have.
pub fn address(url: &str) -> Result<(String, u16)> {
    let wrong = |why: &str| {
        Failure::usage(format!("`{url}` is not the URL of a server: {why}"))
            .hint("for example `https://node1.example.org:8443`")
    };
    let parsed = Url::parse(url).map_err(|e| wrong(&e.to_string()))?;
    if parsed.scheme() != "https" {
        return Err(wrong("it must begin with https://"));
    }
    let host = match parsed.host() {
        Some(url::Host::Ipv6(ip)) => ip.to_string(),
        Some(host) => host.to_string(),
        None => return Err(wrong("it has no host")),
    };
    Ok((host, parsed.port().unwrap_or(8443)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Failure::io("setting up TLS", e))
}

/// The TLS configuration of a login: its CA, our certificate when there is one.
fn config(login: &Login) -> Result<ClientConfig> {
    let broken = |what: &str| {
        let login = &login.name;
        let what = format!("the {what} of the saved login `{login}`");
        move |e: rustls_pki_types::pem::Error| {
            Failure::io(format!("reading {what}"), e).hint("log in again with `dvctl login`")
        }
    };
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(login.ca.as_bytes()) {
        roots
            .add(ca.map_err(broken("CA"))?)
            .map_err(|e| Failure::io("using the pinned CA", e))?;
    }
    let hints = roots.subjects();
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| Failure::io("using the pinned CA", e))?;
    let builder = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { verifier, hints }));
    if login.certificate.is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let chain = CertificateDer::pem_slice_iter(login.certificate.as_bytes())
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(broken("certificate"))?;
    if let Some(key) = &login.tpm {
        return Ok(builder.with_client_cert_resolver(key.resolver(chain)?));
    }
    let key = PrivateKeyDer::from_pem_slice(login.key.as_bytes()).map_err(broken("key"))?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|e| Failure::io("using our certificate", e))
}

/// Connects with TLS, trusting only the login's CA.
pub async fn connect(login: &Login) -> Result<Box<dyn Wire>> {
    let (host, port) = address(&login.url)?;
    let config = config(login)?;
    let tls = handshake(&login.url, &host, port, config).await?;
    let shown = tls.get_ref().1.peer_certificates().unwrap_or_default();
    if let Some(new) = super::successor::find(&login.ca, shown) {
        super::successor::follow(login, &new);
    }
    Ok(Box::new(tls))
}

async fn handshake(
    url: &str,
    host: &str,
    port: u16,
    config: ClientConfig,
) -> Result<TlsStream<TcpStream>> {
    let unreachable = |e: std::io::Error| {
        Failure::unreachable(format!("cannot reach {url}: {e}"))
            .hint("check the address, the port, and that the server is up")
    };
    let tcp = TcpStream::connect((host, port))
        .await
        .map_err(unreachable)?;
    _ = tcp.set_nodelay(true);
    let name = ServerName::try_from(host.to_owned())
        .map_err(|e| Failure::usage(format!("`{host}` is not a host: {e}")))?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await
        .map_err(|e| {
            let text = e.to_string();
            let failure = Failure::unreachable(format!("no trusted connection to {url}: {text}"));
            if text.contains("UnknownIssuer") || text.contains("BadSignature") {
                failure.hint(
                    "the server's certificate does not come from the pinned CA: somebody may be in between, or the server was set up \
                     anew; then `dvctl login` again and compare the fingerprint",
                )
            } else if text.contains("NotValidForName") {
                failure.hint("use one of the names or addresses that the server's certificate is made for")
            } else if text.contains("the TPM") {
                failure.hint(
                    "a login of an enrolled machine works on that machine only, and for who may use its TPM (the group `tss`, as a rule); \
                     on another one, log in as that one: dvctl tpm enrol MACHINE",
                )
            } else if text.contains("Expired") || text.contains("NotValidYet") {
                failure.hint("check the clocks of both machines")
            } else {
                failure
            }
        })
}

/// A certificate authority as a server presents it.
pub struct SeenCa {
    /// The certificate, PEM.
    pub pem: String,
    /// SHA-256 of the certificate, `AB:CD:...`.
    pub fingerprint: String,
}

/// Takes the CA that the server at `url` presents. Proves nothing: the fingerprint must be compared by a person or with
/// one that came another way.
pub async fn look(url: &str) -> Result<SeenCa> {
    let (host, port) = address(url)?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut config = builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Recorder {
            seen: seen.clone(),
            provider: provider(),
        }))
        .with_no_client_auth();
    // Asked for no name, a server shows the certificate of its own CA, also when it has a public one for browsers.
    config.enable_sni = false;
    drop(handshake(url, &host, port, config).await?);
    let chain = match seen.lock() {
        Ok(mut chain) => std::mem::take(&mut *chain),
        Err(poisoned) => std::mem::take(&mut *poisoned.into_inner()),
    };
    let ca = chain.iter().rev().find(|der| is_ca(der)).ok_or_else(|| {
        Failure::unreachable(format!(
            "{url} presents a certificate but not the CA that signed it, so there is nothing to pin"
        ))
        .hint("is this the API port of a DebVisor server (8443 as a rule)?")
    })?;
    Ok(SeenCa {
        pem: pem(ca),
        fingerprint: fingerprint(ca),
    })
}

/// Whether a certificate is a self-issued authority.
pub(super) fn is_ca(der: &[u8]) -> bool {
    x509_parser::parse_x509_certificate(der)
        .is_ok_and(|(_, cert)| cert.is_ca() && cert.issuer() == cert.subject())
}

pub(super) fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// SHA-256 of a certificate as `AB:CD:...`.
pub fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der)
        .iter()
        .map(|b| format!("{b:02X}"))
        .collect::<Vec<_>>()
        .join(":")
}

/// The usual checks against the pinned CA, which the server is told: it may have a publicly trusted certificate for the
/// same name, which we would refuse.
#[derive(Debug)]
struct Pinned {
    verifier: Arc<WebPkiServerVerifier>,
    hints: Vec<DistinguishedName>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        self.verifier
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.hints)
    }
}

/// Takes any certificate and remembers the chain; handshake signatures are still checked.
#[derive(Debug)]
struct Recorder {
    seen: Arc<Mutex<Vec<CertificateDer<'static>>>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        if let Ok(mut seen) = self.seen.lock() {
            *seen = std::iter::once(end_entity)
                .chain(intermediates)
                .map(|c| c.clone().into_owned())
                .collect();
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(address("https://a:1").unwrap(), ("a".into(), 1));
        assert_eq!(address("https://[::1]").unwrap(), ("::1".into(), 8443));
        for bad in ["http://a", "a", "https://"] {
            assert_eq!(address(bad).unwrap_err().exit, 2, "{bad}");
        }
    }
}
