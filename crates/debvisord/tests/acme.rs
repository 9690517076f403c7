//! A certificate by ACME from the order to the port: the real daemon, a real Pebble and a real BIND. Somebody keeps asking
//! while the panel changes what it shows, and loses neither a request nor a connection; a provider that is down costs
//! nothing but a condition.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use host::process::Run;
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;

const DAEMON: &str = env!("CARGO_BIN_EXE_debvisord");
const PATIENCE: Duration = Duration::from_secs(120);
const NAME: &str = "panel.example.test";

/// One request and its answer, on a connection that may go on.
async fn talk(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    method: &str,
    path: &str,
    body: &Value,
) -> std::io::Result<(u16, Value)> {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let sort = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: {sort}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::new();
    let torn = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let head = loop {
        if let Some(at) = read.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(torn());
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).to_lowercase();
    let status = text.split(' ').nth(1).and_then(|s| s.parse().ok());
    let length = text.split("content-length: ").nth(1);
    let length = length.and_then(|l| l.split("\r\n").next()?.parse::<usize>().ok());
    let (Some(status), Some(length)) = (status, length) else {
        panic!("not an answer: {text}");
    };
    while read.len() < head + length {
        if stream.read_buf(&mut read).await? == 0 {
            return Err(torn());
        }
    }
    let body = serde_json::from_slice(&read[head..]).unwrap_or(Value::Null);
    Ok((status, body))
}

struct Daemon {
    socket: PathBuf,
    https: SocketAddr,
}

impl Daemon {
    async fn ask(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut stream = UnixStream::connect(&self.socket).await.unwrap();
        let path = format!("/api/v1/{path}");
        talk(&mut stream, method, &path, &body).await.unwrap()
    }

    async fn done(&self, method: &str, path: &str, body: Value) {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.ask(method, path, body.clone()).await {
                (200..=299, _) => return,
                // What came before has not let go yet.
                (409, said) if said["code"] == "BUSY" && Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => panic!("{method} {path}: {other:?}"),
            }
        }
    }

    async fn until(&self, path: &str, so: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let (_, found) = self.ask("GET", path, Value::Null).await;
            if so(&found) {
                return found;
            }
            assert!(Instant::now() < end, "{path} never was so: {found:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Connects as a browser does; answers the fingerprintable leaf, too.
    async fn browse(&self) -> std::io::Result<(TlsStream<TcpStream>, Vec<u8>)> {
        let tcp = TcpStream::connect(self.https).await?;
        let name = rustls::pki_types::ServerName::try_from(NAME).unwrap();
        let stream = TlsConnector::from(Arc::new(anything()))
            .connect(name, tcp)
            .await?;
        let shown = stream.get_ref().1.peer_certificates();
        let leaf = shown.and_then(|c| c.first()).map(|c| c.to_vec());
        Ok((stream, leaf.unwrap_or_default()))
    }
}

/// Takes whatever is shown: which certificate it is, the test looks at.
#[derive(Debug)]
struct Anything(Arc<rustls::crypto::CryptoProvider>);

fn anything() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything(provider)))
        .with_no_client_auth()
}

impl rustls::client::danger::ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

