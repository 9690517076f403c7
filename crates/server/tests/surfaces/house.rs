//! A whole server over real sockets: memory store, engine, internal CA, TLS, local socket, audit trail. Also used by
//! the tests of `dvctl`.

use crate::demo;
use identity::{Ca, CaConfig};
use reqwest::{Client, Method, RequestBuilder, Response};
use runtime::audit::{AuditTrail, FileTrail, Trail, TrailOptions};
use runtime::{Authority, Clock, Cx, CxBuilder, Engine, Place, Registry, Seal, SystemClock};
use serde_json::{Value, json};
use server::{Ended, Limits, Listeners, Server};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct House {
    pub cx: Cx,
    pub ca: Arc<Ca>,
    pub https: SocketAddr,
    pub grpc: SocketAddr,
    pub unix: PathBuf,
    /// PEM certificate and key of the administrator.
    pub identity: (String, String),
    pub client: Client,
    pub stop: CancellationToken,
    pub serving: JoinHandle<model::Result<Ended>>,
    pub trail: Arc<dyn Trail>,
    pub store: Arc<dyn store::Store>,
    _dir: tempfile::TempDir,
}

pub fn registry() -> Registry {
    Registry::new(&[runtime::SUBSYSTEMS, identity::SUBSYSTEMS, demo::SUBSYSTEMS]).unwrap()
}

/// Lifts the rate limits: most tests ask faster than any person.
pub async fn lift(cx: &Cx) {
    for known in runtime::limit::SETTINGS {
        rate(cx, known, 1_000_000).await;
    }
}

/// Sets a rate limit; in force within a second, and at once in a server that has not been asked yet.
pub async fn rate(cx: &Cx, known: &runtime::setting::Known, most: u32) {
    set(cx, known, json!(most)).await;
}

/// Sets a setting.
pub async fn set(cx: &Cx, known: &runtime::setting::Known, value: Value) {
    let target = model::ObjectRef {
        kind: "setting".into(),
        project: None,
        name: known.name.into(),
    };
    let op = runtime::Op::Update {
        target,
        body: json!({ "metadata": { "name": known.name }, "spec": { "value": value } }),
        create: true,
    };
    cx.submit(op, "test").await.unwrap();
}

/// Those of a machine that may be busy with something else for a while.
pub fn limits() -> Limits {
    Limits {
        ping: Duration::from_millis(200),
        drain: Duration::from_millis(200),
        complete: Duration::from_secs(2),
        ..Limits::default()
    }
}

/// Those that run out while a test looks on.
pub fn brisk() -> Limits {
    Limits {
        handshake: Duration::from_millis(500),
        head: Duration::from_millis(700),
        body: Duration::from_millis(700),
        ping: Duration::from_millis(200),
        pong: Duration::from_millis(600),
        drain: Duration::from_millis(200),
        complete: Duration::from_secs(2),
        ..Limits::default()
    }
}

impl House {
    pub async fn open() -> House {
        House::with(limits()).await
    }

    pub async fn with(limits: Limits) -> House {
        House::of(registry(), limits).await
    }

    /// With these kinds; what belongs to agents does not run.
    pub async fn of(registry: Registry, limits: Limits) -> House {
        House::over(registry, limits, store::Memory::new()).await
    }

    /// With limits for certain kinds.
    pub async fn with_part(part: Arc<runtime::limit::NamedRates>) -> House {
        House::made(registry(), limits(), store::Memory::new(), part).await
    }

    /// The same over this store.
    pub async fn over(registry: Registry, limits: Limits, store: Arc<dyn store::Store>) -> House {
        let none = Arc::new(runtime::limit::NamedRates(&[]));
        House::made(registry, limits, store, none).await
    }

