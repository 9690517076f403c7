//! Requests of an agent's own loops: handed over the link and carried out by the api, behind its gate.
//!
//! A controller may need more than a status: a VM's disks are volumes, an import is a task. Such a request is let in
//! when it concerns what belongs to an object on the agent's node, or is a procedure on one.

use super::scope::NodeScope;
use super::{AgentLink, Hello, broken, hello};
use crate::seat::Seated;
use crate::trace::Trace;
use crate::{Actor, Answer, Cx, Op, Place, Request, Run, Surface, node, object_key};
use model::{Error, Owner, Problem, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::Revision;
use store::remote::BoxIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest answer: an object and what is around it.
const MAX_ANSWER: u64 = 2 * store::MAX_VALUE as u64;

/// A request as it crosses the link.
#[derive(Serialize, Deserialize)]
pub(super) struct Ask {
    id: String,
    reason: String,
    trace: Trace,
    op: Op,
}

/// What came of it, and the revision at which its effect can be read.
#[derive(Serialize, Deserialize)]
struct Told {
    revision: Revision,
    what: What,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum What {
    Object {
        json: Value,
        revision: String,
        created: bool,
    },
    Accepted {
        task: Value,
    },
    Deleting {
        json: Value,
    },
    Deleted,
    Failed(Problem),
}

impl AgentLink {
    /// Has the api carry a request out.
    pub(crate) async fn ask(&self, cx: &Cx, request: Request, reason: &str) -> Result<Answer> {
        let mux = self.connected().await.map_err(broken)?;
        let mut stream = mux.open().await?;
        let ask = Box::new(Ask {
            id: request.id,
            reason: reason.to_owned(),
            trace: request.trace,
            op: request.op,
        });
        hello(&mut stream, &Hello::Ask { ask }).await?;
        stream.flush().await.map_err(broken)?;
        let mut told = Vec::new();
        let mut answer = stream.take(MAX_ANSWER);
        answer.read_to_end(&mut told).await.map_err(broken)?;
        let told: Told = serde_json::from_slice(&told).map_err(|e| {
            Error::unavailable("the api did not say what came of a request").because(e)
        })?;
        cx.cache().reach(told.revision).await?;
        Ok(match told.what {
            What::Failed(problem) => return Err(Error::from_problem(problem)),
            What::Object {
                json,
                revision,
                created,
            } => Answer::Object {
                json: json.to_string().into(),
                revision,
                created,
            },
            What::Accepted { task } => Answer::Accepted {
                task: task.to_string().into(),
            },
            What::Deleting { json } => Answer::Deleting {
                json: json.to_string().into(),
            },
            What::Deleted => Answer::Deleted,
        })
    }
}

/// Carries out what an agent asks for, and answers it.
pub(super) async fn answer(cx: &Cx, scope: &NodeScope, ask: Ask, mut stream: BoxIo) -> Result<()> {
    let id = ask.id.clone();
    let what = match carry_out(cx, scope, ask).await {
        Ok(what) => what,
        Err(error) => What::Failed(error.problem(&id)),
    };
    let told = Told {
        revision: cx.revision(),
        what,
    };
    let told = serde_json::to_vec(&told).map_err(|e| Error::internal("answer").because(e))?;
    stream.write_all(&told).await.map_err(broken)?;
    stream.shutdown().await.map_err(broken)
}

async fn carry_out(cx: &Cx, scope: &NodeScope, ask: Ask) -> Result<What> {
    if let Err(why) = may_ask(cx, scope, &ask.op) {
        let error = Error::denied(format!(
            "the agent of node `{}` may not {} {} `{}`: {why}",
            scope.node(),
            ask.op.privilege_verb(),
            ask.op.kind(),
            ask.op.name().unwrap_or_default()
        ));
        tracing::warn!(node = scope.node(), %error, "a request of an agent was refused");
        return Err(error);
    }
    let actor = Actor::system(&format!("{}@{}", ask.reason, scope.node()));
    let mut request = Request::new(ask.id, actor, Surface::Inside, ask.op);
    request.trace = ask.trace;
    let admitted = cx.gate().admit(request)?;
    let json = |bytes: &[u8]| {
        serde_json::from_slice(bytes).map_err(|e| Error::internal("answer").because(e))
    };
    Ok(match cx.desk().carry_out(admitted).await? {
        Answer::Object {
            json: bytes,
            revision,
            created,
        } => What::Object {
            json: json(&bytes)?,
            revision,
            created,
        },
        Answer::Accepted { task } => What::Accepted { task: json(&task)? },
        Answer::Deleting { json: bytes } => What::Deleting {
            json: json(&bytes)?,
        },
        Answer::Deleted | Answer::List(_) => What::Deleted,
    })
}

/// Whether the agent may ask for this: what belongs to an object on its node, a procedure on such an object, its own
/// node object.
fn may_ask(cx: &Cx, scope: &NodeScope, op: &Op) -> std::result::Result<(), String> {
    let declared = cx
        .registry()
        .get(op.kind())
        .ok_or("its kind is not known")?;
    let name = op.name().ok_or("it has no name")?;
    let project = op.project();
    if let (Op::Create { .. }, true) = (op, declared.kind().name == node::KIND.name) {
        return match name == scope.node() {
            true => Ok(()),
            false => Err("it is another node".into()),
        };
    }
    if declared.place != Place::Agent {
        return Err("no agent keeps objects of this kind".into());
    }
    let here = |owner: &Owner| {
        let key = object_key(&owner.kind, project, &owner.name);
        let row = cx.cache().row(&owner.kind, &key);
        row.is_some_and(|row| row.uid == owner.uid) && scope.seat(&owner.kind, &key) == Seated::Here
    };
    let owned = |owner: &Value| {
        serde_json::from_value::<Owner>(owner.clone())
            .is_ok_and(|owner| here(&owner))
            .then_some(())
            .ok_or_else(|| "it belongs to no object on this node".to_owned())
    };
    let key = object_key(declared.kind().name, project, name);
    let row = cx.cache().row(declared.kind().name, &key);
    let row = row.and_then(|row| row.value().ok());
    let owner_now = row.as_ref().map(|row| owned(&row["metadata"]["owner"]));
    match (op, owner_now) {
        (Op::Create { body, .. }, _) => owned(&body["metadata"]["owner"]),
        (Op::Update { body, .. }, None) => owned(&body["metadata"]["owner"]),
        (Op::Update { body, .. }, Some(now)) => now.and(owned(&body["metadata"]["owner"])),
        (Op::Patch { body, .. }, _) if !body["metadata"].is_null() => {
            Err("it changes the metadata".into())
        }
        // One that is not there is not found, which tells nothing.
        (Op::Patch { .. } | Op::Delete { .. }, now) => now.unwrap_or(Ok(())),
        (Op::Act { verb, .. }, _) => {
            let procedure = matches!(declared.run(verb), Some(Run::Procedure(_)));
            match scope.seat(declared.kind().name, &key) {
                Seated::Here if procedure => Ok(()),
                Seated::Here => Err("it is not a procedure".into()),
                _ => Err("it is on another node".into()),
            }
        }
        _ => Err("an agent reads from its own cache".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::ObjectRef;
    use serde_json::json;

    #[test]
    fn what_changes_something_crosses_the_link_and_reads_do_not() {
        let target = ObjectRef {
            kind: "volume".into(),
            project: Some("default".into()),
            name: "data".into(),
        };
        let crossed = serde_json::to_value(Op::Delete {
            target: target.clone(),
            keep: vec!["snapshot".into()],
        });
        let crossed: Op = serde_json::from_value(crossed.unwrap()).unwrap();
        assert!(matches!(&crossed, Op::Delete { keep, .. } if keep == &["snapshot"]));
        assert!(serde_json::to_value(Op::Get { target }).is_err());
        let made_up = json!({"get": {"target": {"kind": "volume", "name": "data"}}});
        assert!(serde_json::from_value::<Op>(made_up).is_err());
    }
}
