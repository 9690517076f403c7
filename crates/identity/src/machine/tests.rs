//! With real TPMs in software: two machines with TPMs of one maker, and one of another.

use super::*;
use crate::certificate::tests::{House, start};
use crate::login::People;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::ObjectRef;
use runtime::task::{Task, TaskState};
use runtime::{
    Actor, Answer, Authority as _, Identities as _, Msg, Obj, Op, Proof as Shown, Request,
    StreamIo, Surface, Whence,
};
use serde_json::{Value, json};
use software::{Maker, is_there};
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tpm::credential::Challenge;
use tpm::{Answered, Ask, Blob, Endorsement, Tpm};

#[path = "../../../tpm/src/software.rs"]
mod software;

/// A server, two machines by one maker of TPMs, and one by another.
struct World {
    house: House,
    people: Arc<People>,
    makers: String,
    a: software::Machine,
    b: software::Machine,
    stranger: software::Machine,
    _folder: TempDir,
}

/// What was given and what was answered, for tests that want to answer something else.
struct Round {
    ask: Ask,
    given: Value,
    said: Answered,
}

fn registers(given: &Value) -> Vec<u8> {
    serde_json::from_value(given["registers"].clone()).unwrap()
}

fn asked(ask: &Ask, by: &Endorsement) -> Value {
    json!({
        "certificate": STANDARD.encode(&by.certificate),
        "voucher": STANDARD.encode(&ask.voucher.public),
        "key": STANDARD.encode(&ask.key.public),
    })
}

fn answer(said: &Answered) -> Value {
    let registers = said.registers.iter();
    let registers: serde_json::Map<String, Value> = registers
        .map(|(n, value)| (n.to_string(), hex::encode(value).into()))
        .collect();
    json!({
        "secret": STANDARD.encode(&said.secret),
        "quote": STANDARD.encode(&said.quote.0),
        "quote_signature": STANDARD.encode(&said.quote.1),
        "certified": STANDARD.encode(&said.certified.0),
        "certified_signature": STANDARD.encode(&said.certified.1),
        "registers": registers,
    })
}

fn challenge(given: &Value) -> Challenge {
    let bytes = |name: &str| STANDARD.decode(given[name].as_str().unwrap()).unwrap();
    Challenge {
        credential: bytes("credential"),
        seed: bytes("seed"),
    }
}

fn leaf(proven: &Value) -> Vec<u8> {
    let chain = proven["certificate"].as_str().unwrap();
    crate::ca::der_of(chain).next().unwrap()
}

impl World {
    async fn new() -> Option<World> {
        if !is_there() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let maker = Maker::new(&folder.path().join("maker"));
        let other = Maker::new(&folder.path().join("other"));
        let (a, b) = (maker.machine("a"), maker.machine("b"));
        let world = World {
            house: start().await,
            people: People::new(),
            makers: maker.roots(),
            stranger: other.machine("c"),
            a,
            b,
            _folder: folder,
        };
        world.create("user", "anna", json!({})).await.unwrap();
        for name in ["a", "b"] {
            let spec = json!({ "makers": world.makers });
            world.create("machine", name, spec).await.unwrap();
        }
        Some(world)
    }

    async fn create(&self, kind: &str, name: &str, spec: Value) -> model::Result<Answer> {
        let op = Op::Create {
            kind: kind.into(),
            project: None,
            body: json!({ "metadata": { "name": name }, "spec": spec }),
        };
        self.house.ask(op).await
    }