    #[allow(clippy::disallowed_methods, reason = "the test holds the handle")]
    async fn made(
        registry: Registry,
        limits: Limits,
        store: Arc<dyn store::Store>,
        rates: Arc<runtime::limit::NamedRates>,
    ) -> House {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::Builder::new()
            .prefix("server-")
            .tempdir()
            .unwrap();
        let options = TrailOptions::new(
            &dir.path().join("audit"),
            &dir.path().join("keys"),
            Arc::new(Mirror),
        );
        let file = Arc::new(FileTrail::open(options).await.unwrap());
        let trail: Arc<dyn Trail> = file.clone();
        let (rules, access) = identity::access::parts();
        let people = identity::login::People::new();
        let ca = Ca::open(CaConfig {
            folder: dir.path().join("pki"),
            cluster: "test".into(),
            names: vec!["localhost".into(), "127.0.0.1".into()],
            now: Arc::new(|| SystemClock.now()),
        })
        .unwrap();
        let cx = CxBuilder::new(registry, store.clone())
            .part(ca.clone())
            .place(Place::Api)
            .seal(Arc::new(Mirror))
            .part(Arc::new(AuditTrail::new(trail.clone())))
            .part(rules.clone())
            .part(access)
            .part(identity::quota::part())
            .part(rates)
            .part(people.part())
            .part(file)
            .part(Arc::new(identity::realm::oidc::Providers::default()))
            .build()
            .await
            .unwrap();
        Engine::start(&cx);
        lift(&cx).await;
        identity::project::make_default(&cx).await.unwrap();
        runtime::audit::make(&cx).await.unwrap();
        identity::role::make_built_in(&cx).await.unwrap();
        identity::realm::make_local(&cx).await.unwrap();
        cx.life().spawn("access rules", rules.follow(cx.clone()));
        people.start(&cx, ca.clone());
        let identity = certificate(&ca);
        let mut listeners = Listeners::new();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let https = listeners.bind_https(any).await.unwrap();
        let grpc = listeners.bind_grpc(any).await.unwrap();
        let unix = dir.path().join("api.sock");
        listeners.bind_unix(&unix).await.unwrap();
        let server = Server::builder(cx.clone(), ca.clone())
            .limits(limits)
            .owner(nix::unistd::getuid().as_raw())
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(server.serve(listeners, stop.clone()));
        House {
            cx,
            client: client(&ca, Some(&identity)),
            ca,
            https,
            grpc,
            unix,
            identity,
            stop,
            serving,
            trail,
            store,
            _dir: dir,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.https)
    }

    pub fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        told(self.ask(Method::GET, path).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        told(
            self.ask(Method::POST, path)
                .json(&body)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// Makes a lamp; answers its revision.
    pub async fn lamp(&self, name: &str) -> String {
        let body = json!({ "metadata": { "name": name }, "spec": {} });
        let (status, lamp) = self.post("/api/v1/projects/default/lamps", body).await;
        assert_eq!(status, 201, "{lamp}");
        lamp["metadata"]["revision"].as_str().unwrap().to_owned()
    }

    /// Somebody without a certificate.
    pub fn stranger(&self) -> Client {
        client(&self.ca, None)
    }
}

pub async fn told(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let bytes = response.bytes().await.unwrap();
    let value = match bytes.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into_owned().into()),
    };
    (status, value)
}

/// A key and a request for it.
pub fn request() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    (csr.pem().unwrap(), key.serialize_pem())
}

pub fn certificate(ca: &Ca) -> (String, String) {
    let (csr, key) = request();
    let code = ca.make_code(&ca.account()).unwrap();
    (ca.login(&code.code, &csr, None).unwrap().certificate, key)
}

pub fn client(ca: &Ca, identity: Option<&(String, String)>) -> Client {
    let root = reqwest::Certificate::from_pem(ca.ca().pem.as_bytes()).unwrap();
    let mut builder = Client::builder()
        .tls_certs_only([root])
        .timeout(Duration::from_secs(20));
    if let Some((certificate, key)) = identity {
        let pem = format!("{certificate}{key}");
        builder = builder.identity(reqwest::Identity::from_pem(pem.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

/// Turns secrets round, so that a test sees whether they were sealed.
struct Mirror;

impl Seal for Mirror {
    fn seal(&self, _: &str, plain: &str) -> model::Result<String> {
        Ok(plain.chars().rev().collect())
    }
    fn open(&self, _: &str, sealed: &str) -> model::Result<String> {
        Ok(sealed.chars().rev().collect())
    }
}
