use super::admit::free_number;
use super::*;
use crate::vm::types::*;
use expect_test::{Expect, expect};
use model::{Bytes, Timestamp};
use serde_json::{Value, json};
use std::time::Duration;

fn spec(value: Value) -> VmSpec {
    let mut spec = serde_json::from_value(value).unwrap();
    pin(&mut spec, None);
    spec
}

fn refused(value: Value, expect: Expect) {
    let lines: Vec<String> = check(&spec(value))
        .iter()
        .map(|v| format!("{}: {}", v.field, v.message))
        .collect();
    expect.assert_eq(&lines.join("\n"));
}

#[test]
fn specs_that_are_refused() {
    refused(json!({}), expect![""]);
    refused(
        json!({ "vcpus": 257, "memory": "64MiB", "machine": "q36" }),
        expect![[r#"
            spec.vcpus: 257 is not from 1 to 256
            spec.memory: 64MiB is not from 128MiB to 1TiB
            spec.machine: `q36` is not a machine type"#]],
    );
    refused(
        json!({ "vcpus": 4, "cpu": { "sockets": 3, "cores": 1, "threads": 1 } }),
        expect!["spec.cpu: 3 sockets x 1 cores x 1 threads are not the 4 CPUs of the VM"],
    );
    refused(
        json!({ "vcpus": 4, "cpu": { "max": 2 }, "memory": "1GiB", "max_memory": "512MiB" }),
        expect![[r#"
            spec.cpu.max: 2 is not from vcpus (4) to 256
            spec.max_memory: 512MiB is not from memory (1GiB) to 1TiB"#]],
    );
    refused(
        json!({ "firmware": "uefi-secure", "machine": "i440fx" }),
        expect!["spec.firmware: Secure Boot needs machine q35, not `pc-i440fx-10.0`"],
    );
    refused(
        json!({ "machine": "i440fx", "disks": [{ "size": "1GiB", "bus": "sata" }] }),
        expect!["spec.disks[0].bus: machine `pc-i440fx-10.0` has no SATA controller"],
    );
    refused(
        json!({ "disks": [{}, { "volume": "a", "size": "1GiB" }, { "name": "disk0", "size": 7 }, { "volume": "a", "name": "A" }] }),
        expect![[r#"
            spec.disks[0]: has neither `size`, `image` nor `volume`
            spec.disks[1].size: cannot be set beside `volume`: volume `a` has its own
            spec.disks[2].size: 7B is not from 1MiB to 9.8TiB
            spec.disks[3].name: `A` is not a device name
            spec.disks[3].volume: volume `a` is already disks[1]"#]],
    );
    refused(
        json!({ "nics": [{ "mac": "53:54:00:00:00:01", "ipv4": "10.0.0.300" }, { "mac": "x", "slot": 1 }, { "slot": 31 }] }),
        expect![[r#"
            spec.nics[0].mac: `53:54:00:00:00:01` is a multicast address
            spec.nics[0].ipv4: `10.0.0.300` is not an IPv4 address
            spec.nics[1].mac: `x` is not a MAC address
            spec.nics[2].slot: 31 is not from 1 to 30"#]],
    );
    refused(
        json!({ "power_off": { "timeout": "2h" }, "auto_start": { "order": 2000, "delay": "2h" }, "number": 7 }),
        expect![[r#"
            spec.power_off.timeout: 2h is not from 1s to 1h
            spec.auto_start.order: 2000 is not from 0 to 1000
            spec.auto_start.delay: 2h is more than 1h
            spec.number: 7 is not from 100 to 999999999"#]],
    );
}

#[test]
fn what_is_left_out_is_pinned() {
    let first = spec(json!({
        "image": "debian-12", "vcpus": 4, "disks": [{ "size": "8GiB" }, { "volume": "data", "bus": "scsi" }],
        "nics": [{}, { "name": "lan" }],
    }));
    assert_eq!(first.machine, "pc-q35-10.0");
    assert_eq!(first.cpu.model, "host");
    assert_eq!(
        (first.cpu.sockets, first.cpu.cores, first.cpu.threads),
        (Some(1), Some(4), Some(1))
    );
    assert_eq!(first.image, None);
    assert_eq!(first.disks[0].image.as_deref(), Some("debian-12"));
    let places: Vec<_> = first
        .disks
        .iter()
        .map(|d| (d.name.as_str(), d.slot))
        .chain(first.nics.iter().map(|n| (n.name.as_str(), n.slot)))
        .collect();
    assert_eq!(
        places,
        [
            ("disk0", Some(1)),
            ("disk1", Some(1)),
            ("nic0", Some(2)),
            ("lan", Some(3))
        ]
    );
    // A later file without pinned fields keeps them, by device name; more CPUs make another topology.
    let mut second: VmSpec = serde_json::from_value(json!({
        "vcpus": 6, "disks": [{ "name": "disk0", "size": "8GiB", "image": "debian-12" }], "nics": [{ "name": "lan" }, { "name": "new" }],
    }))
    .unwrap();
    second.cpu = first.cpu.clone();
    pin(&mut second, Some(&first));
    assert_eq!(second.machine, "pc-q35-10.0");
    assert_eq!(second.cpu.cores, Some(6));
    assert_eq!(second.nics[0].slot, Some(3));
    assert_eq!(second.nics[1].slot, Some(2));
}

#[test]
fn an_image_alone_makes_a_disk() {
    let it = spec(json!({ "image": "debian-12" }));
    assert_eq!(it.disks.len(), 1);
    assert!(it.disks[0].io_thread && it.disks[0].inline());
}

#[test]
fn numbers_are_low_and_free() {
    assert_eq!(free_number(&|_| false), 100);
    assert_eq!(free_number(&|n| n < 10_100), 10_100);
    let free = free_number(&|n| n % 2 == 0 && n < 500);
    assert!(free < 500 && free % 2 == 1, "{free}");
}

#[test]
fn changes_of_a_running_guest() {
    let runs = spec(json!({
        "vcpus": 2, "cpu": { "max": 4 }, "memory": "1GiB", "max_memory": "4GiB",
        "disks": [{ "size": "1GiB" }, { "volume": "data" }, { "volume": "old", "bus": "sata" }], "nics": [{}],
    }));
    let mut wanted = runs.clone();
    wanted.vcpus = 4;
    wanted.memory = Bytes::gib(2);
    wanted.tpm = true;
    wanted.description = "x".into();
    wanted.power = Power::On;
    wanted.disks[0].size = Some(Bytes::gib(2));
    wanted.disks.truncate(1);
    wanted.nics[0].link = false;
    let found = difference(&runs, &wanted);
    assert_eq!(found.cold, ["tpm", "disks.disk2"]);
    assert_eq!(
        found.hot,
        [
            Change::Vcpus(4),
            Change::Memory(Bytes::gib(2)),
            Change::Grow("disk0".into(), Bytes::gib(2)),
            Change::Detach("disk1".into()),
            Change::Link("nic0".into(), false),
        ]
    );
    wanted.vcpus = 8;
    wanted.memory = Bytes::mib(512);
    wanted.disks[0].bus = Bus::Nvme;
    wanted.nics[0].model = NicModel::E1000e;
    let found = difference(&runs, &wanted);
    assert_eq!(
        found.cold,
        [
            "tpm",
            "vcpus",
            "memory",
            "disks.disk0",
            "disks.disk2",
            "nics.nic0"
        ]
    );
    assert_eq!(difference(&runs, &runs), Difference::default());
}

fn seen(guest: Guest) -> Seen {
    Seen {
        guest,
        missing: None,
        turn: None,
        boot: "b1".into(),
        last_exit: None,
        crashes: 0,
        starts: 0,
        stopping_since: None,
        shutdown_asked: None,
        changes: Vec::new(),
        deleting: false,
    }
}

fn exit(reason: ExitReason) -> Option<Exit> {
    Some(Exit {
        reason,
        at: now0(),
        boot: "b1".into(),
        message: String::new(),
    })
}

fn decides(spec: &VmSpec, seen: &Seen, after_seconds: u64, expect: Expect) {
    let now = now0().plus(Duration::from_secs(after_seconds));
    expect.assert_eq(&format!("{:?}", plan(spec, seen, now)));
}

#[test]
fn what_is_off_stays_off() {
    let off = spec(json!({}));
    decides(&off, &seen(Guest::Absent), 0, expect!["[]"]);
    let mut leaving = seen(Guest::Absent);
    leaving.deleting = true;
    decides(&off, &leaving, 0, expect!["[Release]"]);
    let mut leaving = seen(Guest::Running);
    leaving.deleting = true;
    decides(
        &off,
        &leaving,
        0,
        expect![[r#"[PowerOff(Asked, "the VM is deleted")]"#]],
    );
}

#[test]
fn shutdown_is_graceful_then_as_told() {
    let mut off = spec(json!({ "power_off": { "timeout": 30 } }));
    decides(&off, &seen(Guest::Running), 0, expect!["[AskShutdown]"]);
    decides(
        &off,
        &seen(Guest::Paused),
        0,
        expect!["[Continue, AskShutdown]"],
    );
    let mut asked = seen(Guest::Running);
    asked.stopping_since = Some(now0());
    let waits = "the guest was asked to shut down; its power is cut at 1970-01-01T00:00:30Z";
    let until = |second| format!("[WaitUntil(Timestamp(1970-01-01T00:00:{second}Z), {waits:?})]");
    let now = |second| now0().plus(Duration::from_secs(second));
    let says = |asked: &Seen, second| format!("{:?}", plan(&off, asked, now(second)));
    // A guest that boots does not listen yet: it is asked again, every ten seconds.
    assert_eq!(says(&asked, 9), until(10));
    assert_eq!(says(&asked, 10), "[AskShutdown]");
    asked.shutdown_asked = Some(now(10));
    assert_eq!(says(&asked, 19), until(20));
    assert_eq!(says(&asked, 20), "[AskShutdown]");
    asked.shutdown_asked = Some(now(21));
    assert_eq!(says(&asked, 29), until(30));
    asked.guest = Guest::Paused;
    assert_eq!(says(&asked, 29), until(30));
    asked.shutdown_asked = Some(now(11));
    assert_eq!(says(&asked, 21), "[Continue, AskShutdown]");
    asked.guest = Guest::Running;
    decides(
        &off,
        &asked,
        30,
        expect![[r#"[PowerOff(Asked, "it did not shut down within 30s")]"#]],
    );
    off.power_off.force = false;
    decides(
        &off,
        &asked,
        30,
        expect![[
            r#"[Wait("the guest has not shut down within 30s; its power is not cut, as asked")]"#
        ]],
    );
    off.power_off.mode = PowerOffMode::Hard;
    decides(
        &off,
        &asked,
        1,
        expect![[r#"[PowerOff(Asked, "its power was cut as asked")]"#]],
    );
    let crashed = seen(Guest::Crashed(Crashed {
        message: "panic".into(),
    }));
    off.power_off.mode = PowerOffMode::Graceful;
    decides(
        &off,
        &crashed,
        1,
        expect![[r#"[PowerOff(Asked, "it could not shut itself down")]"#]],
    );
}

#[test]
fn a_guest_that_ended_follows_its_policy() {
    let mut on = spec(json!({ "power": "on" }));
    let mut it = seen(Guest::Absent);
    decides(&on, &it, 0, expect!["[Launch { paused: false }]"]);
    it.last_exit = exit(ExitReason::GuestShutdown);
    decides(&on, &it, 9999, expect!["[]"]);
    on.starts = 1;
    decides(&on, &it, 0, expect!["[Launch { paused: false }]"]);
    on.starts = 0;
    it.boot = "b2".into();
    decides(&on, &it, 0, expect!["[Launch { paused: false }]"]);
    it.boot = "b1".into();
    on.on_guest_shutdown = OnGuestShutdown::Restart;
    decides(&on, &it, 0, expect!["[Launch { paused: false }]"]);
    it.last_exit = exit(ExitReason::Crash);
    it.crashes = 3;
    decides(
        &on,
        &it,
        19,
        expect![[
            r#"[WaitUntil(Timestamp(1970-01-01T00:00:20Z), "it crashed; starts again at 1970-01-01T00:00:20Z")]"#
        ]],
    );
    decides(&on, &it, 20, expect!["[Launch { paused: false }]"]);
    on.on_crash = OnCrash::StayOff;
    decides(&on, &it, 9999, expect!["[]"]);
    it.last_exit = exit(ExitReason::Asked);
    decides(&on, &it, 0, expect!["[Launch { paused: false }]"]);
    it.missing = Some("volume `a` is being made".into());
    decides(
        &on,
        &it,
        0,
        expect![[r#"[Wait("volume `a` is being made")]"#]],
    );
}

#[test]
fn a_running_guest_is_brought_to_what_is_wanted() {
    let mut on = spec(json!({ "power": "on" }));
    decides(&on, &seen(Guest::Running), 0, expect!["[]"]);
    decides(&on, &seen(Guest::Paused), 0, expect!["[Continue]"]);
    on.power = Power::Paused;
    decides(&on, &seen(Guest::Running), 0, expect!["[Pause]"]);
    on.power = Power::On;
    let stuck = seen(Guest::Stuck {
        since: now0(),
        why: "disk full".into(),
    });
    decides(
        &on,
        &stuck,
        1,
        expect![[r#"[WaitUntil(Timestamp(1970-01-01T00:00:10Z), "disk full")]"#]],
    );
    decides(&on, &stuck, 10, expect!["[Continue]"]);
    let crashed = seen(Guest::Crashed(Crashed {
        message: "panic".into(),
    }));
    decides(&on, &crashed, 0, expect![[r#"[PowerOff(Crash, "panic")]"#]]);
    on.on_crash = OnCrash::Pause;
    decides(&on, &crashed, 0, expect!["[]"]);
    decides(
        &on,
        &seen(Guest::Unreachable("no answer".into())),
        0,
        expect![[r#"[Wait("no answer")]"#]],
    );
}

#[test]
fn back_off_doubles_to_five_minutes() {
    let seconds: Vec<u64> = (0..9).map(|n| back_off(n).as_secs()).collect();
    assert_eq!(seconds, [5, 5, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(back_off(u32::MAX).as_secs(), 300);
}

#[test]
fn turns_after_a_boot() {
    let other = |order, tried, started: Option<u64>| Other {
        name: "db".into(),
        order,
        delay: Duration::from_secs(30),
        tried,
        started: started.map(|s| now0().plus(Duration::from_secs(s))),
    };
    let at = |s| now0().plus(Duration::from_secs(s));
    let of = |others: &[Other], now| turn(10, others, Duration::ZERO, at(now));
    assert_eq!(of(&[], 0), None);
    assert_eq!(of(&[other(10, false, None)], 0), None);
    assert_eq!(
        of(&[other(1, false, None)], 0).unwrap(),
        "VM `db` starts before it"
    );
    assert!(of(&[other(1, true, Some(0))], 29).is_some());
    assert_eq!(of(&[other(1, true, Some(0))], 30), None);
    assert_eq!(of(&[other(1, true, None)], 0), None);
    assert_eq!(
        turn(
            10,
            &[other(1, false, None)],
            Duration::from_secs(301),
            at(0)
        ),
        None
    );
}

/// The start of time.
fn now0() -> Timestamp {
    Timestamp::from_millis(0)
}
