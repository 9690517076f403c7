//! Both servers of the measurement: ours, and axum with one static handler, behind TLS of the same kind.

use crate::{Client, Failure, machine};
use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use identity::{Ca, CaConfig};
use runtime::{Actor, Authority, Clock, CxBuilder, Op, Registry, Request, Surface, SystemClock};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::json;
use server::{Limits, Listeners, Server};
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

/// Both servers, running.
pub struct Stand {
    /// Where ours listens.
    pub ours: SocketAddr,
    /// Where the static one listens.
    pub theirs: SocketAddr,
    shown: Arc<RwLock<Bytes>>,
    connector: TlsConnector,
    stop: CancellationToken,
    serving: tokio::sync::Mutex<Vec<JoinHandle<()>>>,
    _dir: tempfile::TempDir,
}

impl Stand {
    /// Starts both, ours with so many objects.
    #[allow(clippy::disallowed_methods, reason = "the stand holds the handles")]
    pub async fn open(objects: usize) -> Result<Stand, Failure> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = Registry::new(&[
            runtime::SUBSYSTEMS,
            identity::SUBSYSTEMS,
            machine::SUBSYSTEMS,
        ])?;
        let cx = CxBuilder::new(registry, store::Memory::new())
            .build()
            .await?;
        identity::project::make_default(&cx).await?;
        // What is measured is how fast we are, not how often one user may ask.
        for known in runtime::limit::SETTINGS {
            let op = Op::Create {
                kind: "setting".into(),
                project: None,
                body: json!({ "metadata": { "name": known.name }, "spec": { "value": 100_000_000 } }),
            };
            cx.submit(op, "bench").await?;
        }
        for n in 0..objects {
            let op = Op::Create {
                kind: "machine".into(),
                project: Some("default".into()),
                body: machine::body(n),
            };
            let request = Request::new("fill", Actor::administrator("bench"), Surface::Inside, op);
            cx.desk().carry_out(cx.gate().admit(request)?).await?;
        }
        let dir = tempfile::tempdir()?;
        let ca = Ca::open(CaConfig {
            folder: dir.path().join("pki"),
            cluster: "bench".into(),
            names: vec!["localhost".into()],
            now: Arc::new(|| SystemClock.now()),
        })?;
        let mut listeners = Listeners::new();
        let ours = listeners.bind_https("127.0.0.1:0".parse()?).await?;
        let server = Server::builder(cx, ca.clone())
            .limits(Limits {
                drain: Duration::ZERO,
                head: Duration::from_secs(120),
                ..Limits::default()
            })
            .build()?;
        let stop = CancellationToken::new();
        let ending = stop.clone();
        let us = tokio::spawn(async move {
            if let Err(error) = server.serve(listeners, ending).await {
                eprintln!("our server: {error}");
            }
        });
        let shown = Arc::new(RwLock::new(Bytes::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let theirs = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(Arc::new(tls(&*ca)?));
        let them = tokio::spawn(fixed(listener, acceptor, shown.clone(), stop.clone()));
        Ok(Stand {
            ours,
            theirs,
            shown,
            connector: connector(&ca)?,
            stop,
            serving: tokio::sync::Mutex::new(vec![us, them]),
            _dir: dir,
        })
    }

    /// What the static handler returns from now on.
    pub fn show(&self, bytes: Vec<u8>) {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = bytes.into();
    }

    /// A connection as the administrator.
    pub async fn connect(&self, at: SocketAddr) -> Result<Client, Failure> {
        let stream = TcpStream::connect(at).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = self.connector.connect(name, stream).await?;
        Ok(Client::new(stream, String::new()))
    }

    /// Ends both.
    pub async fn close(&self) {
        self.stop.cancel();
        for one in self.serving.lock().await.drain(..) {
            let _ = one.await;
        }
    }
}

/// The same TLS as ours: 1.3, ring, a client certificate if there is one.
fn tls(ca: &dyn Authority) -> Result<rustls::ServerConfig, Failure> {
    let shown = ca.shown().borrow().clone();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(ca.ca().der))?;
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots))
        .allow_unauthenticated()
        .build()?;
    let chain = shown
        .chain
        .iter()
        .cloned()
        .map(CertificateDer::from)
        .collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(shown.key.clone()));
    Ok(rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?)
}

async fn fixed(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shown: Arc<RwLock<Bytes>>,
    stop: CancellationToken,
) {
    let router = Router::new()
        .route("/", axum::routing::get(answer))
        .with_state(shown);
    let mut open = JoinSet::new();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = stream else { continue };
        let (acceptor, router) = (acceptor.clone(), router.clone());
        open.spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = TowerToHyperService::new(router);
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = builder
                .http1_only()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(State(shown): State<Arc<RwLock<Bytes>>>) -> impl IntoResponse {
    let bytes = shown.read().unwrap_or_else(PoisonError::into_inner).clone();
    ([("content-type", "application/json")], bytes)
}

fn connector(ca: &Ca) -> Result<TlsConnector, Failure> {
    let key = rcgen::KeyPair::generate()?;
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)?
        .pem()?;
    let code = ca.make_code(&ca.account())?;
    let issued = ca.login(&code.code, &csr, None)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(ca.ca().der))?;
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(
                issued.certificate.as_bytes(),
            )?],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?,
        )?;
    Ok(TlsConnector::from(Arc::new(config)))
}
