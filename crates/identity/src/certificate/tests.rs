use super::*;
use crate::acme::Hook;
use crate::ca::{Reason, kind};
use crate::{Ca, CaConfig};
use model::{ObjectRef, Timestamp};
use runtime::{
    Actor, Answer, Authority, Cx, CxBuilder, Engine, ManualClock, Obj, Op, Registry, Request, Seal,
    Surface, setting,
};
use serde_json::{Value, json};
use std::time::Duration;

/// Turns texts round: enough to see that something was sealed.
struct Mirror;

impl Seal for Mirror {
    fn seal(&self, _: &str, plain: &str) -> model::Result<String> {
        Ok(plain.chars().rev().collect())
    }
    fn open(&self, _: &str, sealed: &str) -> model::Result<String> {
        Ok(sealed.chars().rev().collect())
    }
}

pub(crate) struct House {
    pub(crate) cx: Cx,
    pub(crate) ca: Arc<Ca>,
    clock: Arc<ManualClock>,
    _dir: tempfile::TempDir,
}

pub(crate) async fn start() -> House {
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    open(clock.clone(), clock, Hook::default()).await
}

/// With the machine's clock.
pub(crate) async fn real() -> House {
    with_hook(Hook::default()).await
}

/// The same, with a program for TXT records.
pub(crate) async fn with_hook(hook: Hook) -> House {
    let unused = Arc::new(ManualClock::at(0));
    open(Arc::new(runtime::SystemClock), unused, hook).await
}

async fn open(time: Arc<dyn runtime::Clock>, clock: Arc<ManualClock>, hook: Hook) -> House {
    let dir = tempfile::tempdir().unwrap();
    let now = time.clone();
    let ca = Ca::open_in(
        CaConfig {
            folder: dir.path().join("pki"),
            cluster: "test".into(),
            names: vec!["node1".into()],
            now: Arc::new(move || runtime::Clock::now(&*now)),
        },
        crate::Surroundings {
            seal: Some(Arc::new(Mirror)),
            published_at: Some("https://node1:8443/pki".into()),
        },
    )
    .unwrap();
    let pins = Arc::new(crate::pin::Pins::default());
    let registry = Registry::new(&[runtime::SUBSYSTEMS, crate::SUBSYSTEMS]).unwrap();
    let cx = CxBuilder::new(registry, store::Memory::new())
        .clock(time)
        .seal(Arc::new(Mirror))
        .part(ca.clone())
        .part(pins.clone())
        .part(Arc::new(crate::acme::ByHand::default()))
        .part(Arc::new(hook))
        .build()
        .await
        .unwrap();
    cx.life().spawn("pins", pins.follow(cx.clone()));
    setting::make(&cx).await.unwrap();
    kind::make(&cx).await.unwrap();
    Engine::start(&cx);
    House {
        cx,
        ca,
        clock,
        _dir: dir,
    }
}

impl House {
    pub(crate) async fn ask(&self, op: Op) -> model::Result<Answer> {
        let request = Request::new("r", Actor::administrator("tester"), Surface::Rest, op);
        let admitted = self.cx.gate().admit(request)?;
        self.cx.desk().carry_out(admitted).await
    }

    pub(crate) async fn create(&self, name: &str, spec: Value) -> model::Result<Answer> {
        self.ask(Op::Create {
            kind: KIND.name.into(),
            project: None,
            body: json!({ "metadata": { "name": name }, "spec": spec }),
        })
        .await
    }

