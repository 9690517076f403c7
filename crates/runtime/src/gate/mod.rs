//! The one door. Every request of every surface becomes a [`Request`] and passes [`Gate::admit`]; only what it returns
//! can be carried out.
//!
//! Order: shutting down? → authentication (done by the surface, which names the [`Actor`]) → kind known → scope right →
//! project seen → action known → may he. Rules that look at the object itself run in the transaction, so that they see
//! what they decide on.
//!
//! **Invariant.** What somebody may not read is not there for him: he is told `NotFound`, in every surface, for the object
//! and for its project, and no hint names it.

mod access;
mod actor;
mod request;

pub use access::{Access, AccessRules, View, Wish};
pub use actor::{Actor, ActorKind};
pub use request::{Op, Request, Surface};

use crate::audit;
use crate::cx::Cx;
use crate::key::{PROJECT, object_key};
use crate::registry::Declared;
use crate::setting;
use model::{Error, Name, Result, Scope, Verb, Way, What};
use std::net::IpAddr;

/// The common verb that a batch may carry out as well as declared actions.
pub(crate) const DELETE: &str = "delete";

/// A request that may be carried out. Only [`Gate::admit`] makes one.
#[derive(Debug)]
pub struct Admitted(Request);

impl Admitted {
    /// The request.
    pub fn request(&self) -> &Request {
        &self.0
    }
}

/// Decides who may do what.
#[derive(Clone)]
pub struct Gate {
    cx: Cx,
}

impl Gate {
    /// The gate of this process.
    pub fn new(cx: Cx) -> Gate {
        Gate { cx }
    }

    /// Lets a request in, or says why not. A refusal is put on record.
    pub fn admit(&self, mut request: Request) -> Result<Admitted> {
        match self.judge(&mut request) {
            Ok(()) => Ok(Admitted(request)),
            Err(error) => {
                // Who looks for what is hidden from him is told that it is not there; on record is what was so.
                let hidden = self.hides(&request, &error);
                audit::refused(&self.cx, &request, hidden.as_ref().unwrap_or(&error));
                Err(error)
            }
        }
    }

    /// Why somebody is told that something is not there which is.
    fn hides(&self, request: &Request, error: &Error) -> Option<Error> {
        let (op, actor) = (&request.op, &request.actor);
        let is_user = matches!(actor.kind, ActorKind::User | ActorKind::Key);
        if !is_user || !matches!(error.what, What::NotFound) {
            return None;
        }
        let there = |kind: &str, project: Option<&str>, name: &str| {
            let key = object_key(kind, project, name);
            self.cx.cache().row(kind, &key).is_some()
        };
        let object = op
            .target()
            .is_some_and(|it| there(&it.kind, it.project.as_deref(), &it.name));
        let project = op
            .project()
            .is_some_and(|project| there(PROJECT, None, project));
        let (kind, verb) = (op.privilege_kind(), op.privilege_verb());
        let lacks = !self.may(actor, request.from, kind, verb, op.project(), op.name());
        ((object || project) && lacks).then(|| denied(actor, kind, verb, op.project(), op.name()))
    }

    /// Whether what was admitted would be admitted still: asked while a stream is open.
    pub fn still(&self, request: &Request) -> bool {
        let mut request = request.clone();
        let Ok(declared) = self.cx.registry().need(request.op.kind()) else {
            return false;
        };
        self.check_project(declared, &request).is_ok() && self.check_right(&mut request).is_ok()
    }

