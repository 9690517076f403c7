//! Spec and status of an assignment.

use model::{Condition, Uid};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// On which node a VM is.
pub struct Assignment;

/// On which node a VM shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssignmentSpec {
    /// Identity of the VM; its name is the assignment's.
    pub vm: Uid,
    /// The node; absent while none fits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), extend("x-index" = true))]
    pub node: Option<String>,
    /// Grows with each new node. What an older epoch asks for is refused.
    pub epoch: u64,
}

/// Why the VM is where it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AssignmentStatus {
    /// Generation of the spec that was last looked at.
    #[serde(default)]
    pub observed_generation: u64,
    /// `Placed`, and why not.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
