//! The declaration of a kind: data that every surface interprets.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Makes a JSON Schema.
pub type SchemaFn = fn() -> schemars::Schema;

/// A kind of object, declared once as data.
pub struct Kind {
    /// Singular, lower case, hyphenated: `vm`, `security-group`.
    pub name: &'static str,
    /// Plural, as in URLs: `vms`.
    pub plural: &'static str,
    /// For people: `Virtual machine`.
    pub title: &'static str,
    /// Where names are unique.
    pub scope: Scope,
    /// What it is, in a paragraph.
    pub doc: &'static str,
    /// What people may ask of every object of it.
    pub verbs: &'static [Verb],
    /// Schema of `spec`.
    pub spec: SchemaFn,
    /// Schema of `status`.
    pub status: SchemaFn,
    /// Columns of its tables; their values are indexed by the watch cache.
    pub columns: &'static [Column],
    /// Verbs beyond the common ones.
    pub actions: &'static [Action],
    /// Byte streams of an object, such as `console`.
    pub streams: &'static [StreamKind],
    /// Command lines for the help.
    pub examples: &'static [&'static str],
}

/// Where the names of a kind are unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// In a project.
    Project,
    /// In the cluster.
    Cluster,
    /// In a project, or in the cluster when it has none (a task is where its target is).
    Any,
}

/// A common verb. Reading verbs are always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// List and show and watch.
    Read,
    /// Create.
    Create,
    /// Update and patch.
    Update,
    /// Delete.
    Delete,
}

impl Verb {
    /// All of them.
    pub const ALL: &'static [Verb] = &[Verb::Read, Verb::Create, Verb::Update, Verb::Delete];
    /// Only reading.
    pub const READ: &'static [Verb] = &[Verb::Read];
}

/// A column of a table.
pub struct Column {
    /// Heading, lower case: `state`; also the word in `fields=` and `sort=`.
    pub name: &'static str,
    /// Dotted path in the object: `status.state`.
    pub path: &'static str,
    /// Shown only in wide tables.
    pub wide: bool,
    /// How to print it.
    pub unit: Unit,
}

impl Column {
    /// A column that every table shows.
    pub const fn new(name: &'static str, path: &'static str) -> Self {
        Column {
            name,
            path,
            wide: false,
            unit: Unit::Text,
        }
    }
    /// Only in wide tables.
    pub const fn wide(mut self) -> Self {
        self.wide = true;
        self
    }
    /// Printed in this unit.
    pub const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }
}

/// How a value is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// As it is.
    Text,
    /// As a size.
    Bytes,
    /// As an age, from a timestamp.
    Age,
    /// As a percentage.
    Percent,
    /// The number of elements of an array.
    Count,
}

/// How much harm an action can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Danger {
    /// None.
    None,
    /// It interrupts a running thing.
    Disrupts,
    /// It destroys data.
    Destroys,
}

/// How an action is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkStyle {
    /// It edits the spec; a task waits until the world follows.
    Intent,
    /// It is a durable procedure, carried out by a task.
    Procedure,
}

/// A verb of a kind beyond the common ones.
pub struct Action {
    /// The verb: `start`.
    pub verb: &'static str,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
    /// How much harm it can do.
    pub danger: Danger,
    /// How it is carried out.
    pub style: WorkStyle,
    /// Schema of its parameters; an empty object when it has none.
    pub input: SchemaFn,
    /// Scopes of the object that it claims: `power`, `disks`, `placement`.
    pub claims: &'static [&'static str],
    /// After this many seconds it has failed.
    pub deadline: u64,
    /// What the task's event is called: `started`.
    pub event: &'static str,
    /// Command lines for the help.
    pub examples: &'static [&'static str],
}

/// Which way a stream flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Only to the client.
    Read,
    /// Only from the client.
    Write,
    /// Both ways.
    Duplex,
}

/// A byte stream of an object, such as a console or a log.
pub struct StreamKind {
    /// Its name: `console`.
    pub name: &'static str,
    /// What it carries.
    pub doc: &'static str,
    /// Which way.
    pub way: Way,
    /// Whether it needs a single-use ticket.
    pub ticketed: bool,
    /// Schema of its parameters.
    pub input: SchemaFn,
}

/// Ties a kind to its Rust types.
pub trait Resource: Send + Sync + 'static {
    /// The declaration.
    const KIND: &'static Kind;
    /// What people want.
    type Spec: Serialize + DeserializeOwned + schemars::JsonSchema + Clone + Send + Sync + 'static;
    /// What is.
    type Status: Serialize
        + DeserializeOwned
        + schemars::JsonSchema
        + Clone
        + Default
        + Send
        + Sync
        + 'static;
}

impl Kind {
    /// The declared action with this verb.
    pub fn action(&self, verb: &str) -> Option<&'static Action> {
        self.actions.iter().find(|a| a.verb == verb)
    }

    /// Whether people may use this verb.
    pub fn allows(&self, verb: Verb) -> bool {
        self.verbs.contains(&verb)
    }
}

impl std::fmt::Debug for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kind({})", self.name)
    }
}
