//! TLS 1.3, and nothing older: the provider is ring, TLS 1.2 is not even compiled in.
//!
//! The certificate follows the authority: a renewed one is shown to the next handshake, open connections stay.

use model::{Error, Result};
use parking_lot::Mutex;
use runtime::{Authority, TlsIdentity};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;
use tokio::sync::watch;

/// Whether a listener insists on a client certificate in the handshake.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientCertificate {
    /// Without one the peer is anonymous.
    Optional,
    /// Without one there is no connection.
    Required,
}

/// The TLS side of one listener.
pub(crate) fn config(
    authority: &dyn Authority,
    client: ClientCertificate,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>> {
    let failed = |e: &dyn std::fmt::Display| Error::internal(format!("cannot set TLS up: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from(authority.ca().der))
        .map_err(|e| failed(&e))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = match client {
        ClientCertificate::Optional => verifier.allow_unauthenticated(),
        ClientCertificate::Required => verifier,
    }
    .build()
    .map_err(|e| failed(&e))?;
    let shown = Shown::new(authority.shown())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| failed(&e))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Shows the authority's present certificate.
struct Shown {
    from: watch::Receiver<Arc<TlsIdentity>>,
    made: Mutex<(usize, Arc<CertifiedKey>)>,
}

impl Shown {
    fn new(from: watch::Receiver<Arc<TlsIdentity>>) -> Result<Shown> {
        let identity = from.borrow().clone();
        let key = certified(&identity)
            .map_err(|e| Error::internal("the server certificate cannot be used").because(e))?;
        Ok(Shown {
            made: Mutex::new((Arc::as_ptr(&identity) as usize, key)),
            from,
        })
    }
}

impl std::fmt::Debug for Shown {
    /// Says nothing: a private key is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identity = self.from.borrow().clone();
        let mut made = self.made.lock();
        let stamp = Arc::as_ptr(&identity) as usize;
        if made.0 != stamp {
            match certified(&identity) {
                Ok(key) => *made = (stamp, key),
                // The old one is still good for 30 days; a log line an hour is what `renew` gives.
                Err(error) => tracing::error!(%error, "the renewed certificate cannot be used"),
            }
        }
        Some(made.1.clone())
    }
}

fn certified(identity: &TlsIdentity) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let chain = identity
        .chain
        .iter()
        .cloned()
        .map(CertificateDer::from)
        .collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.clone()));
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
