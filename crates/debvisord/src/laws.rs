//! The procedure law over the whole registry: wherever the process dies, whether or not what is asked of the host is
//! refused, and whether or not somebody cancels, each procedure of each kind ends, leaves no claim and no journal, and the
//! world fits.
//!
//! No list of procedures is kept here. They are read from the registry, their parameters from the examples that they
//! declare. Only a *kind* has to be set up by hand: one with a procedure and without a scene fails the test.

use crate::kinds;
use compute::Guests;
use compute::vm::stand_in::World;
use futures::future::BoxFuture;
use identity::secret_backend::Backends;
use model::{Action, Error, Kind, ObjectRef, Result};
use parking_lot::Mutex;
use runtime::audit::{self, AuditTrail, FileTrail, Note, Phase, Trail, TrailOptions};
use runtime::law::{self, Scene};
use runtime::node::{Facts, NodeStatus};
use runtime::task::TaskState;
use runtime::{
    Actor, Change, Cx, CxBuilder, Engine, Op, Registry, Request, Run, Seal, SecretUser,
    SecretUsers, StreamIo, Surface, node,
};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use store::{Sqlite, Store, sqlite};

/// Compiling its schemas costs more than a procedure: it is made once for all processes of the law.
static REGISTRY: LazyLock<Registry> = LazyLock::new(|| kinds::registry().unwrap());

/// What outlives our processes.
struct Outside {
    guests: Arc<World>,
    /// What is valid where the secret is used; nobody has been told yet when absent.
    opens: Arc<Mutex<Option<String>>>,
    /// Whether a new value is not taken there.
    stuck: Arc<Mutex<bool>>,
    file: Arc<Sqlite>,
    /// Only where the law is about it: it costs syncs.
    trail: Option<Arc<FileTrail>>,
    folder: tempfile::TempDir,
}

/// Wraps keys with nothing: the law is not about them.
struct Bare;

impl Seal for Bare {
    fn seal(&self, _: &str, plain: &str) -> Result<String> {
        Ok(plain.to_owned())
    }
    fn open(&self, _: &str, sealed: &str) -> Result<String> {
        Ok(sealed.to_owned())
    }
}

impl Outside {
    fn new() -> Outside {
        let folder = tempfile::tempdir().unwrap();
        Outside {
            guests: Arc::new(World::default()),
            opens: Arc::default(),
            stuck: Arc::default(),
            file: Sqlite::open(folder.path().join("store")).unwrap(),
            trail: None,
            folder,
        }
    }

    fn with_trail(mut self) -> Outside {
        let (rows, keys) = (self.rows(), self.audit_keys());
        let options = TrailOptions::new(&rows, &keys, Arc::new(Bare));
        self.trail = Some(Arc::new(FileTrail::open_here(options).unwrap()));
        self
    }

    fn audit_keys(&self) -> PathBuf {
        self.folder.path().join("audit-keys")
    }

    fn rows(&self) -> PathBuf {
        self.folder.path().join("trail")
    }

    fn pool(&self) -> PathBuf {
        self.folder.path().join("pools/default")
    }
}

/// Whoever uses the secret of the law.
struct Lock {
    opens: Arc<Mutex<Option<String>>>,
    stuck: Arc<Mutex<bool>>,
}

impl SecretUser for Lock {
    fn kind(&self) -> &'static str {
        "secret-backend"
    }
    fn write<'a>(
        &'a self,
        _: &'a Cx,
        _: &'a ObjectRef,
        change: Change<'a>,
    ) -> BoxFuture<'a, Result<()>> {
        *self.opens.lock() = Some(change.to.to_owned());
        Box::pin(async { Ok(()) })
    }
    fn verify<'a>(
        &'a self,
        _: &'a Cx,
        _: &'a ObjectRef,
        value: &'a str,
    ) -> BoxFuture<'a, Result<()>> {
        let opens = self.opens.lock().as_deref().is_none_or(|now| now == value);
        let stuck = *self.stuck.lock();
        Box::pin(async move {
            match opens && !stuck {
                true => Ok(()),
                false => Err(Error::refused("it does not open")),
            }
        })
    }
}

