//! Everything that is known about one object, in one answer: intent, observation, conditions, claims, tasks, events.

use super::{Desk, key_of};
use crate::gate::{Admitted, Op};
use crate::object_ref;
use crate::task::{self, Task};
use model::{Error, Result};
use serde_json::{Value, json};

impl Desk {
    /// Explains the object that an admitted `Get` is about.
    pub async fn explain(&self, admitted: Admitted) -> Result<Value> {
        let Op::Get { target } = &admitted.request().op else {
            return Err(Error::internal("only an object is explained"));
        };
        let key = key_of(target);
        let row = self
            .cx
            .cache()
            .row(&target.kind, &key)
            .ok_or_else(|| self.no_such(admitted.request(), target))?;
        let object = row.value()?;
        let conditions = object["status"]["conditions"].clone();
        let holds = |kind: &str, status: &str| {
            conditions
                .as_array()
                .into_iter()
                .flatten()
                .find(|c| c["type"] == kind && c["status"] == status)
                .cloned()
        };
        let observed = object["status"]["observed_generation"]
            .as_u64()
            .unwrap_or(0);
        let verdict = match (holds("Reconciled", "false"), holds("Waiting", "true")) {
            _ if row.deleting => "is being deleted".to_owned(),
            (Some(c), _) => format!("fails: {}", c["message"].as_str().unwrap_or_default()),
            (_, Some(c)) => format!("waits for {}", c["message"].as_str().unwrap_or_default()),
            _ if observed < row.generation => {
                "has not been looked at since its last change".to_owned()
            }
            _ => match complaint(&conditions) {
                Some(text) => text,
                None => "is as wanted".to_owned(),
            },
        };
        // What he may not see is not named, neither as a reference nor as a task.
        let gate = self.cx.gate();
        let (actor, from) = (&admitted.request().actor, admitted.request().from);
        let refs = |keys: Vec<store::Key>| -> Vec<Value> {
            let may = |r: &model::ObjectRef| {
                let project = r.project.as_deref();
                gate.may(actor, from, &r.kind, "read", project, Some(&r.name))
            };
            keys.iter()
                .filter_map(object_ref)
                .filter(may)
                .map(|r| json!(r))
                .collect()
        };
        let tasks_seen = self.view(
            admitted.request(),
            task::KIND.name,
            target.project.as_deref(),
        );
        let tasks: Vec<Value> = self
            .cx
            .cache()
            .rows(task::KIND.name, target.project.as_deref())
            .iter()
            .filter(|r| tasks_seen.shows(r))
            .filter_map(|r| self.cx.get_key::<Task>(&r.key))
            .filter(|t| t.spec.target == *target && !t.status.as_ref().is_some_and(|s| s.state.ended()))
            .map(|t| {
                let status = t.status.clone().unwrap_or_default();
                json!({
                    "name": t.metadata.name, "action": t.spec.action, "state": status.state.word(), "step": status.step,
                    "message": status.message, "progress": status.progress, "actor": t.spec.actor,
                })
            })
            .collect();
        let events = self.cx.events().about(target, 10).await;
        Ok(json!({
            "object": target,
            "verdict": verdict,
            "revision": row.modified.to_string(),
            "intent": { "generation": row.generation, "spec": object["spec"] },
            "observation": { "observed_generation": observed, "status": object["status"] },
            "conditions": conditions,
            "claims": object["metadata"]["claims"],
            "holds": object["metadata"]["holds"],
            "owner": object["metadata"]["owner"],
            "owns": refs(self.cx.cache().owned(&key)),
            "references": refs(row.references.clone()),
            "used_by": refs(self.cx.cache().referrers(&key)),
            "open_tasks": tasks,
            "recent_events": events,
        }))
    }
}

/// What the other conditions complain about: those that do not hold, and say why.
fn complaint(conditions: &Value) -> Option<String> {
    let said: Vec<String> = conditions
        .as_array()
        .into_iter()
        .flatten()
        .filter(|c| c["status"] == "false")
        .filter_map(|c| {
            Some((
                c["type"].as_str()?,
                c["message"].as_str().filter(|m| !m.is_empty())?,
            ))
        })
        .map(|(kind, message)| format!("is not {kind}: {message}"))
        .collect();
    (!said.is_empty()).then(|| said.join("; "))
}
