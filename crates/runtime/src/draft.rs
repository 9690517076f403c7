//! A request on its way into the store: what rules may look at and change.

use crate::{Actor, Cx, unique_key};
use model::{Error, Meta, Name, Resource, Result, Timestamp};
use serde_json::Value;

/// An object being created or changed. Rules read it and the cache, edit it, and claim unique keys; nothing is
/// written before the whole request has passed.
pub struct Draft<'a> {
    /// What it will be called and carry.
    pub meta: Meta,
    /// What it will want; defaults are already there.
    pub spec: Value,
    /// What it is now; `Null` while it is created.
    pub status: Value,
    old_spec: Option<Value>,
    cx: &'a Cx,
    actor: &'a Actor,
    pub(crate) claimed: Vec<String>,
    pub(crate) released: Vec<String>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        cx: &'a Cx,
        actor: &'a Actor,
        meta: Meta,
        spec: Value,
        old_spec: Option<Value>,
        status: Value,
    ) -> Self {
        Draft {
            meta,
            spec,
            status,
            old_spec,
            cx,
            actor,
            claimed: Vec::new(),
            released: Vec::new(),
        }
    }

    /// Whether the object does not exist yet.
    pub fn creating(&self) -> bool {
        self.old_spec.is_none()
    }

    /// The typed spec.
    pub fn spec<R: Resource>(&self) -> Result<R::Spec> {
        serde_json::from_value(self.spec.clone()).map_err(|e| Error::field("spec", e.to_string()))
    }

    /// Replaces the spec.
    pub fn set_spec<R: Resource>(&mut self, spec: &R::Spec) -> Result<()> {
        self.spec = serde_json::to_value(spec)
            .map_err(|e| Error::internal("spec cannot be written as JSON").because(e))?;
        Ok(())
    }

    /// The typed spec before this request; `None` while the object is created.
    pub fn old_spec<R: Resource>(&self) -> Result<Option<R::Spec>> {
        self.old_spec
            .clone()
            .map(|v| {
                serde_json::from_value(v).map_err(|e| Error::internal("stored spec").because(e))
            })
            .transpose()
    }

    /// The typed status; its default while there is none.
    pub fn status<R: Resource>(&self) -> R::Status {
        serde_json::from_value(self.status.clone()).unwrap_or_default()
    }

    /// Replaces the status. Only for kinds whose rule is the one writer of their status.
    pub fn set_status<R: Resource>(&mut self, status: &R::Status) -> Result<()> {
        self.status = serde_json::to_value(status)
            .map_err(|e| Error::internal("status cannot be written as JSON").because(e))?;
        Ok(())
    }

    /// The generation that the object will have.
    pub fn next_generation(&self) -> u64 {
        let changed = self.old_spec.as_ref().is_none_or(|old| *old != self.spec);
        self.meta.generation + u64::from(changed)
    }

    /// For reading other objects from the cache.
    pub fn cx(&self) -> &'a Cx {
        self.cx
    }

    /// Who asks.
    pub fn actor(&self) -> &'a Actor {
        self.actor
    }

    /// The project of the object.
    pub fn project(&self) -> Option<&str> {
        self.meta.project.as_ref().map(Name::as_str)
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        self.cx.clock().now()
    }

    /// Unpredictable bytes.
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.cx.clock().fill(&mut out);
        out
    }

    /// Whether a unique value is taken, also by an earlier claim of this draft.
    pub fn key_taken(&self, space: &str, value: &str) -> bool {
        let key = unique_key(space, value);
        if self.released.iter().any(|k| k == key.as_str()) {
            return false;
        }
        self.meta.keys.iter().any(|k| k == key.as_str()) || self.cx.cache().unique(&key).is_some()
    }

    /// Whether this object already holds a unique value.
    pub fn holds_key(&self, space: &str, value: &str) -> bool {
        let key = unique_key(space, value);
        self.meta.keys.iter().any(|k| k == key.as_str())
    }

    /// Claims a unique value in the same transaction; a race with another claim makes the whole request run again.
    pub fn claim_key(&mut self, space: &str, value: &str) {
        let key = unique_key(space, value).as_str().to_owned();
        if self.meta.keys.contains(&key) {
            return;
        }
        self.released.retain(|k| *k != key);
        self.meta.keys.push(key.clone());
        self.claimed.push(key);
    }

    /// Gives a unique value back in the same transaction.
    pub fn release_key(&mut self, space: &str, value: &str) {
        let key = unique_key(space, value).as_str().to_owned();
        self.meta.keys.retain(|k| *k != key);
        if self.claimed.contains(&key) {
            self.claimed.retain(|k| *k != key);
        } else {
            self.released.push(key);
        }
    }
}
