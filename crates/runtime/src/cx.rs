//! What controllers, procedures, rules and surfaces work with: typed reads from the cache, status writes by the owner,
//! requests through the gate, events, time, and the parts that the process was started with.

use crate::event::{Events, Severity};
use crate::life::Life;
use crate::trace::Cause;
use crate::{
    Actor, Answer, Cache, Clock, Desk, Gate, NoSeal, Op, Place, Registry, Request, Row, Seal,
    Surface, SystemClock, object_ref,
};
use model::{Error, Object, ObjectRef, Resource, Result};
use serde_json::Value;
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{Key, Revision, Store, StoreError, Txn};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

/// A typed object.
pub type Obj<R> = Object<<R as Resource>::Spec, <R as Resource>::Status>;

pub(crate) struct Inner {
    registry: Registry,
    store: Arc<dyn Store>,
    cache: Cache,
    clock: Arc<dyn Clock>,
    seal: Arc<dyn Seal>,
    events: Events,
    life: Life,
    place: Option<Place>,
    node: String,
    parts: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    wakes: broadcast::Sender<Key>,
    link: crate::link::Links,
    dependencies: crate::resilience::Dependencies,
    changes: AtomicU64,
    ledger: crate::usage::Ledger,
}

/// The context of this process. Cheap to clone.
#[derive(Clone)]
pub struct Cx(Arc<Inner>);

/// Puts a [`Cx`] together.
pub struct CxBuilder {
    registry: Registry,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    seal: Arc<dyn Seal>,
    events: Events,
    place: Option<Place>,
    node: String,
    parts: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
}

impl CxBuilder {
    /// Over a store and a registry; both places in one process, the machine's clock, no key, events only in memory.
    pub fn new(registry: Registry, store: Arc<dyn Store>) -> CxBuilder {
        CxBuilder {
            registry,
            store,
            clock: Arc::new(SystemClock),
            seal: Arc::new(NoSeal),
            events: Events::in_memory(),
            place: None,
            node: "node1".into(),
            parts: HashMap::new(),
        }
    }

    /// Runs only what belongs to this place.
    pub fn place(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Name of this node.
    pub fn node(mut self, node: impl Into<String>) -> Self {
        self.node = node.into();
        self
    }

    /// Another clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The key for secret fields.
    pub fn seal(mut self, seal: Arc<dyn Seal>) -> Self {
        self.seal = seal;
        self
    }

    /// Where events go.
    pub fn events(mut self, events: Events) -> Self {
        self.events = events;
        self
    }

    /// Something that controllers ask for by its type.
    pub fn part<T: Any + Send + Sync>(mut self, part: Arc<T>) -> Self {
        self.parts.insert(TypeId::of::<T>(), part);
        self
    }

    /// Reads the store once and begins to follow it.
    pub async fn build(self) -> Result<Cx> {
        let cache = Cache::new(self.registry.clone(), self.seal.clone());
        let life = Life::new();
        let after = cache.fill(&*self.store).await.map_err(store_error)?;
        life.spawn("watch cache", {
            let (cache, store, stop) = (cache.clone(), self.store.clone(), life.stopped());
            async move { cache.follow(store, after, stop).await }
        });
        let (wakes, _) = broadcast::channel(1024);
        let cx = Cx(Arc::new(Inner {
            registry: self.registry,
            store: self.store,
            cache,
            clock: self.clock,
            seal: self.seal,
            events: self.events,
            life,
            place: self.place,
            node: self.node,
            parts: self.parts,
            wakes,
            link: crate::link::Links::default(),
            dependencies: crate::resilience::Dependencies::default(),
            changes: AtomicU64::new(0),
            ledger: crate::usage::Ledger::default(),
        }));
        // Before the first request of this run, so that nothing of it is taken for a part of the last one.
        crate::audit::start(&cx).await?;
        Ok(cx)
    }
}

impl Cx {
    /// All declared kinds.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The watch cache.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// Time and randomness.
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// Name of this node.
    pub fn node(&self) -> &str {
        &self.0.node
    }

