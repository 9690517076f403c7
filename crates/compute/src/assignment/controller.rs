//! Chooses a node for each VM. With one node the choice is simple; why there is none is said.

use super::{Assignment, AssignmentSpec, KIND};
use crate::vm::Vm;
use futures::future::BoxFuture;
use model::{Condition, ConditionStatus, Error, Kind, ObjectRef, Resource, Result, What};
use runtime::Key;
use runtime::node::{Node, NodeState, Schedulable};
use runtime::{Controller, Cx, Next, Obj, Op, Watch, object_ref};
use serde_json::json;
use std::sync::Arc;

/// Keeps one assignment per VM.
pub(super) struct Placement;

impl Controller for Placement {
    fn name(&self) -> &'static str {
        "placement"
    }

    fn owns(&self) -> &'static Kind {
        &KIND
    }

    fn watches(&self) -> Vec<Watch> {
        vec![
            Watch::Twin(Vm::KIND.name),
            Watch::Map(Node::KIND.name, |cx, _| unplaced(cx)),
        ]
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(reconcile(cx, key))
    }
}

/// Those without a node: a change of a node means nothing to the others.
fn unplaced(cx: &Cx) -> Vec<Key> {
    let node = KIND.columns.iter().position(|c| c.path == "spec.node");
    let rows = cx.cache().rows(KIND.name, None);
    rows.iter()
        .filter(|row| node.is_some_and(|at| matches!(&*row.columns[at], "null" | "")))
        .map(|row| row.key.clone())
        .collect()
}

async fn reconcile(cx: &Cx, key: &Key) -> Result<Next> {
    let Some(target) = object_ref(key) else {
        return Ok(Next::Settled);
    };
    let vm = cx.get::<Vm>(target.project.as_deref(), &target.name);
    let assignment = cx.get_key::<Assignment>(key);
    match (vm, assignment) {
        (None, None) => Ok(Next::Settled),
        // It belongs to its VM, and the engine deletes what belongs to others.
        (None, Some(_)) => Ok(Next::Settled),
        (Some(vm), Some(assignment)) if assignment.spec.vm != vm.metadata.uid => Ok(
            Next::WaitingFor("the assignment of an earlier VM of this name to go".into()),
        ),
        // A VM that leaves is not placed again.
        (Some(vm), None) if vm.metadata.deletion_requested.is_some() => Ok(Next::Settled),
        (Some(vm), assignment) => place(cx, key, target, &vm, assignment).await,
    }
}

async fn place(
    cx: &Cx,
    key: &Key,
    target: ObjectRef,
    vm: &Obj<Vm>,
    assignment: Option<Arc<Obj<Assignment>>>,
) -> Result<Next> {
    let placed = assignment.as_ref().and_then(|a| a.spec.node.clone());
    if let Some(node) = placed {
        return say(cx, key, Ok(&node)).await;
    }
    let choice = choose(&cx.list::<Node>(None));
    let spec = AssignmentSpec {
        vm: vm.metadata.uid,
        node: choice.as_ref().ok().cloned(),
        epoch: assignment.as_ref().map_or(1, |a| a.spec.epoch + 1),
    };
    let op = match &assignment {
        None => Op::Create {
            kind: KIND.name.into(),
            project: target.project.clone(),
            body: json!({
                "metadata": {
                    "name": target.name,
                    "owner": { "kind": Vm::KIND.name, "name": vm.metadata.name, "uid": vm.metadata.uid },
                },
                "spec": spec,
            }),
        },
        // Nothing new to say.
        Some(_) if spec.node.is_none() => return say(cx, key, choice.as_deref()).await,
        Some(_) => Op::Patch {
            target: target.clone(),
            body: json!({ "spec": spec }),
        },
    };
    match cx.submit(op, "placement").await {
        Err(Error {
            what: What::Exists, ..
        }) => {}
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    say(cx, key, choice.as_deref()).await
}

/// The node for a VM, or why there is none.
fn choose(nodes: &[Arc<Obj<Node>>]) -> std::result::Result<String, String> {
    let mut why = Vec::new();
    for node in nodes {
        let name = &node.metadata.name;
        let online = node
            .status
            .as_ref()
            .is_some_and(|s| s.state == NodeState::Online);
        if !online {
            why.push(format!("node `{name}` is not online"));
        } else if node.spec.schedulable == Schedulable::No {
            why.push(format!("node `{name}` takes no new VMs"));
        } else {
            return Ok(name.to_string());
        }
    }
    Err(match why.is_empty() {
        true => "there is no node yet: its agent registers it when it starts".into(),
        false => why.join("; "),
    })
}

async fn say(cx: &Cx, key: &Key, choice: std::result::Result<&str, &String>) -> Result<Next> {
    let now = cx.clock().now();
    cx.set_status::<Assignment>(key, |status| {
        match choice {
            Ok(node) => Condition::set(
                &mut status.conditions,
                "Placed",
                ConditionStatus::True,
                "Chosen",
                &format!("on node `{node}`"),
                now,
            ),
            Err(why) => Condition::set(
                &mut status.conditions,
                "Placed",
                ConditionStatus::False,
                "NoNode",
                why,
                now,
            ),
        };
    })
    .await?;
    Ok(match choice {
        Ok(_) => Next::Settled,
        Err(why) => Next::WaitingFor(why.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SUBSYSTEMS;
    use crate::vm::hypervisor::Guests;
    use crate::vm::stand_in::World;
    use runtime::node::{Facts, NodeStatus};
    use runtime::{Actor, CxBuilder, Engine, Registry, Request, Surface, node};
    use std::time::Duration;

    async fn create(cx: &Cx, name: &str) {
        let op = Op::Create {
            kind: "vm".into(),
            project: Some("default".into()),
            body: json!({"metadata": {"name": name}, "spec": {}}),
        };
        let request = Request::new("r1", Actor::administrator("tester"), Surface::Rest, op);
        let admitted = cx.gate().admit(request).unwrap();
        cx.desk().carry_out(admitted).await.unwrap();
    }

    async fn until(what: &str, so: impl Fn() -> bool) {
        for _ in 0..1000 {
            if so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{what}")
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_a_node_wakes_those_without_one() {
        let registry = Registry::new(&[runtime::SUBSYSTEMS, SUBSYSTEMS]).unwrap();
        let cx = CxBuilder::new(registry, store::Memory::new())
            .part(Arc::new(Facts::new(NodeStatus::default())))
            .part(Arc::new(Guests::new(Arc::new(World::default()))))
            .build()
            .await
            .unwrap();
        Engine::start(&cx);
        create(&cx, "web1").await;
        let key = cx.key::<Assignment>(Some("default"), "web1");
        until("web1 waits for a node", || unplaced(&cx) == [key.clone()]).await;
        node::attend(&cx).await.unwrap();
        let placed = |name: &str| {
            let found = cx.get::<Assignment>(Some("default"), name);
            found.is_some_and(|a| a.spec.node.is_some())
        };
        // Sooner than its own second look.
        let before = tokio::time::Instant::now();
        until("web1 is placed", || placed("web1")).await;
        assert!(before.elapsed() < Duration::from_secs(20));
        assert_eq!(unplaced(&cx), []);
        create(&cx, "web2").await;
        until("web2 is placed", || placed("web2")).await;
        assert_eq!(unplaced(&cx), []);
        cx.life().stop(Duration::from_secs(5)).await;
    }
}