    fn judge(&self, request: &mut Request) -> Result<()> {
        request.change = Some(self.cx.clock().uid());
        if self.cx.life().refuses() && request.actor.kind != ActorKind::System {
            return Err(Error::new(
                What::Unavailable(std::time::Duration::from_secs(5)),
                "this process is shutting down",
            ));
        }
        let op = &request.op;
        // An unknown caller learns nothing about kinds and objects.
        if request.actor.kind == ActorKind::Anonymous {
            return Err(Error::unauthenticated(
                "this needs a login: `dvctl login URL --code CODE`, or the instance's unix socket",
            ));
        }
        let declared = self.cx.registry().need(op.kind())?;
        self.check_scope(declared, op)?;
        self.check_project(declared, request)?;
        self.check_verb(declared, op, request.actor.kind == ActorKind::System)?;
        self.check_right(request)?;
        let op = &request.op;
        // One line for what changes something; what only reads is in the surface's own line, unless its user is followed.
        let quiet = op.reads(declared)
            && !setting::LOG_REQUESTS.on(&self.cx, &request.actor.name, op.project());
        match quiet {
            true => tracing::debug!(
                request_id = %request.id, actor = %request.actor.name, surface = ?request.surface, kind = op.kind(),
                verb = op.privilege_verb(), "request admitted"
            ),
            false => tracing::info!(
                request_id = %request.id, actor = %request.actor.name, surface = ?request.surface, kind = op.kind(),
                verb = op.privilege_verb(), "request admitted"
            ),
        }
        Ok(())
    }

    fn check_scope(&self, declared: &Declared, op: &Op) -> Result<()> {
        let kind = declared.kind();
        let over_all = matches!(op, Op::List { .. } | Op::Watch { .. });
        match (kind.scope, op.project()) {
            (Scope::Cluster, Some(_)) => Err(Error::not_found(format!(
                "{} is cluster-wide and not in a project",
                kind.plural
            ))
            .hint(format!("leave the project out: /api/v1/{}", kind.plural))),
            (Scope::Project, None) if !over_all => Err(Error::field(
                "project",
                format!("a {} lives in a project, and none is given", kind.name),
            )
            .hint("give one, for example `-p default`")),
            (_, Some(project)) => Name::parse("project", project).map(|_| ()),
            _ => Ok(()),
        }
    }

    /// The project must be there for him, and active for a change. Our own loops may go on in one that is not.
    fn check_project(&self, declared: &Declared, request: &Request) -> Result<()> {
        let (op, actor) = (&request.op, &request.actor);
        let system = actor.kind == ActorKind::System;
        let (Some(project), Some(_), false) =
            (op.project(), self.cx.registry().get(PROJECT), system)
        else {
            return Ok(());
        };
        let enters = |project: &str| {
            actor.is_trusted()
                || self
                    .rules()
                    .is_some_and(|rules| rules.enters(&self.cx, actor, request.from, project))
        };
        let row = self
            .cx
            .cache()
            .row(PROJECT, &object_key(PROJECT, None, project));
        let Some(row) = row.filter(|_| enters(project)) else {
            let key = object_key(PROJECT, None, project);
            let (rows, _) = self.cx.cache().around(PROJECT, None, &key);
            let known = rows.iter().map(|r| &*r.name).filter(|name| enters(name));
            let error = Error::not_found(format!("there is no project `{project}`"));
            return Err(match model::nearest(project, known) {
                Some(near) => error.hint(format!("did you mean `{near}`?")),
                None => error,
            });
        };
        if !op.reads(declared)
            && (row.deleting || row.value()?["spec"]["active"] == serde_json::json!(false))
        {
            return Err(Error::refused(format!(
                "project `{project}` is not active and takes no change"
            ))
            .hint(format!(
                "make it active: dvctl project set {project} --active=true"
            )));
        }
        Ok(())
    }

