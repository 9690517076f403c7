//! Real QEMU with real taps, cgroups and a Linux guest.

use super::driver_tests::*;
use super::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// A tap of this machine that goes away with its descriptor.
fn tap(name: &str) -> Option<OwnedFd> {
    use std::os::fd::AsRawFd as _;
    let file = File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .ok()?;
    // SAFETY: all zeroes is a valid ifreq, and the call reads and writes just one.
    let done = unsafe {
        let mut request: nix::libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as nix::libc::c_char;
        }
        request.ifr_ifru.ifru_flags =
            (nix::libc::IFF_TAP | nix::libc::IFF_NO_PI | nix::libc::IFF_VNET_HDR) as i16;
        nix::libc::ioctl(file.as_raw_fd(), nix::libc::TUNSETIFF, &request)
    };
    (done == 0).then(|| file.into())
}

fn nic(id: &str, fd: &str, slot: u8) -> Nic {
    Nic {
        id: id.to_owned(),
        tap_fds: vec![fd.to_owned()],
        vhost_fds: Vec::new(),
        mac: format!("52:54:00:00:00:{slot:02x}"),
        model: NicModel::Virtio,
        slot,
        mtu: None,
        boot_index: None,
    }
}

#[tokio::test]
async fn cards_stand_on_taps_given_and_live_in_their_own_cgroup() {
    let (Some(first), Some(second)) = (tap("hostq0"), tap("hostq1")) else {
        eprintln!("SKIPPED: needs root and /dev/net/tun");
        return;
    };
    let place = Place::new();
    let mut launch = place.launch("hostq-nics");
    launch.nics = vec![nic("eth0", "tap/0", 0)];
    let placement = Placement::detect("hostq-test");
    let driver = Driver::new(DriverConfig {
        placement: placement.clone(),
        ..DriverConfig::new(clock())
    });
    let fds = BTreeMap::from([("tap/0".to_owned(), first)]);
    let handle = driver.launch(&launch, fds).await.unwrap();
    let extra = nic("eth1", "tap/1", 1);
    handle
        .plug_nic(&extra, BTreeMap::from([("tap/1".to_owned(), second)]))
        .await
        .unwrap();
    let qmp = handle.qmp().await.unwrap();
    let rx = qmp
        .execute("query-rx-filter", serde_json::Value::Null)
        .await
        .unwrap();
    let names: Vec<_> = rx
        .as_array()
        .unwrap()
        .iter()
        .map(|card| card["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["nic-eth0", "nic-eth1"]);
    qmp.set_link("nic-eth1", false).await.unwrap();
    let missing = handle
        .plug_nic(&nic("eth2", "tap/2", 2), BTreeMap::new())
        .await;
    assert!(matches!(missing, Err(DriverError::Descriptor { .. })));

    let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", handle.pid())).unwrap();
    match &placement {
        Placement::Cgroup(dir) => {
            assert!(groups.contains("0::/hostq-test/hostq-nics\n"), "{groups}");
            handle.destroy(GRACE).await.unwrap();
            assert!(!dir.join("hostq-nics").exists());
            std::fs::remove_dir(dir).unwrap();
        }
        Placement::Scope => {
            assert!(groups.contains("hostq-nics.scope"), "{groups}");
            handle.destroy(GRACE).await.unwrap();
        }
        Placement::Session => {
            eprintln!("SKIPPED: neither systemd nor cgroup 2");
            handle.destroy(GRACE).await.unwrap();
        }
    }
}

/// A Linux guest, when the environment names an image of one (a qcow2 with an agent, as `cargo xtask` builds).
#[tokio::test]
async fn a_linux_guest_lets_go_of_a_disk_and_obeys_the_power_button() {
    let Some(image) = std::env::var_os("DEBVISOR_TINY_IMAGE") else {
        eprintln!("SKIPPED: DEBVISOR_TINY_IMAGE names no image of a small Linux guest");
        return;
    };
    let place = Place::new();
    let path = place.root.path().join("disk");
    std::fs::copy(image, &path).unwrap();
    let open =
        |path: &Path| OwnedFd::from(File::options().read(true).write(true).open(path).unwrap());
    let mut launch = place.launch("hostq-linux");
    launch.memory = Memory::fixed(256);
    launch.paused = false;
    let mut root = Disk::virtio("root", "disk/root", Format::Qcow2, 0);
    root.cache = Cache::Writeback;
    root.aio = Aio::IoUring;
    root.iothread = Some(0);
    root.boot_index = Some(0);
    launch.disks = vec![root];
    let fds = BTreeMap::from([("disk/root".to_owned(), open(&path))]);
    let handle = driver().launch(&launch, fds).await.unwrap();
    let agent = crate::qga::Agent::new(&handle.sockets().qga);
    let up = tokio::time::timeout(Duration::from_secs(120), async {
        while agent.ping().await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    assert!(
        up.await.is_ok(),
        "no agent; QEMU says: {}",
        handle.log_tail()
    );

    let spare = place.root.path().join("spare");
    File::create(&spare).unwrap().set_len(8 << 20).unwrap();
    let mut disk = Disk::virtio("spare", "disk/spare", Format::Raw, 1);
    disk.cache = Cache::Writeback;
    handle
        .plug_disk(
            &disk,
            BTreeMap::from([("disk/spare".to_owned(), open(&spare))]),
        )
        .await
        .unwrap();
    let size = crate::qga::Exec {
        path: "/bin/sh".to_owned(),
        args: vec![
            "-c".to_owned(),
            "until cat /sys/block/vdb/size; do sleep 0.2; done 2>/dev/null".to_owned(),
        ],
        ..crate::qga::Exec::default()
    };
    let seen = agent.exec(&size, SOON).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), "16384");
    handle.unplug_disk(&disk).await.unwrap();
    let qmp = handle.qmp().await.unwrap();
    assert!(
        !qmp.block_nodes()
            .await
            .unwrap()
            .iter()
            .any(|node| node.node_name.starts_with("disk-spare"))
    );
    handle.unplug_disk(&disk).await.unwrap();

    handle.power_button().await.unwrap();
    let mut state = handle.state();
    let off = state.wait_for(|state| *state == RunState::Shutdown(ShutdownReason::Guest));
    let off = tokio::time::timeout(Duration::from_secs(20), off)
        .await
        .is_ok();
    if !off {
        // A guest without anything that listens to the button.
        agent
            .shutdown(crate::qga::ShutdownMode::PowerOff)
            .await
            .unwrap();
        reach(&handle, &RunState::Shutdown(ShutdownReason::Guest)).await;
    }
    eprintln!("the power button alone was enough: {off}");
    handle.destroy(GRACE).await.unwrap();
}
