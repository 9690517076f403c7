//! What an image is made of.

use host::img::ImageFormat;
use model::{
    Action, Bytes, Column, Condition, Danger, Kind, Resource, Scope, StreamKind, Unit, Verb, Way,
    WorkStyle, schema,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A disk that volumes are made from.
pub struct Image;

impl Resource for Image {
    const KIND: &'static Kind = &KIND;
    type Spec = ImageSpec;
    type Status = ImageStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "image",
    plural: "images",
    title: "Image",
    scope: Scope::Project,
    doc: "A disk that volumes are made from: built by a recipe, fetched from an address, copied from a file of the node, or uploaded. It is checked, kept as qcow2, and never changes. An image that volumes are made from cannot be deleted.",
    verbs: Verb::ALL,
    spec: schema::of::<ImageSpec>,
    status: schema::of::<ImageStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("state", "status.state"),
        Column::new("size", "status.virtual_size").unit(Unit::Bytes),
        Column::new("used", "status.allocated").unit(Unit::Bytes),
        Column::new("pool", "spec.pool"),
        Column::new("shared", "spec.shared"),
        Column::new("age", "metadata.created").unit(Unit::Age),
        Column::new("sha256", "status.sha256").wide(),
        Column::new("message", "status.message").wide(),
    ],
    actions: &[Action {
        verb: "import",
        doc: "Fetches or builds the image again after it failed. A new image is imported without being asked.",
        danger: Danger::None,
        style: WorkStyle::Procedure,
        input: schema::empty,
        claims: &["content"],
        deadline: 6 * 3600,
        event: "imported",
        examples: &["dvctl image import debian-12"],
    }],
    streams: &[StreamKind {
        name: "upload",
        doc: "Takes the file of an image whose source is `upload`. The first message to the client is `{\"offset\": n}`: what is there already; the client sends the bytes from there on and gets `{\"received\": n}` now and then. When all have arrived, the answer is `{\"complete\": true}`. A cut connection loses nothing that was acknowledged.",
        way: Way::Duplex,
        ticketed: false,
        input: schema::empty,
    }],
    examples: &[
        "dvctl image list",
        "dvctl image create debian-12 --source recipe=debian-12",
        "dvctl image create mine --source url=https://example.org/disk.qcow2,sha256=9f86d0...",
        "dvctl image create local --source file=/srv/disk.vmdk",
        "dvctl image upload debian.qcow2",
        "dvctl image create up --source upload.size=2361393152",
    ],
};

/// Formats of disk images that can be imported. All are stored as qcow2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// QEMU's own.
    Qcow2,
    /// The bytes of the disk, nothing else.
    Raw,
    /// VMware's, in one file (monolithicSparse or streamOptimized).
    Vmdk,
    /// Hyper-V's.
    Vhdx,
    /// VirtualBox's.
    Vdi,
    /// Virtual PC's, and Hyper-V's older one.
    Vhd,
}

impl Format {
    /// As the tool calls it.
    pub(super) fn tool(self) -> ImageFormat {
        match self {
            Self::Qcow2 => ImageFormat::Qcow2,
            Self::Raw => ImageFormat::Raw,
            Self::Vmdk => ImageFormat::Vmdk,
            Self::Vhdx => ImageFormat::Vhdx,
            Self::Vdi => ImageFormat::Vdi,
            Self::Vhd => ImageFormat::Vpc,
        }
    }

    pub(super) fn found(format: ImageFormat) -> Self {
        match format {
            ImageFormat::Qcow2 => Self::Qcow2,
            ImageFormat::Raw => Self::Raw,
            ImageFormat::Vmdk => Self::Vmdk,
            ImageFormat::Vhdx => Self::Vhdx,
            ImageFormat::Vdi => Self::Vdi,
            ImageFormat::Vpc => Self::Vhd,
        }
    }
}

/// Recipes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecipeName {
    /// Debian 12, built from Debian's packages.
    #[serde(rename = "debian-12")]
    Debian12,
    /// Debian 13, built from Debian's packages.
    #[serde(rename = "debian-13")]
    Debian13,
    /// A guest that boots within seconds.
    #[serde(rename = "tiny")]
    Tiny,
}

/// A file that a client sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upload {
    /// How many bytes it has.
    #[schemars(extend("x-file" = "size"))]
    pub size: Bytes,
}

/// Where an image comes from: exactly one of `recipe`, `url`, `file` and `upload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Built on the node from Debian's packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<RecipeName>,
    /// Fetched from this address, http or https. Needs `sha256` or `sha512`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// Copied from this file of the node, an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub file: Option<String>,
    /// Sent by a client through the stream `upload`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upload: Option<Upload>,
    /// SHA-256 of the file as it is fetched, 64 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-fA-F]{64}$"), extend("x-file" = "sha256"))]
    pub sha256: Option<String>,
    /// SHA-512 of the file as it is fetched, 128 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-fA-F]{128}$"))]
    pub sha512: Option<String>,
    /// Format of the file. When absent it is found out; a disk without partitions is only taken when this says `raw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
}

/// What people want of an image.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Where it comes from.
    #[schemars(extend("x-immutable" = true))]
    pub source: Source,
    /// The pool that keeps it. Volumes of the same pool are made from it at once, those of others by a copy.
    #[serde(default = "default_pool")]
    #[schemars(extend("x-ref" = "pool", "x-immutable" = true))]
    pub pool: String,
    /// Whether every project may make volumes from it.
    #[serde(default)]
    pub shared: bool,
    /// Name of the operating system, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 100))]
    pub os: String,
}

fn default_pool() -> String {
    "default".to_owned()
}

/// How an image stands.
///
/// ```text
/// waiting ─► importing ─► ready
///                ▲  └───► failed ─┐
///                └────────────────┘ action `import`      any ─► deleting
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// Its pool or its upload is not there yet.
    #[default]
    Waiting,
    /// A task fetches or builds it.
    Importing,
    /// Volumes can be made from it.
    Ready,
    /// It could not be imported: see `message`.
    Failed,
    /// Its file is being removed.
    Deleting,
}

/// What an image is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageStatus {
    /// How it stands.
    #[serde(default)]
    pub state: ImageState,
    /// The task that imports it, or did last.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub task: String,
    /// The node that has it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Its file.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Size of the disk in it: the least size of a volume made from it.
    #[serde(default)]
    pub virtual_size: Bytes,
    /// Space that its file takes in the pool.
    #[serde(default)]
    pub allocated: Bytes,
    /// SHA-256 of the file that it was imported from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Format of the file that it was imported from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_as: Option<Format>,
    /// Bytes of its upload that have arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<Bytes>,
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
