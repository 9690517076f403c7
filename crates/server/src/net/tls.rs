//! TLS 1.3, and nothing older: the provider is ring, TLS 1.2 is not even compiled in.
//!
//! The certificate follows the authority: a renewed one is shown to the next handshake, open connections stay. So do the
//! CAs whose clients are let in.

use model::{Error, Result};
use parking_lot::Mutex;
use runtime::{Authority, CaCertificate, TlsIdentity};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, RootCertStore, ServerConfig};
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

/// The TLS side of one listener, as the authority stands now.
pub(crate) struct Tls {
    authority: Arc<dyn Authority>,
    client: ClientCertificate,
    alpn: Vec<Vec<u8>>,
    trusted: watch::Receiver<Arc<Vec<CaCertificate>>>,
    made: Mutex<(Arc<Vec<CaCertificate>>, Arc<ServerConfig>)>,
}

impl Tls {
    pub(crate) fn new(
        authority: Arc<dyn Authority>,
        client: ClientCertificate,
        alpn: &[&[u8]],
    ) -> Result<Tls> {
        let alpn: Vec<_> = alpn.iter().map(|name| name.to_vec()).collect();
        let trusted = authority.trusted();
        let of = trusted.borrow().clone();
        let made = config(&*authority, client, &alpn, &of)?;
        Ok(Tls {
            made: Mutex::new((of, made)),
            authority,
            client,
            alpn,
            trusted,
        })
    }

    /// For the next handshake.
    pub(crate) fn now(&self) -> Arc<ServerConfig> {
        let of = self.trusted.borrow().clone();
        let mut made = self.made.lock();
        if !Arc::ptr_eq(&made.0, &of) {
            match config(&*self.authority, self.client, &self.alpn, &of) {
                Ok(config) => *made = (of, config),
                Err(error) => {
                    tracing::error!(%error, "the CAs that are trusted now cannot be used")
                }
            }
        }
        made.1.clone()
    }
}

fn config(
    authority: &dyn Authority,
    client: ClientCertificate,
    alpn: &[Vec<u8>],
    trusted: &[CaCertificate],
) -> Result<Arc<ServerConfig>> {
    let failed = |e: &dyn std::fmt::Display| Error::internal(format!("cannot set TLS up: {e}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for ca in trusted {
        roots
            .add(CertificateDer::from(ca.der.clone()))
            .map_err(|e| failed(&e))?;
    }
    let subjects = roots.subjects();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = match client {
        ClientCertificate::Optional => verifier.allow_unauthenticated(),
        ClientCertificate::Required => verifier,
    }
    .build()
    .map_err(|e| failed(&e))?;
    let shown = Shown::new(authority, client, subjects)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| failed(&e))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(shown));
    config.alpn_protocols = alpn.to_vec();
    // A resumed handshake takes a client's certificate as shown and asks for no proof of its key: what can be copied from
    // a program's memory would stand for a key that cannot leave its machine.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Shows the authority's present certificates: the panel's to who asks for one of its names and does not say that he
/// trusts our CA (`certificate_authorities`, RFC 8446 4.2.4), our own to everybody else.
struct Shown {
    own: Kept,
    panel: Option<watch::Receiver<Option<Arc<TlsIdentity>>>>,
    made: Mutex<Option<Made>>,
    /// Subjects of our CAs.
    ca: Vec<DistinguishedName>,
}

/// An identity as TLS wants it.
struct Kept {
    from: watch::Receiver<Arc<TlsIdentity>>,
    made: Mutex<Made>,
}

struct Made {
    of: Arc<TlsIdentity>,
    key: Arc<CertifiedKey>,
}

impl Shown {
    fn new(
        authority: &dyn Authority,
        client: ClientCertificate,
        ca: Vec<DistinguishedName>,
    ) -> Result<Shown> {
        let from = authority.shown();
        let of = from.borrow().clone();
        let key = certified(&of)
            .map_err(|e| Error::internal("the server certificate cannot be used").because(e))?;
        Ok(Shown {
            own: Kept {
                from,
                made: Mutex::new(Made { of, key }),
            },
            // Who must show a certificate of our CA trusts our CA.
            panel: match client {
                ClientCertificate::Optional => Some(authority.panel()),
                ClientCertificate::Required => None,
            },
            made: Mutex::new(None),
            ca,
        })
    }

    /// The panel's certificate, when it is what this client asks for.
    fn panel(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identity = self.panel.as_ref()?.borrow().clone()?;
        let name = hello.server_name()?;
        if !identity.names.iter().any(|pattern| covers(pattern, name)) {
            return None;
        }
        let trusts_us = hello.certificate_authorities().is_some_and(|all| {
            let ours =
                |one: &DistinguishedName| self.ca.iter().any(|ca| ca.as_ref() == one.as_ref());
            all.iter().any(ours)
        });
        if trusts_us {
            return None;
        }
        let mut made = self.made.lock();
        if made
            .as_ref()
            .is_none_or(|made| !Arc::ptr_eq(&made.of, &identity))
        {
            match certified(&identity) {
                Ok(key) => *made = Some(Made { of: identity, key }),
                // The one before stays, rather than one that the client does not trust.
                Err(error) => {
                    tracing::error!(%error, "the certificate of the panel cannot be used")
                }
            }
        }
        made.as_ref().map(|made| made.key.clone())
    }
}

/// Whether a name of a certificate covers a host: the same, or `*` for its first label.
fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => host
            .split_once('.')
            .is_some_and(|(first, parent)| !first.is_empty() && parent.eq_ignore_ascii_case(rest)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

impl std::fmt::Debug for Shown {
    /// Says nothing: a private key is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shown")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(panel) = self.panel(&hello) {
            return Some(panel);
        }
        let identity = self.own.from.borrow().clone();
        let mut made = self.own.made.lock();
        if !Arc::ptr_eq(&made.of, &identity) {
            match certified(&identity) {
                Ok(key) => *made = Made { of: identity, key },
                // The old one is still good for 30 days; a log line an hour is what `renew` gives.
                Err(error) => tracing::error!(%error, "the renewed certificate cannot be used"),
            }
        }
        Some(made.key.clone())
    }
}

fn certified(identity: &TlsIdentity) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let chain = identity
        .chain
        .iter()
        .cloned()
        .map(CertificateDer::from)
        .collect();
    let key = PrivateKeyDer::try_from(identity.key.clone())
        .map_err(|e| rustls::Error::General(e.into()))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}