async fn listens(port: u16, what: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(Instant::now() < end, "{what} does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A key for updates, base 64.
const TSIG: &str = "KioqKioqKioqKioqKioqKioqKioqKioqKioqKioqKio=";

/// Pebble and the name server that it asks; what is dropped ends.
struct Provider {
    pebble: JoinSet<()>,
    _named: JoinSet<()>,
    directory: u16,
    http: u16,
    dns: u16,
    ca: String,
}

fn begin(program: &Path, words: &[&str], folder: &Path) -> JoinSet<()> {
    // `env --chdir`, as the two read files beside them.
    let mut run = Run::new("env").args(["--chdir", &folder.display().to_string()]);
    // Left to itself it refuses one good nonce in twenty.
    run = run.args([
        "PEBBLE_VA_NOSLEEP=1",
        "PEBBLE_AUTHZREUSE=0",
        "PEBBLE_WFE_NONCEREJECT=0",
    ]);
    let run = run.args([program.display().to_string()]);
    let run = run
        .args(words.iter().copied())
        .timeout(Duration::from_secs(600));
    let mut running = JoinSet::new();
    running.spawn(async move { drop(run.output().await) });
    running
}

impl Provider {
    async fn open(folder: &Path) -> Option<Provider> {
        let find = |program: &str| {
            let found = ["/usr/sbin", "/usr/bin"].map(|f| Path::new(f).join(program));
            let found = found.into_iter().find(|p| p.exists());
            if found.is_none() {
                eprintln!("SKIPPED: {program} is not installed");
            }
            found
        };
        let (named, pebble) = (find("named")?, find("pebble")?);
        let (dns, directory, http) = (free(), free(), free());
        let file = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        file(
            "zone",
            "$TTL 60\n@ SOA ns.example.test. a.example.test. 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\n@ A 127.0.0.1\n* A 127.0.0.1\n",
        );
        let here = folder.display();
        file(
            "named.conf",
            &format!(
                "options {{ directory \"{here}\"; listen-on port {dns} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none; recursion no; dnssec-validation no; }};\n\
                 key \"acme.\" {{ algorithm hmac-sha256; secret \"{TSIG}\"; }};\ncontrols {{ }};\n\
                 zone \"example.test\" {{ type primary; file \"zone\"; allow-update {{ key acme.; }}; }};\n"
            ),
        );
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
        file("pebble.pem", &made.cert.pem());
        file("pebble.key", &made.signing_key.serialize_pem());
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{directory}"),
            "managementListenAddress": format!("127.0.0.1:{}", free()),
            "certificate": folder.join("pebble.pem"),
            "privateKey": folder.join("pebble.key"),
            "httpPort": http,
            "tlsPort": free(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        } });
        file("pebble.json", &config.to_string());
        let named = begin(&named, &["-f", "-c", "named.conf", "-n", "1"], folder);
        listens(dns, "named").await;
        let at = format!("127.0.0.1:{dns}");
        let words = ["-config", "pebble.json", "-dnsserver", &at];
        let pebble = begin(&pebble, &words, folder);
        listens(directory, "pebble").await;
        Some(Provider {
            pebble,
            _named: named,
            directory,
            http,
            dns,
            ca: made.cert.pem(),
        })
    }
}

