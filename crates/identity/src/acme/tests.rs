//! Against a real Pebble and a real BIND, and Cloudflare's answers as its documentation has them.

use super::dns;
use super::dns01::{Cloudflare, Record};
use super::rfc2136::Server;
use super::*;
use crate::certificate::State;
use crate::certificate::tests::{House, condition, fingerprint, is, real};
use base64::engine::general_purpose::STANDARD;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

const TSIG: [u8; 32] = [42; 32];

/// A provider and the name server that it asks.
struct World {
    dir: tempfile::TempDir,
    pebble: Child,
    _named: Child,
    dns: SocketAddr,
    directory: u16,
    http: u16,
    tls: u16,
    ca: String,
}

fn port() -> u16 {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}

fn run(program: &str, words: &[&str], folder: &Path) -> Option<Child> {
    let path = ["/usr/sbin", "/usr/bin"].map(|f| Path::new(f).join(program));
    let Some(path) = path.iter().find(|p| p.exists()) else {
        eprintln!("SKIPPED: {program} is not installed");
        return None;
    };
    let log = std::fs::File::create(folder.join(format!("{program}.log"))).unwrap();
    let child = Command::new(path)
        .args(words)
        .current_dir(folder)
        .env("PEBBLE_VA_NOSLEEP", "1")
        .env("PEBBLE_AUTHZREUSE", "0")
        // Left to itself it refuses one good nonce in twenty.
        .env("PEBBLE_WFE_NONCEREJECT", "0")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn();
    Some(child.unwrap())
}

async fn listens(port: u16, what: &str, folder: &Path) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .is_err()
    {
        let log = || std::fs::read_to_string(folder.join(format!("{what}.log")));
        assert!(
            tokio::time::Instant::now() < end,
            "{what} does not listen: {:?}",
            log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl World {
    async fn open() -> Option<World> {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_owned();
        let file = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
        let (dns, directory, http, tls) = (port(), port(), port(), port());
        file(
            "example.zone",
            "$TTL 60\n@ SOA ns.example.test. a.example.test. 1 60 60 60 60\n@ NS ns\nns A 127.0.0.1\n@ A 127.0.0.1\n* A 127.0.0.1\n".into(),
        );
        let here = folder.display();
        file(
            "named.conf",
            format!(
                "options {{ directory \"{here}\"; listen-on port {dns} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none; recursion no; dnssec-validation no; }};\n\
                 key \"acme.\" {{ algorithm hmac-sha256; secret \"{}\"; }};\n\
                 controls {{ }};\n\
                 zone \"example.test\" {{ type primary; file \"example.zone\"; allow-update {{ key acme.; }}; }};\n",
                STANDARD.encode(TSIG)
            ),
        );
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()])
            .unwrap();
        file("pebble.pem", made.cert.pem());
        file("pebble.key", made.signing_key.serialize_pem());
        file(
            "pebble.json",
            json!({ "pebble": {
                "listenAddress": format!("127.0.0.1:{directory}"),
                "managementListenAddress": format!("127.0.0.1:{}", port()),
                "certificate": folder.join("pebble.pem"),
                "privateKey": folder.join("pebble.key"),
                "httpPort": http,
                "tlsPort": tls,
                "ocspResponderURL": "",
                "externalAccountBindingRequired": false,
            } })
            .to_string(),
        );
        let named = run("named", &["-f", "-c", "named.conf", "-n", "1"], &folder)?;
        listens(dns, "named", &folder).await;
        let at = format!("127.0.0.1:{dns}");
        let pebble = run(
            "pebble",
            &["-config", "pebble.json", "-dnsserver", &at],
            &folder,
        )?;
        listens(directory, "pebble", &folder).await;
        Some(World {
            dir,
            pebble,
            _named: named,
            dns: at.parse().unwrap(),
            directory,
            http,
            tls,
            ca: made.cert.pem(),
        })
    }

    /// A house with a registered account.
    async fn house(&self) -> House {
        self.house_at(self.directory).await
    }

    /// With an account at the provider whose directory is there.
    async fn house_at(&self, directory: u16) -> House {
        self.account_in(real().await, directory).await
    }

    async fn account_in(&self, house: House, directory: u16) -> House {
        house
            .set_setting("acme-http-address", &format!("127.0.0.1:{}", self.http))
            .await;
        let spec = json!({
            "provider": "custom",
            "directory": format!("https://127.0.0.1:{directory}/dir"),
            "directory_ca": self.ca,
            "contact": ["admin@example.org"],
            "dns": {
                "provider": "rfc2136",
                "zone": "example.test",
                "server": self.dns.to_string(),
                "key_name": "acme.",
                "secret": STANDARD.encode(TSIG),
            },
        });
        let body = json!({ "metadata": { "name": "pebble" }, "spec": spec });
        house
            .ask(Op::Create {
                kind: KIND.name.into(),
                project: None,
                body,
            })
            .await
            .unwrap();
        // Nothing is sent before a person agrees.
        account(&house, |s| {
            s.conditions
                .iter()
                .any(|c| c.message.contains("terms of service"))
        })
        .await;
        let target = model::ObjectRef {
            kind: KIND.name.into(),
            project: None,
            name: "pebble".into(),
        };
        let body = json!({ "spec": { "terms_agreed": true } });
        house.ask(Op::Patch { target, body }).await.unwrap();
        account(&house, |s| s.state == AccountState::Ready).await;
        house
    }

    fn said(&self) -> String {
        let read =
            |name: &str| std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        format!("{}{}", read("pebble.log"), read("named.log"))
    }
}

