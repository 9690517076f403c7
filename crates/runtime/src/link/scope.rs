//! What an agent may read and write of the store: what sits on its node, and nothing else.
//!
//! It reads the kinds that agents carry out and what these refer to; secrets only of objects on its node. It writes
//! the status of those objects, takes them away when their deletion was asked for, keeps the journals of the tasks it
//! runs, and its own presence. A spec it changes only by asking ([`super::ask`]). Whatever is not known is refused.

use crate::key::{OBJECTS, UNIQUE};
use crate::node::presence;
use crate::registry::Declared;
use crate::seat::{Seat, Seated, seated, text};
use crate::task::{self, TaskState};
use crate::{Cx, Place, Row, object_key, object_ref, secret, setting};
use futures::future::BoxFuture;
use model::schema::REF;
use model::{ObjectRef, Uid};
use serde_json::{Value, json};
use std::collections::HashSet;
use store::remote::{Scope, hidden};
use store::{Change, ChangeKind, Entry, Expect, Key, Revision, StoreError, Txn, Write};

/// The scope of one node's agent, judged by the watch cache of the api.
#[derive(Clone)]
pub(super) struct NodeScope {
    cx: Cx,
    node: String,
    kinds: HashSet<&'static str>,
}

type Judged<T = ()> = Result<T, String>;