fn is_good(certificate: &Value) -> bool {
    assert_eq!(
        certificate["status"]["failures"].as_u64().unwrap_or(0),
        0,
        "{certificate:#}"
    );
    certificate["status"]["state"] == "valid"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_ordered_shown_renewed_and_kept_and_nobody_loses_a_request() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let Some(mut provider) = Provider::open(folder.path()).await else {
        return;
    };
    let run = tempfile::Builder::new()
        .prefix("dv-")
        .tempdir_in("/run")
        .unwrap();
    let config = folder.path().join("debvisord.toml");
    let text = format!(
        "instance = \"acme-{}\"\nstate_dir = \"{1}/state\"\nrun_dir = \"{2}\"\ncache_dir = \"{1}/cache\"\n\
         [node]\nname = \"here\"\n[listen]\nhttps = \"127.0.0.1:0\"\ngrpc = \"127.0.0.1:0\"\n",
        std::process::id(),
        folder.path().display(),
        run.path().display(),
    );
    std::fs::write(&config, text).unwrap();
    let api = Run::new(DAEMON).args(["--role", "api", "--config", &config.display().to_string()]);
    let mut daemons = JoinSet::new();
    daemons.spawn(async move { api.timeout(Duration::from_secs(600)).output().await });
    let end = Instant::now() + PATIENCE;
    let https = loop {
        let noted = std::fs::read_to_string(run.path().join("https.address"));
        if let (Ok(noted), true) = (noted, run.path().join("api.sock").exists()) {
            break noted.trim().parse().unwrap();
        }
        assert!(Instant::now() < end, "the api does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let daemon = Arc::new(Daemon {
        socket: run.path().join("api.sock"),
        https,
    });
    daemon
        .until("settings/acme-http-address", |o| o["spec"].is_object())
        .await;
    // Strangers may ask a hundred times a minute; ours ask all the time.
    let most = json!({ "spec": { "value": 1_000_000 } });
    daemon.done("PATCH", "settings/limit-anonymous", most).await;

    // Two who ask all the time: one anew for each request, one over the connection that he has.
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut asking = JoinSet::new();
    for keeps in [false, true] {
        let (daemon, stop, asked) = (daemon.clone(), stop.clone(), asked.clone());
        asking.spawn(async move {
            let mut open = daemon.browse().await.unwrap().0;
            while !stop.load(Ordering::Relaxed) {
                if !keeps {
                    open = daemon.browse().await.unwrap().0;
                }
                let said = talk(&mut open, "GET", "/health/live", &Value::Null).await;
                assert_eq!(said.unwrap().0, 200);
                asked.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
        });
    }

    let at = json!({ "spec": { "value": format!("127.0.0.1:{}", provider.http) } });
    daemon.done("PATCH", "settings/acme-http-address", at).await;
    let account = json!({ "metadata": { "name": "pebble" }, "spec": {
        "provider": "custom",
        "directory": format!("https://127.0.0.1:{}/dir", provider.directory),
        "directory_ca": provider.ca,
        "contact": ["admin@example.org"],
        "terms_agreed": true,
        "dns": { "provider": "rfc2136", "zone": "example.test", "server": format!("127.0.0.1:{}", provider.dns), "key_name": "acme.", "secret": TSIG },
    } });
    daemon.done("POST", "acme-accounts", account).await;
    daemon
        .until("acme-accounts/pebble", |o| o["status"]["state"] == "ready")
        .await;
    for (name, challenge, names) in [
        ("panel", "http-01", json!([NAME])),
        ("wild", "dns-01", json!(["*.example.test", "example.test"])),
    ] {
        let wanted = json!({ "metadata": { "name": name }, "spec": {
            "issuer": "acme", "account": "pebble", "challenge": challenge, "names": names } });
        daemon.done("POST", "certificates", wanted).await;
    }
    for path in ["certificates/panel", "certificates/wild"] {
        let made = daemon.until(path, is_good).await;
        let by = made["status"]["issued_by"].as_str().unwrap();
        assert!(by.contains("Pebble"), "{by}");
    }
    let internal = daemon.browse().await.unwrap().1;

    // Shown, renewed, and the other one shown: each time on the next connection.
    let mut before = internal;
    for turn in ["panel", "renewed", "wild"] {
        match turn {
            "renewed" => {
                daemon
                    .done("POST", "certificates/panel/actions/renew", json!({}))
                    .await
            }
            name => {
                let value = json!({ "spec": { "value": name } });
                daemon
                    .done("PATCH", "settings/tls-certificate", value)
                    .await;
            }
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let (_, now) = daemon.browse().await.unwrap();
            if now != before {
                before = now;
                break;
            }
            assert!(Instant::now() < end, "{turn} is not shown");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let reached = asked.load(Ordering::Relaxed) + 20;
        while asked.load(Ordering::Relaxed) < reached {
            // Who asks may have failed, and then this would wait for ever.
            assert!(asking.len() == 2 && asking.try_join_next().is_none());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    // The provider goes: the certificate stays and is shown, and people read why and when it goes on.
    provider.pebble.shutdown().await;
    let kept = daemon.until("certificates/wild", |_| true).await;
    daemon
        .done("POST", "certificates/wild/actions/renew", json!({}))
        .await;
    let told = daemon
        .until("certificates/wild", |o| o["status"]["failures"] == 1)
        .await;
    let conditions = told["status"]["conditions"].as_array().unwrap();
    let renewed = conditions.iter().find(|c| c["type"] == "Renewed").unwrap();
    let message = renewed["message"].as_str().unwrap();
    assert!(
        message.contains("provider is down") && message.contains("next try at"),
        "{message}"
    );
    assert_eq!(told["spec"]["chain"], kept["spec"]["chain"]);
    assert!(told["status"]["next_try"].is_string(), "{told:#}");
    assert_eq!(daemon.browse().await.unwrap().1, before);
    let mut metrics = UnixStream::connect(&daemon.socket).await.unwrap();
    let (status, detail) = talk(&mut metrics, "GET", "/health/detail", &Value::Null)
        .await
        .unwrap();
    assert!(
        detail.to_string().contains("ACME provider 127.0.0.1"),
        "{status} {detail:#}"
    );

    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = asking.join_next().await {
        ended.unwrap();
    }
    daemons.shutdown().await;
}
