//! Whatever is wrong (the line, the server, its answer), one sentence says what and what to do, and the exit code says
//! which sort.

use crate::Stage;
use expect_test::{Expect, expect};

fn check(stage: &Stage, line: &str, expected: Expect) {
    expected.assert_eq(&stage.run(line).all());
}

#[test]
fn of_the_line() {
    let stage = Stage::new();
    check(
        &stage,
        "vmm list",
        expect![[r#"
            exit 2
            error: there is no kind and no command `vmm`
            hint: did you mean `vm`?
        "#]],
    );
    check(
        &stage,
        "vm strat web1",
        expect![[r#"
            exit 2
            error: vm has no verb `strat`
            hint: did you mean `start`?
        "#]],
    );
    check(
        &stage,
        "vm create a --memory 1GX",
        expect![[r#"
            exit 2
            error: --memory: `1GX` is not a size: a number with B, KiB, MiB, GiB, TiB, PiB (or kB, MB, ... in powers of 1000), for example `1GiB`
        "#]],
    );
    check(
        &stage,
        "vm set a --set vcpu=2",
        expect![[r#"
            exit 2
            error: vm has no field `vcpu`
            hint: did you mean `vcpus`?
        "#]],
    );
    check(
        &stage,
        "vm list --fields stat",
        expect![[r#"
            exit 2
            error: vm has no column `stat`
            hint: did you mean `state`?
        "#]],
    );
    let said = stage.run("vm create a --memmory 1GiB");
    assert_eq!(said.code, 2);
    assert!(said.err.contains("'--memory'"), "{said:?}");
}

#[test]
fn of_the_server() {
    let stage = Stage::new();
    check(
        &stage,
        "vm show web1",
        expect![[r#"
            exit 4
            error: there is no vm `web1`
        "#]],
    );
    stage.run("vm create web1 --label busy=yes").ok();
    check(
        &stage,
        "vm create web1",
        expect![[r#"
            exit 3
            error: vm web1 exists
        "#]],
    );
    check(
        &stage,
        "vm stop web1",
        expect![[r#"
            exit 3
            error: task backup-1 works on web1
            hint: wait for it with `dvctl task wait backup-1`, or end it with `dvctl task cancel backup-1`
        "#]],
    );
    let file = "kind: vm\nmetadata: {name: b}\nspec: {vcpu: 2}\n";
    let said = stage.feed("apply -f -", file.as_bytes());
    expect![[r#"
        exit 2
        error: standard input, document 1: invalid (violations: 1)
          spec.vcpu: is not a field (did you mean `vcpus`?)
    "#]]
    .assert_eq(&said.all());
}

#[test]
fn nobody_there() {
    let stage = Stage::new();
    let file = stage.folder.path().join(".dev/default-instance");
    std::fs::write(file, "/nowhere/api.sock").unwrap();
    check(
        &stage,
        "vm list",
        expect![[r#"
            exit 6
            error: cannot reach the server at /nowhere/api.sock: there is no such socket
            hint: start the instance with `cargo xtask up`, or name another with --instance
        "#]],
    );
    // Help is there all the same.
    let said = stage.run("--help");
    assert!(
        said.ok().contains("Kinds are asked from the server"),
        "{said:?}"
    );
    assert!(stage.run("apply --help").ok().contains("--file"));
    let said = stage.run("--cluster nowhere vm list");
    assert_eq!(said.code, 5, "{said:?}");
    assert!(said.err.contains("dvctl login"), "{said:?}");
}

#[test]
fn destruction_is_asked_for() {
    let stage = Stage::new();
    stage.run("vm create web1").ok();
    check(
        &stage,
        "vm delete web1",
        expect![[r#"
            exit 2
            error: this deletes vm default/web1 and what belongs to it, and nobody can be asked
            hint: say --yes when that is meant
        "#]],
    );
    check(
        &stage,
        "vm wipe web1 --passes 3",
        expect![[r#"
            exit 2
            error: `vm wipe` destroys data of vm default/web1, and nobody can be asked
            hint: say --yes when that is meant
        "#]],
    );
    assert_eq!(
        stage.run("vm wipe web1 --passes 3 --yes").ok(),
        "vm/web1 wiped\n"
    );
    assert_eq!(stage.run("vm delete web1 -y").ok(), "vm/web1 deleted\n");
}

#[test]
fn help_on_every_level() {
    let stage = Stage::new();
    let root = stage.run("--help");
    for word in [
        "vm        ",
        "Virtual machine",
        "apply",
        "Examples:",
        "--instance",
    ] {
        assert!(root.ok().contains(word), "{word}: {}", root.out);
    }
    let kind = stage.run("vm --help");
    for word in [
        "its hardware, and whether it shall run",
        "start",
        "console",
        "dvctl vm create web1",
    ] {
        assert!(kind.ok().contains(word), "{word}: {}", kind.out);
    }
    let verb = stage.run("vm create --help");
    for word in [
        "Guest memory, 128 MiB to 1 TiB. [default: 1GiB]",
        "--disk <SIZE|KEY=VALUE,...>",
        "bios: SeaBIOS; uefi: UEFI (OVMF)",
        "--ssh-key <TEXT|FILE>",
        "[1 to 256]",
        "--start",
        "dvctl vm create web1 --image debian-12",
    ] {
        assert!(verb.ok().contains(word), "{word}: {}", verb.out);
    }
    let action = stage.run("vm wipe --help");
    for word in ["Overwrites its disks", "--passes <N>", "How often", "2h"] {
        assert!(action.ok().contains(word), "{word}: {}", action.out);
    }
}

/// A gap between surfaces is named with its action and surface, unless there is a reason for it.
#[test]
fn gaps_between_surfaces() {
    let stage = Stage::new();
    let said = stage.run("api parity --check");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("vm.start is missing in grpc"), "{said:?}");
    assert!(said.err.contains("vm.vanish is missing in cli"), "{said:?}");
    assert!(
        !said.all().contains("vm.explain") && !said.all().contains("vm.console is missing"),
        "{said:?}"
    );
    let table = stage.run("api parity");
    let line = |name: &str| {
        table
            .ok()
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap()
            .to_owned()
    };
    assert!(line("vm.start").contains("MISSING"), "{table:?}");
    assert!(
        line("vm.explain").contains("put together for people"),
        "{table:?}"
    );
}