async fn process(store: Arc<dyn Store>, outside: &Outside) -> Cx {
    let local = storage::Local {
        pools: outside.folder.path().join("pools"),
        cache: outside.folder.path().join("cache"),
        fetch: storage::FetchLimits::default(),
    };
    let folder = outside.folder.path();
    let ca = identity::Ca::open(identity::CaConfig {
        folder: folder.join("pki"),
        cluster: "law".into(),
        names: vec!["localhost".into()],
        now: Arc::new(|| runtime::Clock::now(&runtime::SystemClock)),
    });
    let root = store::seal::RootSource::File(folder.join("root.key"));
    std::fs::create_dir_all(folder.join("keys")).unwrap();
    let sealer = store::seal::Sealer::open(root, folder.join("keys")).unwrap();
    let mut cx = CxBuilder::new(REGISTRY.clone(), store);
    if let Some(trail) = &outside.trail {
        cx = cx
            .node(NAME)
            .part(trail.clone())
            .part(Arc::new(AuditTrail::new(trail.clone())));
    }
    let cx = cx
        .seal(Arc::new(sealer))
        .part(ca.unwrap())
        .part(Arc::new(Facts::new(NodeStatus::default())))
        .part(Arc::new(Guests::new(outside.guests.clone())))
        .part(Arc::new(local))
        .part(outside.file.clone())
        .part(Arc::new(Backends::default()))
        .part(Arc::new(identity::realm::oidc::Providers::default()))
        .part(Arc::new(SecretUsers::new(vec![Arc::new(Lock {
            opens: outside.opens.clone(),
            stuck: outside.stuck.clone(),
        })])))
        .build()
        .await
        .unwrap();
    identity::project::make_default(&cx).await.ok();
    node::attend(&cx).await.ok();
    Engine::start(&cx);
    cx
}

/// How one kind is set up for the law.
struct Setting {
    kind: &'static str,
    setup: fn(Cx, PathBuf) -> BoxFuture<'static, Result<()>>,
    /// Whether the world fits the end of a procedure with this verb.
    holds: fn(&Cx, &Outside, &str, TaskState) -> Result<(), String>,
}

