//! The kind `node`: a machine that runs guests. Its agent registers it and keeps its presence up; the api alone writes
//! its status.
//!
//! ```text
//! unknown ──presence──► online ──presence gone──► offline ──presence──► online
//! ```

pub(crate) mod presence;
mod rules;

use crate::event::Severity;
use crate::{
    Controller, Cx, Next, Op, Place, Seat, Subsystem, normal, nothing_to_admit, object_ref,
};
use futures::future::BoxFuture;
use model::{
    Column, Condition, Error, Kind, Resource, Result, Scope, Timestamp, Unit, Verb, schema,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
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
    /// Its agent was there and does not answer any more. What is known of its guests may be old.
    Offline,
    /// Its agent has not been there yet.
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
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Node>,
    admit: nothing_to_admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: |cx| {
        cx.life().spawn("presence", presence::watch(cx.clone()));
        vec![Arc::new(State)]
    },
};

/// Makes sure that this node is there, and keeps its presence up until the process ends. For its agent.
///
/// # Errors
/// When the api refuses the node.
pub async fn attend(cx: &Cx) -> Result<()> {
    register(cx).await?;
    cx.life().spawn("presence", presence::keep(cx.clone()));
    Ok(())
}

async fn register(cx: &Cx) -> Result<()> {
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

/// Writes what the presence of nodes says.
struct State;

impl Controller for State {
    fn name(&self) -> &'static str {
        "node"
    }
    fn owns(&self) -> &'static Kind {
        &KIND
    }
    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(target) = object_ref(key) else {
                return Ok(Next::Settled);
            };
            let found = presence::of(cx, &target.name).await?;
            let now = cx.clock().now();
            let mut turned = None;
            cx.set_status::<Node>(key, |status| {
                let before = status.state;
                *status = rules::after(status, found.as_ref(), now);
                turned = (before != status.state).then_some(status.state);
            })
            .await?;
            let news = match turned {
                Some(NodeState::Online) => ("node.online", "its agent is there", Severity::Info),
                Some(NodeState::Offline) => (
                    "node.offline",
                    "its agent does not answer; its guests may go on",
                    Severity::Warning,
                ),
                Some(NodeState::Unknown) | None => return Ok(Next::Settled),
            };
            cx.event(&target, news.0, news.1, news.2).await;
            Ok(Next::Settled)
        })
    }
}

#[cfg(test)]
mod tests;