    /// Asks for an action, as soon as nothing else works on the object.
    pub(crate) async fn act(
        &self,
        kind: &str,
        name: &str,
        verb: &str,
        params: Value,
    ) -> model::Result<Answer> {
        let target = ObjectRef {
            kind: kind.into(),
            project: None,
            name: name.into(),
        };
        let op = Op::Act {
            target,
            verb: verb.into(),
            params,
        };
        // What came before may not have let go of it yet.
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            match self.ask(op.clone()).await {
                Err(error) if error.code() == "BUSY" && tokio::time::Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer => return answer,
            }
        }
    }

    /// Does what must fail, and waits for the end of its task.
    async fn fails(&self, kind: &str, name: &str, verb: &str, params: Value) {
        let Answer::Accepted { task } = self.act(kind, name, verb, params).await.unwrap() else {
            panic!("no task");
        };
        let task: Value = serde_json::from_slice(&task).unwrap();
        let task = task["metadata"]["name"].as_str().unwrap().to_owned();
        let mut deltas = self.cx.cache().subscribe();
        let ended = async {
            loop {
                let found = self.cx.get::<runtime::task::Task>(None, &task);
                let status = found.and_then(|task| task.status.clone());
                if let Some(status) = status.filter(|status| status.state.ended()) {
                    return status;
                }
                deltas.recv().await.unwrap();
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
        let state = ended.unwrap().state;
        assert_ne!(state, runtime::task::TaskState::Succeeded, "{verb} {name}");
    }

    pub(crate) async fn set(&self, value: &str) {
        self.set_setting(setting::TLS_CERTIFICATE.name, value).await;
    }

    pub(crate) async fn set_setting(&self, name: &str, value: &str) {
        let target = ObjectRef {
            kind: "setting".into(),
            project: None,
            name: name.into(),
        };
        let body = json!({ "spec": { "value": value } });
        self.ask(Op::Patch { target, body }).await.unwrap();
    }

    /// Waits until the certificate is so.
    pub(crate) async fn until(
        &self,
        name: &str,
        so: impl Fn(&Obj<Certificate>) -> bool,
    ) -> Arc<Obj<Certificate>> {
        let mut deltas = self.cx.cache().subscribe();
        let looking = async {
            loop {
                if let Some(found) = self.cx.get::<Certificate>(None, name).filter(|c| so(c)) {
                    return found;
                }
                deltas.recv().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), looking).await {
            Ok(found) => found,
            Err(_) => {
                // What its tasks say, too: an order that stands still says there at what.
                let tasks = self.cx.list::<runtime::task::Task>(None);
                let tasks: Vec<_> = tasks.iter().map(|task| &task.status).collect();
                panic!(
                    "never so: {:#?} {tasks:#?}",
                    self.cx.get::<Certificate>(None, name)
                )
            }
        }
    }

    pub(crate) fn pass_days(&self, days: u32) {
        for _ in 0..days {
            self.clock.pass(86_400_000);
        }
    }

    fn wake(&self, name: &str) {
        self.cx.wake(&self.cx.key::<Certificate>(None, name));
    }
}

pub(crate) fn is(certificate: &Obj<Certificate>, state: State) -> bool {
    certificate
        .status
        .as_ref()
        .is_some_and(|s| s.state == state)
}

pub(crate) fn fingerprint(certificate: &Obj<Certificate>) -> String {
    certificate.status.clone().unwrap_or_default().fingerprint
}

pub(crate) fn condition(certificate: &Obj<Certificate>, kind: &str) -> Option<String> {
    let status = certificate.status.as_ref()?;
    let found = status.conditions.iter().find(|c| c.kind == kind)?;
    Some(format!(
        "{:?} {} {}",
        found.status, found.reason, found.message
    ))
}

#[tokio::test]
async fn it_is_issued_renewed_in_time_and_rotated() {
    let house = start().await;
    house
        .create(
            "web",
            json!({ "names": ["web.example.org", "192.0.2.10"], "profile": "peer" }),
        )
        .await
        .unwrap();
    let first = house.until("web", |c| is(c, State::Valid)).await;
    let status = first.status.clone().unwrap();
    assert_eq!(status.names, ["192.0.2.10", "web.example.org"]);
    let chain = first.spec.chain.clone().unwrap();
    let key = first.spec.private_key.clone().unwrap();
    let facts = material::check(&chain, &key, house.cx.clock().now()).unwrap();
    assert_eq!(
        facts.not_after.since(house.cx.clock().now()).as_secs() / 86_400,
        90
    );
    let leaf = crate::ca::der_of(&chain).next().unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);
    let text = format!("{:?}", leaf.extensions());
    assert!(text.contains("https://node1:8443/pki/ca.crl"), "{text}");
    // It is no login.
    assert_eq!(
        house
            .ca
            .holder(&crate::ca::der_of(&chain).next().unwrap())
            .unwrap_err()
            .status(),
        401
    );

    // With 31 days left nothing happens; with 29 it is renewed, for the same key.
    house.pass_days(61);
    house.wake("web");
    let second = house
        .until("web", |c| {
            fingerprint(c) != status.fingerprint && is(c, State::Valid)
        })
        .await;
    assert_eq!(second.spec.private_key, first.spec.private_key);
    assert!(second.status.as_ref().unwrap().not_after > status.not_after);

    house
        .act("certificate", "web", "rotate", json!({}))
        .await
        .unwrap();
    let before = fingerprint(&second);
    let third = house.until("web", |c| fingerprint(c) != before).await;
    assert_ne!(third.spec.private_key, first.spec.private_key);
    let (lines, broken) = house.ca.verify_log().unwrap();
    assert_eq!((lines, broken), (4, None), "the server's and three of ours");
}

