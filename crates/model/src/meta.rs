//! What every object carries.

use crate::{Labels, Name, Timestamp, Uid, Violation};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The metadata of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Unique in its scope; an RFC 1123 label.
    pub name: Name,
    /// The project it lives in; absent for cluster-wide kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// Any text, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 200))]
    pub display_name: String,
    /// Identity that survives everything.
    pub uid: Uid,
    /// Opaque; changes with every change. Send it back as If-Match. Filled in by the reader, not stored.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// Counts changes of the spec.
    #[serde(default)]
    pub generation: u64,
    /// Labels to select by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The object this one belongs to and goes with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// When it was made.
    pub created: Timestamp,
    /// Who made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// The request that last changed the spec; logs of what follows from it carry it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// Refuses deletion while true.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub protection: bool,
    /// When deletion was asked for; it goes when nothing holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_requested: Option<Timestamp>,
    /// What must be cleaned up before it can go; each is taken off by who put it on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
    /// Which tasks hold which scopes of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<Hold>,
    /// Unique keys that go with it (addresses, numbers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
}

/// A claim of a task on a scope of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// Name of the task.
    pub task: String,
    /// What it claims, such as `power` or `disks`.
    pub scopes: Vec<String>,
}

/// Who an object belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Owner {
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner, in the same project.
    pub name: String,
    /// Uid of the owner.
    pub uid: Uid,
}

impl Meta {
    /// Rules that hold for the metadata of every kind.
    pub fn check(&self) -> Vec<Violation> {
        let mut out = crate::labels::check_labels(&self.labels);
        if self.display_name.chars().count() > 200 {
            out.push(Violation::new(
                "metadata.display_name",
                "is longer than 200 characters",
            ));
        }
        if self.display_name.chars().any(char::is_control) {
            out.push(Violation::new(
                "metadata.display_name",
                "contains a control character",
            ));
        }
        out
    }
}

/// An object: metadata, what people want, what is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Object<S, T> {
    /// Always [`crate::VERSION`].
    pub version: String,
    /// Name of its kind.
    pub kind: String,
    /// What every object carries.
    pub metadata: Meta,
    /// What people want.
    pub spec: S,
    /// What is; written by exactly one controller.
    #[serde(default = "Option::default")]
    pub status: Option<T>,
}

/// Which object: kind, project (for project kinds) and name.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub struct ObjectRef {
    /// Kind.
    pub kind: String,
    /// Project; absent for cluster kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.project {
            Some(project) => write!(f, "{} {project}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}
