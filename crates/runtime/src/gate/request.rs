//! What surfaces hand to the gate.

use super::Actor;
use crate::{Query, Trace};
use model::{ObjectRef, Uid};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::IpAddr;
use store::Revision;

/// Through which surface a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// REST.
    Rest,
    /// GraphQL.
    GraphQl,
    /// gRPC.
    Grpc,
    /// WebSocket or SSE.
    Watch,
    /// Our own loops.
    Inside,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Follows it through every log, task and event.
    pub id: String,
    /// Who asks.
    pub actor: Actor,
    /// Through which surface.
    pub surface: Surface,
    /// From which address; `None` for a unix socket.
    pub from: Option<IpAddr>,
    /// With which program, as it calls itself.
    pub user_agent: Option<String>,
    /// What he wants.
    pub op: Op,
    /// Idempotency-Key: the same key with the same body answers the same again for a day.
    pub idempotency: Option<String>,
    /// If-Match: only when the object is still at this revision.
    pub if_match: Option<String>,
    /// Check everything, write nothing.
    pub dry_run: bool,
    /// Where it stands among others.
    pub trace: Trace,
    /// Cancel the task that holds what this needs, and wait until it has let go.
    pub force: bool,
    /// The batch task that this is a part of.
    pub parent: Option<String>,
    /// Names this one attempt in the audit trail and in its commit; given by the gate.
    pub(crate) change: Option<Uid>,
}

impl Request {
    /// A request without preconditions.
    pub fn new(id: impl Into<String>, actor: Actor, surface: Surface, op: Op) -> Request {
        Request {
            id: id.into(),
            actor,
            surface,
            from: None,
            user_agent: None,
            op,
            idempotency: None,
            if_match: None,
            dry_run: false,
            trace: Trace::default(),
            force: false,
            parent: None,
            change: None,
        }
    }
}

/// What is wanted of which object. What an agent may ask of the api crosses the link as it stands here; the rest does not.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// One object.
    #[serde(skip)]
    Get {
        /// Which.
        target: ObjectRef,
    },
    /// A page of objects.
    #[serde(skip)]
    List {
        /// Kind.
        kind: String,
        /// Project, or all.
        project: Option<String>,
        /// Which part.
        query: Query,
    },
    /// A new object; the name stands in the body.
    Create {
        /// Kind.
        kind: String,
        /// Project.
        project: Option<String>,
        /// The object as a file has it.
        body: Value,
    },
    /// Replace the spec, or create (apply).
    Update {
        /// Which.
        target: ObjectRef,
        /// The object as a file has it.
        body: Value,
        /// Whether it may be created when it does not exist.
        create: bool,
    },
    /// Merge patch (RFC 7396) of `metadata` and `spec`.
    Patch {
        /// Which.
        target: ObjectRef,
        /// The patch.
        body: Value,
    },
    /// Delete.
    Delete {
        /// Which.
        target: ObjectRef,
        /// Kinds of owned objects that stay, such as `volume`.
        keep: Vec<String>,
    },
    /// A declared action.
    Act {
        /// On which object.
        target: ObjectRef,
        /// Which verb.
        verb: String,
        /// Its parameters.
        params: Value,
    },
    /// One verb over many objects of a kind: a declared action, or `delete`.
    #[serde(skip)]
    Batch {
        /// Kind.
        kind: String,
        /// Project.
        project: Option<String>,
        /// Which verb.
        verb: String,
        /// Over which, and how: [`crate::task::BatchInput`].
        body: Value,
    },
    /// Changes as they happen.
    #[serde(skip)]
    Watch {
        /// Kind.
        kind: String,
        /// Project, or all.
        project: Option<String>,
        /// Only this object.
        name: Option<String>,
        /// Selector and search; paging does not apply.
        query: Query,
        /// After this revision; `None` begins with everything that is there.
        after: Option<Revision>,
    },
    /// A declared stream.
    #[serde(skip)]
    Stream {
        /// Of which object.
        target: ObjectRef,
        /// Which.
        stream: String,
        /// Its parameters.
        params: Value,
    },
}

impl Op {
    /// The kind it is about.
    pub fn kind(&self) -> &str {
        match self {
            Op::List { kind, .. }
            | Op::Create { kind, .. }
            | Op::Batch { kind, .. }
            | Op::Watch { kind, .. } => kind,
            Op::Get { target }
            | Op::Update { target, .. }
            | Op::Patch { target, .. }
            | Op::Delete { target, .. }
            | Op::Act { target, .. }
            | Op::Stream { target, .. } => &target.kind,
        }
    }

    /// The project it is about.
    pub fn project(&self) -> Option<&str> {
        match self {
            Op::List { project, .. }
            | Op::Create { project, .. }
            | Op::Batch { project, .. }
            | Op::Watch { project, .. } => project.as_deref(),
            Op::Get { target }
            | Op::Update { target, .. }
            | Op::Patch { target, .. }
            | Op::Delete { target, .. }
            | Op::Act { target, .. }
            | Op::Stream { target, .. } => target.project.as_deref(),
        }
    }

    /// The name of the object it is about; a list and a batch have none, a create has it in its body.
    pub fn name(&self) -> Option<&str> {
        match self {
            Op::List { .. } | Op::Batch { .. } => None,
            Op::Watch { name, .. } => name.as_deref(),
            Op::Create { body, .. } => body.pointer("/metadata/name").and_then(Value::as_str),
            Op::Get { target }
            | Op::Update { target, .. }
            | Op::Patch { target, .. }
            | Op::Delete { target, .. }
            | Op::Act { target, .. }
            | Op::Stream { target, .. } => Some(&target.name),
        }
    }

    /// The object it is about, when it is about one that should be there.
    pub fn target(&self) -> Option<&ObjectRef> {
        match self {
            Op::List { .. } | Op::Watch { .. } | Op::Create { .. } | Op::Batch { .. } => None,
            // Apply may make it.
            Op::Update { create: true, .. } => None,
            Op::Get { target }
            | Op::Update { target, .. }
            | Op::Patch { target, .. }
            | Op::Delete { target, .. }
            | Op::Act { target, .. }
            | Op::Stream { target, .. } => Some(target),
        }
    }

    /// The kind in whose name the privilege is.
    pub fn privilege_kind(&self) -> &str {
        self.kind()
    }

    /// The verb of the privilege: `read`, `create`, `update`, `delete`, an action or a stream.
    pub fn privilege_verb(&self) -> &str {
        match self {
            Op::Get { .. } | Op::List { .. } | Op::Watch { .. } => "read",
            Op::Create { .. } => "create",
            Op::Update { .. } | Op::Patch { .. } => "update",
            Op::Delete { .. } => "delete",
            Op::Act { verb, .. } | Op::Batch { verb, .. } => verb,
            Op::Stream { stream, .. } => stream,
        }
    }
}