    /// Whether things of this place run in this process.
    pub fn runs(&self, place: Place) -> bool {
        self.0.place.is_none_or(|p| p == place)
    }

    /// The place of this process; `None` when it is both.
    pub fn place(&self) -> Option<Place> {
        self.0.place
    }

    /// Start and end of this process and of its tasks.
    pub fn life(&self) -> &Life {
        &self.0.life
    }

    /// Cancelled when this process ends.
    pub fn shutdown(&self) -> CancellationToken {
        self.0.life.stopped()
    }

    /// Where events go.
    pub fn events(&self) -> &Events {
        &self.0.events
    }

    pub(crate) fn store(&self) -> &dyn Store {
        &*self.0.store
    }

    /// The store itself, for the link that serves it to an agent and for health checks.
    pub fn store_handle(&self) -> Arc<dyn Store> {
        self.0.store.clone()
    }

    pub(crate) fn seal(&self) -> &dyn Seal {
        &*self.0.seal
    }

    /// Counts the changes of this process.
    pub(crate) fn next_change(&self) -> u64 {
        self.0.changes.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn ledger(&self) -> &crate::usage::Ledger {
        &self.0.ledger
    }

    /// The audit trail, in the process that keeps one.
    pub fn trail(&self) -> Option<Arc<dyn crate::audit::Trail>> {
        self.try_part::<crate::audit::AuditTrail>()
            .map(|t| t.trail().clone())
    }

    /// The connected agents.
    pub fn links(&self) -> &crate::link::Links {
        &self.0.link
    }

    /// What this process calls outside, by name.
    pub fn dependencies(&self) -> &crate::resilience::Dependencies {
        &self.0.dependencies
    }

    /// A part that the process was started with.
    ///
    /// # Panics
    /// When it was started without it: a mistake in the wiring, found by the first test.
    pub fn part<T: Any + Send + Sync>(&self) -> Arc<T> {
        match self.try_part() {
            Some(part) => part,
            None => panic!(
                "this process was started without {}",
                std::any::type_name::<T>()
            ),
        }
    }

    /// A part that the process may have been started with.
    pub fn try_part<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0
            .parts
            .get(&TypeId::of::<T>())
            .and_then(|p| p.clone().downcast().ok())
    }

    /// The gate of this process.
    pub fn gate(&self) -> Gate {
        Gate::new(self.clone())
    }

    /// What carries out admitted requests.
    pub fn desk(&self) -> Desk {
        Desk::new(self.clone())
    }

    /// The key of an object of a kind.
    pub fn key<R: Resource>(&self, project: Option<&str>, name: &str) -> Key {
        crate::object_key(R::KIND.name, project, name)
    }

    /// One object, with secrets opened.
    pub fn get<R: Resource>(&self, project: Option<&str>, name: &str) -> Option<Arc<Obj<R>>> {
        self.get_key::<R>(&self.key::<R>(project, name))
    }

    /// One object by key, with secrets opened.
    pub fn get_key<R: Resource>(&self, key: &Key) -> Option<Arc<Obj<R>>> {
        let row = self.0.cache.row(R::KIND.name, key)?;
        self.decode::<R>(&row)
    }

    /// The object that a reference field of another object means (`name` or `project/name`).
    pub fn follow<R: Resource>(
        &self,
        project: Option<&str>,
        reference: &str,
    ) -> Option<Arc<Obj<R>>> {
        match reference.split_once('/') {
            Some((project, name)) => self.get::<R>(Some(project), name),
            None if R::KIND.scope == model::Scope::Cluster => self.get::<R>(None, reference),
            None => self.get::<R>(project, reference),
        }
    }

    /// All objects of a kind, of one project or of all.
    pub fn list<R: Resource>(&self, project: Option<&str>) -> Vec<Arc<Obj<R>>> {
        self.0
            .cache
            .rows(R::KIND.name, project)
            .iter()
            .filter_map(|row| self.decode::<R>(row))
            .collect()
    }

