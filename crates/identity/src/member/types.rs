//! What a member of a project wants and is.

use crate::grant::{GrantSpec, When};
use model::{Condition, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What people want of a member. Exactly one of `user` and `group` says who it is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemberSpec {
    /// The user who has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80), extend("x-immutable" = true, "x-ref" = "user"))]
    pub user: Option<String>,
    /// The group whose members have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80), extend("x-immutable" = true, "x-ref" = "group"))]
    pub group: Option<String>,
    /// The privileges. What the role takes away is merely not given: it denies nobody what he has from elsewhere.
    #[schemars(length(max = 63), extend("x-ref" = "role"))]
    pub role: String,
    /// Only on this object of the project, `KIND/NAME`, and on what belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 130))]
    pub object: Option<String>,
    /// Only on objects with these labels: `tier=web,!legacy`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1000))]
    pub selector: String,
    /// It is worth nothing from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// All of them must hold, else it is as if there were no such member.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub conditions: Vec<When>,
}

impl MemberSpec {
    /// The grant that it is, in this project.
    pub fn grant(&self, project: &str) -> GrantSpec {
        let scope = match self.object.as_deref().and_then(|it| it.split_once('/')) {
            Some((kind, name)) => format!("{kind}/{project}/{name}"),
            None => format!("project/{project}"),
        };
        GrantSpec {
            user: self.user.clone(),
            group: self.group.clone(),
            key: None,
            role: self.role.clone(),
            scope,
            selector: self.selector.clone(),
            propagate: true,
            expires: self.expires,
            conditions: self.conditions.clone(),
        }
    }
}

/// What is.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MemberStatus {
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}