    /// Does something with a machine: the result of its task, or why it failed.
    async fn act(&self, name: &str, verb: &str, params: Value) -> Result<Value, String> {
        let answer = self.house.act("machine", name, verb, params).await;
        let Answer::Accepted { task } = answer.map_err(|e| e.to_string())? else {
            panic!("no task");
        };
        let task: Value = serde_json::from_slice(&task).unwrap();
        let task = task["metadata"]["name"].as_str().unwrap().to_owned();
        let mut deltas = self.house.cx.cache().subscribe();
        let ended = async {
            loop {
                let found = self.house.cx.get::<Task>(None, &task);
                let status = found.and_then(|task| task.status.clone());
                if let Some(status) = status.filter(|status| status.state.ended()) {
                    return status;
                }
                deltas.recv().await.unwrap();
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(30), ended).await;
        let status = ended.unwrap();
        match status.state {
            TaskState::Succeeded => Ok(status.result),
            _ => Err(status.message),
        }
    }

    /// A challenge for a machine, answered by the TPM at this socket.
    async fn round(&self, name: &str, socket: &Path, key: Option<Blob>) -> Result<Round, String> {
        let mut tpm = Tpm::open(socket).unwrap();
        let by = tpm.endorsements().unwrap().remove(0);
        let ask = tpm.ask(key).unwrap();
        let given = self.act(name, "challenge", asked(&ask, &by)).await?;
        let said = tpm.answer(&ask, &by, &challenge(&given), &registers(&given));
        let said = said.map_err(|e| e.to_string())?;
        Ok(Round { ask, given, said })
    }

    /// The whole of it: the key, and what was given for it.
    async fn enrol(&self, name: &str, socket: &Path) -> Result<(Ask, Value), String> {
        let round = self.round(name, socket, None).await?;
        let proven = self.act(name, "prove", answer(&round.said)).await?;
        Ok((round.ask, proven))
    }

    /// An API key that is bound to a machine.
    async fn key(&self, name: &str, machine: &str) -> String {
        let spec = json!({ "owner": "anna", "machine": machine });
        self.create("api-key", name, spec).await.unwrap();
        let (mut near, far) = StreamIo::pair();
        let op = Op::Stream {
            target: ObjectRef {
                kind: "api-key".into(),
                project: None,
                name: name.into(),
            },
            stream: "secret".into(),
            params: json!({}),
        };
        let request = Request::new("s", Actor::administrator("tester"), Surface::Rest, op);
        let admitted = self.house.cx.gate().admit(request).unwrap();
        self.house.cx.desk().open(admitted, far).await.unwrap();
        let Some(Msg::Data(secret)) = near.recv().await else {
            panic!("no secret");
        };
        String::from_utf8(secret.to_vec())
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Whether a key lets in who holds the key of this certificate.
    fn lets_in(&self, key: &str, certificate: Option<&[u8]>) -> bool {
        let from = Whence {
            ip: Some([192, 0, 2, 1].into()),
            certificate,
        };
        let cx = &self.house.cx;
        let actor = self.people.who(cx, Shown::Bearer(key), from);
        if let Ok(actor) = &actor {
            assert!(self.people.stands(cx, actor, from), "in, and out at once");
            // On a connection without a certificate it does not stand.
            assert!(!self.people.stands(cx, actor, Whence::default()));
        }
        actor.is_ok()
    }

    fn machine(&self, name: &str) -> Arc<Obj<Machine>> {
        self.house.cx.get::<Machine>(None, name).unwrap()
    }

    async fn until(&self, name: &str, state: State) {
        let mut deltas = self.house.cx.cache().subscribe();
        self.house
            .cx
            .wake(&self.house.cx.key::<Machine>(None, name));
        let looking = async {
            while self.machine(name).status.as_ref().map(|s| s.state) != Some(state) {
                deltas.recv().await.unwrap();
            }
        };
        let found = tokio::time::timeout(Duration::from_secs(30), looking).await;
        assert!(
            found.is_ok(),
            "never {state:?}: {:?}",
            self.machine(name).status
        );
    }
}

#[tokio::test]
async fn a_key_that_is_bound_to_host_a_is_refused_from_host_b() {
    let Some(world) = World::new().await else {
        return;
    };
    let (ours, proven) = world.enrol("a", &world.a.socket).await.unwrap();
    let (_, theirs) = world.enrol("b", &world.b.socket).await.unwrap();
    let (a, b) = (leaf(&proven), leaf(&theirs));
    let key = world.key("build", "a").await;
    assert!(world.lets_in(&key, Some(&a)), "from host A");
    assert!(!world.lets_in(&key, None), "the key alone, copied");
    assert!(
        !world.lets_in(&key, Some(&b)),
        "from host B, which is a machine too"
    );
    // The certificate is public; without the TPM of A nobody can use its key, which TLS asks for.
    let stolen = Tpm::open(&world.b.socket)
        .unwrap()
        .sign(&ours.key, &[7; 32]);
    assert!(stolen.is_err());
    Tpm::open(&world.a.socket)
        .unwrap()
        .sign(&ours.key, &[7; 32])
        .unwrap();
    // The certificate proves the machine and lets nobody in by itself.
    assert_eq!(world.house.ca.holder(&a).unwrap().account, None);
    let (_, parsed) = x509_parser::parse_x509_certificate(&a).unwrap();
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);

    // Renewed for the same key, the certificate from before is as good as the new one.
    let again = world
        .round("a", &world.a.socket, Some(ours.key))
        .await
        .unwrap();
    let renewed = world.act("a", "prove", answer(&again.said)).await.unwrap();
    assert!(world.lets_in(&key, Some(&a)) && world.lets_in(&key, Some(&leaf(&renewed))));
    world.until("a", State::Proven).await;

    // Nobody says of a machine that it has proven itself, nor gives it another TPM.
    let target = ObjectRef {
        kind: "machine".into(),
        project: None,
        name: "a".into(),
    };
    let proof = serde_json::to_value(&world.machine("b").spec.proof).unwrap();
    let body = json!({ "spec": { "proof": proof } });
    world
        .house
        .ask(Op::Patch {
            target: target.clone(),
            body,
        })
        .await
        .unwrap();
    assert!(world.lets_in(&key, Some(&a)) && !world.lets_in(&key, Some(&b)));
    let other = world.machine("b").spec.endorsement.clone();
    let body = json!({ "spec": { "endorsement": other } });
    let refused = world
        .house
        .ask(Op::Patch { target, body })
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("keeps its TPM"), "{refused}");