    fn decode<R: Resource>(&self, row: &Row) -> Option<Arc<Obj<R>>> {
        let declared = self.0.registry.get(R::KIND.name)?;
        let read = row.open(declared, &*self.0.seal).and_then(|value| {
            serde_json::from_value(value).map_err(|e| {
                Error::internal(format!("stored object {} does not fit its type", row.key))
                    .because(e)
            })
        });
        match read {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                tracing::error!(key = %row.key, ?error, "stored object cannot be read");
                None
            }
        }
    }

    /// Changes the status of an object. Only the one controller that owns the kind may call it. Says whether
    /// anything changed; an object that is gone changes nothing.
    pub async fn set_status<R: Resource>(
        &self,
        key: &Key,
        mut edit: impl FnMut(&mut R::Status),
    ) -> Result<bool> {
        self.edit_stored(key, |object| {
            let mut status: R::Status = match &object["status"] {
                Value::Null => R::Status::default(),
                old => serde_json::from_value(old.clone()).unwrap_or_default(),
            };
            edit(&mut status);
            object["status"] = serde_json::to_value(status)
                .map_err(|e| Error::internal("status as JSON").because(e))?;
            Ok(())
        })
        .await
    }

    /// Edits the stored object under compare-and-set, again until it fits. Says whether anything changed.
    pub(crate) async fn edit_stored(
        &self,
        key: &Key,
        mut edit: impl FnMut(&mut Value) -> Result<()>,
    ) -> Result<bool> {
        loop {
            let Some(entry) = self.store().get(key).await.map_err(store_error)? else {
                return Ok(false);
            };
            let mut object: Value = serde_json::from_slice(&entry.value)
                .map_err(|e| Error::internal(format!("stored object {key}")).because(e))?;
            let before = object.clone();
            edit(&mut object)?;
            if object == before {
                return Ok(false);
            }
            let txn = Txn::new().replace(key.clone(), entry.modified, to_bytes(&object)?);
            match self.store().commit(txn).await {
                Ok(revision) => {
                    self.0.cache.reach(revision).await?;
                    return Ok(true);
                }
                Err(StoreError::Conflict { .. }) => continue,
                Err(e) => return Err(store_error(e)),
            }
        }
    }

    /// Takes the hold of the object's controller off. The object goes with it when deletion was asked for and
    /// nothing else holds it.
    pub async fn release(&self, key: &Key) -> Result<()> {
        let hold = object_ref(key).map(|r| r.kind).unwrap_or_default();
        self.release_hold(key, &hold).await
    }

    /// Takes one hold off.
    pub(crate) async fn release_hold(&self, key: &Key, hold: &str) -> Result<()> {
        loop {
            let Some(entry) = self.store().get(key).await.map_err(store_error)? else {
                return Ok(());
            };
            let mut object: Value = serde_json::from_slice(&entry.value)
                .map_err(|e| Error::internal(format!("stored object {key}")).because(e))?;
            let before = object.clone();
            if let Some(holds) = object["metadata"]["holds"].as_array_mut() {
                holds.retain(|h| h.as_str() != Some(hold));
            }
            let free = object["metadata"]["holds"]
                .as_array()
                .is_none_or(Vec::is_empty);
            let leaving = !object["metadata"]["deletion_requested"].is_null();
            if object == before && !(free && leaving) {
                return Ok(());
            }
            let txn = if free && leaving {
                let mut txn = Txn::new()
                    .expect(store::Expect::At(key.clone(), entry.modified))
                    .delete(key.clone());
                for unique in object["metadata"]["keys"].as_array().into_iter().flatten() {
                    if let Some(unique) = unique.as_str() {
                        txn = txn.delete(Key::new(unique));
                    }
                }
                txn
            } else {
                Txn::new().replace(key.clone(), entry.modified, to_bytes(&object)?)
            };
            match self.store().commit(txn).await {
                Ok(revision) => {
                    self.0.cache.reach(revision).await?;
                    if let (true, Some(target)) = (free && leaving, object_ref(key)) {
                        let event = format!("{}.deleted", target.kind);
                        self.event(&target, &event, "deleted", Severity::Info).await;
                    }
                    return Ok(());
                }
                Err(StoreError::Conflict { .. }) => continue,
                Err(e) => return Err(store_error(e)),
            }
        }
    }