    /// May he? Who may not even read an object is told that it is not there.
    fn check_right(&self, request: &mut Request) -> Result<()> {
        let (op, actor) = (request.op.clone(), request.actor.clone());
        if actor.is_trusted() {
            return Ok(());
        }
        let (op, actor) = (&op, &actor);
        let (kind, verb) = (op.privilege_kind(), op.privilege_verb());
        let allowed = match op {
            // Apply: each half has its own privilege, and he gets the half that is his.
            Op::Update {
                create: true,
                target,
                body,
            } => {
                let has = |verb| self.may(actor, request.from, kind, verb, op.project(), op.name());
                match (has("update"), has("create")) {
                    (true, true) => true,
                    (true, false) => {
                        request.op = Op::Update {
                            target: target.clone(),
                            body: body.clone(),
                            create: false,
                        };
                        true
                    }
                    (false, true) => {
                        let mut body = body.clone();
                        body["metadata"]["name"] = target.name.clone().into();
                        request.op = Op::Create {
                            kind: target.kind.clone(),
                            project: target.project.clone(),
                            body,
                        };
                        true
                    }
                    (false, false) => false,
                }
            }
            // Of many objects he gets those that are his.
            Op::List { .. } | Op::Watch { .. } | Op::Batch { .. } => !matches!(
                self.view(actor, request.from, kind, verb, op.project()),
                View::Nothing
            ),
            _ => self.may(actor, request.from, kind, verb, op.project(), op.name()),
        };
        if allowed {
            return Ok(());
        }
        // Who can read none of them is told what he lacks: that says nothing about what is there.
        let (from, project) = (request.from, op.project());
        if let Some(target) = op.target()
            && !self.may(actor, from, kind, "read", project, op.name())
            && !matches!(self.view(actor, from, kind, "read", project), View::Nothing)
        {
            return Err(Error::not_found(format!("there is no {target}")));
        }
        Err(denied(actor, kind, verb, op.project(), op.name()))
    }

    /// Refuses to delete what the rules hold on to.
    pub(crate) fn lets_go(&self, actor: &Actor, target: &model::ObjectRef) -> Result<()> {
        match self.rules() {
            Some(rules) if actor.kind != ActorKind::System => {
                rules.lets_go(&self.cx, actor, target)
            }
            _ => Ok(()),
        }
    }

    /// Refuses to change labels where rights hang on them that the caller does not have.
    pub(crate) fn relabels(
        &self,
        request: &Request,
        target: &model::ObjectRef,
        labels: (&model::Labels, &model::Labels),
    ) -> Result<()> {
        match self.rules() {
            Some(rules) if !request.actor.is_trusted() && labels.0 != labels.1 => {
                rules.relabels(&self.cx, &request.actor, request.from, target, labels)
            }
            _ => Ok(()),
        }
    }

    /// Whether who writes an object of a kind may name objects of another kind that he cannot see.
    pub(crate) fn names(&self, kind: &str, referred: &str) -> bool {
        self.rules()
            .is_some_and(|rules| rules.names(kind, referred))
    }

    fn rules(&self) -> Option<std::sync::Arc<dyn Access>> {
        self.cx.try_part::<AccessRules>().map(|part| part.0.clone())
    }

    /// Changes whenever somebody's rights may have changed; `None` where there are no rules.
    pub fn changes(&self) -> Option<tokio::sync::watch::Receiver<u64>> {
        self.rules().map(|rules| rules.changes())
    }

    pub(crate) fn now(&self) -> model::Timestamp {
        self.cx.clock().now()
    }

    /// Whether somebody has a privilege on one object, or on a kind as a whole. Deny unless allowed.
    pub fn may(
        &self,
        actor: &Actor,
        from: Option<IpAddr>,
        kind: &str,
        verb: &str,
        project: Option<&str>,
        name: Option<&str>,
    ) -> bool {
        match actor.kind {
            ActorKind::Anonymous => return false,
            ActorKind::Administrator | ActorKind::System => return true,
            ActorKind::User | ActorKind::Key => {}
        }
        let row = name.and_then(|name| {
            let key = object_key(kind, project, name);
            self.cx.cache().row(kind, &key)
        });
        let wish = Wish {
            kind,
            verb,
            project,
            name,
            labels: row.as_ref().map(|row| &row.labels),
            part_of: row.as_ref().and_then(|row| row.part_of.as_ref()),
            from,
            now: self.cx.clock().now(),
        };
        self.rules()
            .is_some_and(|rules| rules.may(&self.cx, actor, &wish))
    }

