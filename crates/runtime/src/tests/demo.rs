//! A demo kind `lamp`: power on or off, a colour, a secret, a unique socket, an action of each sort.

use crate::*;
use futures::future::BoxFuture;
use model::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use store::{Key, Memory};

pub struct Lamp;
impl Resource for Lamp {
    const KIND: &'static Kind = &KIND;
    type Spec = LampSpec;
    type Status = LampStatus;
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-counts" = "lamps"))]
pub struct LampSpec {
    /// Whether it shines.
    #[serde(default)]
    pub on: bool,
    /// Brightness in percent.
    #[serde(default = "full")]
    #[schemars(range(min = 1, max = 100), extend("x-counts" = "light"))]
    pub brightness: u32,
    /// What it is made of.
    #[serde(default)]
    #[schemars(extend("x-immutable" = true))]
    pub glass: String,
    /// Its pin.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    pub pin: Option<String>,
    /// The socket it is plugged into; allocated when absent.
    #[serde(default)]
    #[schemars(extend("x-allocated" = true))]
    pub socket: Option<u32>,
    /// The node it stands on.
    #[serde(default)]
    pub node: Option<String>,
    /// The lamp that it follows.
    #[serde(default)]
    #[schemars(extend("x-ref" = "lamp"))]
    pub follows: Option<String>,
}

fn full() -> u32 {
    100
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LampStatus {
    pub shines: bool,
    pub observed_generation: u64,
    pub conditions: Vec<Condition>,
}

pub static KIND: Kind = Kind {
    name: "lamp",
    plural: "lamps",
    title: "Lamp",
    scope: Scope::Project,
    doc: "A lamp, for tests.",
    verbs: Verb::ALL,
    spec: schema::of::<LampSpec>,
    status: schema::of::<LampStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("on", "spec.on"),
        Column::new("brightness", "spec.brightness"),
    ],
    actions: &[
        Action {
            verb: "switch-on",
            doc: "Makes it shine.",
            danger: Danger::None,
            style: WorkStyle::Intent,
            input: schema::empty,
            claims: &["power"],
            deadline: 300,
            event: "switched-on",
            examples: &[],
        },
        Action {
            verb: "glow",
            doc: "Never comes true.",
            danger: Danger::None,
            style: WorkStyle::Intent,
            input: schema::of::<GlowInput>,
            claims: &[],
            deadline: 300,
            event: "glowed",
            examples: &[],
        },
        Action {
            verb: "flash",
            doc: "Never comes true, and soon shows it.",
            danger: Danger::None,
            style: WorkStyle::Intent,
            input: schema::empty,
            claims: &[],
            deadline: 1,
            event: "flashed",
            examples: &[],
        },
        Action {
            verb: "stall",
            doc: "Takes it apart and never ends.",
            danger: Danger::Disrupts,
            style: WorkStyle::Procedure,
            input: schema::empty,
            claims: &["power"],
            deadline: 1,
            event: "stalled",
            examples: &[],
        },
        Action {
            verb: "polish",
            doc: "Twenty steps, each a line in a file.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::of::<PolishInput>,
            claims: &["power"],
            deadline: 600,
            event: "polished",
            examples: &[],
        },
        Action {
            verb: "repair",
            doc: "Takes it apart and puts it together.",
            danger: Danger::Disrupts,
            style: WorkStyle::Procedure,
            input: schema::empty,
            claims: &["power"],
            deadline: 300,
            event: "repaired",
            examples: &[],
        },
    ],
    streams: &[StreamKind {
        name: "talk",
        doc: "Says back what it hears.",
        way: Way::Duplex,
        ticketed: false,
        input: schema::empty,
    }],
    examples: &[],
};

pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Agent,
    seat: Seat::Field("spec.node"),
    normal: normal::<Lamp>,
    admit: |draft| {
        let mut spec = draft.spec::<Lamp>()?;
        let given = spec.socket;
        let free = || (1..).find(|n: &u32| !draft.key_taken("socket", &n.to_string()));
        spec.socket = given.or_else(free);
        if let Some(socket) = spec.socket {
            let value = socket.to_string();
            if !draft.holds_key("socket", &value) {
                // One that was found free is not looked at again: who takes it meanwhile makes this run again.
                if given.is_some() && draft.key_taken("socket", &value) {
                    return Err(Error::field("spec.socket", format!("{socket} is taken")));
                }
                draft.claim_key("socket", &value);
            }
        }
        draft.set_spec::<Lamp>(&spec)
    },
    runs: &[
        (
            "switch-on",
            Run::Intent {
                edit: |draft, _| {
                    draft.spec["on"] = json!(true);
                    Ok(())
                },
                until: |object| match object["status"]["shines"] {
                    Value::Bool(true) => Until::Done,
                    _ => Until::Waiting("the lamp to shine".into()),
                },
            },
        ),
        (
            "glow",
            Run::Intent {
                edit: |draft, params| {
                    draft.spec["brightness"] = params["to"].clone();
                    Ok(())
                },
                until: |_| Until::Waiting("the glow".into()),
            },
        ),
        (
            "flash",
            Run::Intent {
                edit: |_, _| Ok(()),
                until: |_| Until::Waiting("the flash".into()),
            },
        ),
        ("stall", Run::Procedure(|proc| Box::pin(stall(proc)))),
        ("polish", Run::Procedure(|proc| Box::pin(polish(proc)))),
        ("repair", Run::Procedure(|proc| Box::pin(repair(proc)))),
    ],
    undos: &[&ASSEMBLE],
    streams: &[("talk", |_, _, mut io| {
        Box::pin(async move {
            while let Some(msg) = io.recv().await {
                io.send(msg).await?;
            }
            Ok(())
        })
    })],
    finalizes: true,
    controllers: |_| vec![Arc::new(Shine)],
};

