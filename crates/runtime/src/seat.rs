//! Which node an object lives on: declared with its kind, read from the objects themselves.
//!
//! The agent of that node carries the object out and alone writes its status. The engine passes over objects that sit
//! elsewhere, and the link refuses an agent what is not its own.

use crate::registry::Declared;
use crate::{Cx, Place, Registry, Row, object_key, object_ref};
use model::{Kind, ObjectRef};
use serde_json::Value;
use store::Key;

/// Where the node of an object is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// On no node: the api process carries it out.
    Api,
    /// In this field of the object, as a dotted path such as `spec.node`. While it is empty, the first agent that
    /// writes its own name there has the object.
    Field(&'static str),
    /// In this field of the object of another kind with the same project and name.
    Twin {
        /// The other kind.
        kind: &'static str,
        /// Its field, as a dotted path.
        field: &'static str,
    },
    /// Where the object is that a reference field names.
    With {
        /// The kind that the field refers to.
        kind: &'static str,
        /// The reference field, as a dotted path.
        field: &'static str,
    },
    /// On every node at once: each agent makes its part of it, and any may say how it stands.
    Every,
}

/// Where an object is, as one node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seated {
    /// No agent has it.
    Api,
    /// On this node.
    Here,
    /// On another node.
    There,
    /// On none yet.
    Free,
}

/// The text of a dotted path; empty when there is none.
pub(crate) fn text<'v>(object: &'v Value, path: &str) -> &'v str {
    path.split('.')
        .try_fold(object, |here, part| here.get(part))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Where an object sits, as `node` sees it. `row` answers for other objects. Pure.
pub(crate) fn seated(
    registry: &Registry,
    declared: &Declared,
    node: &str,
    object: &Value,
    row: &dyn Fn(&str, &Key) -> Option<Value>,
) -> Seated {
    let named = |name: &str| match name {
        "" => Seated::Free,
        name if name == node => Seated::Here,
        _ => Seated::There,
    };
    let project = object["metadata"]["project"].as_str();
    match declared.seat {
        Seat::Api => Seated::Api,
        Seat::Every => Seated::Here,
        Seat::Field(path) => named(text(object, path)),
        Seat::Twin { kind, field } => {
            let name = text(object, "metadata.name");
            match row(kind, &object_key(kind, project, name)) {
                _ if registry.get(kind).is_none() => Seated::There,
                // One that belongs to an earlier object of this name says nothing.
                Some(twin) if text(&twin, "metadata.owner.uid") == text(object, "metadata.uid") => {
                    named(text(&twin, field))
                }
                _ => Seated::Free,
            }
        }
        Seat::With { kind, field } => {
            let key = match text(object, field).split_once('/') {
                Some((project, name)) => object_key(kind, Some(project), name),
                None => {
                    let cluster = registry
                        .get(kind)
                        .is_some_and(|d| d.kind().scope == model::Scope::Cluster);
                    let project = project.filter(|_| !cluster);
                    object_key(kind, project, text(object, field))
                }
            };
            match (registry.get(kind), row(kind, &key)) {
                (Some(other), Some(object)) => seated(registry, other, node, &object, row),
                (Some(_), None) => Seated::Free,
                (None, _) => Seated::There,
            }
        }
    }
}

impl Cx {
    /// Where an object of the cache sits, as `node` sees it; one that is gone is free.
    pub(crate) fn seated(&self, node: &str, kind: &str, key: &Key) -> Seated {
        let row = |kind: &str, key: &Key| self.cache().row(kind, key)?.value().ok();
        match (self.registry().get(kind), row(kind, key)) {
            (Some(declared), Some(object)) => {
                seated(self.registry(), declared, node, &object, &row)
            }
            (Some(_), None) => Seated::Free,
            (None, _) => Seated::Api,
        }
    }

    /// Whether a loop of this process may carry an object out: an agent leaves alone what is on another node.
    pub(crate) fn tends(&self, kind: &Kind, key: &Key) -> bool {
        self.place() != Some(Place::Agent)
            || self.seated(self.node(), kind.name, key) != Seated::There
    }

    /// The same for the object of a reference.
    pub(crate) fn tends_object(&self, target: &ObjectRef) -> bool {
        let key = object_key(&target.kind, target.project.as_deref(), &target.name);
        self.registry()
            .get(&target.kind)
            .is_none_or(|declared| self.tends(declared.kind(), &key))
    }

    /// An object of any kind by its uid.
    pub(crate) fn by_uid(&self, uid: model::Uid) -> Option<std::sync::Arc<Row>> {
        let key = self.cache().key_of(uid)?;
        self.cache().row(&object_ref(&key)?.kind, &key)
    }
}
