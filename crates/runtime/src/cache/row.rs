//! One object in the cache.

use crate::registry::Declared;
use crate::{Registry, Seal, object_key, secret};
use bytes::Bytes;
use model::schema::{self, REF};
use model::{Error, Labels, Meta, ObjectRef, Result, Scope, Uid};
use serde_json::{Value, json};
use store::{Entry, Key, Revision};

/// One object: the JSON that surfaces send, and what tables, selectors and references need.
#[derive(Debug)]
pub struct Row {
    /// Its key.
    pub key: Key,
    /// When it last changed.
    pub modified: Revision,
    /// The whole object with its revision; secrets are null, what is personal is open.
    pub json: Bytes,
    /// Its name.
    pub name: Box<str>,
    /// Its project.
    pub project: Option<Box<str>>,
    /// Its identity.
    pub uid: Uid,
    /// Counts changes of its spec.
    pub generation: u64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The request that last changed its spec.
    pub request_id: Box<str>,
    /// Its labels.
    pub labels: Labels,
    /// The key of the object it belongs to.
    pub owner: Option<Key>,
    /// The identity of that object: another of its name is not the owner.
    pub owner_uid: Option<Uid>,
    /// What it is a part of, for who may see it: its owner, or what a task works on.
    pub part_of: Option<Key>,
    /// The keys of the objects it names in reference fields.
    pub references: Vec<Key>,
    /// What it takes of what projects have limits for.
    pub amounts: crate::usage::Amounts,
    /// The values of its kind's columns, as JSON.
    pub columns: Box<[Box<str>]>,
    /// The stored bytes, when they differ from `json` by more than the revision.
    raw: Option<Bytes>,
}

impl Row {
    /// Reads a stored object.
    pub(crate) fn read(
        registry: &Registry,
        seal: &dyn Seal,
        declared: &Declared,
        entry: &Entry,
    ) -> Result<Row> {
        let wrong = |e: serde_json::Error| {
            Error::internal(format!("stored object {}", entry.key)).because(e)
        };
        let mut object: Value = serde_json::from_slice(&entry.value).map_err(wrong)?;
        let meta: Meta = serde_json::from_value(object["metadata"].clone()).map_err(wrong)?;
        let references = references(registry, declared, &meta, &object["spec"]);
        if declared.has_secrets {
            secret::mask_all(&declared.spec, &mut object["spec"]);
        }
        if declared.has_personal {
            let uid = meta.uid.to_string();
            secret::show_personal(seal, &declared.spec, &uid, &mut object["spec"]);
        }
        object["metadata"]["revision"] = json!(entry.modified.to_string());
        let kind = declared.kind();
        let columns = kind
            .columns
            .iter()
            .map(|c| column(&object, c.path, c.unit))
            .collect();
        let amounts = crate::usage::amounts(declared, &object);
        let owner = meta
            .owner
            .as_ref()
            .map(|o| reference(registry, &meta, &o.kind, &o.name));
        let target = (kind.name == crate::task::KIND.name)
            .then(|| serde_json::from_value::<ObjectRef>(object["spec"]["target"].clone()).ok())
            .flatten();
        let part_of = match target {
            Some(target) => Some(object_key(
                &target.kind,
                target.project.as_deref(),
                &target.name,
            )),
            None => owner.clone(),
        };
        Ok(Row {
            key: entry.key.clone(),
            modified: entry.modified,
            json: serde_json::to_vec(&object).map_err(wrong)?.into(),
            name: meta.name.as_str().into(),
            project: meta.project.as_ref().map(|p| p.as_str().into()),
            uid: meta.uid,
            generation: meta.generation,
            deleting: meta.deletion_requested.is_some(),
            request_id: meta.request_id.into(),
            labels: meta.labels,
            owner,
            part_of,
            owner_uid: meta.owner.as_ref().map(|o| o.uid),
            references,
            amounts,
            columns,
            raw: (declared.has_secrets || declared.has_personal).then(|| entry.value.clone()),
        })
    }

    /// Whether the stored bytes are the same as far as secrets go.
    pub(super) fn same_secrets(&self, other: &Row) -> bool {
        self.raw == other.raw
    }

    /// The object as it is stored: secrets sealed.
    pub(crate) fn stored(&self) -> Result<Value> {
        serde_json::from_slice(self.raw.as_ref().unwrap_or(&self.json))
            .map_err(|e| Error::internal(format!("cached object {}", self.key)).because(e))
    }

    /// The object with its secrets opened, for controllers.
    pub(crate) fn open(&self, declared: &Declared, seal: &dyn Seal) -> Result<Value> {
        let mut object = self.stored()?;
        object["metadata"]["revision"] = json!(self.modified.to_string());
        if declared.has_secrets || declared.has_personal {
            secret::open_all(
                seal,
                &declared.spec,
                &self.uid.to_string(),
                &mut object["spec"],
            )?;
        }
        Ok(object)
    }

    /// The object as surfaces see it.
    pub fn value(&self) -> Result<Value> {
        serde_json::from_slice(&self.json)
            .map_err(|e| Error::internal(format!("cached object {}", self.key)).because(e))
    }
}

/// The keys that reference fields point to. `name` is in the same project, `project/name` in another.
pub(crate) fn references(
    registry: &Registry,
    declared: &Declared,
    meta: &Meta,
    spec: &Value,
) -> Vec<Key> {
    let mut out = Vec::new();
    schema::walk(&declared.spec, REF, spec, &mut |_, kind, value| {
        if let (Some(kind), Some(text)) = (kind.as_str(), value.as_str()) {
            out.push(reference(registry, meta, kind, text));
        }
    });
    out.sort_unstable();
    out.dedup();
    out
}

/// The key that one reference points to.
pub(crate) fn reference(registry: &Registry, meta: &Meta, kind: &str, text: &str) -> Key {
    let cluster = registry
        .get(kind)
        .is_some_and(|d| d.kind().scope == Scope::Cluster);
    match text.split_once('/') {
        Some((project, name)) => object_key(kind, Some(project), name),
        None if cluster => object_key(kind, None, text),
        None => object_key(kind, meta.project.as_deref(), text),
    }
}

fn column(object: &Value, path: &str, unit: model::Unit) -> Box<str> {
    let mut here = object;
    for part in path.split('.') {
        here = here.get(part).unwrap_or(&Value::Null);
    }
    let text = match (unit, here) {
        (model::Unit::Count, Value::Array(list)) => list.len().to_string(),
        _ => here.to_string(),
    };
    text.into()
}
