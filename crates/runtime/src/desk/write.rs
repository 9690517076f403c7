//! Create, update and patch: one path, one transaction.

use super::{Answer, Desk, body, by, key_of, object_answer};
use crate::cx::{store_error, to_bytes};
use crate::event::Severity;
use crate::gate::{Op, Request};
use crate::registry::Declared;
use crate::trace::Cause;
use crate::usage::{self, Counted, Held, Ledger};
use crate::{Draft, audit, object_key, secret};
use model::schema::{self, IMMUTABLE, PERSONAL, REF};
use model::{Error, Meta, Name, ObjectRef, Result, VERSION, Violation};
use serde_json::{Value, json};
use store::{Expect, Key, Revision, StoreError, Txn};

/// How often a request that lost a race runs again before it gives up. Of N that allocate from one space at once, the
/// last one loses up to N times.
pub(super) const RACES: usize = 200;

/// What is stored now.
pub(super) struct Stored {
    pub revision: Revision,
    pub meta: Meta,
    pub spec: Value,
    pub status: Value,
}

/// What a draft became: ready to be stored.
pub(super) struct Ready {
    pub key: Key,
    pub object: Value,
    pub claimed: Vec<String>,
    pub released: Vec<String>,
    pub spec_changed: bool,
}

impl Desk {
    pub(super) async fn write(&self, request: &Request) -> Result<Answer> {
        for _ in 0..RACES {
            if let Some(answer) = self.replay(request).await? {
                return Ok(answer);
            }
            match self.write_once(request).await {
                Err(Attempt::Race) => continue,
                Err(Attempt::Error(error)) => return Err(error),
                Ok(answer) => return Ok(answer),
            }
        }
        Err(Error::unavailable(
            "others changed the same things again and again; try again",
        ))
    }

    async fn write_once(&self, request: &Request) -> Result<Answer, Attempt> {
        let declared = self.cx.registry().need(request.op.kind())?;
        let (target, mut file, may_create) = match &request.op {
            Op::Create {
                project,
                body,
                kind,
            } => {
                let file = body::read(kind, body)?;
                let name = file
                    .name
                    .clone()
                    .ok_or_else(|| Error::field("metadata.name", "is required"))?;
                let name = Name::parse("metadata.name", &name)?;
                let target = ObjectRef {
                    kind: kind.clone(),
                    project: project.clone(),
                    name: name.to_string(),
                };
                (target, file, true)
            }
            Op::Update {
                target,
                body,
                create,
            } => (target.clone(), body::read(&target.kind, body)?, *create),
            Op::Patch { target, body } => (
                target.clone(),
                self.patched(request, target, body).await?,
                false,
            ),
            _ => return Err(Error::internal("not a write").into()),
        };
        Name::parse("metadata.name", &target.name)?;
        if file.name.as_ref().is_some_and(|n| *n != target.name) {
            return Err(Error::field(
                "metadata.name",
                format!(
                    "is `{}`, but the request is about `{}`",
                    file.name.unwrap_or_default(),
                    target.name
                ),
            )
            .into());
        }
        if file.project.is_some() && file.project != target.project {
            return Err(Error::field(
                "metadata.project",
                format!(
                    "is `{}`, but the request is about {target}",
                    file.project.unwrap_or_default()
                ),
            )
            .into());
        }
        let key = key_of(&target);
        let old = self.stored(&key).await?;
        match (&old, &request.op) {
            (Some(_), Op::Create { .. }) => {
                return Err(Error::exists(format!("{target} exists already"))
                    .hint("choose another name, or change it with `apply` or `set`")
                    .into());
            }
            (None, _) if !may_create => return Err(self.no_such(request, &target).into()),
            (Some(old), _) if old.meta.deletion_requested.is_some() => {
                return Err(Error::refused(format!("{target} is being deleted"))
                    .hint("wait until it is gone")
                    .into());
            }
            _ => {}
        }
        let expected = request.if_match.clone().or_else(|| {
            file.revision
                .clone()
                .filter(|_| !matches!(request.op, Op::Create { .. }))
        });
        if let Some(expected) = expected.filter(|e| e != "*") {
            let found = old.as_ref().map(|o| o.revision.to_string());
            if found.as_deref() != Some(expected.as_str()) {
                return Err(Error::new(
                    model::What::PreconditionFailed(found.clone()),
                    format!(
                        "{target} is at revision {}, not at {expected}",
                        found.unwrap_or_else(|| "none".into())
                    ),
                )
                .hint("read it again, or leave the revision out to overwrite")
                .into());
            }
        }
        if file.spec.is_null() {
            file.spec = json!({});
        }
        let ready = self.ready(request, declared, &target, &file, old.as_ref())?;
        let held = self
            .reserve(declared, &ready, old.as_ref().map(|old| old.revision))
            .await?;
        if request.dry_run {
            give_back(held);
            return Ok(self.dry_run(declared, ready));
        }
        let changed = old
            .as_ref()
            .is_none_or(|o| ready.spec_changed || meta_differs(&o.meta, &ready.object));
        if !changed {
            give_back(held);
            let row = self
                .cx
                .cache()
                .row(&target.kind, &key)
                .ok_or_else(|| self.no_such(request, &target))?;
            return Ok(object_answer(&row, false));
        }
        let created = old.is_none();
        let mut txn = match &old {
            None => Txn::new().create(key.clone(), to_bytes(&ready.object)?),
            Some(old) => Txn::new().replace(key.clone(), old.revision, to_bytes(&ready.object)?),
        };
        txn = with_keys(txn, &key, &ready);
        let revision = self.commit_held(request, txn, &key, held).await?;
        self.cx.cache().reach(revision).await?;
        let verb = if created { "created" } else { "updated" };
        self.event(
            request,
            &target,
            &format!("{}.{verb}", target.kind),
            verb,
            Severity::Info,
        )
        .await;
        match self.cx.cache().row(&target.kind, &key) {
            Some(row) => Ok(object_answer(&row, created)),
            // Deleted between the commit and the read: answer what was written.
            None => Ok(self.dry_run(declared, ready)),
        }
    }

