//! The registry: the declaration of all kinds as the server gives it. Nothing else here knows any kind.
//!
//! Only the heads of all kinds are read at start; a whole kind is parsed when it is asked for.

use crate::failure::{Failure, Result};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Name, plural and title of a kind: enough to find it and to list it in the help.
#[derive(Clone, Debug, Deserialize)]
pub struct Head {
    /// Singular: `vm`.
    pub name: String,
    /// Plural, as in paths: `vms`.
    pub plural: String,
    /// For people.
    #[serde(default)]
    pub title: String,
    /// What its schema says at its root.
    #[serde(default)]
    spec: Root,
}

/// The root of a schema, as far as heads need it.
#[derive(Clone, Debug, Default, Deserialize)]
struct Root {
    /// The kind that its one object is for.
    #[serde(default, rename = "x-keeps")]
    keeps: Option<String>,
}

/// A kind as declared.
#[derive(Clone, Debug, Deserialize)]
pub struct KindDef {
    /// Singular: `vm`.
    pub name: String,
    /// Plural, as in paths: `vms`.
    pub plural: String,
    /// For people.
    #[serde(default)]
    pub title: String,
    /// `project`, `cluster` or `any`.
    pub scope: String,
    /// The manual.
    #[serde(default)]
    pub doc: String,
    /// `read`, `create`, `update`, `delete`.
    #[serde(default)]
    pub verbs: Vec<String>,
    /// Columns of its tables.
    #[serde(default)]
    pub columns: Vec<ColumnDef>,
    /// Verbs beyond the common ones.
    #[serde(default)]
    pub actions: Vec<ActionDef>,
    /// Byte streams.
    #[serde(default)]
    pub streams: Vec<StreamDef>,
    /// Schema of the spec.
    #[serde(default)]
    pub spec: Value,
    /// Schema of the status.
    #[serde(default)]
    pub status: Value,
    /// Command lines.
    #[serde(default)]
    pub examples: Vec<String>,
}

/// A column of a table.
#[derive(Clone, Debug, Deserialize)]
pub struct ColumnDef {
    /// Heading, and the word in `--fields` and `--sort`.
    pub name: String,
    /// Dotted path in the object.
    pub path: String,
    /// Only in wide tables.
    #[serde(default)]
    pub wide: bool,
    /// `text`, `bytes`, `age`, `percent`, `count`.
    #[serde(default)]
    pub unit: String,
}

/// An action.
#[derive(Clone, Debug, Deserialize)]
pub struct ActionDef {
    /// The verb.
    pub verb: String,
    /// What it does.
    #[serde(default)]
    pub doc: String,
    /// `none`, `disrupts`, `destroys`.
    #[serde(default)]
    pub danger: String,
    /// `intent` or `procedure`.
    #[serde(default)]
    pub style: String,
    /// Schema of its parameters.
    #[serde(default)]
    pub input: Value,
    /// Seconds after which it has failed.
    #[serde(default)]
    pub deadline: u64,
    /// Past participle, as in events: `started`.
    #[serde(default)]
    pub event: String,
    /// Command lines.
    #[serde(default)]
    pub examples: Vec<String>,
}

/// A byte stream.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamDef {
    /// Its name, used as a verb.
    pub name: String,
    /// What it carries.
    #[serde(default)]
    pub doc: String,
    /// `read`, `write`, `duplex`.
    pub way: String,
    /// Whether it needs a single-use ticket.
    #[serde(default)]
    pub ticketed: bool,
    /// Schema of its parameters.
    #[serde(default)]
    pub input: Value,
}

impl KindDef {
    /// Whether names of this kind live in a project.
    pub fn in_project(&self) -> bool {
        self.scope != "cluster"
    }

    /// Whether people may use a common verb (`create`, `update`, `delete`).
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The action with this verb.
    pub fn action(&self, verb: &str) -> Option<&ActionDef> {
        self.actions.iter().find(|a| a.verb == verb)
    }

    /// The path of the field that says when an object is over, where there is one.
    pub fn ends_at(&self) -> Option<String> {
        [("status", &self.status), ("spec", &self.spec)]
            .into_iter()
            .find_map(|(part, schema)| {
                let fields = schema.get("properties")?.as_object()?;
                let marked = |field: &Value| model::schema::flagged(field, model::schema::EXPIRES);
                let (name, _) = fields.iter().find(|(_, field)| marked(field))?;
                Some(format!("{part}.{name}"))
            })
    }

    /// The stream with this name.
    pub fn stream(&self, name: &str) -> Option<&StreamDef> {
        self.streams.iter().find(|s| s.name == name)
    }
}

/// All kinds.
pub struct Registry {
    heads: Vec<Head>,
    raw: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Document {
    version: String,
    kinds: Vec<Box<RawValue>>,
}

impl Registry {
    /// Reads the registry's JSON.
    pub fn parse(json: &[u8]) -> Result<Registry> {
        let wrong = |e: serde_json::Error| {
            Failure::unreachable(format!("the server's registry cannot be read: {e}"))
                .hint("this dvctl may be of another release than the server")
        };
        let document: Document = serde_json::from_slice(json).map_err(wrong)?;
        if document.version != model::VERSION {
            return Err(Failure::unreachable(format!(
                "the server speaks version `{}`, this dvctl `{}`",
                document.version,
                model::VERSION
            ))
            .hint("use the dvctl of the server's release"));
        }
        let heads = document
            .kinds
            .iter()
            .map(|raw| serde_json::from_str(raw.get()).map_err(wrong))
            .collect::<Result<Vec<Head>>>()?;
        Ok(Registry {
            heads,
            raw: document.kinds,
        })
    }

    /// Names of all kinds, in the order of the registry.
    pub fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// The kind with this name or plural.
    pub fn kind(&self, word: &str) -> Result<Option<KindDef>> {
        let Some(at) = self
            .heads
            .iter()
            .position(|h| h.name == word || h.plural == word)
        else {
            return Ok(None);
        };
        self.parse_at(at).map(Some)
    }

    /// The kind with this name or plural; an unknown one is a failure with the nearest name.
    pub fn must(&self, word: &str) -> Result<KindDef> {
        self.kind(word)?.ok_or_else(|| {
            let names: Vec<&str> = self.heads.iter().map(|h| h.name.as_str()).collect();
            let mut failure =
                Failure::new(4, format!("there is no kind `{word}`")).nearest(word, &names);
            if failure.hint.is_none() {
                failure.hint = Some(format!("kinds: {}", names.join(", ")));
            }
            failure
        })
    }

    /// The kind whose one object is for all objects of this kind.
    pub fn keeper(&self, kind: &str) -> Result<Option<KindDef>> {
        let keeps = |head: &Head| head.spec.keeps.as_deref() == Some(kind);
        let at = self.heads.iter().position(keeps);
        at.map(|at| self.parse_at(at)).transpose()
    }

    /// Every kind, parsed.
    pub fn all(&self) -> Result<Vec<KindDef>> {
        (0..self.raw.len()).map(|at| self.parse_at(at)).collect()
    }

    fn parse_at(&self, at: usize) -> Result<KindDef> {
        serde_json::from_str(self.raw[at].get()).map_err(|e| {
            Failure::unreachable(format!(
                "the declaration of {} cannot be read: {e}",
                self.heads[at].name
            ))
            .hint("this dvctl may be of another release than the server")
        })
    }
}
