//! Scenarios in text, over the memory store and a stand-in for QEMU, in virtual time. Each line of a file is one thing that
//! happens or one thing that must be so:
//!
//! ```text
//! create NAME SPEC            a VM, spec in JSON
//! act NAME VERB [PARAMS]      an action, and its task must succeed; `act!` must be refused with the words that follow
//! says NAME VERB TEXT         an action whose result holds this text
//! host lacks [WHAT]           what guests stand on goes, or is there again
//! set NAME PATCH              a merge patch of the spec
//! delete NAME
//! guest NAME EVENT            shuts-down | panics | dies | resets | disk-full | ignores-shutdown | boots-for-25s
//! noise NAME SECONDS MOST     time passes, in which the object changes at most so often
//! after SECONDS               time passes
//! clock SECONDS               the wall clock is set forward by so much, or back
//! agent-restarts              our processes end and come back
//! host-reboots                guests are gone, the boot is another
//! is NAME WORD=VALUE ...      what the status says, within five seconds
//! asked NAME WORDS            what the stand-in was asked since the last such line, in order
//! ```

use super::Vm;
use super::hypervisor::Guests;
use super::stand_in::World;
use crate::SUBSYSTEMS;
use model::{ObjectRef, Result, Timestamp};
use runtime::node::{Facts, NodeStatus};
use runtime::{
    Actor, Answer, Bearing, Clock, Cx, CxBuilder, Engine, Op, Registry, Request, Surface, node,
};
use serde_json::{Value, json};

use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A clock that follows the virtual time of the test, and jumps when it is told.
struct Virtual(Instant, runtime::ManualClock);

impl Clock for Virtual {
    fn now(&self) -> Timestamp {
        let jumped = self.1.now().millis();
        Timestamp::from_millis(1_800_000_000_000 + jumped).plus(self.0.elapsed())
    }
    fn bearing(&self) -> Bearing {
        self.1.bearing()
    }
    fn fill(&self, bytes: &mut [u8]) {
        self.1.fill(bytes);
    }
}

struct Play {
    cx: Cx,
    world: Arc<World>,
    store: Arc<store::Memory>,
    clock: Arc<Virtual>,
}

fn target(name: &str) -> ObjectRef {
    ObjectRef {
        kind: "vm".into(),
        project: Some("default".into()),
        name: name.into(),
    }
}

async fn process(store: Arc<store::Memory>, world: Arc<World>, clock: Arc<Virtual>) -> Cx {
    let registry = Registry::new(&[runtime::SUBSYSTEMS, SUBSYSTEMS]).unwrap();
    let cx = CxBuilder::new(registry, store)
        .clock(clock)
        .part(Arc::new(Facts::new(NodeStatus::default())))
        .part(Arc::new(Guests::new(world)))
        .build()
        .await
        .unwrap();
    node::attend(&cx).await.unwrap();
    Engine::start(&cx);
    cx
}

impl Play {
    async fn start() -> Play {
        let world = Arc::new(World::default());
        let store = store::Memory::new();
        let clock = Arc::new(Virtual(Instant::now(), runtime::ManualClock::at(0)));
        Play {
            cx: process(store.clone(), world.clone(), clock.clone()).await,
            world,
            store,
            clock,
        }
    }

    async fn restart(&mut self) {
        self.cx.life().stop(Duration::from_secs(5)).await;
        self.cx = process(self.store.clone(), self.world.clone(), self.clock.clone()).await;
    }

    async fn ask(&self, op: Op) -> Result<Answer> {
        let request = Request::new("r1", Actor::administrator("tester"), Surface::Rest, op);
        self.cx
            .desk()
            .carry_out(self.cx.gate().admit(request)?)
            .await
    }