    /// A merge patch applied to what is stored, as if it were a file.
    async fn patched(
        &self,
        request: &Request,
        target: &ObjectRef,
        patch: &Value,
    ) -> Result<body::Body> {
        let Some(old) = self.stored(&key_of(target)).await? else {
            return Err(self.no_such(request, target));
        };
        // Read the patch like a file first, so that unknown and foreign fields are found.
        let mut given = patch.clone();
        if let Some(Value::Object(labels)) = given.pointer_mut("/metadata/labels") {
            // A label that goes away.
            labels.retain(|_, value| !value.is_null());
        }
        let read = body::read(&target.kind, &given)?;
        let mut file = body::Body {
            revision: read.revision.clone(),
            ..body::Body::default()
        };
        file.display_name = read.display_name;
        file.protection = read.protection;
        file.labels = match patch.pointer("/metadata/labels") {
            None => None,
            Some(labels) => {
                let mut merged = serde_json::to_value(&old.meta.labels).unwrap_or_default();
                body::merge(&mut merged, labels);
                Some(serde_json::from_value(merged).map_err(|_| {
                    Error::field("metadata.labels", "must be an object of texts or null")
                })?)
            }
        };
        file.spec = self.plain(target, &old)?;
        if let Some(spec) = patch.get("spec") {
            body::merge(&mut file.spec, spec);
        }
        Ok(file)
    }

    /// A stored spec as rules see it: what is personal is open, secrets stay sealed.
    pub(super) fn plain(&self, target: &ObjectRef, stored: &Stored) -> Result<Value> {
        let mut spec = stored.spec.clone();
        let declared = self.cx.registry().need(&target.kind)?;
        if declared.has_personal {
            let uid = stored.meta.uid.to_string();
            secret::open_personal(self.cx.seal(), &declared.spec, &uid, &mut spec)?;
        }
        Ok(spec)
    }

    /// What is stored under a key.
    pub(super) async fn stored(&self, key: &Key) -> Result<Option<Stored>> {
        let Some(entry) = self.cx.store().get(key).await.map_err(store_error)? else {
            return Ok(None);
        };
        let mut object: Value = serde_json::from_slice(&entry.value)
            .map_err(|e| Error::internal(format!("stored object {key}")).because(e))?;
        let meta: Meta = serde_json::from_value(object["metadata"].take())
            .map_err(|e| Error::internal(format!("stored metadata of {key}")).because(e))?;
        Ok(Some(Stored {
            revision: entry.modified,
            meta,
            spec: object["spec"].take(),
            status: object["status"].take(),
        }))
    }