const SETTINGS: &[Setting] = &[
    Setting {
        kind: "vm",
        setup: |cx, _| {
            Box::pin(async move {
                create(&cx, "vm", json!({ "power": "on" })).await?;
                until(&cx, "vm", |o| o["status"]["state"] == "running").await;
                Ok(())
            })
        },
        holds: |_, outside, verb, state| guest(outside, verb, state),
    },
    Setting {
        kind: "image",
        setup: |cx, folder| {
            Box::pin(async move {
                create(&cx, "pool", json!({})).await?;
                until(&cx, "pool", |o| o["status"]["state"] == "online").await;
                // It begins by itself and fails, because the file is not there yet.
                let file = folder.join("disk.raw");
                create(&cx, "image", json!({ "source": { "file": file } })).await?;
                until(&cx, "image", |o| o["status"]["state"] == "failed").await;
                std::fs::write(&file, vec![7; 1 << 20]).unwrap();
                Ok(())
            })
        },
        holds: |_, outside, _, state| pool(&outside.pool(), state),
    },
    Setting {
        kind: "certificate",
        setup: |cx, _| {
            Box::pin(async move {
                create(&cx, "certificate", json!({ "names": ["a.example.org"] })).await?;
                until(&cx, "certificate", |o| {
                    let claims = o["metadata"]["claims"].as_array();
                    // Its first task has let go of it, too.
                    o["status"]["state"] == "valid" && claims.is_none_or(Vec::is_empty)
                })
                .await;
                Ok(())
            })
        },
        holds: |cx, _, verb, _| certificate(cx, verb),
    },
    Setting {
        kind: "acme-account",
        // Nobody has agreed to the terms: it refuses, whatever happens, and asks no provider.
        setup: |cx, _| Box::pin(async move { create(&cx, "acme-account", json!({})).await }),
        holds: |_, _, _, state| match state {
            TaskState::Succeeded => Err("it was registered without a provider".into()),
            _ => Ok(()),
        },
    },
    Setting {
        kind: "ca",
        setup: |cx, _| Box::pin(async move { identity::ca::kind::make(&cx).await }),
        holds: |cx, _, verb, state| {
            let ca = cx.part::<identity::Ca>();
            let revoked = ca.revoked_count() > 0;
            match verb == "revoke" && state == TaskState::Succeeded && !revoked {
                true => Err("nothing was revoked".into()),
                false => Ok(()),
            }
        },
    },
    Setting {
        kind: "api-key-policy",
        setup: |cx, _| {
            Box::pin(async move {
                identity::api_key::policy::make(&cx).await?;
                create(&cx, "user", json!({})).await?;
                create(&cx, "api-key", json!({ "owner": NAME })).await
            })
        },
        // Neither old nor due: it is as it was, whatever becomes of the task.
        holds: |cx, _, _, _| match cx.get::<identity::api_key::ApiKey>(None, NAME) {
            Some(key) if key.spec.rotation.is_none() => Ok(()),
            _ => Err("a key that is neither old nor due was touched".into()),
        },
    },
    Setting {
        kind: "secret",
        setup: |cx, _| {
            Box::pin(async move {
                create(&cx, "secret", json!({ "value": "the first" })).await?;
                let auth = json!({ "secret": "default/default" });
                let backend = json!({ "address": "http://127.0.0.1:1", "auth": auth });
                create(&cx, "secret-backend", backend).await?;
                let patch = Op::Patch {
                    target: target(&cx, "secret"),
                    body: json!({ "spec": { "value": "the second" } }),
                };
                let request =
                    Request::new("law", Actor::administrator("law"), Surface::Rest, patch);
                let admitted = cx.gate().admit(request)?;
                cx.desk().carry_out(admitted).await.map(drop)
            })
        },
        holds: |cx, outside, verb, state| {
            let secret = cx.get::<identity::secret::Secret>(Some("default"), NAME);
            let spec = &secret.ok_or("the secret is gone")?.spec;
            let version = spec.versions.get(&spec.version.to_string());
            let valid = version.and_then(|v| v.value.clone());
            let there = outside.opens.lock().clone();
            if verb != "check" && there.is_some() && there != valid {
                return Err(format!("version {} is valid, and not there", spec.version));
            }
            let moved = spec.version != 2;
            match (verb, moved == (state == TaskState::Succeeded)) {
                ("check", _) | (_, true) => Ok(()),
                // Cancelled when it had been done already.
                _ => Err(format!("version {} is valid after {state:?}", spec.version)),
            }
        },
    },
    Setting {
        kind: "secret-backend",
        setup: |cx, _| {
            Box::pin(async move {
                create(&cx, "secret", json!({})).await?;
                let auth = json!({ "secret": "default/default" });
                // Nobody answers there: the test fails, and ends.
                let backend = json!({ "address": "http://127.0.0.1:1", "auth": auth });
                create(&cx, "secret-backend", backend).await
            })
        },
        holds: |_, _, _, state| match state {
            TaskState::Succeeded => Err("it answers where nobody listens".into()),
            _ => Ok(()),
        },
    },
    Setting {
        kind: "realm",
        setup: |cx, _| {
            Box::pin(async move {
                // Nobody answers there: the test fails, and ends.
                let oidc = json!({ "issuer": "http://127.0.0.1:1", "client_id": "law" });
                create(&cx, "realm", json!({ "type": "oidc", "oidc": oidc })).await
            })
        },
        holds: |_, _, _, state| match state {
            TaskState::Succeeded => Err("it answers where nobody listens".into()),
            _ => Ok(()),
        },
    },
    Setting {
        kind: "machine",
        // Nobody proves anything: it refuses, whatever happens, and signs nothing.
        setup: |cx, folder| {
            Box::pin(async move {
                let ca = std::fs::read_to_string(folder.join("pki/ca.pem")).unwrap();
                create(&cx, "machine", json!({ "makers": ca })).await
            })
        },
        holds: |cx, _, _, state| {
            let machine = cx.get::<identity::machine::Machine>(None, NAME);
            let proof = machine.and_then(|machine| machine.spec.proof.clone());
            match (state, proof) {
                (TaskState::Succeeded, _) => Err("it has proven itself without a TPM".into()),
                (_, Some(_)) => Err("it has a proof that nobody gave".into()),
                _ => Ok(()),
            }
        },
    },
    Setting {
        kind: "store",
        setup: |cx, _| Box::pin(async move { runtime::store_kind::make(&cx).await }),
        holds: |_, outside, verb, state| {
            let copies = sqlite::list_copies(&outside.folder.path().join("store"));
            let wanted = verb == "backup" && state == TaskState::Succeeded;
            match copies.is_ok_and(|copies| !wanted || !copies.is_empty()) {
                true => Ok(()),
                false => Err("there is no copy".into()),
            }
        },
    },
    Setting {
        kind: "audit-chain",
        setup: |cx, _| {
            Box::pin(async move {
                audit::make(&cx).await?;
                let login = Note::by(&audit::LOGIN_SUCCEEDED, &Actor::administrator("anna"));
                audit::note(&cx, login).await
            })
        },
        holds: |_, outside, verb, state| {
            let heads = audit::own_heads(&outside.audit_keys(), 1000);
            let verdict = heads.and_then(|heads| audit::verify(&outside.rows(), heads));
            let verdict = verdict.map_err(|e| e.to_string())?;
            if !verdict.sound {
                return Err(verdict.sentence());
            }
            let keys = outside.trail.as_ref().map(|trail| trail.key_counts());
            let erased = keys.is_some_and(|keys| keys.destroyed > 0);
            match (verb, state, erased) {
                ("erase", TaskState::Succeeded, false) => Err("the key is still there".into()),
                ("erase", ..) | (_, _, false) => Ok(()),
                _ => Err("a key was destroyed".into()),
            }
        },
    },
];

