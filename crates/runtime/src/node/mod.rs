//! The kind `node`: a machine that runs guests. Its agent registers it and is the only writer of its status.

use crate::{Controller, Cx, Next, Op, Place, Subsystem, normal, nothing_to_admit};
use futures::future::BoxFuture;
use model::{
    Column, Condition, Error, Kind, Resource, Result, Scope, Timestamp, Unit, Verb, schema,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use store::Key;
use tokio::sync::watch;

/// A machine that runs guests.
pub struct Node;

impl Resource for Node {
    const KIND: &'static Kind = &KIND;
    type Spec = NodeSpec;
    type Status = NodeStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "node",
    plural: "nodes",
    title: "Node",
    scope: Scope::Cluster,
    doc: "A machine that runs guests. Its agent registers it at its first start.",
    verbs: &[Verb::Read, Verb::Update],
    spec: schema::of::<NodeSpec>,
    status: schema::of::<NodeStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("state", "status.state"),
        Column::new("cpus", "status.capacity.cpus"),
        Column::new("memory", "status.capacity.memory").unit(Unit::Bytes),
        Column::new("acceleration", "status.acceleration"),
        Column::new("version", "status.version"),
        Column::new("age", "metadata.created").unit(Unit::Age),
        Column::new("kernel", "status.kernel").wide(),
        Column::new("qemu", "status.qemu").wide(),
    ],
    actions: &[],
    streams: &[],
    examples: &["dvctl node list", "dvctl node show node1 -o yaml"],
};

/// What people want of a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSpec {
    /// Whether new guests may be placed on it.
    pub schedulable: Schedulable,
}

/// Whether new guests may be placed on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedulable {
    /// New guests may be placed here.
    #[default]
    Yes,
    /// Running guests stay, new ones go elsewhere.
    No,
}

/// Whether a node answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Its agent runs.
    Online,
    /// Nothing is known.
    #[default]
    Unknown,
}

/// What a node has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Capacity {
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    #[schemars(extend("x-unit" = "bytes"))]
    pub memory: u64,
}

/// What a node is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct NodeStatus {
    /// Whether it answers.
    pub state: NodeState,
    /// Version of its agent.
    pub version: String,
    /// Its kernel.
    pub kernel: String,
    /// Its QEMU.
    pub qemu: String,
    /// How guests are accelerated: `kvm` or `tcg`.
    pub acceleration: String,
    /// Its boot, so that a reboot is told from a restart of the agent.
    pub boot_id: String,
    /// What it has.
    pub capacity: Capacity,
    /// Since when its agent runs.
    pub since: Option<Timestamp>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// What the agent found on this machine; a part of its process. It changes when, for example, a program is installed.
pub struct Facts(watch::Sender<NodeStatus>);

impl Facts {
    /// What was found first.
    pub fn new(found: NodeStatus) -> Facts {
        Facts(watch::Sender::new(found))
    }

    /// What was found last.
    pub fn now(&self) -> NodeStatus {
        self.0.borrow().clone()
    }

    /// Something else was found.
    pub fn found(&self, now: NodeStatus) {
        self.0.send_replace(now);
    }

    /// Follows what is found.
    pub fn follow(&self) -> watch::Receiver<NodeStatus> {
        self.0.subscribe()
    }
}

/// The kind `node`.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Agent,
    normal: normal::<Node>,
    admit: nothing_to_admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: |_| vec![Arc::new(Register)],
};

/// Makes sure that this node is there.
pub async fn register(cx: &Cx) -> Result<()> {
    if cx.get::<Node>(None, cx.node()).is_some() {
        return Ok(());
    }
    let body = json!({ "metadata": { "name": cx.node() }, "spec": {} });
    match cx
        .submit(
            Op::Create {
                kind: KIND.name.into(),
                project: None,
                body,
            },
            "node",
        )
        .await
    {
        Ok(_) => Ok(()),
        Err(Error {
            what: model::What::Exists,
            ..
        }) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Writes what this machine is into its node.
struct Register;

impl Controller for Register {
    fn name(&self) -> &'static str {
        "node"
    }
    fn owns(&self) -> &'static Kind {
        &KIND
    }
    fn resync(&self) -> Duration {
        Duration::from_secs(60)
    }
    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            if *key != cx.key::<Node>(None, cx.node()) {
                return Ok(Next::Settled);
            }
            if let Some(facts) = cx.try_part::<Facts>() {
                let found = facts.now();
                let now = cx.clock().now();
                cx.set_status::<Node>(key, |status| {
                    let mut new = found.clone();
                    new.state = NodeState::Online;
                    new.since = status
                        .since
                        .filter(|_| status.boot_id == new.boot_id)
                        .or(Some(now));
                    new.observed_generation = status.observed_generation;
                    let mut conditions = status.conditions.clone();
                    for c in &found.conditions {
                        Condition::set(
                            &mut conditions,
                            &c.kind,
                            c.status,
                            &c.reason,
                            &c.message,
                            now,
                        );
                    }
                    new.conditions = conditions;
                    *status = new;
                })
                .await?;
            }
            Ok(Next::Settled)
        })
    }
}
