//! The one verifier for connections that we make: the usual checks first, then what is pinned.

use super::types::{Hash, PinSpec, PinType, Violation};
use super::{KIND, Pin};
use model::{Error, Result, Timestamp, Uid};
use parking_lot::Mutex;
use runtime::{Cache, Cx, Obj};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256, Sha512};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Refused connections that are remembered of each peer.
const RING: usize = 1000;
/// Peers that are remembered.
const PEERS: usize = 100;

/// What was refused, until people were told. A part of the process.
pub struct Pins {
    /// How many there were, and the last of them, by name of the pin.
    refused: Mutex<HashMap<String, (u64, VecDeque<Violation>)>>,
    told: watch::Sender<u64>,
}

impl Default for Pins {
    fn default() -> Self {
        Pins {
            refused: Mutex::default(),
            told: watch::channel(0).0,
        }
    }
}

impl Pins {
    fn refuse(&self, pin: &str, violation: Violation) {
        let mut refused = self.refused.lock();
        if refused.len() >= PEERS && !refused.contains_key(pin) {
            return;
        }
        let (count, ring) = refused.entry(pin.to_owned()).or_default();
        *count += 1;
        ring.push_front(violation);
        ring.truncate(RING);
        drop(refused);
        self.told.send_modify(|n| *n += 1);
    }

    /// Takes what was refused because of a pin: how many, and the last of them, newest first.
    pub(super) fn take(&self, pin: &str) -> (u64, VecDeque<Violation>) {
        self.refused.lock().remove(pin).unwrap_or_default()
    }

    /// Lets the controller tell people of each refusal, until the process ends.
    pub async fn follow(self: Arc<Self>, cx: Cx) {
        let stop = cx.shutdown();
        let mut told = self.told.subscribe();
        while let Some(Ok(())) = stop.run_until_cancelled(told.changed()).await {
            let names: Vec<String> = self.refused.lock().keys().cloned().collect();
            for name in names {
                cx.wake(&cx.key::<Pin>(None, &name));
            }
        }
    }
}

/// Whose certificates are good at all.
#[derive(Clone, Debug)]
pub enum Trust {
    /// What this machine trusts, and these besides (PEM).
    System(Option<String>),
    /// These and no others (PEM).
    Only(String),
}

/// Certificates out of PEM; refuses a text that holds none.
fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = crate::ca::der_of(pem).map(CertificateDer::from).collect();
    match found.is_empty() {
        false => Ok(found),
        true => Err(Error::refused(
            "the PEM of those to trust holds no certificate",
        )),
    }
}

/// How to call others over TLS: TLS 1.2 or 1.3, verified, and held to what is pinned.
///
/// # Errors
/// When `trust` holds no certificate.
pub fn tls(cx: &Cx, trust: &Trust) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let failed = |e: &dyn std::fmt::Display| {
        Error::internal("a verifier of certificates cannot be set up")
            .because(std::io::Error::other(e.to_string()))
    };
    let (inner, extra): (Arc<dyn ServerCertVerifier>, _) = match trust {
        Trust::System(pem) => {
            let extra = pem.as_deref().map(certificates).transpose()?;
            let extra = extra.unwrap_or_default();
            let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(
                extra.clone(),
                provider.clone(),
            )
            .map_err(|e| failed(&e))?;
            (Arc::new(verifier), extra)
        }
        Trust::Only(pem) => {
            let extra = certificates(pem)?;
            (anchored(&extra, &provider).map_err(|e| failed(&e))?, extra)
        }
    };
    let verifier = Verifier {
        inner,
        extra,
        provider: provider.clone(),
        cache: cx.cache().clone(),
        pins: cx.try_part::<Pins>(),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    // Who goes on with an earlier handshake shows no certificate.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What is pinned now: whoever keeps a client makes it anew when this is no longer the same, since what is open already is
/// not looked at again.
pub(crate) fn standing(cx: &Cx) -> Vec<(Uid, u64)> {
    let pins = cx.list::<Pin>(None);
    let of = |pin: &Arc<Obj<Pin>>| (pin.metadata.uid, pin.metadata.generation);
    pins.iter().map(of).collect()
}

/// The beginning of an HTTP client that calls others so. It follows no redirection and goes through no proxy.
///
/// # Errors
/// When `trust` holds no certificate.
pub fn http(cx: &Cx, trust: &Trust) -> Result<reqwest::ClientBuilder> {
    Ok(reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .tls_backend_preconfigured(tls(cx, trust)?))
}

/// The usual checks with these CAs alone.
fn anchored(
    roots: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> std::result::Result<Arc<WebPkiServerVerifier>, rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
        .build()
        .map_err(|e| rustls::Error::General(e.to_string()))
}

struct Verifier {
    inner: Arc<dyn ServerCertVerifier>,
    /// CAs that were given as text: they need not be in what a peer shows.
    extra: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    cache: Cache,
    pins: Option<Arc<Pins>>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

/// What a peer shows in one handshake.
struct Shown<'a> {
    leaf: &'a CertificateDer<'a>,
    chain: &'a [CertificateDer<'a>],
    name: &'a ServerName<'a>,
    now: UnixTime,
}