/// Chain and key fit whatever happened, and what was revoked is refused.
fn certificate(cx: &Cx, verb: &str) -> Result<(), String> {
    use identity::certificate::{Certificate, State, material};
    let object = cx
        .get::<Certificate>(None, NAME)
        .ok_or("the certificate is gone")?;
    let spec = &object.spec;
    let (Some(chain), Some(key)) = (&spec.chain, &spec.private_key) else {
        return Err("chain or key is gone".into());
    };
    material::identity(chain, key).map_err(|e| e.to_string())?;
    let stands = object.status.as_ref().map(|s| s.state);
    // It was issued by a task too, before the one that is tried.
    let revoked = cx.list::<runtime::task::Task>(None).iter().any(|task| {
        let ended = task.status.as_ref().map(|s| s.state);
        task.spec.action == "certificate.revoke" && ended == Some(TaskState::Succeeded)
    });
    match verb == "revoke" && revoked && stands != Some(State::Revoked) {
        true => Err(format!("it stands at {stands:?}")),
        false => Ok(()),
    }
}

/// Nothing that a procedure took in the guest is left, and what happens once happened once.
fn guest(outside: &Outside, verb: &str, state: TaskState) -> Result<(), String> {
    let inside = outside
        .guests
        .inside("default")
        .ok_or("the guest is gone")?;
    let done = state == TaskState::Succeeded;
    if inside.frozen != (verb == "fs-freeze" && done) {
        return Err(format!("frozen: {}", inside.frozen));
    }
    let boots = match verb {
        "reset" | "reboot" if done => 2..=2,
        // It may have been cancelled after the guest had followed.
        "reset" | "reboot" => 1..=2,
        _ => 1..=1,
    };
    if !boots.contains(&inside.boot) {
        return Err(format!("the guest is in boot {}", inside.boot));
    }
    if verb == "file-write" && done && inside.files.values().all(Vec::is_empty) {
        return Err("nothing was written".into());
    }
    Ok(())
}