    /// Checks a file against everything and makes it ready to be stored.
    fn ready(
        &self,
        request: &Request,
        declared: &Declared,
        target: &ObjectRef,
        file: &body::Body,
        old: Option<&Stored>,
    ) -> Result<Ready> {
        let mut spec = file.spec.clone();
        if let Some(old) = old {
            body::keep(&declared.spec, &self.plain(target, old)?, &mut spec);
        }
        let mut looks_sealed = secret::check_plain(&declared.spec, PERSONAL, &spec);
        let before = old.map(|old| &old.spec);
        looks_sealed.extend(secret::check_kept(&declared.spec, before, &spec));
        if !looks_sealed.is_empty() {
            return Err(Error::invalid(looks_sealed));
        }
        let mut meta = match old {
            Some(old) => old.meta.clone(),
            None => Meta {
                name: Name::parse("metadata.name", &target.name)?,
                project: target
                    .project
                    .as_deref()
                    .map(|p| Name::parse("project", p))
                    .transpose()?,
                display_name: String::new(),
                uid: self.cx.clock().uid(),
                revision: String::new(),
                generation: 0,
                labels: Default::default(),
                owner: None,
                created: self.cx.clock().now(),
                created_by: by(&request.actor),
                request_id: String::new(),
                protection: false,
                deletion_requested: None,
                holds: if declared.finalizes {
                    vec![target.kind.clone()]
                } else {
                    Vec::new()
                },
                claims: Vec::new(),
                keys: Vec::new(),
            },
        };
        let patching = matches!(request.op, Op::Patch { .. });
        if let Some(labels) = &file.labels {
            meta.labels = labels.clone();
        } else if !patching {
            meta.labels.clear();
        }
        if let Some(text) = &file.display_name {
            meta.display_name = text.clone();
        } else if !patching {
            meta.display_name.clear();
        }
        if let Some(protection) = file.protection {
            meta.protection = protection;
        } else if !patching {
            meta.protection = false;
        }
        // Only our own loops say who owns what.
        if request.actor.kind == crate::ActorKind::System
            && let Some(owner) = &file.owner
        {
            meta.owner = Some(owner.clone());
        }
        if let Some(old) = old {
            let labels = (&old.meta.labels, &meta.labels);
            self.cx.gate().relabels(request, target, labels)?;
        }
        let status = old.map_or(Value::Null, |o| o.status.clone());
        self.admit(request, declared, meta, spec, old.map(|o| &o.spec), status)
    }

    /// Schema, defaults, rules, references, secrets: what every write of a spec passes, also by an action.
    pub(super) fn admit(
        &self,
        request: &Request,
        declared: &Declared,
        meta: Meta,
        spec: Value,
        old_spec: Option<&Value>,
        status: Value,
    ) -> Result<Ready> {
        let mut wrong = meta.check();
        wrong.extend(declared.check_spec(&spec));
        if !wrong.is_empty() {
            return Err(Error::invalid(wrong));
        }
        let spec = (declared.normal)(spec)?;
        let uid = meta.uid.to_string();
        let mut old_plain = old_spec.cloned();
        if let (Some(old), true) = (&mut old_plain, declared.has_personal) {
            secret::open_personal(self.cx.seal(), &declared.spec, &uid, old)?;
        }
        let mut draft = Draft::new(
            &self.cx,
            &request.actor,
            meta,
            spec,
            old_plain.clone(),
            status,
        );
        (declared.admit)(&mut draft)?;
        if let Some(old) = &old_plain {
            let moved = immutables(&declared.spec, old, &draft.spec);
            if !moved.is_empty() {
                return Err(Error::invalid(moved));
            }
        }
        let missing = self.missing_references(request, declared, &draft);
        if !missing.is_empty() {
            return Err(Error::invalid(missing));
        }
        let (seal, schema) = (self.cx.seal(), &declared.spec);
        let seal = secret::Within {
            seal,
            project: draft.meta.project.as_deref(),
        };
        secret::seal_all(&seal, schema, &uid, &mut draft.spec)?;
        secret::seal_personal(&seal, schema, &uid, old_spec, &mut draft.spec)?;
        let spec_changed = old_spec.is_none_or(|old| *old != draft.spec);
        if spec_changed {
            draft.meta.generation += 1;
            draft.meta.request_id = request.id.clone();
        }
        let Draft {
            meta,
            spec,
            status,
            claimed,
            released,
            ..
        } = draft;
        let key = object_key(declared.kind().name, meta.project.as_deref(), &meta.name);
        let object = json!({
            "version": VERSION, "kind": declared.kind().name, "metadata": meta, "spec": spec, "status": status,
        });
        Ok(Ready {
            key,
            object,
            claimed,
            released,
            spec_changed,
        })
    }

