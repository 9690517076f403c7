//! The public documents of the CA as a real openssl sees them, TLS 1.3 and a client certificate or nothing on the gRPC
//! port, and a panel certificate that changes under requests.

use crate::grpc::key;
use crate::house::House;
use identity::ca::Reason;
use runtime::{Authority, TlsIdentity};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use server::grpc_v1::GetRequest;
use server::grpc_v1::resources_client::ResourcesClient;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tonic::Code;

/// Runs openssl; answers whether it was content and all that it said. `None`: there is none here.
async fn openssl(folder: &Path, words: &[&str]) -> Option<(bool, String)> {
    let ran = tokio::process::Command::new("openssl")
        .args(words)
        .current_dir(folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(Duration::from_secs(20), ran).await {
        Ok(Ok(out)) => {
            let said = [out.stdout, out.stderr].concat();
            Some((
                out.status.success(),
                String::from_utf8_lossy(&said).into_owned(),
            ))
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED: openssl is not installed");
            None
        }
        other => panic!("openssl {words:?}: {other:?}"),
    }
}

fn leaf(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes())
        .unwrap()
        .to_vec()
}

#[tokio::test]
async fn the_list_and_ocsp_are_public_and_openssl_believes_them() {
    let house = House::open().await;
    let dir = tempfile::tempdir().unwrap();
    let stranger = house.stranger();
    let fetch = |path: &str| {
        let asked = stranger.get(house.url(path));
        async move {
            let answer = asked.send().await.unwrap();
            assert_eq!(answer.status(), 200);
            answer.bytes().await.unwrap()
        }
    };
    std::fs::write(dir.path().join("ca.pem"), fetch("/pki/ca.pem").await).unwrap();
    std::fs::write(dir.path().join("leaf.pem"), &house.identity.0).unwrap();
    let ask = "ocsp -issuer ca.pem -cert leaf.pem -reqout request.der";
    let words: Vec<&str> = ask.split(' ').collect();
    let Some((made, said)) = openssl(dir.path(), &words).await else {
        return;
    };
    assert!(made, "{said}");
    let verdict = async |wanted: &str| {
        let request = std::fs::read(dir.path().join("request.der")).unwrap();
        let answer = stranger
            .post(house.url("/pki/ocsp"))
            .header("content-type", "application/ocsp-request")
            .body(request)
            .send()
            .await
            .unwrap();
        assert_eq!(
            answer.headers()["content-type"],
            "application/ocsp-response"
        );
        std::fs::write(dir.path().join("answer.der"), answer.bytes().await.unwrap()).unwrap();
        let words = "ocsp -no_nonce -reqin request.der -respin answer.der -CAfile ca.pem -issuer ca.pem -cert leaf.pem";
        let words: Vec<&str> = words.split(' ').collect();
        let (_, said) = openssl(dir.path(), &words).await.unwrap();
        assert!(said.contains("Response verify OK"), "{said}");
        assert!(said.contains(&format!("leaf.pem: {wanted}")), "{said}");
    };
    verdict("good").await;
    let fingerprint = identity::ca::fingerprint(&leaf(&house.identity.0));
    house
        .ca
        .revoke(&fingerprint, Reason::KeyCompromise, "test")
        .unwrap();
    verdict("revoked").await;
    std::fs::write(dir.path().join("ca.crl"), fetch("/pki/ca.crl").await).unwrap();
    let words = "crl -inform DER -in ca.crl -CAfile ca.pem -noout -text";
    let words: Vec<&str> = words.split(' ').collect();
    let (_, said) = openssl(dir.path(), &words).await.unwrap();
    assert!(
        said.contains("verify OK") && said.contains("Key Compromise"),
        "{said}"
    );
    // Rubbish is answered as OCSP says, and what is not there is not found.
    let rubbish = stranger
        .post(house.url("/pki/ocsp"))
        .body("rubbish")
        .send()
        .await
        .unwrap();
    assert_eq!(
        rubbish.bytes().await.unwrap().as_ref(),
        hex::decode("30030a0101").unwrap()
    );
    let nothing = stranger.get(house.url("/pki/ca.key")).send().await.unwrap();
    assert_eq!(nothing.status(), 404);
}

#[tokio::test]
async fn the_grpc_port_takes_tls_13_with_a_certificate_of_ours_and_nothing_else() {
    let house = Arc::new(House::open().await);
    house.lamp("a").await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    file("ca.pem", &house.ca.ca().pem);
    file("leaf.pem", &house.identity.0);
    file("leaf.key", &house.identity.1);
    let foreign = rcgen::generate_simple_self_signed(vec!["administrator".into()]).unwrap();
    file("foreign.pem", &foreign.cert.pem());
    file("foreign.key", &foreign.signing_key.serialize_pem());
    let at = house.grpc.to_string();
    let shake = async |more: &str| {
        let words = format!("s_client -connect {at} -CAfile ca.pem -alpn h2 -ign_eof {more}");
        let words: Vec<&str> = words.split_whitespace().collect();
        openssl(dir.path(), &words).await.map(|(_, said)| said)
    };
    let Some(none) = shake("").await else { return };
    assert!(none.contains("certificate required"), "{none}");
    let old = shake("-tls1_2 -cert leaf.pem -key leaf.key").await.unwrap();
    assert!(old.contains("alert protocol version"), "{old}");
    let foreign = shake("-cert foreign.pem -key foreign.key").await.unwrap();
    assert!(
        foreign.contains("unknown ca") || foreign.contains("alert"),
        "{foreign}"
    );
    // Ours is let in, and out again within five seconds of its revocation, on the connection that is open.
    let mut client = ResourcesClient::new(house.channel().await);
    client.get(GetRequest { key: key("a") }).await.unwrap();
    let fingerprint = identity::ca::fingerprint(&leaf(&house.identity.0));
    house
        .ca
        .revoke(&fingerprint, Reason::KeyCompromise, "test")
        .unwrap();
    let refused = async {
        loop {
            match client.get(GetRequest { key: key("a") }).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => return error.code(),
            }
        }
    };
    let code = tokio::time::timeout(Duration::from_secs(20), refused)
        .await
        .unwrap();
    assert_eq!(code, Code::Unauthenticated);
}