/// What the world outside looks like: which lamps are apart.
#[derive(Default)]
pub struct Bench {
    pub apart: parking_lot::Mutex<Vec<String>>,
    /// A step that fails.
    pub fails: parking_lot::Mutex<Option<&'static str>>,
    pub runs: parking_lot::Mutex<Vec<String>>,
    /// While true, a repair waits in its first step.
    pub hold: tokio::sync::watch::Sender<bool>,
}

pub static ASSEMBLE: Undo = Undo {
    name: "lamp.assemble",
    run: |cx, args| {
        Box::pin(async move {
            cx.part::<Bench>()
                .apart
                .lock()
                .retain(|l| Some(l.as_str()) != args.as_str());
            Ok(())
        })
    },
};

async fn repair(proc: Proc) -> Result<Value> {
    let name = proc.target().name.clone();
    let bench = proc.cx().part::<Bench>();
    let run = |step: &'static str| {
        let bench = bench.clone();
        move || async move {
            bench.runs.lock().push(step.to_owned());
            match *bench.fails.lock() {
                Some(s) if s == step => Err(Error::internal(format!("{step} failed"))),
                _ => Ok(()),
            }
        }
    };
    proc.step("look", || async {
        run("look")().await?;
        let mut hold = bench.hold.subscribe();
        let token = proc.token();
        tokio::select! {
            () = token.cancelled() => Err(Error::refused("nobody looks any more")),
            _ = hold.wait_for(|held| !held) => Ok(()),
        }
    })
    .await?;
    proc.undoable("take apart", ASSEMBLE.with(&name), || async {
        bench.runs.lock().push("take apart".into());
        let mut apart = bench.apart.lock();
        if !apart.contains(&name) {
            apart.push(name.clone());
        }
        Ok(())
    })
    .await?;
    proc.step("clean", run("clean")).await?;
    proc.point_of_no_return().await?;
    proc.step("put together", || async {
        bench.runs.lock().push("put together".into());
        bench.apart.lock().retain(|l| *l != name);
        Ok(())
    })
    .await?;
    Ok(json!({ "clean": true }))
}

/// Parameters of `glow`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GlowInput {
    /// Brightness in percent.
    pub to: u32,
    /// Who may.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    pub word: Option<String>,
}

/// Parameters of `polish`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolishInput {
    /// Where each step leaves a line.
    pub file: String,
}

/// How many steps `polish` has, and which of them waits while the bench is held.
pub const POLISH: (u64, u64) = (20, 10);

async fn polish(proc: Proc) -> Result<Value> {
    let input: PolishInput = proc.params()?;
    let bench = proc.cx().part::<Bench>();
    for n in 0..POLISH.0 {
        proc.step(format!("stroke {n}"), || async {
            let line = format!("{n}\n");
            let mut file = std::fs::File::options()
                .append(true)
                .create(true)
                .open(&input.file)
                .map_err(|e| Error::internal("polish").because(e))?;
            std::io::Write::write_all(&mut file, line.as_bytes())
                .map_err(|e| Error::internal("polish").because(e))?;
            if n == POLISH.1 {
                let mut hold = bench.hold.subscribe();
                let _ = hold.wait_for(|held| !held).await;
            }
            Ok(())
        })
        .await?;
        proc.progress(n + 1, POLISH.0).await;
    }
    Ok(json!({ "strokes": POLISH.0 }))
}

async fn stall(proc: Proc) -> Result<Value> {
    let name = proc.target().name.clone();
    let bench = proc.cx().part::<Bench>();
    proc.undoable("take apart", ASSEMBLE.with(&name), || async {
        bench.apart.lock().push(name.clone());
        Ok(())
    })
    .await?;
    proc.step("wait for ever", std::future::pending::<Result<()>>)
        .await?;
    Ok(Value::Null)
}