impl NodeScope {
    pub(super) fn new(cx: &Cx, node: &str) -> NodeScope {
        NodeScope {
            cx: cx.clone(),
            node: node.to_owned(),
            kinds: readable(cx.registry()),
        }
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    fn no(&self, may_not: &str, key: &Key) -> String {
        format!(
            "the agent of node `{}` may not {may_not} `{key}`",
            self.node
        )
    }

    /// Where an object of the cache sits for this node.
    pub(super) fn seat(&self, kind: &str, key: &Key) -> Seated {
        self.cx.seated(&self.node, kind, key)
    }

    fn seat_of(&self, declared: &Declared, object: &Value) -> Seated {
        let row = |kind: &str, key: &Key| self.cx.cache().row(kind, key)?.value().ok();
        seated(self.cx.registry(), declared, &self.node, object, &row)
    }

    /// Whether this node's agent runs the task with this uid.
    pub(super) fn runs_task(&self, uid: Uid) -> bool {
        let task = self.cx.by_uid(uid).and_then(|row| row.value().ok());
        task.is_some_and(|task| text(&task, "kind") == task::KIND.name && self.runs(&task))
    }

    /// Whether this node's agent runs a task, or may take it up.
    fn runs(&self, task: &Value) -> bool {
        let target: Option<ObjectRef> = serde_json::from_value(task["spec"]["target"].clone()).ok();
        let seat = target.map(|t| {
            let key = object_key(&t.kind, t.project.as_deref(), &t.name);
            self.seat(&t.kind, &key)
        });
        may_run(&self.node, task, seat)
    }

    /// Whether an event is about something of this node.
    pub(super) fn may_tell(&self, event: &crate::event::Event) -> bool {
        let about = &event.about;
        let key = object_key(&about.kind, about.project.as_deref(), &about.name);
        let declared = self.cx.registry().get(&about.kind);
        let may = declared.is_some_and(|d| {
            // The last news of an object comes when it is gone.
            d.seat != Seat::Api && self.seat(&about.kind, &key) != Seated::There
        });
        if !may {
            tracing::warn!(node = %self.node, event = %event.event, %about, "an event of an agent was refused");
        }
        may
    }

    fn may_read(&self, key: &Key) -> bool {
        match parts(key) {
            Part::Object(target) => self.kinds.contains(target.kind.as_str()),
            Part::Journal(uid) => self.runs_task(uid),
            Part::Presence(node) => node == self.node,
            Part::Unique | Part::Other => false,
        }
    }

    /// An entry as this node may see it.
    fn shown(&self, entry: Entry) -> Option<Entry> {
        if !self.may_read(&entry.key) {
            return None;
        }
        let Part::Object(target) = parts(&entry.key) else {
            return Some(entry);
        };
        let declared = self.cx.registry().get(&target.kind)?;
        if target.kind == task::KIND.name {
            let task: Value = serde_json::from_slice(&entry.value).ok()?;
            return (task["spec"]["place"] == json!(Place::Agent)).then_some(entry);
        }
        if !declared.has_secrets {
            return Some(entry);
        }
        let mut object: Value = serde_json::from_slice(&entry.value).ok()?;
        if self.seat_of(declared, &object) == Seated::Here {
            return Some(entry);
        }
        secret::mask_all(&declared.spec, &mut object["spec"]);
        let value = serde_json::to_vec(&object).ok()?.into();
        Some(Entry { value, ..entry })
    }

    /// What else a change shows or hides: the object whose seat it decides, when that one has secrets.
    async fn uncovered(&self, change: &Change) -> Result<Option<Change>, StoreError> {
        let Some(target) = object_ref(change.kind.key()) else {
            return Ok(None);
        };
        let twin = self.cx.registry().iter().find(|d| {
            d.has_secrets && matches!(d.seat, Seat::Twin { kind, .. } if kind == target.kind)
        });
        let Some(declared) = twin else {
            return Ok(None);
        };
        let key = object_key(
            declared.kind().name,
            target.project.as_deref(),
            &target.name,
        );
        let entry = self.cx.store().get(&key).await?;
        Ok(entry.and_then(|e| self.shown(e)).map(|entry| Change {
            revision: change.revision,
            kind: ChangeKind::Put(entry),
            last: false,
        }))
    }

    async fn judge(&self, mut txn: Txn) -> Judged<Txn> {
        // Judged by the same revisions as the transaction expects: anything else makes it fail anyway.
        let mut stored: Vec<(Key, std::sync::Arc<Row>)> = Vec::new();
        for write in &txn.writes {
            let key = write.key();
            let Part::Object(target) = parts(key) else {
                continue;
            };
            let at = txn.expect.iter().find_map(|e| match e {
                Expect::At(k, revision) if k == key => Some(*revision),
                _ => None,
            });
            let Some(at) = at else {
                return Err(format!(
                    "{}: it does not say at which revision",
                    self.no("write key", key)
                ));
            };
            if !self.kinds.contains(target.kind.as_str()) {
                return Err(self.no("write key", key));
            }
            self.cx.cache().reach(at).await.map_err(|_| {
                format!("{}: revision {at} is not known", self.no("write key", key))
            })?;
            match self.cx.cache().row(&target.kind, key) {
                Some(row) if row.modified == at => stored.push((key.clone(), row)),
                // It has changed since: the store will say so.
                _ => return Ok(txn),
            }
        }
        let before = |key: &Key| stored.iter().find(|(k, _)| k == key).map(|(_, row)| row);
        let mut ended = Vec::new();
        let mut freed: HashSet<String> = HashSet::new();
        for write in &txn.writes {
            let Some(row) = before(write.key()) else {
                continue;
            };
            match write {
                Write::Put { key, value, .. } if is_task(key) => {
                    if let Ok(new) = serde_json::from_slice::<Value>(value)
                        && let Ok(state) =
                            serde_json::from_value::<TaskState>(new["status"]["state"].clone())
                        && state.ended()
                    {
                        ended.push(row.name.to_string());
                    }
                }
                Write::Delete(_) => {
                    let object = row.stored().map_err(|e| e.to_string())?;
                    let keys = object["metadata"]["keys"].as_array();
                    freed.extend(
                        keys.into_iter()
                            .flatten()
                            .filter_map(|k| Some(k.as_str()?.to_owned())),
                    );
                }
                Write::Put { .. } => {}
            }
        }
        for write in &mut txn.writes {
            let key = write.key().clone();
            let why = |why: &str| format!("{}: {why}", self.no("write key", &key));
            match (parts(&key), write) {
                (Part::Object(target), write) => {
                    let row = before(&key).ok_or_else(|| why("it is not known"))?;
                    let declared = self.cx.registry().get(&target.kind);
                    let declared = declared.ok_or_else(|| why("its kind is not known"))?;
                    let mut old = row.stored().map_err(|e| e.to_string())?;
                    if let Some(meta) = old["metadata"].as_object_mut() {
                        meta.shift_remove("revision");
                    }
                    let mut seat = self.seat_of(declared, &old);
                    if is_task(&key) {
                        seat = match self.runs(&old) {
                            true => Seated::Here,
                            false => Seated::There,
                        };
                    }
                    match write {
                        Write::Delete(_) => {
                            check_release(&self.node, seat, &old).map_err(|e| why(&e))?
                        }
                        Write::Put { value, lease, .. } => {
                            *lease = None;
                            let new: Value = serde_json::from_slice(value)
                                .map_err(|_| why("it is not an object"))?;
                            let mut seen = old.clone();
                            if declared.has_secrets && seat != Seated::Here {
                                secret::mask_all(&declared.spec, &mut seen["spec"]);
                            }
                            check_status(&self.node, seat, declared.seat, &seen, &new, &ended)
                                .map_err(|e| why(&e))?;
                            let mut merged = new;
                            merged["spec"] = old["spec"].clone();
                            *value = serde_json::to_vec(&merged)
                                .map_err(|_| why("it is not an object"))?
                                .into();
                        }
                    }
                }
                (Part::Journal(uid), _) if self.runs_task(uid) => {}
                (Part::Presence(node), _) if node == self.node => {}
                (Part::Unique, Write::Delete(_)) if freed.contains(key.as_str()) => {}
                _ => return Err(self.no("write key", &key)),
            }
        }
        Ok(txn)
    }
}

impl Scope for NodeScope {
    fn read<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Judged> {
        let judged = match self.may_read(key) {
            true => Ok(()),
            false => Err(self.no("read key", key)),
        };
        Box::pin(async { judged })
    }

