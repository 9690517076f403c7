//! A process of both places over the memory store, with one pool in a folder of its own.

use host::process::Run;
use model::{ObjectRef, Result};
use runtime::{Actor, Answer, Cx, CxBuilder, Engine, Op, Registry, Request, Surface, object_key};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use storage::{FetchLimits, Local};

pub struct World {
    pub cx: Cx,
    pub folder: tempfile::TempDir,
}

/// A process over a store; the pool lies in `folder`.
pub async fn process(store: Arc<dyn store::Store>, folder: &Path, fetch: FetchLimits) -> Cx {
    let registry = Registry::new(&[runtime::SUBSYSTEMS, storage::SUBSYSTEMS]).unwrap();
    let local = Local {
        pools: folder.join("pools"),
        cache: folder.join("cache"),
        fetch,
    };
    let cx = CxBuilder::new(registry, store)
        .part(Arc::new(local))
        .build()
        .await
        .unwrap();
    Engine::start(&cx);
    cx
}

impl World {
    pub async fn new() -> World {
        World::with(FetchLimits::default(), json!({})).await
    }

    pub async fn with(fetch: FetchLimits, pool: Value) -> World {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let cx = process(store::Memory::new(), folder.path(), fetch).await;
        let world = World { cx, folder };
        world.create("pool", "default", pool).await.unwrap();
        world
            .until("pool", "default", |o| o["status"]["state"] == "online")
            .await;
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn pool(&self) -> PathBuf {
        self.path("pools/default")
    }

    pub async fn create(&self, kind: &str, name: &str, spec: Value) -> Result<Answer> {
        create(&self.cx, kind, name, spec).await
    }

    pub async fn change(&self, kind: &str, name: &str, spec: Value) -> Result<Answer> {
        let op = Op::Patch {
            target: target(kind, name),
            body: json!({ "spec": spec }),
        };
        ask(&self.cx, op).await
    }

    pub async fn delete(&self, kind: &str, name: &str) -> Result<Answer> {
        ask(
            &self.cx,
            Op::Delete {
                target: target(kind, name),
                keep: Vec::new(),
            },
        )
        .await
    }

    pub async fn act(&self, kind: &str, name: &str, verb: &str) -> Result<Answer> {
        ask(
            &self.cx,
            Op::Act {
                target: target(kind, name),
                verb: verb.into(),
                params: json!({}),
            },
        )
        .await
    }

    pub async fn until(&self, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(&self.cx, kind, name, wanted).await
    }

    pub async fn gone(&self, kind: &str, name: &str) {
        let key = key(kind, name);
        let mut deltas = self.cx.cache().subscribe();
        let wait = async {
            while self.cx.cache().row(kind, &key).is_some() {
                deltas.recv().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait)
            .await
            .expect("it goes");
    }

    /// Imports a file and waits for the end: the image when it is ready, else why it failed.
    pub async fn import(&self, name: &str, source: Value) -> Result<Value, String> {
        self.create("image", name, json!({ "source": source }))
            .await
            .map_err(|e| e.to_string())?;
        let image = self
            .until("image", name, |o| {
                o["status"]["state"] == "ready" || o["status"]["state"] == "failed"
            })
            .await;
        self.settled(&image).await;
        match image["status"]["state"].as_str() {
            Some("ready") => Ok(image),
            _ => Err(image["status"]["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned()),
        }
    }

    /// Waits until the task that imported an image has cleaned up behind itself.
    pub async fn settled(&self, image: &Value) {
        let task = image["status"]["task"].as_str().unwrap();
        let running = ["pending", "running", "rolling_back"];
        self.until("task", task, |o| {
            o["status"]["state"]
                .as_str()
                .is_some_and(|s| !running.contains(&s))
        })
        .await;
    }

    /// Every file that lies in the pool, apart from its marker.
    pub fn files(&self) -> Vec<String> {
        files(&self.pool())
    }
}

pub fn files(pool: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["images", "volumes", "staging"] {
        for entry in std::fs::read_dir(pool.join(part)).unwrap() {
            found.push(format!(
                "{part}/{}",
                entry.unwrap().file_name().to_string_lossy()
            ));
        }
    }
    found.sort();
    found
}

pub fn target(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        project: (kind != "pool").then(|| "default".into()),
        name: name.into(),
    }
}

fn key(kind: &str, name: &str) -> runtime::Key {
    object_key(kind, (kind != "pool").then_some("default"), name)
}

pub async fn ask(cx: &Cx, op: Op) -> Result<Answer> {
    let request = Request::new("r1", Actor::administrator("tester"), Surface::Rest, op);
    let admitted = cx.gate().admit(request)?;
    cx.desk().carry_out(admitted).await
}

pub async fn create(cx: &Cx, kind: &str, name: &str, spec: Value) -> Result<Answer> {
    let project = (kind != "pool").then(|| "default".into());
    ask(
        cx,
        Op::Create {
            kind: kind.into(),
            project,
            body: json!({ "metadata": { "name": name }, "spec": spec }),
        },
    )
    .await
}

pub async fn until(cx: &Cx, kind: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let key = key(kind, name);
    let mut deltas = cx.cache().subscribe();
    let look = || cx.cache().row(kind, &key).map(|row| row.value().unwrap());
    let wait = async {
        loop {
            match look() {
                Some(value) if wanted(&value) => return value,
                _ => deltas.recv().await.unwrap(),
            };
        }
    };
    match tokio::time::timeout(Duration::from_secs(60), wait).await {
        Ok(value) => value,
        Err(_) => panic!(
            "{kind} {name} never was as wanted: {:#}",
            look().unwrap_or_default()
        ),
    }
}

pub async fn qemu_img(arguments: &[&str]) {
    Run::new("qemu-img").args(arguments).output().await.unwrap();
}

/// A raw disk of `mib` MiB that has a boot signature, and content that no compression hides.
pub fn disk(path: &Path, mib: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..mib << 20)
        .map(|n: usize| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    std::fs::write(path, &bytes).unwrap();
    bytes
}