    // An old proof is none, and revoking is for good.
    world.house.pass_days(6);
    world.until("a", State::Expiring).await;
    assert!(world.lets_in(&key, Some(&a)));
    world.house.pass_days(1);
    world.until("a", State::Expired).await;
    assert!(!world.lets_in(&key, Some(&a)));
    let (_, fresh) = world.enrol("a", &world.a.socket).await.unwrap();
    let fresh = leaf(&fresh);
    assert!(world.lets_in(&key, Some(&fresh)));
    world
        .act("a", "revoke", json!({ "reason": "stolen" }))
        .await
        .unwrap();
    assert!(!world.lets_in(&key, Some(&fresh)));
    world.until("a", State::Revoked).await;
    let refused = world.enrol("a", &world.a.socket).await.err().unwrap();
    assert!(refused.contains("revoked"), "{refused}");
    let listed = async {
        while world.house.ca.holder(&fresh).is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), listed)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_old_swapped_changed_or_by_another_maker_is_refused() {
    let Some(world) = World::new().await else {
        return;
    };
    let socket = &world.a.socket;
    // By another maker.
    let refused = world
        .enrol("a", &world.stranger.socket)
        .await
        .err()
        .unwrap();
    assert!(refused.contains("not by one of the makers"), "{refused}");
    // Answered twice, and after another challenge: an old nonce.
    let first = world.round("a", socket, None).await.unwrap();
    let second = world
        .round("a", socket, Some(first.ask.key.clone()))
        .await
        .unwrap();
    let old = world
        .act("a", "prove", answer(&first.said))
        .await
        .unwrap_err();
    assert!(old.contains("not to the last challenge"), "{old}");
    let mut mixed = answer(&second.said);
    mixed["quote"] = answer(&first.said)["quote"].clone();
    mixed["quote_signature"] = answer(&first.said)["quote_signature"].clone();
    let mixed = world.act("a", "prove", mixed).await.unwrap_err();
    assert!(mixed.contains("not signed by the key"), "{mixed}");
    // Another key vouches: the TPM does not open the challenge for it, and what it says is not taken.
    let mut tpm = Tpm::open(socket).unwrap();
    let by = tpm.endorsements().unwrap().remove(0);
    let other = tpm.ask(Some(second.ask.key.clone())).unwrap();
    let opened = tpm.answer(&other, &by, &challenge(&second.given), &[0, 2, 7]);
    assert!(opened.is_err());
    drop(tpm);
    // A register is said to hold something else, or is left out.
    let mut lies = answer(&second.said);
    lies["registers"]["7"] = "00".repeat(31).into();
    assert!(
        world
            .act("a", "prove", lies.clone())
            .await
            .unwrap_err()
            .contains("64 hex")
    );
    lies["registers"]["7"] = "ab".repeat(32).into();
    let lied = world.act("a", "prove", lies.clone()).await.unwrap_err();
    assert!(lied.contains("other values"), "{lied}");
    lies["registers"].as_object_mut().unwrap().remove("7");
    assert!(
        world
            .act("a", "prove", lies)
            .await
            .unwrap_err()
            .contains("asked for")
    );
    world.act("a", "prove", answer(&second.said)).await.unwrap();
    let twice = world
        .act("a", "prove", answer(&second.said))
        .await
        .unwrap_err();
    assert!(twice.contains("no challenge waits"), "{twice}");
    // An answer that comes late.
    let late = world.round("b", &world.b.socket, None).await.unwrap();
    world.house.pass_days(1);
    let late = world
        .act("b", "prove", answer(&late.said))
        .await
        .unwrap_err();
    assert!(late.contains("no challenge waits"), "{late}");
    // Another TPM, by the same maker.
    let swapped = world.enrol("a", &world.b.socket).await.err().unwrap();
    assert!(swapped.contains("has another TPM"), "{swapped}");
    // It has booted something else: only what is looked at counts.
    world.a.extend(10);
    world.enrol("a", socket).await.unwrap();
    world.a.extend(7);
    let before = world.machine("a").spec.proof.clone();
    let changed = world.enrol("a", socket).await.err().unwrap();
    assert!(changed.contains("register 7 has changed"), "{changed}");
    assert!(changed.contains("remeasure"), "{changed}");
    assert_eq!(world.machine("a").spec.proof, before);
    world.act("a", "remeasure", json!({})).await.unwrap();
    world.enrol("a", socket).await.unwrap();
    assert_ne!(world.machine("a").spec.proof, before);
}
