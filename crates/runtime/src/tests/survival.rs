//! A long task goes on after `kill -9` of the process, with what it had done: the real store, a real process.

use super::demo::*;
use crate::*;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Sqlite;

/// Names the folder to the process that is killed.
const FOLDER: &str = "DEBVISOR_TEST_SURVIVAL";

fn lines(file: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|l| l.parse().ok()).collect()
}

/// The process that is killed: run by its sibling below, never alone.
#[tokio::test]
#[ignore = "a part of `a_long_task_goes_on_after_kill_9`"]
async fn the_process_that_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let folder = Path::new(&folder);
    let bench = Arc::new(Bench::default());
    bench.hold.send_replace(true);
    let store = Sqlite::open(folder.join("store")).unwrap();
    let cx = start_over(store, bench).await;
    create(&cx, "a", json!({})).await.unwrap();
    let file = folder.join("strokes");
    act_with(&cx, lamp("a"), "polish", json!({ "file": file }))
        .await
        .unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
#[allow(
    clippy::disallowed_types,
    reason = "the process that is killed is this test's own"
)]
async fn a_long_task_goes_on_after_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("strokes");
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::survival::the_process_that_is_killed"])
        .args(["--ignored", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while lines(&file).len() as u64 <= POLISH.1 {
        assert!(Instant::now() < end, "{:?}", lines(&file));
        assert!(
            child.try_wait().unwrap().is_none(),
            "the process ended by itself"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();

    let store = Sqlite::open(folder.path().join("store")).unwrap();
    // Not held any more, so that the rest is done; nothing runs before the engine is started.
    let cx = CxBuilder::new(registry(), store)
        .part(Arc::new(Bench::default()))
        .build()
        .await
        .unwrap();
    let task = cx.list::<task::Task>(None).remove(0);
    let before = task.status.clone().unwrap();
    assert_eq!(before.state, task::TaskState::Running);
    assert!(before.progress > 0, "its progress is kept: {before:?}");
    Engine::start(&cx);
    let target = model::ObjectRef {
        kind: "task".into(),
        name: task.metadata.name.to_string(),
        ..lamp("x")
    };
    let after: Value = ended(&cx, &target).await;
    assert_eq!(after["status"]["state"], "succeeded", "{after}");
    let seen = lines(&file);
    for n in 0..POLISH.0 {
        let times = seen.iter().filter(|s| **s == n).count();
        // Only the step that was under way ran again.
        let expected = if n == POLISH.1 { 2 } else { 1 };
        assert_eq!(times, expected, "stroke {n}: {seen:?}");
    }
}
