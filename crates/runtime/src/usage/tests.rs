use super::*;
use crate::tests::demo::{Bench, TestSeal, ask, create, lamp, registry, start_over, until};
use crate::{CxBuilder, Op, object_key};
use model::{Uid, What};
use serde_json::json;
use store::{Key, Memory};

/// So much for every project.
#[derive(Debug)]
struct Fixed(Vec<(&'static str, u64)>);

impl Limits for Fixed {
    fn limit(&self, _: &Cx, _: &str, word: &str) -> Option<u64> {
        let found = self.0.iter().find(|(known, _)| *known == word);
        found.map(|(_, limit)| *limit)
    }

    fn remedy(&self, project: &str, what: &Countable, needed: u64) -> String {
        format!("raise {} of {project} to {needed}", what.word)
    }
}

async fn process(store: Arc<dyn store::Store>, limits: &[(&'static str, u64)]) -> Cx {
    CxBuilder::new(registry(), store)
        .seal(Arc::new(TestSeal))
        .part(Arc::<Bench>::default())
        .part(Arc::new(LimitRules(Arc::new(Fixed(limits.to_vec())))))
        .build()
        .await
        .unwrap()
}

fn delete(name: &str) -> Op {
    Op::Delete {
        target: lamp(name),
        keep: Vec::new(),
    }
}

fn dim(name: &str, to: u32) -> Op {
    Op::Patch {
        target: lamp(name),
        body: json!({ "spec": { "brightness": to } }),
    }
}

fn uses(cx: &Cx) -> (u64, u64) {
    let used = cx.cache().usage("default");
    let of = |word: &str| used.get(word).copied().unwrap_or(0);
    (of("lamps"), of("light"))
}

#[tokio::test]
async fn what_would_go_over_a_limit_is_refused_and_says_what_and_how_much() {
    let cx = process(Memory::new(), &[("lamps", 2), ("light", 150)]).await;
    crate::Engine::start(&cx);
    create(&cx, "a", json!({ "brightness": 60 })).await.unwrap();
    let error = create(&cx, "b", json!({ "brightness": 100 }))
        .await
        .unwrap_err();
    assert_eq!((error.status(), error.code()), (403, "QUOTA_EXCEEDED"));
    assert_eq!(
        error.message,
        "project `default` has no room for it: 60 of 150 light are used, and this needs 100 more"
    );
    assert_eq!(
        error.hint.as_deref(),
        Some("delete or shrink something, or have the limit raised: raise light of default to 160")
    );
    create(&cx, "b", json!({ "brightness": 90 })).await.unwrap();
    assert_eq!(uses(&cx), (2, 150));
    // An edit that raises a number is the same; one that lowers it makes room.
    let error = ask(&cx, dim("a", 61)).await.unwrap_err();
    assert_eq!(error.what, What::Quota(None), "{error}");
    ask(&cx, dim("b", 89)).await.unwrap();
    ask(&cx, dim("a", 61)).await.unwrap();
    // A third: both limits that it breaks are named, and what is deleted counts no more.
    let error = create(&cx, "c", json!({ "brightness": 1 }))
        .await
        .unwrap_err();
    assert!(error.message.contains("2 of 2 lamps"), "{error}");
    assert!(error.message.contains("150 of 150 light"), "{error}");
    ask(&cx, delete("a")).await.unwrap();
    until(&cx, &lamp("a"), |object| object.is_none()).await;
    assert_eq!(uses(&cx), (1, 89));
    create(&cx, "c", json!({ "brightness": 61 })).await.unwrap();
    // What changes nothing that is counted is not held up by full limits.
    let body = json!({ "spec": { "on": true } });
    let target = lamp("c");
    ask(&cx, Op::Patch { target, body }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_fifty_at_once_exactly_as_many_as_fit_get_in() {
    let folder = tempfile::tempdir().unwrap();
    let stores: [Arc<dyn store::Store>; 2] =
        [Memory::new(), store::Sqlite::open(folder.path()).unwrap()];
    for store in stores {
        // Two processes over one store: neither knows what the other has reserved.
        let one = process(store.clone(), &[("lamps", 10)]).await;
        let two = process(store.clone(), &[("lamps", 10)]).await;
        let mut tries = tokio::task::JoinSet::new();
        for n in 0..50 {
            let cx = if n % 2 == 0 { one.clone() } else { two.clone() };
            tries.spawn(async move { create(&cx, &format!("lamp{n}"), json!({})).await });
        }
        let results = tries.join_all().await;
        let made = results.iter().filter(|result| result.is_ok()).count();
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert_eq!(error.what, What::Quota(None), "{error:?}");
        }
        assert_eq!(made, 10);
        one.cache().reach(two.revision()).await.unwrap();
        assert_eq!(one.cache().usage("default").get("lamps"), Some(&10));
        assert!(one.cache().recount().is_empty());
        // A process that starts anew knows it from the objects alone.
        let three = process(store, &[("lamps", 10)]).await;
        let error = create(&three, "more", json!({})).await.unwrap_err();
        assert_eq!(error.what, What::Quota(None), "{error:?}");
    }
}

fn a_lamp(cx: &Cx, name: &str) -> Counted {
    let amounts = Amounts::from([("lamps".into(), 1)]);
    let key = object_key("lamp", Some("default"), name);
    Counted::new(&key, cx.clock().uid(), None, amounts).unwrap()
}

#[tokio::test]
async fn room_that_a_dropped_request_had_taken_comes_back() {
    let cx = process(Memory::new(), &[("lamps", 1)]).await;
    let held = Ledger::reserve(&cx, &a_lamp(&cx, "a")).await.unwrap();
    let mut held = held.unwrap();
    held.guarded(store::Txn::new());
    // Nobody knows what became of it. The guard is taken anew, and with that it is known.
    drop(held);
    let again = Ledger::reserve(&cx, &a_lamp(&cx, "b")).await.unwrap();
    again.unwrap().give_back();
    create(&cx, "c", json!({})).await.unwrap();
}

#[tokio::test]
async fn who_finds_the_last_room_taken_waits_until_it_is_decided() {
    let cx = process(Memory::new(), &[("lamps", 1)]).await;
    let other = a_lamp(&cx, "b");
    // Given back: the other gets it.
    let held = Ledger::reserve(&cx, &a_lamp(&cx, "a")).await.unwrap();
    let mut waits = std::pin::pin!(Ledger::reserve(&cx, &other));
    assert!(futures::poll!(&mut waits).is_pending());
    held.unwrap().give_back();
    let held = waits.await.unwrap();
    // Stored: the other is refused, once it is certain and not before.
    let last = a_lamp(&cx, "c");
    let mut waits = std::pin::pin!(Ledger::reserve(&cx, &last));
    assert!(futures::poll!(&mut waits).is_pending());
    held.unwrap()
        .settle(&Ok(store::Revision(cx.revision().0 + 1)));
    let error = waits.await.err().unwrap();
    assert_eq!(error.what, What::Quota(None), "{error:?}");
}

/// Two parts of one owner that has spoken for room: each fits into it alone, both do not.
#[tokio::test]
async fn what_counts_together_is_measured_one_after_the_other() {
    let cx = process(Memory::new(), &[("lamps", 10)]).await;
    let uid = Uid::from_parts(1, [1; 10]);
    let first = (object_key("lamp", Some("default"), "owner"), uid);
    let of = |name: &str, owner: Option<&(Key, Uid)>, uid: Uid, lamps: u64| {
        let key = object_key("lamp", Some("default"), name);
        let amounts = Amounts::from([("lamps".into(), lamps)]);
        let owner = owner.map(|(key, uid)| (key, *uid));
        Counted::new(&key, uid, owner, amounts).unwrap()
    };
    let part = |n: u8, lamps| {
        let name = format!("part{n}");
        of(&name, Some(&first), Uid::from_parts(2, [n; 10]), lamps)
    };
    cx.cache().miscount(of("owner", None, uid, 10));
    for n in [1, 2] {
        cx.cache().miscount(part(n, 1));
    }
    let (one, two) = (part(1, 9), part(2, 9));
    let held = Ledger::reserve(&cx, &one).await.unwrap().unwrap();
    let mut waits = std::pin::pin!(Ledger::reserve(&cx, &two));
    assert!(futures::poll!(&mut waits).is_pending());
    cx.cache().miscount(one.clone());
    held.settle(&Ok(cx.revision()));
    let error = waits.await.err().unwrap();
    assert_eq!(error.what, What::Quota(None), "{error:?}");
}

#[tokio::test]
async fn without_limits_nothing_is_limited_and_everything_is_counted() {
    let cx = start_over(Memory::new(), Arc::default()).await;
    for n in 0..3 {
        create(&cx, &format!("l{n}"), json!({})).await.unwrap();
    }
    assert_eq!(uses(&cx), (3, 300));
    ask(&cx, delete("l0")).await.unwrap();
    until(&cx, &lamp("l0"), |object| object.is_none()).await;
    assert_eq!(uses(&cx), (2, 200));
    let words: Vec<_> = cx.registry().countables();
    let words: Vec<&str> = words.iter().map(|what| &*what.word).collect();
    assert_eq!(words, ["lamps", "light"]);
}

fn counted(name: &str, owner: Option<&(Key, Uid)>, uid: Uid, disk: u64) -> Counted {
    let key = object_key("disk", Some("p"), name);
    let amounts = Amounts::from([("disk".into(), disk)]);
    Counted::new(&key, uid, owner.map(|(key, uid)| (key, *uid)), amounts).unwrap()
}

#[test]
fn what_belongs_together_counts_once() {
    let uid = Uid::from_parts;
    let vm = (object_key("disk", Some("p"), "vm"), uid(1, [1; 10]));
    let mut tally = Tally::default();
    let total = |tally: &Tally| tally.total("p").get("disk").copied().unwrap_or(0);
    // The owner says that it wants 30; of that 20 are made, then all, then more than it said.
    let owner = counted("vm", None, vm.1, 30);
    assert_eq!(tally.raise(&owner)["disk"], 30);
    tally.put(owner.clone());
    let small = counted("part", Some(&vm), uid(2, [2; 10]), 20);
    assert!(tally.raise(&small).is_empty());
    tally.put(small.clone());
    assert_eq!(total(&tally), 30);
    let large = counted("part", Some(&vm), uid(2, [2; 10]), 50);
    assert_eq!(tally.raise(&large)["disk"], 20);
    tally.remove(&small);
    tally.put(large.clone());
    assert_eq!(total(&tally), 50);
    // Cut loose, it counts for itself; the owner goes, and only it is left.
    tally.remove(&large);
    tally.put(counted("part", None, uid(2, [2; 10]), 50));
    tally.remove(&owner);
    assert_eq!(total(&tally), 50);
    // What belongs to an object that had the same name before is not a part of this one.
    tally.put(counted("vm", None, uid(3, [3; 10]), 10));
    tally.put(counted("old", Some(&vm), uid(4, [4; 10]), 7));
    assert_eq!(total(&tally), 67);
}

#[tokio::test]
async fn sums_that_were_wrong_are_found_and_mended() {
    let cx = process(Memory::new(), &[]).await;
    create(&cx, "a", json!({})).await.unwrap();
    assert!(cx.cache().recount().is_empty());
    let it = Counted::new(
        &object_key("lamp", Some("default"), "ghost"),
        cx.clock().uid(),
        None,
        Amounts::from([("lamps".into(), 5)]),
    );
    cx.cache().miscount(it.unwrap());
    assert_eq!(uses(&cx).0, 6);
    let wrong = cx.cache().recount();
    assert_eq!(wrong.iter().map(|p| &**p).collect::<Vec<_>>(), ["default"]);
    assert_eq!(uses(&cx).0, 1);
}