    /// References to what is not there, or not for the caller: he cannot use what he may not see.
    fn missing_references(
        &self,
        request: &Request,
        declared: &Declared,
        draft: &Draft<'_>,
    ) -> Vec<Violation> {
        let mut wrong = Vec::new();
        let registry = self.cx.registry();
        schema::walk(
            &declared.spec,
            REF,
            &draft.spec,
            &mut |path, kind, value| {
                let (Some(kind), Some(text)) = (kind.as_str(), value.as_str()) else {
                    return;
                };
                let key = crate::cache::reference(registry, &draft.meta, kind, text);
                let project = crate::object_ref(&key).and_then(|r| r.project);
                let view = self.view(request, kind, project.as_deref());
                let row = self.cx.cache().row(kind, &key);
                let named = self.cx.gate().names(declared.kind().name, kind);
                let row = row.filter(|row| named || view.shows(row));
                let field = format!("spec.{path}");
                match row {
                    Some(row) if row.deleting => {
                        wrong.push(Violation::new(
                            field,
                            format!("{kind} `{text}` is being deleted"),
                        ));
                    }
                    Some(_) => {}
                    None => {
                        let (mut rows, whole) =
                            (self.cx.cache()).around(kind, project.as_deref(), &key);
                        rows.retain(|row| view.shows(row));
                        let mut v = Violation::new(field, format!("there is no {kind} `{text}`"));
                        v.hint = match model::nearest(text, rows.iter().map(|r| &*r.name)) {
                            Some(near) => Some(format!("did you mean `{near}`?")),
                            // Somewhere else there may be what he may see.
                            None if !whole => None,
                            None if rows.is_empty() => {
                                Some(format!("there is none yet: `dvctl {kind} create`"))
                            }
                            None => Some(format!(
                                "there are: {}",
                                rows.iter()
                                    .take(10)
                                    .map(|r| &*r.name)
                                    .collect::<Vec<_>>()
                                    .join(", ")
                            )),
                        };
                        wrong.push(v);
                    }
                }
            },
        );
        wrong
    }

    fn dry_run(&self, declared: &Declared, ready: Ready) -> Answer {
        let mut object = ready.object;
        secret::mask_all(&declared.spec, &mut object["spec"]);
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        let (seal, uid) = (self.cx.seal(), uid.to_owned());
        secret::show_personal(seal, &declared.spec, &uid, &mut object["spec"]);
        Answer::Object {
            json: object.to_string().into(),
            revision: String::new(),
            created: false,
        }
    }

    /// Reserves what the object takes more of its project's limits than it did at the revision it was read at.
    pub(super) async fn reserve(
        &self,
        declared: &Declared,
        ready: &Ready,
        read: Option<Revision>,
    ) -> Result<Option<Held>> {
        if !declared.counts {
            return Ok(None);
        }
        if let Some(read) = read {
            // What it takes now is told by the cache, which must not be behind.
            self.cx.cache().reach(read).await?;
        }
        let meta: Meta = serde_json::from_value(ready.object["metadata"].clone())
            .map_err(|e| Error::internal("metadata of a draft").because(e))?;
        let owner = meta.owner.as_ref().map(|owner| {
            let registry = self.cx.registry();
            let key = crate::cache::reference(registry, &meta, &owner.kind, &owner.name);
            (key, owner.uid)
        });
        let owner = owner.as_ref().map(|(key, uid)| (key, *uid));
        let amounts = usage::amounts(declared, &ready.object);
        match Counted::new(&ready.key, meta.uid, owner, amounts) {
            Some(it) => Ledger::reserve(&self.cx, &it).await,
            None => Ok(None),
        }
    }

