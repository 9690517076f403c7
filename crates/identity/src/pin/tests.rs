//! Against a real TLS server whose certificate changes.

use super::*;
use crate::certificate::tests::{House, real};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use runtime::Op;
use serde_json::json;
use sha2::{Digest, Sha256, Sha512};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

struct Authority {
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let made = params.self_signed(&key).unwrap();
    Authority {
        pem: made.pem(),
        der: made.der().to_vec(),
        issuer: Issuer::new(params, key),
    }
}

/// A leaf, its key, and what is shown after it.
struct Leaf {
    der: Vec<u8>,
    key: KeyPair,
    after: Vec<Vec<u8>>,
}

fn leaf(by: &Authority) -> Leaf {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let made = params.signed_by(&key, &by.issuer).unwrap();
    Leaf {
        der: made.der().to_vec(),
        key,
        after: vec![by.der.clone()],
    }
}

/// Answers one request with this leaf.
async fn serve(leaf: &Leaf) -> (SocketAddr, JoinSet<()>) {
    let chain = std::iter::once(&leaf.der).chain(&leaf.after);
    let chain = chain.map(|der| der.clone().into()).collect();
    let key = rustls_pki_types::PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = tls.accept(stream).await else {
                continue;
            };
            let mut read = [0; 4096];
            _ = stream.read(&mut read).await;
            _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                .await;
            _ = stream.shutdown().await;
        }
    });
    (at, serving)
}

async fn calls(house: &House, trust: &Trust, leaf: &Leaf) -> std::result::Result<(), String> {
    let (at, _serving) = serve(leaf).await;
    let client = http(&house.cx, trust).unwrap().build().unwrap();
    match client.get(format!("https://{at}/")).send().await {
        Ok(answer) => {
            assert_eq!(answer.status(), 200);
            Ok(())
        }
        Err(error) => Err(format!("{error:?}")),
    }
}

async fn pin(house: &House, name: &str, spec: Value) -> Result<()> {
    let body = json!({ "metadata": { "name": name }, "spec": spec });
    let op = Op::Create {
        kind: KIND.name.into(),
        project: None,
        body,
    };
    house.ask(op).await.map(|_| ())
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn public(leaf: &Leaf) -> Vec<u8> {
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.der).unwrap();
    parsed.public_key().raw.to_vec()
}

#[tokio::test]
async fn another_certificate_that_is_well_signed_is_refused_unless_it_is_a_backup() {
    let house = real().await;
    let (one, other) = (authority("one"), authority("other"));
    let trust = Trust::Only(format!("{}{}", one.pem, other.pem));
    let (first, second, third) = (leaf(&one), leaf(&one), leaf(&other));
    // Nothing is pinned: all are good. Who is not trusted is refused all the same.
    for leaf in [&first, &second, &third] {
        calls(&house, &trust, leaf).await.unwrap();
    }
    assert!(
        calls(&house, &Trust::Only(one.pem.clone()), &third)
            .await
            .is_err()
    );
    pin(&house, "key", json!({ "peer": "127.0.0.1", "primary": hash(&public(&first)), "backups": [hash(&public(&second))] }))
        .await
        .unwrap();
    calls(&house, &trust, &first).await.unwrap();
    calls(&house, &trust, &second).await.unwrap();
    let error = calls(&house, &trust, &third).await.unwrap_err();
    assert!(error.contains("pin `key` does not expect"), "{error}");
    // Rotated, the new one is expected, and the one before is a backup.
    house
        .act(
            KIND.name,
            "key",
            "rotate",
            json!({ "primary": hash(&public(&third)) }),
        )
        .await
        .unwrap();
    calls(&house, &trust, &third).await.unwrap();
    calls(&house, &trust, &first).await.unwrap();
}