    /// Asks the controllers that own an object to look at it soon. For events from the world outside.
    pub fn wake(&self, key: &Key) {
        let _ = self.0.wakes.send(key.clone());
    }

    pub(crate) fn wakes(&self) -> broadcast::Receiver<Key> {
        self.0.wakes.subscribe()
    }

    /// A request of one of our own loops, through the gate like any other.
    pub async fn submit(&self, op: Op, reason: &str) -> Result<Answer> {
        // What goes back to somebody's request carries its id, so that it is found under it in every process.
        let cause = Cause::now();
        let id = match &cause {
            Some(cause) => cause.request_id.clone(),
            None => format!(
                "{}-{}",
                reason.replace(' ', "-"),
                self.clock().uid().short()
            ),
        };
        let mut request = Request::new(id, Actor::system(reason), Surface::Inside, op);
        if let Some(cause) = cause {
            request.trace = cause.trace;
            request.trace.causation_id = Some(cause.request_id);
        }
        // An agent asks the api: what it may ask for is judged there.
        if let (Some(Place::Agent), Some(link)) =
            (self.place(), self.try_part::<crate::link::AgentLink>())
        {
            return link.ask(self, request, reason).await;
        }
        let admitted = self.gate().admit(request)?;
        self.desk().carry_out(admitted).await
    }

    /// Records an event about an object.
    pub async fn event(&self, about: &ObjectRef, event: &str, message: &str, severity: Severity) {
        let cause = Cause::now().or_else(|| {
            let key = crate::object_key(&about.kind, about.project.as_deref(), &about.name);
            let row = self.cache().row(&about.kind, &key)?;
            (!row.request_id.is_empty()).then(|| Cause {
                request_id: row.request_id.to_string(),
                trace: crate::Trace::default(),
            })
        });
        self.0
            .events
            .record(self.clock().now(), about, event, message, severity, cause)
            .await;
    }

    /// The revision of the store that the cache has reached.
    pub fn revision(&self) -> Revision {
        self.0.cache.revision()
    }
}

pub(crate) fn to_bytes(object: &Value) -> Result<Vec<u8>> {
    let mut object = object.clone();
    if let Some(meta) = object["metadata"].as_object_mut() {
        meta.shift_remove("revision");
    }
    let bytes =
        serde_json::to_vec(&object).map_err(|e| Error::internal("object as JSON").because(e))?;
    if bytes.len() > store::MAX_VALUE {
        return Err(
            Error::field("spec", format!("the object has {} bytes", bytes.len())).hint(format!(
                "at most {} KiB; keep large texts elsewhere",
                store::MAX_VALUE / 1024
            )),
        );
    }
    Ok(bytes)
}

/// A store error as the user sees it.
pub(crate) fn store_error(error: StoreError) -> Error {
    match error {
        StoreError::Conflict { found, .. } => Error::new(
            model::What::Conflict(Some(found.to_string())),
            "the object changed meanwhile",
        )
        .because(error),
        StoreError::Compacted { .. } => Error::gone(error.to_string()).because(error),
        StoreError::TooLarge(_) => Error::refused(error.to_string()).because(error),
        StoreError::Unavailable(_) | StoreError::Unusable(_) => {
            Error::unavailable(error.to_string()).because(error)
        }
        StoreError::Denied(_) => Error::denied(error.to_string()).because(error),
        StoreError::LeaseEnded(_) => Error::internal("a lease ended").because(error),
    }
}