    fn show(&self, entry: Entry) -> BoxFuture<'_, Option<Entry>> {
        Box::pin(async move { self.shown(entry) })
    }

    fn follow(&self, change: Change) -> BoxFuture<'_, Result<Vec<Change>, StoreError>> {
        Box::pin(async move {
            self.reach(change.revision).await?;
            let uncovered = self.uncovered(&change).await?;
            let shown = match &change.kind {
                ChangeKind::Put(entry) => self.shown(entry.clone()).map(ChangeKind::Put),
                ChangeKind::Delete(key) => {
                    self.may_read(key).then(|| ChangeKind::Delete(key.clone()))
                }
            };
            let shown = match shown {
                Some(kind) => Change { kind, ..change },
                None => hidden(&change),
            };
            Ok(uncovered.into_iter().chain([shown]).collect())
        })
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Judged<Txn>> {
        Box::pin(async move {
            let judged = self.judge(txn).await;
            if let Err(refusal) = &judged {
                tracing::warn!(node = %self.node, refusal, "a write of an agent was refused");
            }
            judged
        })
    }
}

impl NodeScope {
    async fn reach(&self, revision: Revision) -> Result<(), StoreError> {
        let reached = self.cx.cache().reach(revision).await;
        reached.map_err(|e| StoreError::Unavailable(e.to_string()))
    }
}

/// The kinds that an agent reads: those that agents carry out, what says where these are, and what they refer to.
fn readable(registry: &crate::Registry) -> HashSet<&'static str> {
    let mut kinds = HashSet::from([task::KIND.name, setting::KIND.name, crate::node::KIND.name]);
    let mut named = HashSet::new();
    for declared in registry.iter().filter(|d| d.place == Place::Agent) {
        kinds.insert(declared.kind().name);
        if let Seat::Twin { kind, .. } | Seat::With { kind, .. } = declared.seat {
            named.insert(kind.to_owned());
        }
        refers(&declared.spec, &mut named);
    }
    kinds.extend(
        registry
            .iter()
            .map(|d| d.kind().name)
            .filter(|name| named.contains(*name)),
    );
    kinds
}

/// The kinds that a schema refers to anywhere.
fn refers(schema: &Value, out: &mut HashSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(kind) = map.get(REF).and_then(Value::as_str) {
                out.insert(kind.to_owned());
            }
            map.values().for_each(|v| refers(v, out));
        }
        Value::Array(list) => list.iter().for_each(|v| refers(v, out)),
        _ => {}
    }
}

/// What a key stands for.
enum Part<'k> {
    Object(ObjectRef),
    Unique,
    Journal(Uid),
    Presence(&'k str),
    Other,
}

