use super::tests::{Bench, csr};
use super::*;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{ServerName, UnixTime};
use std::sync::atomic::Ordering;

/// Whether who trusts only this CA believes what is shown.
fn believes(bench: &Bench, trusts: &CaCertificate, ca: &Ca) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(trusts.der.clone())).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let shown = ca.shown().borrow().clone();
    let chain: Vec<_> = shown
        .chain
        .iter()
        .cloned()
        .map(CertificateDer::from)
        .collect();
    let seconds = bench.millis.load(Ordering::Relaxed) as u64 / 1000;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let name = ServerName::try_from("node1").unwrap();
    verifier
        .verify_server_cert(&chain[0], &chain[1..], &name, &[], now)
        .is_ok()
}

fn login(ca: &Ca) -> Vec<u8> {
    let code = ca.make_code(ADMINISTRATOR).unwrap();
    let issued = ca.login(&code.code, &csr(), None).unwrap();
    der_of(&issued.certificate).next().unwrap()
}

fn in_days(bench: &Bench, days: i64) -> Timestamp {
    Timestamp::from_millis(bench.millis.load(Ordering::Relaxed) + days * 86_400_000)
}

/// The revoked serial numbers of a list that this CA has signed.
fn listed(ca: &Ca, path: &str, by: &CaCertificate) -> Vec<String> {
    use x509_parser::prelude::FromDer;
    let list = ca.document(path, None).unwrap().unwrap().bytes;
    let (_, list) =
        x509_parser::revocation_list::CertificateRevocationList::from_der(&list).unwrap();
    let (_, by) = x509_parser::parse_x509_certificate(&by.der).unwrap();
    list.verify_signature(by.public_key()).unwrap();
    list.iter_revoked_certificates()
        .map(|r| r.serial().to_str_radix(16))
        .collect()
}

#[test]
fn both_are_trusted_for_a_while_and_then_only_the_new_one() {
    let bench = Bench::new();
    let ca = bench.open(&["node1"]).unwrap();
    let old = ca.ca();
    let (lost, kept) = (login(&ca), login(&ca));
    ca.revoke(&fingerprint(&lost), Reason::KeyCompromise, "")
        .unwrap();
    let made = ca.prepare("task-1").unwrap();
    assert_eq!(
        ca.ca().fingerprint,
        old.fingerprint,
        "nothing has changed yet"
    );
    ca.switch("task-1", in_days(&bench, 30)).unwrap();
    let new = ca.ca();
    assert_eq!(new.fingerprint, made);
    let mine = login(&ca);
    ca.revoke(&fingerprint(&mine), Reason::Superseded, "")
        .unwrap();
    // Also after a restart.
    for ca in [ca.clone(), bench.open(&["node1"]).unwrap()] {
        assert!(believes(&bench, &old, &ca) && believes(&bench, &new, &ca));
        assert_eq!(ca.trusted().borrow().len(), 2);
        ca.holder(&kept).unwrap();
        assert!(ca.holder(&lost).is_err() && ca.holder(&mine).is_err());
        let bundle = ca.document("ca.pem", None).unwrap().unwrap().bytes;
        let bundle = String::from_utf8(bundle).unwrap();
        let bundle: Vec<_> = der_of(&bundle).collect();
        assert_eq!(bundle, [new.der.clone(), old.der.clone()]);
        // Each list has its own.
        let (first, second) = (listed(&ca, "ca.crl", &old), listed(&ca, "ca-2.crl", &new));
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_ne!(first, second);
    }
    bench.pass_days(29);
    assert!(ca.retire(true).unwrap().is_empty(), "it has a day left");
    bench.pass_days(1);
    assert_eq!(
        ca.retire(true).unwrap(),
        std::slice::from_ref(&old.fingerprint)
    );
    for ca in [ca.clone(), bench.open(&["node1"]).unwrap()] {
        assert!(!believes(&bench, &old, &ca) && believes(&bench, &new, &ca));
        assert_eq!(ca.trusted().borrow().len(), 1);
        assert_eq!(ca.holder(&kept).unwrap_err().status(), 401);
        assert_eq!(listed(&ca, "ca.crl", &old).len(), 1, "its last list stays");
        assert!(!bench.dir.path().join("pki/ca.key").exists());
    }
    // And once more.
    ca.prepare("task-2").unwrap();
    ca.switch("task-2", in_days(&bench, 1)).unwrap();
    assert!(believes(&bench, &new, &ca) && !believes(&bench, &old, &ca));
    let names: Vec<_> = ca.authorities().into_iter().map(|a| a.id).collect();
    assert_eq!(names, ["ca-3", "ca-2", "ca"]);
    assert_eq!(ca.verify_log().unwrap().1, None);
}

/// Wherever the process dies, and however often a step runs, it comes to the same.
#[test]
fn a_rotation_that_is_cut_short_goes_on_or_leaves_nothing() {
    for cut in ["ca-2.cross.pem", "ca-2.pem", "ca-2.key", ""] {
        let bench = Bench::new();
        let first = bench.open(&["node1"]).unwrap();
        first.prepare("task-1").unwrap();
        if !cut.is_empty() {
            // As if it had died before it wrote the file and those after it.
            let all = ["ca-2.key", "ca-2.pem", "ca-2.cross.pem"];
            let from = all.iter().position(|name| *name == cut).unwrap();
            for name in &all[from..] {
                std::fs::remove_file(bench.dir.path().join("pki").join(name)).unwrap();
            }
        }
        let again = bench.open(&["node1"]).unwrap();
        let made = again.prepare("task-1").unwrap();
        assert_eq!(again.prepare("task-1").unwrap(), made);
        again.switch("task-1", in_days(&bench, 3)).unwrap();
        // Before it had the server's certificate.
        std::fs::remove_file(bench.dir.path().join("pki/server.pem")).unwrap();
        let third = bench.open(&["node1"]).unwrap();
        third.switch("task-1", in_days(&bench, 9)).unwrap();
        assert_eq!(
            third.prepare("task-1").unwrap(),
            made,
            "a late repeat makes no other"
        );
        assert_eq!(third.ca().fingerprint, made);
        assert_eq!(third.authorities().len(), 2);
        assert!(believes(&bench, &first.ca(), &third), "{cut}");
    }
    let bench = Bench::new();
    let ca = bench.open(&["node1"]).unwrap();
    ca.prepare("task-1").unwrap();
    ca.abandon("task-0").unwrap();
    assert!(bench.dir.path().join("pki/ca-2.key").exists());
    for _ in 0..2 {
        ca.abandon("task-1").unwrap();
        assert!(!bench.dir.path().join("pki/ca-2.key").exists());
    }
    assert!(ca.switch("task-1", in_days(&bench, 1)).is_err());
    assert_eq!(
        bench.open(&["node1"]).unwrap().ca().fingerprint,
        ca.ca().fingerprint
    );
}
