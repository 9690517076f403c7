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
        let (dns, directory, http) = (port(), port(), port());
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
                "tlsPort": port(),
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
            ca: made.cert.pem(),
        })
    }

    /// A house with a registered account.
    async fn house(&self) -> House {
        let house = real().await;
        house
            .set_setting("acme-http-address", &format!("127.0.0.1:{}", self.http))
            .await;
        let spec = json!({
            "provider": "custom",
            "directory": format!("https://127.0.0.1:{}/dir", self.directory),
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