#[tokio::test]
async fn what_is_revoked_stays_so_until_it_is_rotated_and_is_on_the_list() {
    let house = start().await;
    house
        .create("web", json!({ "names": ["web"] }))
        .await
        .unwrap();
    let first = house.until("web", |c| is(c, State::Valid)).await;
    house
        .act(
            "certificate",
            "web",
            "revoke",
            json!({ "reason": "key-compromise" }),
        )
        .await
        .unwrap();
    let revoked = house.until("web", |c| is(c, State::Revoked)).await;
    assert!(
        condition(&revoked, "Usable")
            .unwrap()
            .starts_with("False Revoked")
    );
    let found = house.ca.revocation(&fingerprint(&first)).unwrap();
    assert_eq!(found.reason, Reason::KeyCompromise);
    let list = house.ca.document("ca.crl", None).unwrap().unwrap().bytes;
    use x509_parser::prelude::FromDer;
    let (_, list) =
        x509_parser::revocation_list::CertificateRevocationList::from_der(&list).unwrap();
    let serials: Vec<String> = list
        .iter_revoked_certificates()
        .map(|r| r.serial().to_str_radix(16))
        .collect();
    let serial = first
        .status
        .as_ref()
        .unwrap()
        .serial
        .trim_start_matches('0')
        .to_owned();
    assert_eq!(serials, [serial]);
    // A renewal does not bring the lost key back.
    house
        .act("certificate", "web", "renew", json!({}))
        .await
        .unwrap();
    let fresh = house.until("web", |c| is(c, State::Valid)).await;
    assert_ne!(fresh.spec.private_key, first.spec.private_key);
}