    async fn act(&self, name: &str, verb: &str, params: &str) -> Result<Value> {
        let params = match params {
            "" => json!({}),
            text => serde_json::from_str(text).unwrap(),
        };
        let op = Op::Act {
            target: target(name),
            verb: verb.into(),
            params,
        };
        let Answer::Accepted { task } = self.ask(op).await? else {
            panic!("{verb} made no task");
        };
        let task: Value = serde_json::from_slice(&task).unwrap();
        let task = task["metadata"]["name"].as_str().unwrap().to_owned();
        for _ in 0..100_000 {
            let found = self.cx.get::<runtime::task::Task>(Some("default"), &task);
            let status = found.unwrap().status.clone().unwrap_or_default();
            if status.state.ended() {
                let whole = serde_json::to_value(&status).unwrap();
                return match whole["state"].as_str() {
                    Some("succeeded") => Ok(whole["result"].clone()),
                    _ => Err(model::Error::refused(whole.to_string())),
                };
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("{verb} of {name} never ends")
    }

    /// What a word of a line means.
    fn word(&self, name: &str, word: &str) -> String {
        let Some(vm) = self.cx.get::<Vm>(Some("default"), name) else {
            return match word {
                "gone" => "yes".into(),
                _ => "gone".into(),
            };
        };
        let value = serde_json::to_value(vm.status.clone().unwrap_or_default()).unwrap();
        let condition = |kind: &str| {
            let list = value["conditions"].as_array().cloned().unwrap_or_default();
            let found = list.iter().find(|c| c["type"] == kind).cloned();
            found.map_or("none".into(), |c| {
                c["reason"].as_str().unwrap_or_default().to_owned()
            })
        };
        match word {
            "gone" => "no".into(),
            "message" => value["last_exit"]["message"]
                .as_str()
                .unwrap_or("none")
                .replace(' ', "_"),
            "exit" => value["last_exit"]["reason"]
                .as_str()
                .unwrap_or("none")
                .into(),
            "running" => condition("Running"),
            "needs-restart" => condition("NeedsRestart"),
            "emulated" => condition("Emulated"),
            field => match &value[field] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            },
        }
    }

    async fn line(&mut self, line: &str) {
        let mut words = line.splitn(4, ' ');
        let mut next = || words.next().unwrap_or_default();
        let (verb, name, third, rest) = (next(), next(), next(), next());
        match verb {
            "create" => {
                let spec: Value = serde_json::from_str(&format!("{third} {rest}")).unwrap();
                let body = json!({ "metadata": { "name": name }, "spec": spec });
                let op = Op::Create {
                    kind: "vm".into(),
                    project: Some("default".into()),
                    body,
                };
                self.ask(op).await.unwrap();
            }
            "act" => drop(self.act(name, third, rest).await.unwrap()),
            "says" => {
                let said = self.act(name, third, "").await.unwrap().to_string();
                assert!(said.contains(rest), "{said}");
            }
            "host" => {
                let what = format!("{third} {rest}").trim().to_owned();
                self.world.lack((!what.is_empty()).then_some(what));
            }
            "act!" => {
                let error = self.act(name, third, "").await.unwrap_err().to_string();
                assert!(error.contains(rest), "{error}");
            }
            "set" => {
                let spec: Value = serde_json::from_str(&format!("{third} {rest}")).unwrap();
                let op = Op::Patch {
                    target: target(name),
                    body: json!({ "spec": spec }),
                };
                self.ask(op).await.unwrap();
            }
            "delete" => {
                let op = Op::Delete {
                    target: target(name),
                    keep: Vec::new(),
                };
                self.ask(op).await.unwrap();
            }
            "guest" => self.world.happens(&self.cx, name, third),
            "after" => tokio::time::sleep(Duration::from_secs(name.parse().unwrap())).await,
            "noise" => {
                let key = self.cx.key::<Vm>(Some("default"), name);
                let mut deltas = self.cx.cache().subscribe();
                let end = Instant::now() + Duration::from_secs(third.parse().unwrap());
                let mut changes = 0;
                while let Ok(delta) = tokio::time::timeout_at(end, deltas.recv()).await {
                    changes += usize::from(delta.unwrap().key == key);
                }
                assert!(changes <= rest.parse().unwrap(), "{changes} changes");
            }
            "clock" => self.clock.1.jump(name.parse::<i64>().unwrap() * 1000),
            "agent-restarts" => self.restart().await,
            "host-reboots" => {
                self.cx.life().stop(Duration::from_secs(5)).await;
                self.world.reboot();
                self.restart().await;
            }
            "is" => self.is(name, &format!("{third} {rest}")).await,
            "asked" => {
                let asked = self.world.asked(name);
                assert_eq!(asked, format!("{third} {rest}").trim(), "{name} was asked");
            }
            other => panic!("{other:?} is no word of a scenario"),
        }
    }

    async fn is(&self, name: &str, wanted: &str) {
        let wanted: Vec<(&str, &str)> = wanted
            .split_whitespace()
            .map(|w| w.split_once('=').unwrap())
            .collect();
        for round in 0.. {
            let found: Vec<String> = wanted
                .iter()
                .map(|(w, _)| format!("{w}={}", self.word(name, w)))
                .collect();
            let same = wanted
                .iter()
                .zip(&found)
                .all(|((w, v), f)| *f == format!("{w}={v}"));
            if same {
                return;
            }
            assert!(round < 100, "{name} is {}", found.join(" "));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn play(text: &str) {
    let mut play = Play::start().await;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        eprintln!("{:3} {line}", number + 1);
        play.line(line).await;
    }
    play.cx.life().stop(Duration::from_secs(5)).await;
}

macro_rules! scenarios {
    ($($name:ident)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            play(include_str!(concat!(stringify!($name), ".txt"))).await;
        }
    )*};
}

scenarios! { power clock crashes guest_shutdown adoption host_reboot resets changes deletion looks }