fn parts(key: &Key) -> Part<'_> {
    let text = key.as_str();
    if text.starts_with(OBJECTS) {
        return object_ref(key).map_or(Part::Other, Part::Object);
    }
    if text.starts_with(UNIQUE) {
        return Part::Unique;
    }
    if let Some(uid) = task::journal_of(key) {
        return Part::Journal(uid);
    }
    match text.strip_prefix(presence::PREFIX) {
        Some(node) => Part::Presence(node),
        None => Part::Other,
    }
}

fn is_task(key: &Key) -> bool {
    object_ref(key).is_some_and(|r| r.kind == task::KIND.name)
}

/// Whether the agent of `node` may run a task: a procedure of agents that it holds, or that nobody holds and whose
/// target is not on another node. Pure.
fn may_run(node: &str, task: &Value, target: Option<Seated>) -> bool {
    task["spec"]["procedure"] == true
        && task["spec"]["place"] == json!(Place::Agent)
        && match text(task, "status.holder") {
            "" => matches!(target, Some(Seated::Here | Seated::Free)),
            holder => holder == node,
        }
}

/// Whether what an agent writes of an object is its status and no more. `ended` are the tasks that end in the same
/// transaction: their claims may go. Pure.
fn check_status(
    node: &str,
    seat: Seated,
    declared: Seat,
    old: &Value,
    new: &Value,
    ended: &[String],
) -> Judged {
    let claims_only = old["status"] == new["status"] && !ended.is_empty();
    if !(matches!(seat, Seated::Here | Seated::Free) || claims_only) {
        return Err(elsewhere(seat));
    }
    if new["spec"] != old["spec"] {
        return Err("it changes the spec, which only people and what acts for them may do".into());
    }
    let (mut was, mut is) = (old["metadata"].clone(), new["metadata"].clone());
    let kind = text(old, "kind").to_owned();
    let fewer = |list: &str, was: &mut Value, is: &mut Value, may_go: &dyn Fn(&Value) -> bool| {
        let (before, after) = (was[list].take(), is[list].take());
        let empty = Vec::new();
        let before = before.as_array().unwrap_or(&empty);
        let after = after.as_array().unwrap_or(&empty);
        after.iter().all(|x| before.contains(x))
            && before.iter().all(|x| after.contains(x) || may_go(x))
    };
    let holds = fewer("holds", &mut was, &mut is, &|hold| *hold == kind.as_str());
    let claims = fewer("claims", &mut was, &mut is, &|claim| {
        claim["task"]
            .as_str()
            .is_some_and(|task| ended.iter().any(|e| e == task))
    });
    let rest = |meta: &Value| {
        let fields = meta.as_object().cloned().unwrap_or_default();
        fields
            .into_iter()
            .filter(|(_, v)| !v.is_null())
            .collect::<std::collections::BTreeMap<_, _>>()
    };
    if !holds || !claims || rest(&was) != rest(&is) {
        return Err("it changes the metadata".into());
    }
    for field in ["version", "kind"] {
        if old[field] != new[field] {
            return Err(format!("it changes `{field}`"));
        }
    }
    let says = match declared {
        Seat::Field(path) => text(new, path),
        _ => text(new, "status.holder"),
    };
    if !says.is_empty() && says != node {
        return Err(format!("it says that node `{says}` has it"));
    }
    Ok(())
}

/// Whether an agent may take an object away: its deletion was asked for, and nothing but the agent holds it. Pure.
fn check_release(node: &str, seat: Seated, old: &Value) -> Judged {
    let meta = &old["metadata"];
    let kind = text(old, "kind");
    let held = meta["holds"]
        .as_array()
        .is_some_and(|holds| holds.iter().any(|hold| hold != kind));
    let claimed = meta["claims"].as_array().is_some_and(|c| !c.is_empty());
    match seat {
        Seated::Here | Seated::Free if meta["deletion_requested"].is_null() => {
            Err(format!("nobody asked node `{node}` to delete it"))
        }
        Seated::Here | Seated::Free if held || claimed => Err("something else holds it".into()),
        Seated::Here | Seated::Free => Ok(()),
        seat => Err(elsewhere(seat)),
    }
}

fn elsewhere(seat: Seated) -> String {
    match seat {
        Seated::Api => "no agent writes it".into(),
        _ => "it is on another node".into(),
    }
}

#[cfg(test)]
mod tests;