    /// Commits a transaction of a request; a lost race is told apart from a taken name.
    pub(super) async fn commit(
        &self,
        request: &Request,
        txn: Txn,
        key: &Key,
    ) -> Result<Revision, Attempt> {
        self.commit_held(request, txn, key, None).await
    }

    /// The same for a change that takes room of its project.
    pub(super) async fn commit_held(
        &self,
        request: &Request,
        mut txn: Txn,
        key: &Key,
        mut held: Option<Held>,
    ) -> Result<Revision, Attempt> {
        if let Some(held) = &mut held {
            txn = held.guarded(txn);
        }
        let mut txn = match self.with_idempotency(request, txn, key) {
            Ok(txn) => txn,
            Err(error) => {
                give_back(held);
                return Err(error);
            }
        };
        if let (Some(change), true) = (request.change, self.cx.trail().is_some()) {
            // After a crash this says that the change was made.
            let slot = audit::slot(self.cx.next_change(), request.actor.kind);
            txn = txn.put(slot, change.to_string());
        }
        let result = self.cx.store().commit(txn).await;
        if let Some(held) = held {
            held.settle(&result);
        }
        match result {
            Ok(revision) => Ok(revision),
            Err(StoreError::Conflict { key: at, found }) => {
                // The cache must have seen what made us lose, or the next attempt loses the same way.
                tracing::debug!(key = %at, "lost a race; trying again");
                self.cx.cache().reach(found).await?;
                Err(Attempt::Race)
            }
            Err(e) => Err(store_error(e).into()),
        }
    }

    pub(super) async fn event(
        &self,
        request: &Request,
        about: &ObjectRef,
        event: &str,
        message: &str,
        severity: Severity,
    ) {
        let cause = Some(Cause {
            request_id: request.id.clone(),
            trace: request.trace.clone(),
        });
        self.cx
            .events()
            .record(
                self.cx.clock().now(),
                about,
                event,
                &format!("{message} by {}", request.actor.name),
                severity,
                cause,
            )
            .await;
    }
}

/// Nothing is written: the room is free again.
pub(super) fn give_back(held: Option<Held>) {
    if let Some(held) = held {
        held.give_back();
    }
}

/// Why an attempt ended.
pub(super) enum Attempt {
    /// Somebody else was faster.
    Race,
    /// It cannot succeed.
    Error(Error),
}

impl From<Error> for Attempt {
    fn from(error: Error) -> Self {
        Attempt::Error(error)
    }
}

/// Adds the unique keys that a draft claimed and released.
pub(super) fn with_keys(mut txn: Txn, key: &Key, ready: &Ready) -> Txn {
    for claimed in &ready.claimed {
        txn = txn.create(Key::new(claimed.as_str()), key.as_str().to_owned());
    }
    for released in &ready.released {
        let released = Key::new(released.as_str());
        txn = txn
            .expect(Expect::Present(released.clone()))
            .delete(released);
    }
    txn
}

fn meta_differs(old: &Meta, new: &Value) -> bool {
    serde_json::to_value(old).ok().as_ref() != new.get("metadata")
}

/// Fields marked immutable that an update would change.
fn immutables(spec_schema: &Value, old: &Value, new: &Value) -> Vec<Violation> {
    let mut was = Vec::new();
    schema::walk(spec_schema, IMMUTABLE, old, &mut |path, _, value| {
        if !value.is_null() {
            was.push((path.to_owned(), value.clone()));
        }
    });
    was.into_iter()
        .filter_map(|(path, was)| {
            let now = new.pointer(&secret::pointer(&path)).unwrap_or(&Value::Null);
            (*now != was).then(|| {
                Violation::new(
                    format!("spec.{path}"),
                    format!("is {} and cannot change", secret::blunt(&was)),
                )
                .hint("make a new object, or leave the field as it is")
            })
        })
        .collect()
}
