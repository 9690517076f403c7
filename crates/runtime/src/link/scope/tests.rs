//! The rule as a table: who may write what.

use super::*;

const NODE: &str = "node1";

fn vm() -> Value {
    json!({
        "version": "v1", "kind": "vm",
        "metadata": { "name": "web1", "uid": "u1", "holds": ["vm", "backup"], "claims": [{ "task": "t1", "scopes": ["disks"] }], "keys": ["u/mac/1"] },
        "spec": { "power": "on", "node": "" }, "status": { "state": "off" },
    })
}

fn with(edits: &[(&str, Value)]) -> Value {
    let mut out = vm();
    for (path, value) in edits {
        *out.pointer_mut(path).unwrap() = value.clone();
    }
    out
}

#[test]
fn of_an_object_an_agent_writes_its_status_and_takes_its_own_hold_off() {
    use Seated::{Api, Free, Here, There};
    let running = || ("/status/state", json!("running"));
    type Case<'a> = (Seated, &'a [(&'a str, Value)], &'a [&'a str], &'a str);
    let cases: &[Case<'_>] = &[
        (Here, &[running()], &[], ""),
        (Free, &[running()], &[], ""),
        (There, &[running()], &[], "on another node"),
        (Api, &[running()], &[], "no agent writes it"),
        (Here, &[("/spec/power", json!("off"))], &[], "the spec"),
        (Free, &[("/spec/power", json!("off"))], &[], "the spec"),
        (Here, &[("/kind", json!("network"))], &[], "`kind`"),
        (
            Here,
            &[("/metadata/name", json!("web2"))],
            &[],
            "the metadata",
        ),
        (Here, &[("/metadata/keys", json!([]))], &[], "the metadata"),
        (Here, &[("/metadata/holds", json!(["backup"]))], &[], ""),
        (
            Here,
            &[("/metadata/holds", json!(["vm"]))],
            &[],
            "the metadata",
        ),
        (
            Here,
            &[("/metadata/holds", json!(["vm", "backup", "mine"]))],
            &[],
            "the metadata",
        ),
        (Here, &[("/metadata/claims", json!([]))], &["t1"], ""),
        (
            Here,
            &[("/metadata/claims", json!([]))],
            &["t2"],
            "the metadata",
        ),
        (
            Here,
            &[("/metadata/claims", json!([]))],
            &[],
            "the metadata",
        ),
        // A task that ends frees its target wherever that is by now, and does no more to it.
        (There, &[("/metadata/claims", json!([]))], &["t1"], ""),
        (
            There,
            &[("/metadata/claims", json!([])), running()],
            &["t1"],
            "on another node",
        ),
    ];
    for (n, (seat, edits, ended, refusal)) in cases.iter().enumerate() {
        let ended: Vec<String> = ended.iter().map(|t| (*t).to_owned()).collect();
        let field = Seat::Field("spec.node");
        let judged = check_status(NODE, *seat, field, &vm(), &with(edits), &ended);
        match judged {
            Ok(()) => assert_eq!(*refusal, "", "case {n} was let through"),
            Err(why) => assert!(
                !refusal.is_empty() && why.contains(refusal),
                "case {n}: {why}"
            ),
        }
    }
}

#[test]
fn an_agent_puts_only_its_own_name_into_a_seat() {
    let seat = Seat::Field("status.node");
    for (says, fine) in [("", true), (NODE, true), ("node2", false)] {
        let mut new = vm();
        new["status"]["node"] = json!(says);
        let judged = check_status(NODE, Seated::Free, seat, &vm(), &new, &[]);
        assert_eq!(judged.is_ok(), fine, "{says}: {judged:?}");
    }
}

#[test]
fn an_object_goes_when_its_deletion_was_asked_for_and_only_the_agent_holds_it() {
    let leaving = |holds: Value, claims: Value| {
        let mut out = with(&[("/metadata/holds", holds), ("/metadata/claims", claims)]);
        out["metadata"]["deletion_requested"] = json!("2026-01-01T00:00:00Z");
        out
    };
    let free = leaving(json!(["vm"]), json!([]));
    let cases = [
        (Seated::Here, free.clone(), true),
        (Seated::Free, free.clone(), true),
        (Seated::There, free.clone(), false),
        (Seated::Api, free, false),
        (Seated::Here, vm(), false),
        (
            Seated::Here,
            leaving(json!(["vm", "backup"]), json!([])),
            false,
        ),
        (
            Seated::Here,
            leaving(json!(["vm"]), json!([{ "task": "t1", "scopes": [] }])),
            false,
        ),
    ];
    for (seat, object, fine) in cases {
        let judged = check_release(NODE, seat, &object);
        assert_eq!(judged.is_ok(), fine, "{seat:?} {object}: {judged:?}");
    }
}

#[test]
fn an_agent_runs_procedures_of_its_node() {
    use Seated::{Api, Free, Here, There};
    let task = |procedure: bool, place: &str, holder: &str| json!({ "spec": { "procedure": procedure, "place": place }, "status": { "holder": holder } });
    let cases = [
        (task(true, "agent", ""), Some(Here), true),
        (task(true, "agent", ""), Some(Free), true),
        (task(true, "agent", ""), Some(There), false),
        (task(true, "agent", ""), Some(Api), false),
        (task(true, "agent", ""), None, false),
        (task(true, "agent", NODE), Some(There), true),
        (task(true, "agent", "node2"), Some(Here), false),
        (task(true, "api", ""), Some(Here), false),
        (task(false, "agent", ""), Some(Here), false),
        (json!({}), Some(Here), false),
    ];
    for (task, target, fine) in cases {
        assert_eq!(may_run(NODE, &task, target), fine, "{task} {target:?}");
    }
}

#[test]
fn agents_read_what_they_carry_out_and_what_that_refers_to() {
    let registry = crate::tests::demo::registry();
    let mut kinds: Vec<_> = readable(&registry).into_iter().collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["lamp", "node", "setting", "task"], "and no flags");
}