struct Shine;
impl Controller for Shine {
    fn name(&self) -> &'static str {
        "lamp"
    }
    fn owns(&self) -> &'static Kind {
        &KIND
    }
    fn watches(&self) -> Vec<Watch> {
        vec![Watch::Referrers("lamp")]
    }
    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(lamp) = cx.get_key::<Lamp>(key) else {
                return Ok(Next::Settled);
            };
            if lamp.spec.glass == "panic" {
                panic!("thin glass");
            }
            if lamp.metadata.deletion_requested.is_some() {
                cx.release(key).await?;
                return Ok(Next::Settled);
            }
            let on = lamp.spec.on;
            cx.set_status::<Lamp>(key, |s| s.shines = on).await?;
            Ok(Next::Settled)
        })
    }
}

pub struct TestSeal;
impl Seal for TestSeal {
    fn seal(&self, context: &str, plain: &str) -> Result<String> {
        Ok(format!(
            "{context}/{}",
            plain.chars().rev().collect::<String>()
        ))
    }
    fn open(&self, context: &str, sealed: &str) -> Result<String> {
        let rest = sealed
            .strip_prefix(&format!("{context}/"))
            .ok_or_else(|| Error::internal("other context"))?;
        Ok(rest.chars().rev().collect())
    }
}

pub fn registry() -> Registry {
    Registry::new(&[SUBSYSTEMS, &[&SUBSYSTEM]]).unwrap()
}

/// A process of both places over a store.
pub async fn start_over(store: Arc<dyn store::Store>, bench: Arc<Bench>) -> Cx {
    start_with(store, bench, None).await
}

/// The same with an audit trail.
pub async fn start_with(
    store: Arc<dyn store::Store>,
    bench: Arc<Bench>,
    trail: Option<Arc<dyn audit::Trail>>,
) -> Cx {
    let mut cx = CxBuilder::new(registry(), store)
        .seal(Arc::new(TestSeal))
        .part(bench);
    if let Some(trail) = trail {
        cx = cx.part(Arc::new(audit::AuditTrail::new(trail)));
    }
    let cx = cx.build().await.unwrap();
    Engine::start(&cx);
    cx
}

pub async fn start() -> Cx {
    start_over(Memory::new(), Arc::default()).await
}

pub fn lamp(name: &str) -> ObjectRef {
    ObjectRef {
        kind: "lamp".into(),
        project: Some("default".into()),
        name: name.into(),
    }
}

pub async fn ask(cx: &Cx, op: Op) -> Result<Answer> {
    ask_as(
        cx,
        Request::new("r1", Actor::administrator("tester"), Surface::Rest, op),
    )
    .await
}

pub async fn ask_as(cx: &Cx, request: Request) -> Result<Answer> {
    let admitted = cx.gate().admit(request)?;
    cx.desk().carry_out(admitted).await
}

pub async fn create(cx: &Cx, name: &str, spec: Value) -> Result<Answer> {
    let body = json!({ "metadata": { "name": name }, "spec": spec });
    ask(
        cx,
        Op::Create {
            kind: "lamp".into(),
            project: Some("default".into()),
            body,
        },
    )
    .await
}

pub async fn act(cx: &Cx, name: &str, verb: &str) -> Result<ObjectRef> {
    act_with(cx, lamp(name), verb, Value::Null).await
}

pub async fn act_on(cx: &Cx, target: ObjectRef, verb: &str) -> Result<ObjectRef> {
    act_with(cx, target, verb, Value::Null).await
}

pub async fn act_with(cx: &Cx, target: ObjectRef, verb: &str, params: Value) -> Result<ObjectRef> {
    let project = target.project.clone();
    match ask(
        cx,
        Op::Act {
            target,
            verb: verb.into(),
            params,
        },
    )
    .await?
    {
        Answer::Accepted { task } => {
            let task: Value = serde_json::from_slice(&task).unwrap();
            Ok(ObjectRef {
                kind: "task".into(),
                project,
                name: task["metadata"]["name"].as_str().unwrap().into(),
            })
        }
        other => panic!("{other:?}"),
    }
}

/// Waits until an object looks as wanted.
pub async fn until(
    cx: &Cx,
    target: &ObjectRef,
    wanted: impl Fn(Option<&Value>) -> bool,
) -> Option<Value> {
    let key = object_key(&target.kind, target.project.as_deref(), &target.name);
    let mut deltas = cx.cache().subscribe();
    let wait = async {
        loop {
            let value = cx
                .cache()
                .row(&target.kind, &key)
                .map(|r| r.value().unwrap());
            if wanted(value.as_ref()) {
                return value;
            }
            deltas.recv().await.unwrap();
        }
    };
    match tokio::time::timeout(std::time::Duration::from_secs(60), wait).await {
        Ok(value) => value,
        Err(_) => panic!(
            "{target} never was as wanted: {:?}",
            cx.cache().row(&target.kind, &key).map(|r| r.value())
        ),
    }
}

pub async fn ended(cx: &Cx, task: &ObjectRef) -> Value {
    let is = |t: Option<&Value>| {
        t.is_some_and(|t| {
            !["pending", "running", "rolling_back"]
                .contains(&t["status"]["state"].as_str().unwrap_or("pending"))
        })
    };
    until(cx, task, is).await.unwrap()
}