#[tokio::test]
async fn a_ca_counts_only_when_the_certificate_leads_to_it() {
    let house = real().await;
    let (one, other) = (authority("one"), authority("other"));
    let trust = Trust::Only(format!("{}{}", one.pem, other.pem));
    let sha512 = hex::encode(Sha512::digest(&one.der));
    pin(
        &house,
        "ca",
        json!({ "peer": "127.0.0.1", "type": "ca", "algorithm": "sha512", "primary": sha512 }),
    )
    .await
    .unwrap();
    let mut good = leaf(&one);
    calls(&house, &trust, &good).await.unwrap();
    // A root need not be shown when it was given as text.
    good.after.clear();
    calls(&house, &trust, &good).await.unwrap();
    let mut bad = leaf(&other);
    assert!(calls(&house, &trust, &bad).await.is_err());
    bad.after.push(one.der.clone());
    assert!(
        calls(&house, &trust, &bad).await.is_err(),
        "it merely lies beside"
    );
}

#[tokio::test]
async fn people_are_told_and_a_pin_ends() {
    let house = real().await;
    let ca = authority("one");
    let trust = Trust::Only(ca.pem.clone());
    let first = leaf(&ca);
    pin(
        &house,
        "leaf",
        json!({ "peer": "127.0.0.1", "type": "certificate", "primary": hash(b"another") }),
    )
    .await
    .unwrap();
    for _ in 0..3 {
        calls(&house, &trust, &first).await.unwrap_err();
    }
    let mut deltas = house.cx.cache().subscribe();
    let looking = async {
        loop {
            let found = house.cx.get::<Pin>(None, "leaf");
            if let Some(status) = found.and_then(|p| p.status.clone())
                && status.violations == 3
            {
                return status;
            }
            deltas.recv().await.unwrap();
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(20), looking)
        .await
        .unwrap();
    assert_eq!(status.last.len(), 3);
    assert_eq!(status.last[0].shown, hash(&first.der));
    assert!(
        status.last[0].issued_by.contains("one"),
        "{:?}",
        status.last
    );
    let kept = status.conditions.iter().find(|c| c.kind == "Kept").unwrap();
    assert_eq!(kept.status, model::ConditionStatus::False);
    // One that is over holds nobody.
    let soon = house.cx.clock().now().plus(Duration::from_secs(3));
    let target = model::ObjectRef {
        kind: KIND.name.into(),
        project: None,
        name: "leaf".into(),
    };
    let body = json!({ "spec": { "expires": soon } });
    house.ask(Op::Patch { target, body }).await.unwrap();
    let end = tokio::time::Instant::now() + Duration::from_secs(30);
    while calls(&house, &trust, &first).await.is_err() {
        assert!(tokio::time::Instant::now() < end);
    }
    for (spec, field) in [
        (
            json!({ "peer": "https://a", "primary": hash(b"") }),
            "spec.peer",
        ),
        (
            json!({ "peer": "a", "primary": "12".repeat(31) + "1g" }),
            "spec.primary",
        ),
        (
            json!({ "peer": "a", "primary": hash(b""), "algorithm": "sha512" }),
            "spec.primary",
        ),
        (
            json!({ "peer": "a", "primary": hash(b""), "backups": ["x"] }),
            "spec.backups[0]",
        ),
        (
            json!({ "peer": "a", "primary": hash(b""), "expires": "2200-01-01T00:00:00Z" }),
            "spec.expires",
        ),
    ] {
        let error = pin(&house, "bad", spec).await.unwrap_err();
        assert!(format!("{error:?}").contains(field), "{error:?}");
    }
}

/// Whoever goes on with an earlier handshake shows no certificate, and would be asked for none.
#[tokio::test]
async fn a_pin_that_comes_later_holds_a_peer_that_is_known() {
    let house = real().await;
    let one = authority("one");
    let leaf = leaf(&one);
    let (at, _serving) = serve(&leaf).await;
    let client = http(&house.cx, &Trust::Only(one.pem.clone())).unwrap();
    let client = client.build().unwrap();
    let call = || client.get(format!("https://{at}/")).send();
    for _ in 0..2 {
        assert_eq!(call().await.unwrap().status(), 200);
    }
    let before = standing(&house.cx);
    let spec = json!({ "peer": "127.0.0.1", "type": "certificate", "primary": hash(b"another") });
    pin(&house, "leaf", spec).await.unwrap();
    assert_ne!(
        standing(&house.cx),
        before,
        "who keeps a client learns of it"
    );
    let refused = format!("{:?}", call().await.unwrap_err());
    assert!(refused.contains("pin `leaf`"), "{refused}");
}