/// A certificate that another CA would have signed.
fn public() -> (String, Arc<TlsIdentity>) {
    let made = rcgen::generate_simple_self_signed(vec!["panel.example.org".into()]).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let identity = TlsIdentity {
        chain: vec![made.cert.der().to_vec()],
        key: key.secret_der().to_vec(),
        not_after: model::Timestamp::from_millis(i64::MAX / 2),
        names: vec!["panel.example.org".into()],
    };
    (made.cert.pem(), Arc::new(identity))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_panel_changes_its_certificate_under_requests() {
    let house = Arc::new(House::open().await);
    let (first_pem, first) = public();
    let (second_pem, second) = public();
    let browser = |pems: &[&str]| {
        let roots = pems
            .iter()
            .map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()).unwrap());
        reqwest::Client::builder()
            .tls_certs_only(roots)
            .resolve("panel.example.org", house.https)
            .pool_max_idle_per_host(0)
            .build()
            .unwrap()
    };
    let url = format!(
        "https://panel.example.org:{}/health/live",
        house.https.port()
    );
    let (both, only_second) = (browser(&[&first_pem, &second_pem]), browser(&[&second_pem]));
    // Nobody but our CA speaks for it yet.
    assert!(both.get(&url).send().await.is_err());
    house.ca.show(Some(first));
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let (both, url, stop, asked) = (both.clone(), url.clone(), stop.clone(), asked.clone());
        asking.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(both.get(&url).send().await.unwrap().status(), 200);
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let enough = async |more: usize| {
        let wanted = asked.load(Ordering::Relaxed) + more;
        while asked.load(Ordering::Relaxed) < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    enough(20).await;
    assert!(only_second.get(&url).send().await.is_err());
    house.ca.show(Some(second));
    enough(20).await;
    assert_eq!(only_second.get(&url).send().await.unwrap().status(), 200);
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = asking.join_next().await {
        ended.unwrap();
    }
    // By address it is the CA of this cluster that speaks, as before.
    let (status, _) = house.get("/api/v1/whoami").await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_is_rotated_under_requests_and_the_one_before_is_refused_when_it_is_retired() {
    let house = Arc::new(House::open().await);
    house.lamp("a").await;
    let mut grpc = ResourcesClient::new(house.channel().await);
    // One trusts and is vouched for by the first CA, anew for each request; the other is a connection that stays.
    let (certificate, key_pem) = &house.identity;
    let identity = format!("{certificate}{key_pem}");
    let old = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(house.ca.ca().pem.as_bytes()).unwrap()])
        .identity(reqwest::Identity::from_pem(identity.as_bytes()).unwrap())
        .pool_max_idle_per_host(0)
        .build()
        .unwrap();
    let url = house.url("/api/v1/whoami");
    let (stop, asked) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut asking = tokio::task::JoinSet::new();
    for client in [old.clone(), house.client.clone()] {
        let (url, stop, asked) = (url.clone(), stop.clone(), asked.clone());
        asking.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let enough = async || {
        let wanted = asked.load(Ordering::Relaxed) + 30;
        while asked.load(Ordering::Relaxed) < wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    enough().await;
    let until = model::Timestamp::from_millis(4_000_000_000_000);
    house.ca.prepare("test").unwrap();
    enough().await;
    house.ca.switch("test", until).unwrap();
    enough().await;
    grpc.get(GetRequest { key: key("a") }).await.unwrap();
    // Who trusts the new one only, with a login of it, is let in beside them.
    let mine = crate::house::certificate(&house.ca);
    let new = crate::house::client(&house.ca, Some(&mine));
    assert_eq!(new.get(&url).send().await.unwrap().status(), 200);
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = asking.join_next().await {
        ended.unwrap();
    }
    house.ca.retire(false).unwrap();
    // The new one goes on; the old one is neither believed nor let in, also on the connection that is open.
    assert_eq!(new.get(&url).send().await.unwrap().status(), 200);
    assert!(old.get(&url).send().await.is_err());
    let refused = async {
        loop {
            match grpc.get(GetRequest { key: key("a") }).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(error) => return error.code(),
            }
        }
    };
    let code = tokio::time::timeout(Duration::from_secs(20), refused)
        .await
        .unwrap();
    assert_eq!(code, Code::Unauthenticated);
}