/// No half-made image is left, and it is there when the task says so.
fn pool(pool: &Path, state: TaskState) -> Result<(), String> {
    let mut files = Vec::new();
    let mut folders = vec![pool.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false => files.push(entry.path().display().to_string()),
            }
        }
    }
    let images = files.iter().filter(|f| f.ends_with(".qcow2")).count();
    let staged = files.iter().any(|f| f.contains("staging"));
    match (staged, images, state == TaskState::Succeeded) {
        (false, 1, true) | (false, 0, false) => Ok(()),
        _ => Err(format!("left behind: {files:?}")),
    }
}

/// Each object of the law is called so.
const NAME: &str = "default";

fn target(cx: &Cx, kind: &str) -> ObjectRef {
    let declared = cx.registry().need(kind).unwrap().kind();
    ObjectRef {
        kind: kind.into(),
        project: (declared.scope != model::Scope::Cluster).then(|| "default".into()),
        name: NAME.into(),
    }
}

async fn create(cx: &Cx, kind: &str, spec: Value) -> Result<()> {
    let op = Op::Create {
        kind: kind.into(),
        project: target(cx, kind).project,
        body: json!({ "metadata": { "name": NAME }, "spec": spec }),
    };
    let request = Request::new("law", Actor::administrator("law"), Surface::Rest, op);
    cx.desk()
        .carry_out(cx.gate().admit(request)?)
        .await
        .map(drop)
}

async fn until(cx: &Cx, kind: &str, so: impl Fn(&Value) -> bool) {
    let target = target(cx, kind);
    let key = runtime::object_key(kind, target.project.as_deref(), NAME);
    let mut deltas = cx.cache().subscribe();
    let looking = async {
        loop {
            let row = cx.cache().row(kind, &key);
            if row.and_then(|r| r.value().ok()).is_some_and(|o| so(&o)) {
                return;
            }
            deltas.recv().await.unwrap();
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), looking).await;
    let last = cx.cache().row(kind, &key).and_then(|r| r.value().ok());
    assert!(
        found.is_ok(),
        "{kind} never came to what the law needs: {last:#?}"
    );
}

/// The parameters of an action's first example: `dvctl vm file-read web1 --path /etc/hostname`.
fn params(action: &Action) -> Value {
    let mut words = action
        .examples
        .first()
        .copied()
        .unwrap_or_default()
        .split_whitespace()
        .peekable();
    let schema = (action.input)().to_value();
    let mut out = serde_json::Map::new();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--") else {
            continue;
        };
        let value = match words.next_if(|next| !next.starts_with("--")) {
            None => json!(true),
            Some(text) => text.parse::<i64>().map_or(json!(text), |n| json!(n)),
        };
        let name = flag.replace('-', "_");
        let value = match schema["properties"][&name]["type"] == "array" {
            true => json!([value]),
            false => value,
        };
        out.insert(name, value);
    }
    Value::Object(out)
}