async fn account(house: &House, so: impl Fn(&AcmeAccountStatus) -> bool) -> AcmeAccountStatus {
    let mut deltas = house.cx.cache().subscribe();
    let looking = async {
        loop {
            let found = house
                .cx
                .get::<AcmeAccount>(None, "pebble")
                .and_then(|a| a.status.clone());
            if let Some(status) = found.filter(|s| so(s)) {
                return status;
            }
            deltas.recv().await.unwrap();
        }
    };
    match tokio::time::timeout(Duration::from_secs(30), looking).await {
        Ok(found) => found,
        Err(_) => panic!(
            "never so: {:#?}",
            house
                .cx
                .get::<AcmeAccount>(None, "pebble")
                .map(|a| a.status.clone())
        ),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_01_is_ordered_shown_renewed_and_kept_when_the_provider_is_down() {
    let Some(mut world) = World::open().await else {
        return;
    };
    let house = world.house().await;
    let names = ["panel.example.test", "www.example.test"];
    house
        .create(
            "panel",
            json!({ "issuer": "acme", "account": "pebble", "names": names }),
        )
        .await
        .unwrap();
    let first = house
        .until("panel", |c| {
            is(c, State::Valid) || c.status.as_ref().is_some_and(|s| s.failures > 0)
        })
        .await;
    assert!(
        is(&first, State::Valid),
        "{:?} {}",
        condition(&first, "Renewed"),
        world.said()
    );
    let status = first.status.clone().unwrap();
    assert!(status.issued_by.contains("Pebble"), "{}", status.issued_by);
    assert_eq!(status.names, names);
    // Nobody listens once the order is done.
    assert!(
        tokio::net::TcpStream::connect(("127.0.0.1", world.http))
            .await
            .is_err()
    );
    house.set("panel").await;
    house
        .until("panel", |c| c.status.as_ref().is_some_and(|s| s.shown))
        .await;
    let shown = house.ca.panel().unwrap().chain.clone();
    house
        .act("certificate", "panel", "renew", json!({}))
        .await
        .unwrap();
    let second = house
        .until("panel", |c| {
            fingerprint(c) != status.fingerprint && c.status.as_ref().is_some_and(|s| s.shown)
        })
        .await;
    assert_ne!(house.ca.panel().unwrap().chain, shown);
    assert_ne!(second.spec.private_key, first.spec.private_key);

    // Its provider goes: the present one is kept and shown, and people read why and when it goes on.
    world.pebble.kill().await.unwrap();
    house
        .act("certificate", "panel", "renew", json!({}))
        .await
        .unwrap();
    let kept = house
        .until("panel", |c| {
            c.status.as_ref().is_some_and(|s| s.failures == 1)
        })
        .await;
    let told = condition(&kept, "Renewed").unwrap();
    assert!(
        told.starts_with("False Failed")
            && told.contains("provider is down")
            && told.contains("next try at"),
        "{told}"
    );
    assert!(is(&kept, State::Valid) && kept.spec.chain == second.spec.chain);
    assert!(house.ca.panel().is_some());
    let standings = house.cx.dependencies().standings();
    let provider = standings
        .iter()
        .find(|s| s.name == "ACME provider 127.0.0.1");
    assert!(provider.is_some_and(|s| s.failures > 0), "{standings:?}");
    assert_eq!(account(&house, |_| true).await.orders.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dns_01_proves_a_wildcard_and_leaves_no_record() {
    let Some(world) = World::open().await else {
        return;
    };
    let house = world.house().await;
    let wild = json!({ "issuer": "acme", "account": "pebble", "names": ["*.example.test"] });
    let error = house.create("wild", wild).await.map(|_| ()).unwrap_err();
    assert!(format!("{error:?}").contains("dns-01"), "{error:?}");
    let wild = json!({ "issuer": "acme", "account": "pebble", "challenge": "dns-01", "names": ["*.example.test", "example.test"] });
    house.create("wild", wild).await.unwrap();
    let made = house
        .until("wild", |c| {
            is(c, State::Valid) || c.status.as_ref().is_some_and(|s| s.failures > 0)
        })
        .await;
    assert!(
        is(&made, State::Valid),
        "{:?} {}",
        condition(&made, "Renewed"),
        world.said()
    );
    assert_eq!(
        made.status.as_ref().unwrap().names,
        ["*.example.test", "example.test"]
    );
    let zone = Command::new("dig")
        .args([
            "+short",
            "-p",
            &world.dns.port().to_string(),
            "@127.0.0.1",
            "TXT",
            "_acme-challenge.example.test",
        ])
        .output()
        .await;
    if let Ok(zone) = zone {
        assert_eq!(String::from_utf8_lossy(&zone.stdout), "");
    }
    // Revoked at the provider and here.
    house
        .act(
            "certificate",
            "wild",
            "revoke",
            json!({ "reason": "superseded" }),
        )
        .await
        .unwrap();
    house.until("wild", |c| is(c, State::Revoked)).await;
    // Five orders an hour and no more.
    for n in 0..5 {
        let before = house
            .cx
            .get::<crate::certificate::Certificate>(None, "wild")
            .map(|c| fingerprint(&c))
            .unwrap();
        house
            .act("certificate", "wild", "renew", json!({}))
            .await
            .unwrap();
        let after = house
            .until("wild", |c| {
                fingerprint(c) != before || c.status.as_ref().is_some_and(|s| s.failures > 0)
            })
            .await;
        let told = condition(&after, "Renewed").unwrap();
        assert_eq!(told.contains("5 orders were made"), n == 4, "{n}: {told}");
    }
}

#[tokio::test]
async fn a_name_server_refuses_a_wrong_key_and_names_outside() {
    let Some(world) = World::open().await else {
        return;
    };
    let server = |key: u8| Server {
        at: world.dns,
        zone: "example.test".into(),
        key_name: "acme.".into(),
        key: vec![key; 32],
    };
    let now = runtime::Clock::now(&runtime::SystemClock).millis() as u64 / 1000;
    let record = |name: &str| {
        [Record {
            name: name.into(),
            value: "value-1".into(),
        }]
    };
    let good = record("_acme-challenge.a.example.test");
    server(42).update(&good, true, now).await.unwrap();
    let shows = || dns::shows(world.dns, &good[0].name, &good[0].value);
    assert!(shows().await.unwrap());
    server(42).update(&good, false, now).await.unwrap();
    assert!(!shows().await.unwrap());
    for (key, name, time) in [
        (1, "a.example.test", now),
        (42, "a.example.org", now),
        (42, "a.example.test", now - 4000),
    ] {
        let error = server(key)
            .update(&record(name), true, time)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("did not update"), "{error}");
    }
}

/// Who stands in between and says "taken" is not believed: without a signature, with that of another answer, or changed.
#[tokio::test]
async fn an_answer_counts_only_with_the_signature_of_our_key() {
    let Some(world) = World::open().await else {
        return;
    };
    let between = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server {
        at: between.local_addr().unwrap(),
        zone: "example.test".into(),
        key_name: "acme.".into(),
        key: TSIG.to_vec(),
    };
    let behind = world.dns;
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move {
        let mut before = Vec::new();
        for round in 0..4 {
            let (mut stream, _) = between.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut asked = vec![0; usize::from(length)];
            stream.read_exact(&mut asked).await.unwrap();
            let mut answer = dns::ask(behind, &asked).await.unwrap();
            let fresh = answer.clone();
            match round {
                0 => {}
                1 => {
                    let at = dns::signature(&answer).unwrap().at;
                    answer.truncate(at);
                    answer[11] = 0;
                }
                2 => {
                    answer.clone_from(&before);
                    answer[..2].copy_from_slice(&asked[..2]);
                }
                _ => answer[2] ^= 0x04,
            }
            before = fresh;
            let mut framed = (answer.len() as u16).to_be_bytes().to_vec();
            framed.extend(answer);
            stream.write_all(&framed).await.unwrap();
        }
    });
    let now = runtime::Clock::now(&runtime::SystemClock).millis() as u64 / 1000;
    for (n, wanted) in [
        None,
        Some("does not sign"),
        Some("not of our key"),
        Some("not of our key"),
    ]
    .into_iter()
    .enumerate()
    {
        let record = [Record {
            name: format!("_acme-challenge.b{n}.example.test"),
            value: "value-1".into(),
        }];
        let said = server.update(&record, true, now).await;
        match (said, wanted) {
            (Ok(()), None) => {}
            (Err(error), Some(wanted)) if error.to_string().contains(wanted) => {}
            (other, wanted) => panic!("{n}: {other:?} {wanted:?}"),
        }
    }
}

/// What Cloudflare answers, in the order in which it is asked.
const CONTRACT: &[(&str, &str)] = &[
    (
        "GET /zones?name=example.test ",
        r#"{"success":true,"errors":[],"result":[{"id":"z1","name":"example.test","name_servers":["localhost"]}]}"#,
    ),
    (
        "GET /zones/z1/dns_records?type=TXT&name=_acme-challenge.example.test ",
        r#"{"success":true,"errors":[],"result":[]}"#,
    ),
    (
        "POST /zones/z1/dns_records ",
        r#"{"success":true,"errors":[],"result":{"id":"r1"}}"#,
    ),
    (
        "GET /zones?name=example.test ",
        r#"{"success":true,"errors":[],"result":[{"id":"z1","name":"example.test","name_servers":["localhost"]}]}"#,
    ),
    (
        "GET /zones/z1/dns_records?type=TXT&name=_acme-challenge.example.test ",
        r#"{"success":true,"errors":[],"result":[{"id":"r0","content":"\"other\""},{"id":"r1","content":"\"value-1\""}]}"#,
    ),
    (
        "DELETE /zones/z1/dns_records/r1 ",
        r#"{"success":true,"errors":[],"result":{"id":"r1"}}"#,
    ),
    (
        "GET /zones?name=example.test ",
        r#"{"success":false,"errors":[{"code":10000,"message":"Authentication error"}],"result":null}"#,
    ),
];

#[tokio::test]
async fn cloudflare_is_asked_as_its_contract_says() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move {
        for (wanted, answer) in CONTRACT {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 16 * 1024];
            let read = stream.read(&mut asked).await.unwrap();
            let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
            assert!(asked.starts_with(wanted), "wanted {wanted}, was asked {asked}");
            assert!(asked.to_lowercase().contains("authorization: bearer token-1"), "{asked}");
            let text = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}", answer.len());
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
    let dns = Dns {
        provider: DnsProvider::Cloudflare,
        zone: "example.test".into(),
        server: None,
        key_name: None,
        secret: Some("token-1".into()),
    };
    let house = real().await;
    let cloudflare = Cloudflare::new(&house.cx, &dns, &format!("http://{at}")).unwrap();
    let records = [Record {
        name: "_acme-challenge.example.test".into(),
        value: "value-1".into(),
    }];
    assert_eq!(cloudflare.publish(&records).await.unwrap(), ["localhost"]);
    cloudflare.withdraw(&records).await.unwrap();
    let error = cloudflare.publish(&records).await.unwrap_err();
    assert!(
        error.to_string().contains("Authentication error"),
        "{error}"
    );
    serving.join_next().await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_alpn_01_is_ordered_and_the_port_is_closed_again() {
    let Some(world) = World::open().await else {
        return;
    };
    let house = world.house().await;
    let at = format!("127.0.0.1:{}", world.tls);
    house.set_setting("acme-tls-address", &at).await;
    let wild = json!({ "issuer": "acme", "account": "pebble", "challenge": "tls-alpn-01", "names": ["*.example.test"] });
    let error = house.create("wild", wild).await.map(|_| ()).unwrap_err();
    assert!(format!("{error:?}").contains("dns-01"), "{error:?}");
    let spec = json!({ "issuer": "acme", "account": "pebble", "challenge": "tls-alpn-01", "names": ["alpn.example.test", "two.example.test"] });
    house.create("alpn", spec).await.unwrap();
    let made = house
        .until("alpn", |c| {
            is(c, State::Valid) || c.status.as_ref().is_some_and(|s| s.failures > 0)
        })
        .await;
    let said = condition(&made, "Renewed");
    assert!(is(&made, State::Valid), "{said:?} {}", world.said());
    let status = made.status.as_ref().unwrap();
    assert_eq!(status.names, ["alpn.example.test", "two.example.test"]);
    // No public log has promised anything, and nobody asks for it: its provider is not a public one.
    assert_eq!(status.logs, Some(0));
    // Nobody listens once the order is done.
    assert!(tokio::net::TcpStream::connect(&at).await.is_err());
    // Somebody else has the port: people are told, and what is there stays.
    let _taken = TcpListener::bind(&at).unwrap();
    house
        .act("certificate", "alpn", "renew", json!({}))
        .await
        .unwrap();
    let kept = house
        .until("alpn", |c| {
            c.status.as_ref().is_some_and(|s| s.failures == 1)
        })
        .await;
    let told = condition(&kept, "Renewed").unwrap();
    assert!(told.contains("cannot listen on 127.0.0.1"), "{told}");
    assert_eq!(kept.spec.chain, made.spec.chain);
}

/// What speaks of renewals (RFC 9773) before a Pebble that does not: the directory is Pebble's with one entry more, so
/// that orders go to Pebble itself.
struct Foresight {
    at: u16,
    /// Of which certificates it was asked.
    asked: Arc<parking_lot::Mutex<Vec<String>>>,
    _serving: tokio::task::JoinSet<()>,
}

impl Foresight {
    /// The first certificate that it is asked of is to be renewed at once, every other in 20 days.
    async fn open(world: &World) -> Foresight {
        use rustls_pki_types::pem::PemObject;
        let file = |name: &str| std::fs::read(world.dir.path().join(name)).unwrap();
        let chain =
            vec![rustls_pki_types::CertificateDer::from_pem_slice(&file("pebble.pem")).unwrap()];
        let key = rustls_pki_types::PrivateKeyDer::from_pem_slice(&file("pebble.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let house = real().await;
        let pebble = client::http(&house.cx, Some(&world.ca)).unwrap();
        let directory = format!("https://127.0.0.1:{}/dir", world.directory);
        let mut directory: Value = pebble
            .get(directory)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap().port();
        directory["renewalInfo"] = json!(format!("https://127.0.0.1:{at}/renewal"));
        let asked = Arc::new(parking_lot::Mutex::new(Vec::<String>::new()));
        let (mut serving, known) = (tokio::task::JoinSet::new(), asked.clone());
        serving.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = tls.accept(stream).await else {
                    continue;
                };
                let mut head = vec![0; 16 * 1024];
                let read = stream.read(&mut head).await.unwrap_or(0);
                let head = String::from_utf8_lossy(&head[..read]).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default();
                let body = match path.strip_prefix("/renewal/") {
                    None => directory.clone(),
                    Some(id) => {
                        let mut known = known.lock();
                        known.push(id.to_owned());
                        let now = runtime::Clock::now(&runtime::SystemClock);
                        let day = |n: i64| model::Timestamp::from_millis(now.millis() + n * 86_400_000);
                        let (from, to) = if id == known[0] { (day(-2), day(-1)) } else { (day(20), day(21)) };
                        json!({ "suggestedWindow": { "start": from, "end": to }, "explanationURL": "https://ca.example/why" })
                    }
                }
                .to_string();
                let text = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nretry-after: 21600\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                _ = stream.write_all(text.as_bytes()).await;
                _ = stream.shutdown().await;
            }
        });
        Foresight {
            at,
            asked,
            _serving: serving,
        }
    }
}

/// The end of what was asked for.
async fn outcome(house: &House, name: &str, verb: &str, params: Value) -> Value {
    let runtime::Answer::Accepted { task } =
        house.act("certificate", name, verb, params).await.unwrap()
    else {
        panic!("no task");
    };
    let task: Value = serde_json::from_slice(&task).unwrap();
    let task = task["metadata"]["name"].as_str().unwrap().to_owned();
    let mut deltas = house.cx.cache().subscribe();
    let ended = async {
        loop {
            let found = house.cx.get::<Task>(None, &task);
            if let Some(task) = found.filter(|task| ended(task)) {
                return serde_json::to_value(task.status.as_ref().unwrap()).unwrap();
            }
            deltas.recv().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_provider_says_when_to_renew_and_order_heeds_it() {
    let Some(world) = World::open().await else {
        return;
    };
    let ahead = Foresight::open(&world).await;
    let house = world.house_at(ahead.at).await;
    let spec = json!({ "issuer": "acme", "account": "pebble", "names": ["early.example.test"] });
    house.create("early", spec).await.unwrap();
    let first = house.until("early", |c| c.spec.chain.is_some()).await;
    // Its end is years away, and it is renewed all the same, because its provider wants that.
    let begun = runtime::Clock::now(&runtime::SystemClock);
    let second = house
        .until("early", |c| {
            let suggested = c.status.as_ref().and_then(|s| s.suggested);
            c.spec.chain != first.spec.chain && suggested.is_some_and(|at| at > begun)
        })
        .await;
    let status = second.status.as_ref().unwrap();
    let now = runtime::Clock::now(&runtime::SystemClock);
    let day = |n: u64| now.plus(Duration::from_secs(n * 86_400));
    let at = status.suggested.unwrap();
    assert!(at > day(19) && at < day(21), "{at}");
    assert!(
        status.not_after.unwrap() > day(30),
        "the rule alone would wait longer"
    );
    assert_eq!(status.explained.as_deref(), Some("https://ca.example/why"));
    // It is asked again when it wants to be: after six hours.
    let again = status.ask_again.unwrap().since(now);
    assert!(
        again > Duration::from_secs(5 * 3600) && again < Duration::from_secs(7 * 3600),
        "{again:?}"
    );
    let asked = ahead.asked.lock().clone();
    let name = |c: &Obj<crate::certificate::Certificate>| {
        renewal::identifier(c.spec.chain.as_deref().unwrap())
            .unwrap()
            .to_string()
    };
    assert_eq!(asked, [name(&first), name(&second)]);

    // An order that is not due is none, unless it is wanted in any case.
    let said = outcome(&house, "early", "order", json!({})).await;
    assert_eq!(said["result"]["ordered"], false, "{said}");
    let said = outcome(&house, "early", "order", json!({ "force": true })).await;
    assert_eq!(
        (&said["result"]["ordered"], &said["state"]),
        (&json!(true), &json!("succeeded")),
        "{said}"
    );
    house
        .until("early", |c| c.spec.chain != second.spec.chain)
        .await;
    assert_eq!(account(&house, |_| true).await.orders.len(), 3);
    let spec = json!({ "names": ["in.example.test"] });
    house.create("inside", spec).await.unwrap();
    house.until("inside", |c| is(c, State::Valid)).await;
    let said = outcome(&house, "inside", "order", json!({})).await;
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .contains("not of a public CA"),
        "{said}"
    );
}

impl World {
    /// Sets how TXT records are made from now on.
    async fn dns(&self, house: &House, provider: &str, secret: Option<&str>) {
        let target = model::ObjectRef {
            kind: KIND.name.into(),
            project: None,
            name: "pebble".into(),
        };
        let dns = json!({ "provider": provider, "zone": "example.test", "server": self.dns.to_string(), "key_name": null, "secret": secret });
        let body = json!({ "spec": { "dns": dns } });
        house.ask(Op::Patch { target, body }).await.unwrap();
    }

    fn zone(&self) -> Server {
        Server {
            at: self.dns,
            zone: "example.test".into(),
            key_name: "acme.".into(),
            key: TSIG.to_vec(),
        }
    }
}

/// A person reads in the conditions which record is wanted, and makes it; or says that it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_waits_for_a_person_and_goes_on_when_the_record_is_seen_or_by_a_word() {
    let Some(world) = World::open().await else {
        return;
    };
    let house = world.house().await;
    world.dns(&house, "manual", None).await;
    let now = runtime::Clock::now(&runtime::SystemClock).millis() as u64 / 1000;
    for (name, by_word) in [("seen", false), ("told", true)] {
        let spec = json!({ "issuer": "acme", "account": "pebble", "challenge": "dns-01", "names": [format!("{name}.example.test")] });
        house.create(name, spec).await.unwrap();
        let waits = house
            .until(name, |c| condition(c, "Waiting").is_some())
            .await;
        let told = condition(&waits, "Waiting").unwrap();
        assert!(
            told.contains(&format!("dvctl certificate proceed {name}")),
            "{told}"
        );
        let record = Record {
            name: format!("_acme-challenge.{name}.example.test"),
            value: told.split('"').nth(1).unwrap().to_owned(),
        };
        if by_word {
            // The order is not believed: nothing was made. What counts is that it has gone on.
            let said = outcome(&house, name, "proceed", json!({})).await;
            assert_eq!(said["state"], "succeeded", "{said}");
            let failed = house
                .until(name, |c| c.status.as_ref().is_some_and(|s| s.failures > 0))
                .await;
            let told = condition(&failed, "Renewed").unwrap();
            assert!(told.contains("No TXT records found"), "{told}");
            continue;
        }
        world
            .zone()
            .update(std::slice::from_ref(&record), true, now)
            .await
            .unwrap();
        let made = house
            .until(name, |c| {
                is(c, State::Valid) && condition(c, "Waiting").is_none()
            })
            .await;
        assert!(made.status.as_ref().unwrap().issued_by.contains("Pebble"));
        // What a person has made is his to take away.
        assert!(
            dns::shows(world.dns, &record.name, &record.value)
                .await
                .unwrap()
        );
        let said = outcome(&house, name, "proceed", json!({})).await;
        assert!(
            said["message"]
                .as_str()
                .unwrap()
                .contains("waits for a person"),
            "{said}"
        );
    }
}

/// A real program, which does what it is told by nsupdate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_makes_the_records_and_takes_them_away() {
    use std::os::unix::fs::PermissionsExt;
    if !Path::new("/usr/bin/nsupdate").exists() || !Path::new("/usr/bin/python3").exists() {
        eprintln!("SKIPPED: nsupdate or python3 is not installed");
        return;
    }
    let Some(world) = World::open().await else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (program, log) = (folder.path().join("hook"), folder.path().join("log"));
    let text = format!(
        r#"#!/usr/bin/python3
import json, subprocess, sys
asked = json.load(sys.stdin)
open({log:?}, "a").write(" ".join(sys.argv[1:]) + "\n")
if asked["secret"] != "open sesame":
    sys.exit("I was given " + asked["secret"])
lines = ["server 127.0.0.1 {port}", "zone " + asked["zone"], "key hmac-sha256:acme. {key}"]
for r in asked["records"]:
    if asked["wish"] == "make":
        lines.append('update add %s. %d TXT "%s"' % (r["name"], r["ttl"], r["value"]))
    else:
        lines.append('update delete %s. TXT "%s"' % (r["name"], r["value"]))
lines.append("send")
subprocess.run(["/usr/bin/nsupdate"], input="\n".join(lines) + "\n", text=True, check=True)
"#,
        log = log.display().to_string(),
        port = world.dns.port(),
        key = STANDARD.encode(TSIG),
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let house = crate::certificate::tests::with_hook(Hook(Some(program.clone()))).await;
    let house = world.account_in(house, world.directory).await;
    world.dns(&house, "hook", Some("open sesame")).await;
    let spec = json!({ "issuer": "acme", "account": "pebble", "challenge": "dns-01", "names": ["*.example.test"] });
    house.create("wild", spec.clone()).await.unwrap();
    let made = house
        .until("wild", |c| {
            is(c, State::Valid) || c.status.as_ref().is_some_and(|s| s.failures > 0)
        })
        .await;
    let said = condition(&made, "Renewed");
    assert!(is(&made, State::Valid), "{said:?} {}", world.said());
    // As its arguments it has had the verb alone.
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "make\nremove\n");
    // What it says when it fails is told, but for what it was entrusted with.
    world.dns(&house, "hook", Some("wrong word")).await;
    house.create("other", spec.clone()).await.unwrap();
    let failed = house
        .until("other", |c| {
            c.status.as_ref().is_some_and(|s| s.failures > 0)
        })
        .await;
    let told = condition(&failed, "Renewed").unwrap();
    assert!(
        told.contains("I was given ***") && !told.contains("wrong word"),
        "{told}"
    );
    // One that others can change is not started.
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o777)).unwrap();
    house.create("third", spec).await.unwrap();
    let failed = house
        .until("third", |c| {
            c.status.as_ref().is_some_and(|s| s.failures > 0)
        })
        .await;
    let told = condition(&failed, "Renewed").unwrap();
    assert!(told.contains("others than root may change"), "{told}");
}

/// The name of the example in RFC 9773 4.1.
#[test]
fn a_provider_knows_a_certificate_by_its_key_and_number() {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::default();
    let id = hex::decode("69885b6b87464041e1b37b847ba0ae2cde01c8d4").unwrap();
    authority.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(id);
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::Issuer::new(authority, key);
    let mut leaf = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
    leaf.serial_number = Some(rcgen::SerialNumber::from_slice(&[0x87, 0x65, 0x43, 0x21]));
    leaf.use_authority_key_identifier_extension = true;
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = leaf.signed_by(&key, &issuer).unwrap().pem();
    let id = renewal::identifier(&pem).unwrap();
    assert_eq!(id.to_string(), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
}
