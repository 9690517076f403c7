//! What a project wants and is.

use model::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What people want of a project.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectSpec {
    /// What it is for, in people's words; at most 1000 characters.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub description: String,
    /// Whether its objects may be changed. While false everything in it runs on, can be read, and refuses change.
    #[serde(default = "yes")]
    pub active: bool,
}

fn yes() -> bool {
    true
}

/// What is. A project has nothing to observe.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProjectStatus {
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}
