//! One verb over many objects: one task, one table, one exit code.

use crate::Stage;
use expect_test::{Expect, expect};

fn stage() -> Stage {
    let stage = Stage::new();
    for line in [
        "vm create web1 --label tier=web",
        "vm create web2 --label tier=web --label busy=yes",
        "vm create web3 --label tier=web",
        "vm create db1 --label tier=db",
    ] {
        stage.run(line).ok();
    }
    stage
}

fn check(stage: &Stage, line: &str, expected: Expect) {
    expected.assert_eq(&stage.run(line).all());
}

#[test]
fn a_selector_is_shown_before_anything_is_interrupted() {
    let stage = stage();
    check(
        &stage,
        "vm stop --selector tier=web",
        expect![[r#"
            exit 2
            VM    RESULT     TASK  MESSAGE
            web1  would run
            web2  refused          task backup-1 works on web2
            web3  would run
            error: `vm stop` interrupts 3 vms, and nobody can be asked
            hint: say --yes when that is meant
        "#]],
    );
    check(
        &stage,
        "vm stop --selector tier=web --dry-run",
        expect![[r#"
            exit 0
            VM    RESULT     TASK  MESSAGE
            web1  would run
            web2  refused          task backup-1 works on web2
            web3  would run
        "#]],
    );
    let line = "POST /api/v1/projects/default/vms/actions/stop?dry_run=true";
    assert_eq!(stage.server.count(line), 2);
    assert!(stage.server.object("tasks", "stop-batch-1").is_none());
}

#[test]
fn some_failed() {
    let stage = stage();
    let said = stage.run("vm stop --selector tier=web --parallel 5 --on-error continue --yes");
    assert_eq!(said.code, 3, "{said:?}");
    expect![[r#"
        VM    RESULT     TASK    MESSAGE
        web1  succeeded  stop-1
        web2  failed             task backup-1 works on it
        web3  succeeded  stop-1
    "#]]
    .assert_eq(&said.out);
    for text in ["error: vms stop: over\n", "`dvctl task log stop-batch-1`"] {
        assert!(said.err.contains(text), "{text}: {said:?}");
    }
    let task = stage.server.object("tasks", "stop-batch-1").unwrap();
    assert_eq!(
        task["spec"]["batch"],
        serde_json::json!({ "selector": "tier=web", "parallel": 5, "on_error": "continue" })
    );
}

#[test]
fn names_are_a_batch_too() {
    let stage = stage();
    expect![[r#"
        VM    RESULT     TASK    MESSAGE
        db1   succeeded  stop-1
        web1  succeeded  stop-1
        web3  succeeded  stop-1
    "#]]
    .assert_eq(stage.run("vm start web1 web3 db1").ok());
    assert_eq!(
        stage.run("vm start web1 web3 --no-wait").ok(),
        "task/start-batch-1\n"
    );
    let said = stage.run("vm delete --selector tier=db -o name --yes");
    assert_eq!(said.ok(), "task/delete-batch-1\n");
    check(
        &stage,
        "vm stop web1 lab/web2",
        expect![[r#"
            exit 2
            error: vm default/web1 and vm lab/web2 lie in different projects
            hint: one command for each project
        "#]],
    );
    for (line, text) in [
        ("vm stop", "--selector"),
        ("vm stop web1 --selector tier=web", "cannot be used with"),
        ("vm stop web1 --parallel 0", "0 is not in 1..=100"),
        (
            "vm stop web1 --on-error roll_back",
            "possible values: stop, continue",
        ),
    ] {
        let said = stage.run(line);
        assert_eq!(said.code, 2, "{line}");
        assert!(said.err.contains(text), "{line}: {said:?}");
    }
}
