//! The one door. Every request of every surface becomes a [`Request`] and passes [`Gate::admit`]; only what it returns
//! can be carried out.
//!
//! Order: shutting down? → authentication (done by the surface, which names the [`Actor`]) → kind and action known →
//! scope right → may he → body is an object. Rules that look at the object itself run in the transaction, so that they
//! see what they decide on.

mod request;

pub use request::{Actor, ActorKind, Op, Request, Surface};

use crate::audit;
use crate::cx::Cx;
use crate::key::{PROJECT, object_key};
use crate::registry::Declared;
use crate::setting;
use model::{Error, Name, Result, Scope, Verb, Way};

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
                audit::refused(&self.cx, &request, &error);
                Err(error)
            }
        }
    }

    fn judge(&self, request: &mut Request) -> Result<()> {
        request.change = Some(self.cx.clock().uid());
        if self.cx.life().refuses() && request.actor.kind != ActorKind::System {
            return Err(Error::new(
                model::What::Unavailable(std::time::Duration::from_secs(5)),
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
        self.check_project(declared, op, request.actor.kind == ActorKind::System)?;
        self.check_verb(declared, op, request.actor.kind == ActorKind::System)?;
        if !request.actor.may(op.privilege_kind(), op.privilege_verb()) {
            return Err(Error::denied(format!(
                "`{}` needs the privilege `{}.{}`",
                request.actor.name,
                op.privilege_kind(),
                op.privilege_verb()
            )));
        }
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

    /// The project must be there, and active for a change. Our own loops may go on in one that is not.
    fn check_project(&self, declared: &Declared, op: &Op, system: bool) -> Result<()> {
        let (Some(project), Some(_), false) =
            (op.project(), self.cx.registry().get(PROJECT), system)
        else {
            return Ok(());
        };
        let Some(row) = self
            .cx
            .cache()
            .row(PROJECT, &object_key(PROJECT, None, project))
        else {
            let rows = self.cx.cache().rows(PROJECT, None);
            let error = Error::not_found(format!("there is no project `{project}`"));
            return Err(
                match model::nearest(project, rows.iter().map(|r| &*r.name)) {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error,
                },
            );
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
