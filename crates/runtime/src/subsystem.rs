//! What one folder declares: a kind and how it lives.

use crate::{Controller, Cx, Draft, OpenFn, Proc, Seat, Undo};
use futures::future::BoxFuture;
use model::{Error, Kind, Resource, Result};
use serde_json::Value;
use std::sync::Arc;

/// Where the controllers, procedures and streams of a subsystem run.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the unprivileged process that listens and owns the store.
    Api,
    /// In the root process of a node, which listens on nothing.
    Agent,
}

/// The declaration of one subsystem; `pub static SUBSYSTEM` of its folder.
pub struct Subsystem {
    /// The kind.
    pub kind: &'static Kind,
    /// Where it runs.
    pub place: Place,
    /// Which node an object of it lives on: only that node's agent may write its status.
    pub seat: Seat,
    /// Typed round trip of a spec, which materialises defaults: [`normal`].
    pub normal: fn(Value) -> Result<Value>,
    /// Its rules and allocations, at creation and update. Reads only the cache.
    pub admit: fn(&mut Draft<'_>) -> Result<()>,
    /// How each declared action runs.
    pub runs: &'static [(&'static str, Run)],
    /// Undo handlers of its procedures.
    pub undos: &'static [&'static Undo],
    /// How each declared stream opens.
    pub streams: &'static [(&'static str, OpenFn)],
    /// Whether its controller must clean up before an object may go.
    pub finalizes: bool,
    /// Its controllers.
    pub controllers: fn(&Cx) -> Vec<Arc<dyn Controller>>,
}

/// How an action runs.
pub enum Run {
    /// One transaction edits the spec and creates a task that waits.
    Intent {
        /// Edits the draft; refuses what the state forbids.
        edit: fn(&mut Draft<'_>, &Value) -> Result<()>,
        /// Reads the whole object and says whether the world has followed.
        until: fn(&Value) -> Until,
    },
    /// A durable procedure.
    Procedure(fn(Proc) -> BoxFuture<'static, Result<Value>>),
}

/// Whether the world has followed an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
    /// Not yet, and for what it waits.
    Waiting(String),
    /// Yes.
    Done,
    /// It cannot, and why.
    Failed(String),
}

/// Checks a spec against its Rust type and fills in defaults.
pub fn normal<R: Resource>(spec: Value) -> Result<Value> {
    let typed: R::Spec =
        serde_json::from_value(spec).map_err(|e| Error::field("spec", e.to_string()))?;
    serde_json::to_value(typed)
        .map_err(|e| Error::internal("spec cannot be written as JSON").because(e))
}

/// For kinds without rules beyond their schema.
pub fn nothing_to_admit(_: &mut Draft<'_>) -> Result<()> {
    Ok(())
}

/// For kinds without controllers.
pub fn no_controllers(_: &Cx) -> Vec<Arc<dyn Controller>> {
    Vec::new()
}

impl Subsystem {
    /// How an action runs.
    pub fn run(&self, verb: &str) -> Option<&'static Run> {
        self.runs
            .iter()
            .find(|(name, _)| *name == verb)
            .map(|(_, run)| run)
    }
}

impl std::fmt::Debug for Subsystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subsystem({})", self.kind.name)
    }
}
