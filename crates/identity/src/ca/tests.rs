use super::*;
use rcgen::PublicKeyData as _;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicI64, Ordering};

pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) millis: Arc<AtomicI64>,
}

impl Bench {
    pub(super) fn new() -> Bench {
        Bench {
            dir: tempfile::tempdir().unwrap(),
            millis: Arc::new(AtomicI64::new(1_800_000_000_000)),
        }
    }

    pub(super) fn open(&self, names: &[&str]) -> Result<Arc<Ca>> {
        let millis = self.millis.clone();
        Ca::open(CaConfig {
            folder: self.dir.path().join("pki"),
            cluster: "test".into(),
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            now: Arc::new(move || Timestamp::from_millis(millis.load(Ordering::Relaxed))),
        })
    }

    pub(super) fn pass_days(&self, days: i64) {
        self.millis.fetch_add(days * 86_400_000, Ordering::Relaxed);
    }
}

pub(super) fn csr() -> String {
    csr_of(&KeyPair::generate().unwrap())
}

fn csr_of(key: &KeyPair) -> String {
    let mut params = rcgen::CertificateParams::new(vec!["evil.example".into()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.serialize_request(key).unwrap().pem().unwrap()
}

/// Whoever has the key can ask for a certificate of it as well as its owner.
#[test]
fn a_key_that_was_lost_does_not_come_again() {
    let bench = Bench::new();
    let ca = bench.open(&["node1"]).unwrap();
    let login = |ca: &Ca, key: &KeyPair| {
        let code = ca.make_code(ADMINISTRATOR).unwrap().code;
        let issued = ca.login(&code, &csr_of(key), None)?;
        Ok(der_of(&issued.certificate).next().unwrap())
    };
    let of = |der: Result<Vec<u8>>| fingerprint(&der.unwrap());
    let (lost, moved) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let (first, second) = (of(login(&ca, &lost)), of(login(&ca, &lost)));
    let other = of(login(&ca, &moved));
    ca.revoke(&other, Reason::Superseded, "").unwrap();
    assert!(login(&ca, &moved).is_ok(), "superseded is not lost");
    ca.revoke(&first, Reason::KeyCompromise, "").unwrap();
    // Its sister is worth as little.
    assert_eq!(
        ca.revocation(&second).unwrap().reason,
        Reason::KeyCompromise
    );
    let ask = Ask {
        names: &["web.example.org".to_owned()],
        server: true,
        client: false,
        life: Duration::from_secs(86_400),
    };
    for ca in [ca, bench.open(&["node1"]).unwrap()] {
        for refused in [
            login(&ca, &lost).unwrap_err(),
            ca.issue(&ask, &lost).unwrap_err(),
        ] {
            assert_eq!(refused.code(), "REFUSED", "{refused:?}");
        }
        assert!(ca.issue(&ask, &KeyPair::generate().unwrap()).is_ok());
        assert!(ca.is_compromised(&lost.subject_public_key_info()));
        assert!(!ca.is_compromised(&moved.subject_public_key_info()));
    }
}

#[test]
fn it_is_made_once_with_a_private_key_for_its_owner_alone() {
    let bench = Bench::new();
    let first = bench.open(&["node1", "127.0.0.1", "::1"]).unwrap();
    for secret in ["ca.key", "server.key"] {
        let mode = std::fs::metadata(bench.dir.path().join("pki").join(secret))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let again = bench.open(&["node1", "127.0.0.1", "::1"]).unwrap();
    assert_eq!(first.ca().fingerprint, again.ca().fingerprint);
    assert_eq!(first.shown().borrow().chain, again.shown().borrow().chain);
    // Another name means another certificate, of the same CA.
    let moved = bench.open(&["node2"]).unwrap();
    assert_eq!(first.ca().fingerprint, moved.ca().fingerprint);
    assert_ne!(first.shown().borrow().chain, moved.shown().borrow().chain);
}

#[test]
fn it_renews_by_itself_with_thirty_days_left() {
    let bench = Bench::new();
    let ca = bench.open(&["node1"]).unwrap();
    let mut shown = ca.shown();
    bench.pass_days(59);
    assert!(!ca.renew().unwrap());
    bench.pass_days(2);
    assert!(ca.renew().unwrap());
    assert!(shown.has_changed().unwrap());
    let left = shown.borrow_and_update().not_after.since((ca.config.now)());
    assert_eq!(left.as_secs(), 90 * 86_400);
}

#[test]
fn a_code_buys_one_certificate_that_can_be_revoked() {
    let bench = Bench::new();
    let ca = bench.open(&["node1"]).unwrap();
    let code = ca.make_code(ADMINISTRATOR).unwrap();
    assert_eq!(
        ca.login(&code.code, "not a request", None)
            .unwrap_err()
            .status(),
        422
    );
    let issued = ca.login(&code.code, &csr(), None).unwrap();
    assert_eq!(
        ca.login(&code.code, &csr(), None).unwrap_err().status(),
        401
    );
    let der = der_of(&issued.certificate).next().unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    assert!(!parsed.is_ca(), "what the request asks for is not granted");
    assert!(names_of(&parsed).is_empty());
    let root = ca.ca().der;
    let (_, root) = x509_parser::parse_x509_certificate(&root).unwrap();
    parsed.verify_signature(Some(root.public_key())).unwrap();

    let holder = ca.holder(&der).unwrap();
    assert_eq!(holder.account.as_deref(), Some(ADMINISTRATOR));
    let log = bench.dir.path().join("pki/issued.log");
    let before = std::fs::read(&log).unwrap();
    ca.revoke(&holder.fingerprint, Reason::KeyCompromise, "laptop lost")
        .unwrap();
    assert_eq!(ca.holder(&der).unwrap_err().status(), 401);
    // As a crash between the list and the log leaves it: the next try writes the line, and only once.
    std::fs::write(&log, before).unwrap();
    let again = bench.open(&["node1"]).unwrap();
    assert_eq!(again.holder(&der).unwrap_err().status(), 401);
    for _ in 0..2 {
        again
            .revoke(&holder.fingerprint, Reason::KeyCompromise, "laptop lost")
            .unwrap();
        let text = std::fs::read_to_string(&log).unwrap();
        assert_eq!(text.matches("\"what\":\"revoked\"").count(), 1, "{text}");
    }
}

#[test]
fn a_clock_that_was_ahead_and_is_set_right_locks_nobody_out() {
    let bench = Bench::new();
    let ca = bench.open(&["node1"]).unwrap();
    let code = ca.make_code(ADMINISTRATOR).unwrap();
    let issued = ca.login(&code.code, &csr(), None).unwrap();
    let der = der_of(&issued.certificate).next().unwrap();
    // By hours: what was made is good.
    bench.millis.fetch_sub(14 * 3_600_000, Ordering::Relaxed);
    ca.holder(&der).unwrap();
    let same = bench.open(&["node1"]).unwrap();
    assert_eq!(ca.shown().borrow().chain, same.shown().borrow().chain);
    // By weeks: the server's certificate is made anew.
    bench.pass_days(-20);
    let anew = bench.open(&["node1"]).unwrap();
    assert_ne!(ca.shown().borrow().chain, anew.shown().borrow().chain);
}

#[test]
fn a_certificate_ends_with_its_time() {
    let bench = Bench::new();
    let ca = bench.open(&["node1"]).unwrap();
    let code = ca.make_code(ADMINISTRATOR).unwrap();
    let issued = ca.login(&code.code, &csr(), None).unwrap();
    let der = der_of(&issued.certificate).next().unwrap();
    bench.pass_days(364);
    assert!(ca.holder(&der).is_ok());
    bench.pass_days(2);
    assert_eq!(ca.holder(&der).unwrap_err().status(), 401);
}

#[test]
fn a_half_lost_or_open_ca_is_refused_with_a_remedy() {
    let bench = Bench::new();
    bench.open(&["node1"]).unwrap();
    let key = bench.dir.path().join("pki/ca.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = bench.open(&["node1"]).err().unwrap();
    assert!(error.to_string().contains("readable by others"), "{error}");
    std::fs::remove_file(&key).unwrap();
    let error = bench.open(&["node1"]).err().unwrap();
    assert!(error.to_string().contains("restore ca.key"), "{error}");
    let other = KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(&key, other).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let error = bench.open(&["node1"]).err().unwrap();
    assert!(
        error.to_string().contains("not the key of ca.pem"),
        "{error}"
    );
    std::fs::remove_file(bench.dir.path().join("pki/ca.pem")).unwrap();
    let error = bench.open(&["node1"]).err().unwrap();
    assert!(error.to_string().contains("restore ca.pem"), "{error}");
}
