//! A node as its agent comes and goes.

use super::rules::after;
use super::*;
use crate::tests::demo::registry;
use crate::{Clock, CxBuilder, Engine, ManualClock};
use model::ConditionStatus;
use std::time::Duration;
use store::Memory;

fn facts(boot: &str) -> NodeStatus {
    NodeStatus {
        version: "1".into(),
        boot_id: boot.into(),
        capacity: Capacity { cpus: 4, memory: 9 },
        ..NodeStatus::default()
    }
}

fn reachable(status: &NodeStatus) -> Option<ConditionStatus> {
    let found = status.conditions.iter().find(|c| c.kind == "Reachable");
    found.map(|c| c.status)
}

#[test]
fn a_node_is_what_its_presence_says() {
    let clock = ManualClock::at(0);
    let at = |s: i64| Timestamp::from_millis(clock.now().millis() + s * 1000);
    let none = NodeStatus::default();
    assert_eq!(after(&none, None, at(0)), none, "never there, not missed");
    let on = after(&none, Some(&facts("a")), at(1));
    assert_eq!((on.state, on.since), (NodeState::Online, Some(at(1))));
    assert_eq!(reachable(&on), Some(ConditionStatus::True));
    let off = after(&on, None, at(2));
    assert_eq!(off.state, NodeState::Offline);
    assert_eq!(reachable(&off), Some(ConditionStatus::False));
    assert_eq!(off.capacity, on.capacity, "as it was last seen");
    let again = after(&off, Some(&facts("a")), at(3));
    assert_eq!(
        (again.state, again.since),
        (NodeState::Online, Some(at(1))),
        "the same boot"
    );
    let rebooted = after(&off, Some(&facts("b")), at(4));
    assert_eq!(rebooted.since, Some(at(4)));
    assert_eq!(after(&again, Some(&facts("a")), at(9)), again, "no noise");
}

async fn state(cx: &Cx, wanted: NodeState) {
    let mut deltas = cx.cache().subscribe();
    let reached = async {
        loop {
            let node = cx.get::<Node>(None, "node1");
            if node.is_some_and(|n| n.status.as_ref().is_some_and(|s| s.state == wanted)) {
                return;
            }
            let _ = deltas.recv().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reached)
        .await
        .unwrap_or_else(|_| panic!("the node does not become {wanted:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_agent_is_gone_is_offline_and_online_when_it_is_back() {
    let clock = Arc::new(store::clock::ManualClock::new(
        Duration::from_secs(1000),
        Duration::ZERO,
    ));
    let store = Memory::on_clock(clock.clone());
    let api = CxBuilder::new(registry(), store.clone())
        .place(Place::Api)
        .build()
        .await
        .unwrap();
    Engine::start(&api);
    let agent = || async {
        let cx = CxBuilder::new(registry(), store.clone())
            .place(Place::Agent)
            .part(Arc::new(Facts::new(facts("a"))))
            .build()
            .await
            .unwrap();
        attend(&cx).await.unwrap();
        cx
    };
    let first = agent().await;
    state(&api, NodeState::Online).await;
    let events = || async {
        let events = api.events().read(0, 100).await;
        let about = |e: &crate::event::Event| {
            ["node.online", "node.offline"]
                .contains(&e.event.as_str())
                .then(|| e.event.clone())
        };
        events.iter().filter_map(about).collect::<Vec<_>>()
    };
    // A quick restart is no news: the next agent takes the key over before the lease ends.
    first.life().stop(Duration::from_secs(5)).await;
    let second = agent().await;
    clock.advance(Duration::from_secs(29));
    second.life().stop(Duration::from_secs(5)).await;
    state(&api, NodeState::Online).await;
    assert_eq!(events().await, ["node.online"]);
    // Nobody renews: the lease ends.
    clock.advance(Duration::from_secs(31));
    state(&api, NodeState::Offline).await;
    let _third = agent().await;
    state(&api, NodeState::Online).await;
    let told = async {
        while events().await.len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .unwrap();
    assert_eq!(
        events().await,
        ["node.online", "node.offline", "node.online"]
    );
}
