//! All that may be done with objects, one by one, with the privilege that each takes: what parity of the surfaces, the
//! table of privileges and the reference are made from.

use crate::{Op, Query, Registry};
use model::{Action, Danger, Kind, ObjectRef, Scope, StreamKind, Verb};
use serde_json::{Value, json};

/// What sort of doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// What every kind has, such as `list`.
    Common,
    /// A declared action.
    Action,
    /// A declared byte stream.
    Stream,
}

/// One thing that may be done with objects of a kind.
#[derive(Clone, Copy)]
pub struct Offer {
    /// With which.
    pub kind: &'static Kind,
    /// `list`, `show`, `create`, `update`, `patch`, `delete`, `watch`, `explain`, an action or a stream.
    pub verb: &'static str,
    /// What sort.
    pub sort: Sort,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
    /// How much harm it can do.
    pub danger: Danger,
}

/// What every kind offers when its declaration allows the verb.
const COMMON: &[(&str, Verb, &str)] = &[
    ("list", Verb::Read, "Lists them, page by page."),
    ("show", Verb::Read, "Shows one."),
    ("watch", Verb::Read, "Shows changes as they happen."),
    (
        "explain",
        Verb::Read,
        "Says what is wanted, what is, and what it waits for.",
    ),
    ("create", Verb::Create, "Makes one."),
    (
        "update",
        Verb::Update,
        "Replaces the spec of one, or makes it (apply).",
    ),
    ("patch", Verb::Update, "Changes fields of one."),
    ("delete", Verb::Delete, "Removes one."),
];

impl Registry {
    /// All that may be done, in declared order.
    pub fn offers(&self) -> Vec<Offer> {
        self.iter().flat_map(|d| offers_of(d.kind())).collect()
    }
}

fn offers_of(kind: &'static Kind) -> Vec<Offer> {
    let common = COMMON
        .iter()
        .filter(|(_, needs, _)| *needs == Verb::Read || kind.allows(*needs))
        .map(|(verb, needs, doc)| Offer {
            kind,
            verb,
            sort: Sort::Common,
            doc,
            danger: match needs {
                Verb::Delete => Danger::Destroys,
                _ => Danger::None,
            },
        });
    let actions = kind.actions.iter().map(|a: &Action| Offer {
        kind,
        verb: a.verb,
        sort: Sort::Action,
        doc: a.doc,
        danger: a.danger,
    });
    let streams = kind.streams.iter().map(|s: &StreamKind| Offer {
        kind,
        verb: s.name,
        sort: Sort::Stream,
        doc: s.doc,
        danger: Danger::None,
    });
    common.chain(actions).chain(streams).collect()
}

impl Offer {
    /// `vm.start`: its name in metrics, audit and parity.
    pub fn name(&self) -> String {
        format!("{}.{}", self.kind.name, self.verb)
    }

    /// The privilege that the gate asks for: `vm.read`, `vm.start`.
    pub fn privilege(&self) -> String {
        let op = self.op("default", "x");
        format!("{}.{}", op.privilege_kind(), op.privilege_verb())
    }

    /// The request of it on an object of this name.
    pub fn op(&self, project: &str, name: &str) -> Op {
        let kind = self.kind.name.to_owned();
        let project = (self.kind.scope != Scope::Cluster).then(|| project.to_owned());
        let target = ObjectRef {
            kind: kind.clone(),
            project: project.clone(),
            name: name.to_owned(),
        };
        let query = Query::default();
        let body = json!({ "metadata": { "name": name } });
        match (self.sort, self.verb) {
            (Sort::Action, verb) => Op::Act {
                target,
                verb: verb.into(),
                params: Value::Null,
            },
            (Sort::Stream, stream) => Op::Stream {
                target,
                stream: stream.into(),
                params: json!({}),
            },
            (_, "list") => Op::List {
                kind,
                project,
                query,
            },
            (_, "watch") => Op::Watch {
                kind,
                project,
                name: Some(name.into()),
                query,
                after: None,
            },
            (_, "create") => Op::Create {
                kind,
                project,
                body,
            },
            (_, "update") => Op::Update {
                target,
                body,
                create: true,
            },
            (_, "patch") => Op::Patch {
                target,
                body: json!({}),
            },
            (_, "delete") => Op::Delete {
                target,
                keep: Vec::new(),
            },
            _ => Op::Get { target },
        }
    }
}