    /// For what is no operation on objects (the registry, metrics): an error unless he has the privilege.
    pub fn need(&self, actor: &Actor, from: Option<IpAddr>, kind: &str, verb: &str) -> Result<()> {
        match self.may(actor, from, kind, verb, None, None) {
            true => Ok(()),
            false => {
                audit::lacks(&self.cx, actor, from, kind, verb);
                Err(denied(actor, kind, verb, None, None))
            }
        }
    }

    /// With which objects of a kind somebody may do something.
    pub fn view(
        &self,
        actor: &Actor,
        from: Option<IpAddr>,
        kind: &str,
        verb: &str,
        project: Option<&str>,
    ) -> View {
        match actor.kind {
            ActorKind::Anonymous => return View::Nothing,
            ActorKind::Administrator | ActorKind::System => return View::All,
            ActorKind::User | ActorKind::Key => {}
        }
        let wish = Wish {
            kind,
            verb,
            project,
            name: None,
            labels: None,
            part_of: None,
            from,
            now: self.cx.clock().now(),
        };
        match self.rules() {
            Some(rules) => rules.view(&self.cx, actor, &wish),
            None => View::Nothing,
        }
    }

    fn check_verb(&self, declared: &Declared, op: &Op, system: bool) -> Result<()> {
        let kind = declared.kind();
        let need = match op {
            Op::Create { .. } => Verb::Create,
            Op::Update { .. } | Op::Patch { .. } => Verb::Update,
            Op::Delete { .. } => Verb::Delete,
            Op::Batch { verb, .. } if verb == DELETE => Verb::Delete,
            Op::Act { verb, .. } | Op::Batch { verb, .. } => {
                return match kind.action(verb) {
                    Some(_) => Ok(()),
                    None => Err(unknown_word(
                        "action",
                        kind.name,
                        verb,
                        kind.actions.iter().map(|a| a.verb),
                    )),
                };
            }
            Op::Stream { stream, .. } => {
                return match kind.streams.iter().find(|s| s.name == stream) {
                    Some(_) => Ok(()),
                    None => Err(unknown_word(
                        "stream",
                        kind.name,
                        stream,
                        kind.streams.iter().map(|s| s.name),
                    )),
                };
            }
            _ => Verb::Read,
        };
        if kind.allows(need) || system {
            return Ok(());
        }
        Err(Error::refused(format!(
            "a {} cannot be changed with `{}`: DebVisor itself keeps it",
            kind.name,
            op.privilege_verb()
        )))
    }
}

fn denied(
    actor: &Actor,
    kind: &str,
    verb: &str,
    project: Option<&str>,
    name: Option<&str>,
) -> Error {
    let place = match (project, name) {
        (Some(project), Some(name)) => format!(" on {kind} {project}/{name}"),
        (Some(project), None) => format!(" in project {project}"),
        (None, Some(name)) => format!(" on {kind} {name}"),
        (None, None) => String::new(),
    };
    Error::denied(format!(
        "`{}` needs the privilege `{kind}.{verb}`{place}",
        actor.name
    ))
    .hint(format!(
        "who can grant it sees why: dvctl access check {} {kind}.{verb}",
        actor.user.as_deref().unwrap_or(&actor.name)
    ))
}

fn unknown_word<'a>(
    what: &str,
    kind: &str,
    word: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> Error {
    let error = Error::not_found(format!("{kind} has no {what} `{word}`"));
    match model::nearest(word, known.clone()) {
        Some(near) => error.hint(format!("did you mean `{near}`?")),
        None => error.hint(format!("it has: {}", known.collect::<Vec<_>>().join(", "))),
    }
}

impl Op {
    /// Whether it only reads.
    pub fn reads(&self, declared: &Declared) -> bool {
        match self {
            Op::Get { .. } | Op::List { .. } | Op::Watch { .. } => true,
            Op::Stream { stream, .. } => declared
                .kind()
                .streams
                .iter()
                .any(|s| s.name == stream && s.way == Way::Read),
            _ => false,
        }
    }
}
