use super::federate::FederateParams;
use super::*;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{ServerName, UnixTime};

struct Region {
    ca: Arc<Ca>,
    _dir: tempfile::TempDir,
}

const NOW: i64 = 1_800_000_000_000;

fn region(name: &str, names: &[&str]) -> Region {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::open(CaConfig {
        folder: dir.path().join("pki"),
        cluster: name.into(),
        names: names.iter().map(|n| (*n).to_owned()).collect(),
        now: Arc::new(|| Timestamp::from_millis(NOW)),
    });
    Region {
        ca: ca.unwrap(),
        _dir: dir,
    }
}

fn texts(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn accept(
    by: &Region,
    from: &Region,
    offered: &[&str],
    granted: &[&str],
) -> Result<federate::Federated> {
    let expires = Timestamp::from_millis(NOW + 1000);
    by.ca.federate(&FederateParams {
        token: from.ca.offer(&texts(offered), expires).unwrap(),
        fingerprint: from.ca.ca().fingerprint,
        names: texts(granted),
    })
}

/// Whether who trusts only this region believes a server of the other one.
fn believes(at: &Region, from: &Region, name: &str) -> bool {
    let ask = Ask {
        names: &[name.to_owned()],
        server: true,
        client: false,
        life: Duration::from_secs(86_400),
    };
    let leaf = from.ca.issue(&ask, &KeyPair::generate().unwrap()).unwrap();
    let leaf = CertificateDer::from(der_of(&leaf).next().unwrap());
    let below = at
        .ca
        .document("federation.pem", None)
        .unwrap()
        .unwrap()
        .bytes;
    let below: Vec<_> = der_of(std::str::from_utf8(&below).unwrap())
        .map(CertificateDer::from)
        .collect();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(at.ca.ca().der)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap();
    let now = UnixTime::since_unix_epoch(Duration::from_millis(NOW as u64));
    let host = ServerName::try_from(name.to_owned()).unwrap();
    verifier
        .verify_server_cert(&leaf, &below, &host, &[], now)
        .is_ok()
}

#[test]
fn a_region_speaks_for_its_names_and_lets_nobody_in() {
    let home = region("home", &["node1.home.example", "localhost"]);
    let away = region("away", &["node1.away.example"]);
    let made = accept(&home, &away, &["away.example"], &["away.example"]).unwrap();
    assert_eq!(made.region, "away");
    assert!(believes(&home, &away, "db.away.example"));
    // Hostile: our names, addresses, look-alikes.
    for name in [
        "node1.home.example",
        "home.example",
        "192.0.2.1",
        "2001:db8::1",
        "xaway.example",
        "localhost",
    ] {
        assert!(!believes(&home, &away, name), "{name}");
    }
    // Hostile: a login of theirs is not one of ours, although TLS believes the chain.
    let code = away.ca.make_code(ADMINISTRATOR).unwrap();
    let issued = away.ca.login(&code.code, &tests::csr(), None).unwrap();
    let leaf = der_of(&issued.certificate).next().unwrap();
    assert!(away.ca.holder(&leaf).is_ok());
    assert_eq!(home.ca.holder(&leaf).unwrap_err().status(), 401);
    // It goes on when our CA is replaced, and ends when it is revoked.
    home.ca.prepare("t").unwrap();
    home.ca.switch("t", Timestamp::from_millis(NOW)).unwrap();
    home.ca.retire(false).unwrap();
    assert!(believes(&home, &away, "db.away.example"));
    let signed = home.ca.federated().unwrap()[0].signed.clone();
    home.ca
        .revoke(&signed, Reason::PrivilegeWithdrawn, "")
        .unwrap();
    assert!(!believes(&home, &away, "db.away.example"));
}

/// Fewer names, or another CA of ours: what was signed before is not good beside it, and does not stay when it ends.
#[test]
fn what_was_signed_before_ends_too() {
    let home = region("home", &["node1.home.example"]);
    let away = region("away", &["node1.away.example"]);
    let wide = accept(&home, &away, &["away.example"], &["away.example"]).unwrap();
    let narrow = accept(&home, &away, &["away.example"], &["db.away.example"]).unwrap();
    let why = |one: &str| home.ca.revocation(one).map(|r| r.reason);
    assert_eq!(why(&wide.signed), Some(Reason::Superseded));
    assert_eq!(why(&narrow.signed), None);
    assert!(believes(&home, &away, "db.away.example"));
    assert!(!believes(&home, &away, "web.away.example"));
    // Both CAs are trusted.
    home.ca.prepare("t").unwrap();
    home.ca.switch("t", Timestamp::from_millis(NOW)).unwrap();
    let anew = home.ca.federated().unwrap()[0].clone();
    assert_ne!(anew.signed, narrow.signed);
    home.ca
        .revoke(&anew.signed, Reason::PrivilegeWithdrawn, "")
        .unwrap();
    assert_eq!(why(&narrow.signed), Some(Reason::PrivilegeWithdrawn));
    assert!(!believes(&home, &away, "db.away.example"));
}

#[test]
fn what_is_not_offered_not_signed_or_ours_is_refused() {
    let home = region("home", &["node1.home.example"]);
    let away = region("away", &["node1.away.example"]);
    let same = region("home", &["node1.other.example"]);
    for (from, offered, granted, says) in [
        (&away, "away.example", "example", "two labels"),
        (&away, "away.example", "other.example", "not offered"),
        (&away, "home.example", "home.example", "which is ours"),
        (
            &away,
            "node1.home.example",
            "node1.home.example",
            "which is ours",
        ),
        (
            &same,
            "other.example",
            "other.example",
            "name of one of ours",
        ),
    ] {
        let error = accept(&home, from, &[offered], &[granted]).unwrap_err();
        assert!(format!("{error:?}").contains(says), "{says}: {error:?}");
    }
    let expires = Timestamp::from_millis(NOW + 1000);
    let good = away.ca.offer(&texts(&["away.example"]), expires).unwrap();
    let old = away
        .ca
        .offer(&texts(&["away.example"]), Timestamp::from_millis(NOW))
        .unwrap();
    let wide = away.ca.offer(&texts(&["other.example"]), expires).unwrap();
    let (said, _) = wide.split_once('.').unwrap();
    let (_, signature) = good.split_once('.').unwrap();
    let print = away.ca.ca().fingerprint;
    for (token, print, says) in [
        (good.clone(), home.ca.ca().fingerprint, "another CA"),
        (old, print.clone(), "too old"),
        (
            format!("{said}.{signature}"),
            print.clone(),
            "not signed by",
        ),
        (good[..good.len() / 2].to_owned(), print, "not one that"),
    ] {
        let params = FederateParams {
            token,
            fingerprint: print,
            names: texts(&["away.example"]),
        };
        let error = home.ca.federate(&params).unwrap_err();
        assert!(format!("{error:?}").contains(says), "{says}: {error:?}");
    }
}