/// Tries one procedure. Answers its name and how many crashes it survived, or what went wrong.
async fn tried(
    kind: &'static Kind,
    action: &'static Action,
) -> (String, std::result::Result<usize, String>) {
    let what = format!("{}.{}", kind.name, action.verb);
    let Some(setting) = SETTINGS.iter().find(|s| s.kind == kind.name) else {
        let why = "its kind has procedures: say here how the law sets one up";
        return (what, Err(why.into()));
    };
    let made = || match setting.kind {
        "audit-chain" => Arc::new(Outside::new().with_trail()),
        _ => Arc::new(Outside::new()),
    };
    let outside = &Mutex::new(made());
    let now = || outside.lock().clone();
    let refused = &Mutex::new(false);
    let scene = Scene {
        start: &|store| Box::pin(async move { process(store, &now()).await }),
        fresh: &|fails| {
            *outside.lock() = made();
            *refused.lock() = fails.is_some();
        },
        setup: &|cx| {
            Box::pin(async move {
                let outside = now();
                (setting.setup)(cx, outside.folder.path().to_owned()).await?;
                outside.guests.refuse(*refused.lock());
                *outside.stuck.lock() = *refused.lock();
                Ok(())
            })
        },
        target: ObjectRef {
            kind: kind.name.into(),
            project: (kind.scope != model::Scope::Cluster).then(|| "default".into()),
            name: match kind.name {
                "ca" => identity::ca::kind::INTERNAL.into(),
                _ => NAME.into(),
            },
        },
        verb: action.verb,
        params: params(action),
        batch: false,
        failing: match setting.kind {
            "vm" => &["what is asked of the guest"],
            "secret" => &["the new value, where it is used"],
            _ => &[],
        },
        holds: &|cx, state| (setting.holds)(cx, &now(), action.verb, state),
    };
    (what, law::procedure_survives(&scene).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_procedure_of_the_registry_survives_a_crash_at_every_commit() {
    let all = REGISTRY.iter().flat_map(|declared| {
        let kind = declared.kind();
        let procedure =
            |a: &&Action| matches!(declared.subsystem.run(a.verb), Some(Run::Procedure(_)));
        let actions = kind.actions.iter().filter(procedure);
        actions.map(move |action| tried(kind, action))
    });
    // They mostly wait: side by side.
    let found = futures::future::join_all(all).await;
    let mut wrong = Vec::new();
    for (what, survived) in &found {
        eprintln!("{what}: {survived:?} crashes");
        match survived {
            Ok(8..) => {}
            Ok(few) => wrong.push(format!("{what}: only {few} crashes were tried")),
            Err(why) => wrong.push(format!("{what}: {why}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for setting in SETTINGS {
        let used = found.iter().any(|(what, _)| what.starts_with(setting.kind));
        assert!(used, "`{}` has no procedure any more", setting.kind);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_of_the_registry_is_without_its_intent_and_its_outcome() {
    let outside = Outside::new().with_trail();
    let trail = outside.trail.clone().unwrap();
    let cx = process(store::Memory::new(), &outside).await;
    let mut wrong = Vec::new();
    let mut changes = 0;
    for (n, offer) in REGISTRY.offers().iter().enumerate() {
        let op = offer.op("default", "law");
        let reads = op.reads(REGISTRY.need(offer.kind.name).unwrap());
        let action = offer.privilege();
        let is_stream = matches!(op, Op::Stream { .. });
        let watches = matches!(op, Op::Watch { .. });
        let id = format!("law-{n}");
        let actor = Actor::administrator("law");
        let request = Request::new(id.clone(), actor, Surface::Rest, op);
        let Ok(admitted) = cx.gate().admit(request) else {
            // What the gate refuses changes nothing.
            continue;
        };
        if is_stream {
            let (_ours, theirs) = StreamIo::pair();
            if cx.desk().open(admitted, theirs).await.is_ok() {
                wrong.push(format!("{action}: opens for what is not there"));
            }
        } else if !watches {
            let _ = cx.desk().carry_out(admitted).await;
        }
        let mut rows = trail.last(200).await;
        rows.retain(|row| row.request_id == id && row.actor == "law");
        let fits = match (reads, rows.as_slice()) {
            (true, []) => true,
            (false, [intent, outcome]) => {
                changes += 1;
                intent.phase == Phase::Intent
                    && outcome.phase == Phase::Outcome
                    && intent.action == action
                    && intent.change.is_some()
                    && intent.change == outcome.change
                    && outcome.result.is_some()
            }
            _ => false,
        };
        if !fits {
            wrong.push(format!("{}: {rows:?}", offer.name()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(changes > 60, "only {changes} changes were tried");
    cx.life().stop(Duration::from_secs(5)).await;
}
