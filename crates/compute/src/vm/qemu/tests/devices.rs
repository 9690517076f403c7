//! Which hardware really boots a guest: machines, firmware, buses and cards, several guests at once, each asked through its
//! agent what it sees. And what a running Linux takes over: CPUs, memory.

use super::*;

/// One guest, and the PCI devices (vendor:device of `uevent`) that it must see beyond those all have.
struct Case {
    name: &'static str,
    spec: Value,
    sees: &'static [&'static str],
    /// A command that must succeed in the guest.
    holds: &'static str,
}

fn cases() -> Vec<Case> {
    let disk = |bus: &str| json!({ "size": "64MiB", "bus": bus });
    let boot = |bus: &str| json!({ "image": "tiny", "bus": bus });
    vec![
        Case {
            name: "every-bus",
            spec: json!({
                "disks": [boot("virtio"), disk("scsi"), disk("sata"), disk("nvme")],
                "nics": [{}, { "model": "e1000e" }],
            }),
            // virtio-blk, virtio-scsi (transitional), ICH9 AHCI, QEMU's NVMe, virtio-net, Intel 82574L
            sees: &[
                "1AF4:1042",
                "1AF4:1004",
                "8086:2922",
                "1B36:0010",
                "1AF4:1041",
                "8086:10D3",
            ],
            holds: "ls /sys/class/net/eth0 && test ! -e /sys/firmware/efi",
        },
        Case {
            name: "i440fx",
            spec: json!({ "machine": "i440fx", "disks": [boot("virtio"), disk("nvme")], "nics": [{}, { "model": "e1000e" }] }),
            // On a bus without PCIe they are transitional: virtio 0.9 and 1.0.
            sees: &[
                "8086:1237",
                "1AF4:1001",
                "1B36:0010",
                "1AF4:1000",
                "8086:10D3",
            ],
            holds: "ls /sys/class/net/eth0",
        },
        Case {
            name: "boot-sata",
            spec: json!({ "disks": [boot("sata")], "nics": [] }),
            sees: &["8086:2922"],
            holds: "true",
        },
        Case {
            name: "boot-scsi-uefi",
            spec: json!({ "firmware": "uefi", "disks": [boot("scsi")], "nics": [] }),
            sees: &["1AF4:1004"],
            holds: "test -d /sys/firmware/efi",
        },
        Case {
            name: "boot-nvme-uefi",
            spec: json!({ "firmware": "uefi", "disks": [boot("nvme")], "nics": [], "display": "none" }),
            sees: &["1B36:0010"],
            holds: "test -d /sys/firmware/efi",
        },
        Case {
            name: "i440fx-uefi",
            spec: json!({ "machine": "i440fx", "firmware": "uefi", "disks": [boot("virtio")], "nics": [] }),
            sees: &["8086:1237", "1AF4:1001"],
            holds: "test -d /sys/firmware/efi",
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_firmware_buses_and_cards_really_boot() {
    let Some(lab) = Lab::start("machines_firmware_buses_and_cards_really_boot").await else {
        return;
    };
    let mut wrong = Vec::new();
    for some in cases().chunks(3) {
        for case in some {
            let mut spec = case.spec.clone();
            spec["memory"] = json!("256MiB");
            spec["power"] = json!("on");
            lab.create("vm", case.name, spec).await;
        }
        for case in some {
            lab.until(case.name, "known by its agent", |s| s.hostname.is_some())
                .await;
            let look = format!(
                "cat /sys/bus/pci/devices/*/uevent | sed -n s/PCI_ID=//p; {} >/dev/null && echo HOLDS",
                case.holds
            );
            let said = lab.exec(case.name, &["/bin/sh", "-c", &look]).await.1;
            for id in case.sees.iter().chain(&["HOLDS"]) {
                if !said.contains(id) {
                    wrong.push(format!("{}: no {id} in {said}", case.name));
                }
            }
            lab.act(case.name, "stop", json!({})).await;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    if !Path::new("/dev/vhost-net").exists() {
        eprintln!("SKIPPED: vhost: this kernel has no /dev/vhost-net");
    }
}

/// A device that is plugged into a machine without PCIe, CPUs and memory that a Linux takes over, and a guest that writes
/// to its serial line without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_linux_takes_cpus_memory_and_disks_over() {
    let Some(lab) = Lab::start("a_running_linux_takes_cpus_memory_and_disks_over").await else {
        return;
    };
    let mut spec = tiny();
    spec["cpu"] = json!({ "max": 3 });
    spec["max_memory"] = json!("1GiB");
    lab.create("vm", "grows", spec.clone()).await;
    spec["machine"] = json!("i440fx");
    lab.create("vm", "old", spec).await;
    for name in ["grows", "old"] {
        lab.until(name, "known by its agent", |s| s.hostname.is_some())
            .await;
        lab.act(name, "resize", json!({ "vcpus": 3, "memory": "512MiB" }))
            .await;
        lab.act(name, "attach-disk", json!({ "size": "96MiB" }))
            .await;
        let status = lab.vm(name).unwrap();
        assert_eq!((status.vcpus, status.memory), (Some(3), Some(512 << 20)));
        // As udev's rules do in a Debian: what was plugged in is put to use.
        let use_it = "for n in $(seq 300); do \
              for f in /sys/devices/system/cpu/cpu*/online; do [ $(cat $f) = 1 ] || echo 1 > $f; done; \
              for f in /sys/devices/system/memory/memory*/state; do [ $(cat $f) = online ] || echo online > $f; done; \
              cpus=$(grep -c ^processor /proc/cpuinfo); memory=$(sed -n 's/MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo); \
              disk=$(grep -l 196608 /sys/block/vd*/size); \
              echo cpus $cpus memory $memory disk $disk; \
              [ $cpus = 3 ] && [ $memory -gt 400000 ] && [ -n \"$disk\" ] && exit 0; sleep 0.2; \
            done 2>/dev/null; exit 1";
        let (exit, said) = lab.exec(name, &["/bin/sh", "-c", use_it]).await;
        let last = said.lines().last().unwrap_or_default();
        eprintln!("{name}: {last}");
        assert_eq!(exit, 0, "{name}: {last}");
    }
    lab.act("old", "stop", json!({})).await;

    // Its log is bounded, and what it said last is there after a restart of ours.
    let flood = "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); echo flood $n; done > /dev/ttyS0; echo THE-END > /dev/ttyS0";
    let write = format!("setsid sh -c '{flood}' >/dev/null 2>&1 &");
    lab.exec("grows", &["/bin/sh", "-c", &write]).await;
    lab.says("grows", "THE-END").await;
    let dir = lab.run_dir("grows");
    let logs: u64 = std::fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .filter(|f| f.file_name().to_string_lossy().starts_with("console.log"))
        .map(|f| f.metadata().unwrap().len())
        .sum();
    assert!(logs > 96 << 10 && logs <= 2 * (96 << 10), "{logs} bytes");
    let lab = lab.restart().await;
    lab.until("grows", "running", |s| s.state == State::Running)
        .await;
    let said = lab.says("grows", "THE-END").await;
    assert!(
        said.len() > 60 << 10 && said.contains("flood 19000"),
        "{}",
        said.len()
    );
    lab.act("grows", "resize", json!({ "vcpus": 2 })).await;
    assert_eq!(lab.vm("grows").unwrap().vcpus, Some(2));
    lab.act("grows", "stop", json!({})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_pages_back_a_guest() {
    let Some(lab) = Lab::start("huge_pages_back_a_guest").await else {
        return;
    };
    let mut spec = tiny();
    spec["memory"] = json!("128MiB");
    spec["hugepages"] = json!("2m");
    spec["ballooning"] = json!(false);
    spec["power"] = json!("paused");
    lab.create("vm", "huge", spec).await;
    let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free: u64 = free.ok().and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    if free < 64 {
        let said = format!("it needs 64 free huge pages of 2MiB, this host has {free}");
        lab.until("huge", "waiting for huge pages", |s| {
            s.conditions.iter().any(|c| c.message.contains(&said))
        })
        .await;
        eprintln!(
            "SKIPPED: huge_pages_back_a_guest: this machine has {free} free huge pages of 2 MiB, not 64; that it says so was tested"
        );
        return;
    }
    lab.until("huge", "paused", |s| s.state == State::Paused)
        .await;
    let maps = std::fs::read_to_string(format!("/proc/{}/smaps", pid_of(&lab, "huge"))).unwrap();
    assert!(maps.contains("KernelPageSize:     2048 kB"));
    lab.act("huge", "stop", json!({})).await;
}