#[tokio::test]
async fn only_what_it_has_or_had_is_revoked_with_it_however_it_is_written() {
    let house = start().await;
    for name in ["web", "panel"] {
        let spec = json!({ "names": [format!("{name}.example.org")] });
        house.create(name, spec).await.unwrap();
    }
    let first = house.until("web", |c| is(c, State::Valid)).await;
    let panel = house.until("panel", |c| is(c, State::Valid)).await;
    house.set("panel").await;
    house
        .act("certificate", "web", "rotate", json!({}))
        .await
        .unwrap();
    let before = fingerprint(&first);
    house.until("web", |c| fingerprint(c) != before).await;
    // A login, a certificate of another, one that nobody has.
    let code = house.ca.make_code("administrator").unwrap().code;
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key);
    let csr = csr.unwrap().pem().unwrap();
    let login = house.ca.login(&code, &csr, None).unwrap().certificate;
    let login = crate::ca::fingerprint(&crate::ca::der_of(&login).next().unwrap());
    let shouted = fingerprint(&panel).to_uppercase();
    for (name, fingerprint) in [
        ("web", login.clone()),
        ("web", fingerprint(&panel)),
        ("web", "ab".repeat(32)),
        ("panel", fingerprint(&panel)),
        ("panel", shouted),
    ] {
        let params = json!({ "fingerprint": fingerprint });
        house.fails("certificate", name, "revoke", params).await;
        assert!(house.ca.revocation(&fingerprint.to_lowercase()).is_none());
    }
    let old = before.to_uppercase();
    let params = json!({ "fingerprint": old });
    house
        .act("certificate", "web", "revoke", params)
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(30), async {
        while house.ca.revocation(&before).is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

fn imported(names: &[&str], life: i64, clock: &ManualClock) -> (String, String) {
    let mut params =
        rcgen::CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
            .unwrap();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_millis(runtime::Clock::now(clock).millis() as u64);
    params.not_before = epoch + now - Duration::from_secs(2 * 86_400);
    params.not_after =
        epoch + now + Duration::from_secs(life as u64 * 86_400) - Duration::from_secs(86_400);
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn what_is_imported_is_checked_and_errors_name_the_field() {
    let house = start().await;
    let (chain, key) = imported(&["shop.example.org"], 50, &house.clock);
    let (other, other_key) = imported(&["other.example.org"], 50, &house.clock);
    let (old, old_key) = imported(&["shop.example.org"], 0, &house.clock);
    let cut = &chain[..chain.len() / 2];
    for (chain, key, field, says) in [
        (None, Some(&*key), "spec.chain", "needs it"),
        (Some(&*chain), None, "spec.private_key", "needs it"),
        (
            Some(&*chain),
            Some(&*other_key),
            "spec.private_key",
            "is not the key",
        ),
        (
            Some(&*chain),
            Some("rubbish"),
            "spec.private_key",
            "no private key",
        ),
        (Some("rubbish"), Some(&*key), "spec.chain", "no certificate"),
        (Some(cut), Some(&*key), "spec.chain", "no certificate"),
        (
            Some(&*key),
            Some(&*key),
            "spec.chain",
            "holds a private key",
        ),
        (Some(&*old), Some(&*old_key), "spec.chain", "expired"),
        (
            Some(&*format!("{chain}{other}")),
            Some(&*key),
            "spec.chain",
            "is not signed by",
        ),
    ] {
        let mut spec = json!({ "issuer": "imported" });
        if let Some(chain) = chain {
            spec["chain"] = json!(chain);
        }
        if let Some(key) = key {
            spec["private_key"] = json!(key);
        }
        let error = house.create("shop", spec).await.map(|_| ()).unwrap_err();
        let text = format!("{error:?}");
        assert_eq!(error.status(), 422, "{text}");
        assert!(
            text.contains(field) && text.contains(says),
            "{field} {says}: {text}"
        );
    }
    house
        .create(
            "shop",
            json!({ "issuer": "imported", "chain": chain, "private_key": key }),
        )
        .await
        .unwrap();
    let shop = house.until("shop", |c| is(c, State::Valid)).await;
    assert_eq!(shop.status.as_ref().unwrap().names, ["shop.example.org"]);
    // The same key in a new chain, and another field alone.
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["shop.example.org".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let chain = params.self_signed(&key).unwrap().pem();
    let key = key.serialize_pem();
    let target = ObjectRef {
        kind: KIND.name.into(),
        project: None,
        name: "shop".into(),
    };
    for spec in [json!({ "chain": chain }), json!({ "days": 9 })] {
        let op = Op::Patch {
            target: target.clone(),
            body: json!({ "spec": spec }),
        };
        house.ask(op).await.unwrap();
    }
    let op = Op::Patch {
        target,
        body: json!({ "spec": { "chain": other } }),
    };
    let error = house.ask(op).await.map(|_| ()).unwrap_err();
    assert!(format!("{error:?}").contains("is not the key"), "{error:?}");
    // Nobody but us fills in what is issued here.
    let spec = json!({ "names": ["a"], "chain": chain, "private_key": key });
    let error = house.create("a", spec).await.map(|_| ()).unwrap_err();
    assert!(
        format!("{error:?}").contains("filled in by us"),
        "{error:?}"
    );
}

#[tokio::test]
async fn the_panel_follows_the_setting_and_never_falls_back() {
    let house = start().await;
    let (chain, key) = imported(&["panel.example.org"], 5, &house.clock);
    house
        .create(
            "panel",
            json!({ "issuer": "imported", "chain": chain, "private_key": key }),
        )
        .await
        .unwrap();
    house.until("panel", |c| is(c, State::Expiring)).await;
    assert!(house.ca.panel().is_none());
    house.set("panel").await;
    let shown = house
        .until("panel", |c| c.status.as_ref().is_some_and(|s| s.shown))
        .await;
    assert_eq!(condition(&shown, "Shown").unwrap(), "True Shown ");
    let first = house.ca.panel().unwrap().chain.clone();
    // Named and deleted: it stays, and says why.
    let target = ObjectRef {
        kind: "certificate".into(),
        project: None,
        name: "panel".into(),
    };
    // Revoking what the panel shows is refused with the way out.
    house
        .act("certificate", "panel", "revoke", json!({}))
        .await
        .unwrap();
    // Its end comes: it is shown on, loudly.
    house.pass_days(10);
    house.wake("panel");
    let expired = house.until("panel", |c| is(c, State::Expired)).await;
    assert_eq!(expired.status.as_ref().unwrap().level, Level::Expired);
    assert_eq!(house.ca.panel().unwrap().chain, first);
    // A setting that names nothing changes nothing.
    house.set("nothing").await;
    let told = async {
        loop {
            let about = ObjectRef {
                kind: "setting".into(),
                project: None,
                name: "tls-certificate".into(),
            };
            let events = house.cx.events().about(&about, 10).await;
            if events.iter().any(|e| e.event == "certificate.not-shown") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), told)
        .await
        .unwrap();
    assert_eq!(house.ca.panel().unwrap().chain, first);
    // A new one by hand is shown at once.
    let (chain, key) = imported(&["panel.example.org"], 80, &house.clock);
    house.set("panel").await;
    let body = json!({ "spec": { "chain": chain, "private_key": key } });
    house
        .ask(Op::Patch {
            target: target.clone(),
            body,
        })
        .await
        .unwrap();
    house
        .until("panel", |c| {
            is(c, State::Valid) && c.status.as_ref().is_some_and(|s| s.shown)
        })
        .await;
    assert_ne!(house.ca.panel().unwrap().chain, first);
    house
        .ask(Op::Delete {
            target,
            keep: Vec::new(),
        })
        .await
        .unwrap();
    house
        .until("panel", |c| {
            c.status.as_ref().is_some_and(|s| {
                s.conditions
                    .iter()
                    .any(|c| c.message.contains("the panel shows it"))
            })
        })
        .await;
    house.set("").await;
    let gone = async {
        while house.cx.get::<Certificate>(None, "panel").is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), gone)
        .await
        .unwrap();
    assert!(house.ca.panel().is_none());
}

/// Texts from outside make no panic, whatever is in them.
#[test]
fn pem_from_outside() {
    use rand::{Rng, SeedableRng};
    let clock = ManualClock::at(1_800_000_000_000);
    let (chain, key) = imported(&["a.example.org"], 50, &clock);
    let mut random = rand::rngs::StdRng::seed_from_u64(5280);
    let der = crate::ca::der_of(&chain).next().unwrap();
    for _ in 0..20_000 {
        let mut der = der.clone();
        for _ in 0..random.random_range(1..4) {
            let at = random.random_range(0..der.len());
            der[at] = random.random();
        }
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&der);
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        let _ = material::check(&pem, &key, Timestamp::from_millis(0));
        let mut text = key.clone().into_bytes();
        let at = random.random_range(0..text.len());
        text[at] = random.random_range(0..128);
        let _ = material::identity(&chain, &String::from_utf8_lossy(&text));
    }
}

#[tokio::test]
async fn a_new_ca_signs_anew_for_services_and_the_one_before_retires_in_time() {
    use kind::{CaKind, INTERNAL, Standing};
    let house = start().await;
    let spec = json!({ "names": ["web"] });
    house.create("web", spec).await.unwrap();
    let first = house.until("web", |c| is(c, State::Valid)).await;
    let params = json!({ "overlap_days": 10 });
    house.act("ca", INTERNAL, "rotate", params).await.unwrap();
    let second = house
        .until("web", |c| {
            c.status
                .as_ref()
                .is_some_and(|s| s.issued_by.ends_with(" 2"))
        })
        .await;
    assert_eq!(second.spec.private_key, first.spec.private_key);
    let ders: Vec<_> = crate::ca::der_of(second.spec.chain.as_deref().unwrap()).collect();
    assert_eq!(ders.len(), 3, "what leads to the one before is between");
    let until = async |so: &dyn Fn(&kind::CaStatus) -> bool| {
        let mut deltas = house.cx.cache().subscribe();
        let looking = async {
            loop {
                house.cx.wake(&house.cx.key::<CaKind>(None, INTERNAL));
                let found = house.cx.get::<CaKind>(None, INTERNAL);
                if let Some(status) = found.and_then(|c| c.status.clone()).filter(|s| so(s)) {
                    return status;
                }
                _ = tokio::time::timeout(Duration::from_millis(200), deltas.recv()).await;
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(30), looking).await;
        found.unwrap()
    };
    let during =
        until(&|s| s.authorities.len() == 2 && s.conditions.iter().any(|c| c.kind == "Rotated"))
            .await;
    assert_eq!(during.authorities[1].state, Standing::Trusted);
    house.pass_days(11);
    let after = until(&|s| s.authorities[1].state == Standing::Retired).await;
    assert_eq!(after.authorities[0].state, Standing::Current);
    let after = until(&|s| s.conditions.iter().all(|c| c.kind != "Rotated")).await;
    assert!(after.subject.ends_with(" 2"), "{}", after.subject);
}
