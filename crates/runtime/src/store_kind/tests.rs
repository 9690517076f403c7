//! The store, looked after while it is in use: a real file.

use super::*;
use crate::task::{Task, TaskState};
use crate::tests::demo::{act_on, ended, registry};
use crate::{CxBuilder, Engine};
use model::ObjectRef;

fn main() -> ObjectRef {
    ObjectRef {
        kind: "store".into(),
        project: None,
        name: MAIN.into(),
    }
}

async fn run(cx: &Cx, verb: &str) -> crate::Obj<Task> {
    let task = act_on(cx, main(), verb).await.unwrap();
    ended(cx, &task).await;
    (*cx.get::<Task>(None, &task.name).unwrap()).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_checked_copied_and_compacted_while_it_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let sqlite = Sqlite::open(dir.path()).unwrap();
    let cx = CxBuilder::new(registry(), sqlite.clone())
        .part(sqlite.clone())
        .build()
        .await
        .unwrap();
    make(&cx).await.unwrap();
    make(&cx).await.unwrap();
    Engine::start(&cx);

    let task = run(&cx, "check").await;
    let status = task.status.unwrap();
    assert_eq!(status.state, TaskState::Succeeded, "{status:?}");
    let sound = |cx: &Cx| {
        let it = cx.get::<StoreKind>(None, MAIN).unwrap();
        let conditions = it.status.clone().unwrap().conditions;
        conditions
            .iter()
            .find(|c| c.kind == "Sound")
            .map(|c| c.status)
    };
    assert_eq!(sound(&cx), Some(ConditionStatus::True));

    let status = run(&cx, "backup").await.status.unwrap();
    let copy = status.result["copy"].as_str().unwrap().to_owned();
    assert!(std::path::Path::new(&copy).is_file());

    // Something large comes and goes: its space is given back.
    for n in 0..40 {
        let key = Key::new(format!("x/{n}"));
        let txn = store::Txn::new().put(key, vec![n; 200_000]);
        cx.store().commit(txn).await.unwrap();
    }
    for n in 0..40 {
        let txn = store::Txn::new().delete(Key::new(format!("x/{n}")));
        cx.store().commit(txn).await.unwrap();
    }
    let status = run(&cx, "compact").await.status.unwrap();
    assert_eq!(status.state, TaskState::Succeeded, "{status:?}");
    let bytes = |name: &str| status.result[name].as_u64().unwrap();
    assert!(
        bytes("bytes_after") < bytes("bytes_before") / 2,
        "{}",
        status.result
    );
    // Everything is still there, and it goes on.
    assert_eq!(
        run(&cx, "check").await.status.unwrap().state,
        TaskState::Succeeded
    );
    let mut deltas = cx.cache().subscribe();
    let shown = async {
        loop {
            let it = cx.get::<StoreKind>(None, MAIN).unwrap();
            if it
                .status
                .as_ref()
                .is_some_and(|s| s.copies == [copy.clone()])
            {
                return;
            }
            let _ = deltas.recv().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), shown)
        .await
        .expect("the copy is shown");
    cx.life().stop(Duration::from_secs(5)).await;
    sqlite.close().await;
}
