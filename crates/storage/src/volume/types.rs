//! What a volume is made of.

use model::{Bytes, Column, Condition, Kind, Resource, Scope, Unit, Verb, schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A disk.
pub struct Volume;

impl Resource for Volume {
    const KIND: &'static Kind = &KIND;
    type Spec = VolumeSpec;
    type Status = VolumeStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "volume",
    plural: "volumes",
    title: "Volume",
    scope: Scope::Project,
    doc: "A disk in a pool, empty or made from an image. It grows and never shrinks. A volume that a virtual machine uses cannot be deleted; one that was made with a virtual machine goes with it.",
    verbs: Verb::ALL,
    spec: schema::of::<VolumeSpec>,
    status: schema::of::<VolumeStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("state", "status.state"),
        Column::new("size", "status.size").unit(Unit::Bytes),
        Column::new("used", "status.allocated").unit(Unit::Bytes),
        Column::new("pool", "spec.pool"),
        Column::new("image", "spec.image"),
        Column::new("age", "metadata.created").unit(Unit::Age),
        Column::new("format", "spec.format").wide(),
        Column::new("owner", "metadata.owner.name").wide(),
        Column::new("path", "status.path").wide(),
        Column::new("message", "status.message").wide(),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl volume list",
        "dvctl volume create data1 --size 20GiB",
        "dvctl volume create root1 --image debian-12 --size 8GiB",
        "dvctl volume set data1 --size 40GiB",
    ],
};

/// How a volume's file is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VolumeFormat {
    /// Takes only the space it uses, and can have snapshots.
    #[default]
    Qcow2,
    /// The bytes of the disk: the fastest.
    Raw,
}

impl VolumeFormat {
    /// Its name for QEMU.
    pub fn word(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// Whether space is taken at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provisioned {
    /// As it is written to.
    #[default]
    Thin,
    /// All of it when the volume is made.
    Thick,
}

/// What people want of a volume.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeSpec {
    /// The pool that keeps it.
    #[serde(default = "default_pool")]
    #[schemars(extend("x-ref" = "pool", "x-immutable" = true))]
    pub pool: String,
    /// Size of the disk, at least 1 MiB and at most 10,000 GiB. It can only grow. When absent, it is as large as its
    /// image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-hotplug" = true, "x-counts" = "disk"))]
    pub size: Option<Bytes>,
    /// How its file is written.
    #[serde(default)]
    #[schemars(extend("x-immutable" = true))]
    pub format: VolumeFormat,
    /// Whether its space is taken at once.
    #[serde(default)]
    #[schemars(extend("x-immutable" = true))]
    pub provisioned: Provisioned,
    /// The image that it is made from; an image of another project as `project/name`. Empty when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-ref" = "image", "x-immutable" = true))]
    pub image: Option<String>,
}

fn default_pool() -> String {
    "default".to_owned()
}

/// How a volume stands.
///
/// ```text
/// creating ─► available ◄─► resizing
///     └────────►  error  ◄────┘        any ─► deleting
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeState {
    /// Being made.
    #[default]
    Creating,
    /// Its file is there, with the size that is wanted.
    Available,
    /// It is larger soon.
    Resizing,
    /// Something failed: see `message`.
    Error,
    /// Its file is being removed.
    Deleting,
}

/// What a volume is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VolumeStatus {
    /// How it stands.
    #[serde(default)]
    pub state: VolumeState,
    /// The node that has it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Its file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Size of the disk now.
    #[serde(default)]
    #[schemars(extend("x-counts" = "disk"))]
    pub size: Bytes,
    /// Space that its file takes in the pool.
    #[serde(default)]
    pub allocated: Bytes,
    /// Uid of the image that its file is a thin layer upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer_on: Option<String>,
    /// What it waits for, or what failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Generation of its spec that was seen.
    #[serde(default)]
    pub observed_generation: u64,
    /// Conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
