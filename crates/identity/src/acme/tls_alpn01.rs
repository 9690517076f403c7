//! Answers tls-alpn-01 (RFC 8737): a listener that is there while an order is validated, speaks `acme-tls/1` only, and shows
//! for each name a certificate that holds the proof and nothing else.

use model::{Error, Result};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The protocol, as ALPN names it.
const PROTOCOL: &[u8] = b"acme-tls/1";
/// One order at a time has the port.
static PORT: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// Connections at once.
const MOST: usize = 64;
const PATIENCE: Duration = Duration::from_secs(5);

/// The listener; closed when dropped.
pub(super) struct Listener {
    _tasks: JoinSet<()>,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// What is shown for each name.
struct Proofs(HashMap<String, Arc<CertifiedKey>>);

impl std::fmt::Debug for Proofs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Proofs")
    }
}

impl ResolvesServerCert for Proofs {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let mut offered = hello.alpn()?;
        offered.any(|name| name == PROTOCOL).then_some(())?;
        let name = hello.server_name()?.to_ascii_lowercase();
        self.0.get(&name).cloned()
    }
}

/// A certificate for one name with the proof in it.
fn proof(name: &str, answer: &str) -> Result<Arc<CertifiedKey>> {
    let failed =
        |e: rcgen::Error| Error::internal("cannot make a proof for tls-alpn-01").because(e);
    let key = KeyPair::generate().map_err(failed)?;
    let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    let hash = digest(&SHA256, answer.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(hash.as_ref())];
    let made = params.self_signed(&key).map_err(failed)?;
    let key = PrivateKeyDer::try_from(key.serialize_der())
        .map_err(|e| Error::internal(format!("cannot read back a key: {e}")))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key)
        .map_err(|e| Error::internal("cannot use a key that was just made").because(e))?;
    Ok(Arc::new(CertifiedKey::new(vec![made.der().clone()], key)))
}

/// Listens and shows the proofs: by name, the key authorization.
pub(super) async fn open(at: &str, answers: &HashMap<String, String>) -> Result<Listener> {
    let turn = PORT.lock().await;
    let parsed: SocketAddr = at.parse().map_err(|_| {
        Error::refused(format!(
            "the setting acme-tls-address `{at}` is not an address and a port"
        ))
    })?;
    let mut proofs = HashMap::new();
    for (name, answer) in answers {
        proofs.insert(name.to_ascii_lowercase(), proof(name, answer)?);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::internal("cannot set TLS up").because(e))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Proofs(proofs)));
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let listener = TcpListener::bind(parsed).await.map_err(|e| {
        Error::unavailable(format!("cannot listen on {at} for tls-alpn-01: {e}")).hint(
            "another server may have port 443: use http-01 or dns-01, or forward the port and set acme-tls-address",
        )
    })?;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(
        listener,
        tokio_rustls::TlsAcceptor::from(Arc::new(config)),
    ));
    Ok(Listener {
        _tasks: tasks,
        _turn: turn,
    })
}

async fn serve(listener: TcpListener, tls: tokio_rustls::TlsAcceptor) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut open = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let tls = tls.clone();
                open.spawn(async move {
                    // The handshake is all that there is.
                    let shaken = tokio::time::timeout(PATIENCE, tls.accept(stream)).await;
                    if let Ok(Ok(mut stream)) = shaken {
                        let end = tokio::io::AsyncWriteExt::shutdown(&mut stream);
                        _ = tokio::time::timeout(PATIENCE, end).await;
                    }
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        while open.try_join_next().is_some() {}
    }
}
