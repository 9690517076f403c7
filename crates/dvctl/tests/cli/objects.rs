//! Objects are listed, shown, edited, compared and applied, in every format, as the API has them.

use crate::Stage;
use expect_test::expect;
use serde_json::{Value, json};

fn vm(name: &str, vcpus: u64) -> Value {
    json!({ "version": "v1", "kind": "vm", "metadata": { "name": name, "project": "default", "uid": "u", "generation": 1,
        "labels": { "app": "web" }, "created": "2026-01-01T00:00:00.000Z" },
        "spec": { "vcpus": vcpus, "memory": 1073741824u64, "disks": [{ "size": 8589934592u64 }] }, "status": { "state": "running" } })
}

/// Ages, and the columns they shift, change with the day the test runs: lines with one get single spaces.
fn ageless(text: &str) -> String {
    let is_age = |word: &str| {
        let days = word.strip_suffix('d').unwrap_or("");
        !days.is_empty() && days.chars().all(|c| c.is_ascii_digit())
    };
    let mut out = String::new();
    for line in text.lines() {
        if line.split_whitespace().any(is_age)
            || line.contains("AGE ")
            || line.contains("TIME ")
            || line.contains("SINCE ")
        {
            let words = line
                .split_whitespace()
                .map(|w| if is_age(w) { "<age>" } else { w });
            out.push_str(&words.collect::<Vec<_>>().join(" "));
        } else {
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

#[test]
fn tables_and_formats() {
    let stage = Stage::new();
    assert_eq!(stage.run("vm list").err, "no vms in project default\n");
    stage.server.put("vms", vm("web1", 2));
    stage.server.put("vms", vm("web2", 16));
    expect![[r#"
        NAME  STATE    VCPUS  MEMORY  AGE
        web1 running 2 1GiB <age>
        web2 running 16 1GiB <age>
    "#]]
    .assert_eq(&ageless(stage.run("vm list").ok()));
    expect![[r#"
        PROJECT  NAME  STATE    VCPUS  MEMORY  DISKS  AGE
        default web1 running 2 1GiB 1 <age>
        default web2 running 16 1GiB 1 <age>
    "#]]
    .assert_eq(&ageless(stage.run("vm list -A -o wide").ok()));
    expect![[r#"
        NAME  SPEC.MEMORY
        web1  1GiB
        web2  1GiB
    "#]]
    .assert_eq(stage.run("vm list --fields name,spec.memory").ok());
    assert_eq!(stage.run("vm list -o name").ok(), "vm/web1\nvm/web2\n");
    // A plural is as good as the singular, and the second run asks for the registry only whether it changed.
    stage.run("vms list").ok();
    let json: Value = serde_json::from_str(stage.run("vm show web1 -o json").ok()).unwrap();
    assert_eq!(Some(json), stage.server.object("vms", "web1"));
}

/// A kind whose declaration says when an object is over has the verb; the others do not.
#[test]
fn what_ends_soon_is_listed_soonest_first() {
    let stage = Stage::new();
    for (name, ends) in [
        ("far", json!("2110-01-01T00:00:00.000Z")),
        ("second", json!("2001-01-01T00:00:00.000Z")),
        ("first", json!("2000-01-01T00:00:00.000Z")),
        ("never", Value::Null),
    ] {
        let metadata = json!({ "name": name, "project": "default", "uid": name, "generation": 1,
            "created": "2026-01-01T00:00:00.000Z" });
        let status = json!({ "state": "ready", "ends": ends });
        stage.server.put(
            "images",
            json!({ "version": "v1", "kind": "image",
            "metadata": metadata, "spec": {}, "status": status }),
        );
    }
    let said = stage.run("image expiring -o name");
    assert_eq!(said.ok(), "image/first\nimage/second\n");
    let said = stage.run("image expiring --days 36500 -o name");
    assert_eq!(said.ok(), "image/first\nimage/second\nimage/far\n");
    let table = stage.run("image expiring --days 0");
    assert!(
        table.ok().contains("ENDS") && !table.ok().contains("far"),
        "{table:?}"
    );
    let said = stage.run("image expiring -o json");
    let list: Value = serde_json::from_str(said.ok()).unwrap();
    assert_eq!(list["total"], 2);
    assert_eq!(stage.run("vm expiring").code, 2);
}

#[test]
fn pages() {
    let stage = Stage::new();
    for n in 0..30 {
        stage.server.put("vms", vm(&format!("web{n:02}"), 1));
    }
    let said = stage.run("vm list");
    assert_eq!(said.ok().lines().count(), 21);
    assert_eq!(said.err, "20 of 30; --limit N shows more, --limit 0 all\n");
    assert_eq!(stage.run("vm list --limit 25").ok().lines().count(), 26);
    // Programs get all of them, without saying so.
    assert_eq!(stage.run("vm list -o name").ok().lines().count(), 30);
    let list: Value = serde_json::from_str(stage.run("vm list -o json --limit 7").ok()).unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 7);
}

#[test]
fn shown_for_people() {
    let stage = Stage::new();
    stage.server.put("vms", vm("web1", 2));
    expect![[r#"
        vm web1
          project  default
          state    running
          vcpus    2
          memory   1GiB
          disks    1
          labels   app=web
        created <age> ago
        spec
          vcpus: 2
          memory: 1GiB
          disks:
          - size: 8GiB
    "#]]
    .assert_eq(&ageless(stage.run("vm show web1").ok()));
    let said = stage.run("vm explain web1");
    expect![[r#"
        vm default/web1
        name  web1
        intent
          power: on
        conditions
        CONDITION STATUS SINCE MESSAGE
        Waiting true <age> for its disk
        events
        TIME EVENT MESSAGE
        <age> vm.created by root
    "#]]
    .assert_eq(&ageless(said.ok()));
}

#[test]
fn files_come_and_go() {
    let stage = Stage::new();
    let file = "version: v1\nkind: vm\nmetadata:\n  name: web1\nspec:\n  vcpus: 2\n---\nversion: v1\nkind: network\nmetadata: {name: lan}\nspec: {}\n";
    let path = stage.folder.path().join("site.yaml");
    std::fs::write(&path, file).unwrap();
    let said = stage.run("diff -f site.yaml");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.out.contains("+  vcpus: 2\n"), "{said:?}");
    assert_eq!(
        stage.run("apply -f site.yaml").ok(),
        "vm/web1 created\nnetwork/lan created\n"
    );
    assert_eq!(
        stage.run("apply -f site.yaml").ok(),
        "vm/web1 unchanged\nnetwork/lan unchanged\n"
    );
    assert_eq!(stage.run("diff -f site.yaml").ok(), "");

    let yaml = stage.run("vm show web1 -o yaml");
    std::fs::write(
        stage.folder.path().join("web.yaml"),
        yaml.ok().replace("vcpus: 2", "vcpus: 3"),
    )
    .unwrap();
    // A status that moved since is nobody's wish, and stands in nobody's way.
    let mut moved = stage.server.object("vms", "web1").unwrap();
    moved["status"]["state"] = json!("running");
    stage.server.put("vms", moved);
    let said = stage.run("diff -f web.yaml");
    expect![[r#"
        exit 1
        --- vm default/web1 (now)
        +++ vm default/web1 (web.yaml, document 1)
        @@ -3,7 +3,7 @@
           name: web1
           project: default
         spec:
        -  vcpus: 2
        +  vcpus: 3
           memory: 1073741824
           firmware: bios
           tpm: false
    "#]]
    .assert_eq(&said.all());
    assert_eq!(stage.run("apply -f web.yaml").ok(), "vm/web1 changed\n");
    // The file holds the revision before: it does not overwrite what came since.
    let said = stage.run("apply -f web.yaml");
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("metadata.revision"), "{said:?}");

    let said = stage.run("delete -f site.yaml");
    assert_eq!(said.code, 2, "nobody can be asked: {said:?}");
    assert_eq!(
        stage.run("delete -f site.yaml --yes").ok(),
        "network/lan deleted\nvm/web1 deleted\n"
    );
    assert_eq!(stage.server.object("vms", "web1"), None);
    assert_eq!(
        stage.feed("apply -f -", file.as_bytes()).ok(),
        "vm/web1 created\nnetwork/lan created\n"
    );
}

#[test]
fn edited() {
    let stage = Stage::new();
    stage.server.put("vms", vm("web1", 2));
    let editor = stage.folder.path().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/vcpus: 2/vcpus: 4/' \"$1\"\n").unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let edit = || {
        let mut command = stage.command(&["vm", "edit", "web1"]);
        crate::Said::of(command.env("EDITOR", &editor).output().unwrap())
    };
    assert_eq!(edit().ok(), "vm/web1 changed\n");
    assert_eq!(
        stage.server.object("vms", "web1").unwrap()["spec"]["vcpus"],
        4
    );
    // Nothing to replace any more: nothing is sent.
    assert_eq!(edit().code, 3);
}

#[test]
fn events_and_who() {
    let stage = Stage::new();
    expect![[r#"
        AGE SEVERITY EVENT OBJECT MESSAGE
        <age> info vm.created vm/web1 as asked
        <age> info vm.started vm/web1 as asked
    "#]]
    .assert_eq(&ageless(stage.run("event list").ok()));
    assert_eq!(
        stage.run("event list --limit 1 -o name").ok(),
        "vm.started\n"
    );
    assert_eq!(stage.run("event list --since 1h").err, "no events\n");
    assert!(stage.run("whoami").ok().contains("root (administrator)"));
}