impl Verifier {
    /// The pins of a peer that hold now, with their names.
    fn pins(&self, peer: &str, now: Timestamp) -> Vec<(String, PinSpec)> {
        let mut out = Vec::new();
        for row in self.cache.rows(KIND.name, None) {
            let Ok(object) = row.value() else { continue };
            let spec: Option<PinSpec> = serde_json::from_value(object["spec"].clone()).ok();
            let Some(spec) = spec.filter(|spec| spec.peer == peer) else {
                continue;
            };
            if spec.expires.is_none_or(|end| now < end) {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                out.push((name.to_owned(), spec));
            }
        }
        out
    }

    fn holds(&self, pin: &PinSpec, shown: &Shown<'_>) -> bool {
        let hash = |bytes: &[u8]| match pin.algorithm {
            Hash::Sha256 => hex::encode(Sha256::digest(bytes)),
            Hash::Sha512 => hex::encode(Sha512::digest(bytes)),
        };
        let wanted = |bytes: &[u8]| {
            let hash = hash(bytes);
            hash == pin.primary || pin.backups.contains(&hash)
        };
        match pin.sort {
            PinType::Certificate => wanted(shown.leaf),
            PinType::PublicKey => x509_parser::parse_x509_certificate(shown.leaf)
                .is_ok_and(|(_, leaf)| wanted(leaf.public_key().raw)),
            PinType::Ca => {
                let all = shown.chain.iter().chain(&self.extra);
                // It must lead there: whoever lays the pinned CA beside his own chain has gained nothing.
                all.filter(|ca| wanted(ca)).any(|ca| {
                    anchored(&[ca.clone().into_owned()], &self.provider).is_ok_and(|only| {
                        only.verify_server_cert(shown.leaf, shown.chain, shown.name, &[], shown.now)
                            .is_ok()
                    })
                })
            }
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let good = self
            .inner
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)?;
        let shown = Shown {
            leaf: end_entity,
            chain: intermediates,
            name,
            now,
        };
        let at = Duration::from_secs(now.as_secs()).as_millis();
        let at = Timestamp::from_millis(i64::try_from(at).unwrap_or(i64::MAX));
        let peer = match name {
            ServerName::IpAddress(ip) => std::net::IpAddr::from(*ip).to_canonical().to_string(),
            // A dot at the end is no other name.
            name => name.to_str().trim_end_matches('.').to_ascii_lowercase(),
        };
        for (pin, spec) in self.pins(&peer, at) {
            if self.holds(&spec, &shown) {
                continue;
            }
            let issued_by = x509_parser::parse_x509_certificate(end_entity)
                .map(|(_, leaf)| leaf.issuer().to_string().chars().take(200).collect());
            let violation = Violation {
                time: at,
                shown: crate::ca::fingerprint(end_entity),
                issued_by: issued_by.unwrap_or_default(),
            };
            tracing::warn!(
                peer,
                pin,
                shown = violation.shown,
                "a peer shows what is not pinned"
            );
            if let Some(pins) = &self.pins {
                pins.refuse(&pin, violation);
            }
            let why = format!(
                "{peer} shows a certificate that pin `{pin}` does not expect; if it should, `dvctl pin rotate {pin}`"
            );
            return Err(CertificateError::Other(rustls::OtherError(Arc::new(
                std::io::Error::other(why),
            )))
            .into());
        }
        Ok(good)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
