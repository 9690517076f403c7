//! Real QEMU processes under TCG: most run no guest code, some a guest of 512 bytes.

use super::boot_sector::{POWER_OFF, RESET, says};
use super::*;
use crate::clock::{BootId, SystemClock};
use crate::process::Exit;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

pub(super) const UUID: &str = "0192d3a4-5b6c-7d8e-9f00-112233445566";
pub(super) const SOON: Duration = Duration::from_secs(30);
pub(super) const GRACE: Duration = Duration::from_secs(10);

pub(super) fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock::new().unwrap())
}

pub(super) fn driver() -> Driver {
    Driver::new(DriverConfig {
        placement: Placement::Session,
        ..DriverConfig::new(clock())
    })
}

pub(super) struct Place {
    pub(super) root: tempfile::TempDir,
}

/// A test that fails must not leave a guest behind, which outlives us by design.
impl Drop for Place {
    fn drop(&mut self) {
        let Ok(Some(record)) = LaunchRecord::read(&self.dir()) else {
            return;
        };
        for left in record.qemu.iter().chain(&record.tpm) {
            if crate::process::Identity::of(left.pid, &*clock()).is_ok_and(|now| now == *left) {
                let pid = nix::unistd::Pid::from_raw(left.pid.try_into().unwrap());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

impl Place {
    pub(super) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("hostq-").tempdir().unwrap();
        // The guest's user passes through it.
        std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        Self { root }
    }

    pub(super) fn dir(&self) -> std::path::PathBuf {
        self.root.path().join("vm")
    }

    pub(super) fn launch(&self, name: &str) -> Launch {
        let mut launch = Launch::new(name, UUID, &self.dir(), "pc-q35-10.0");
        launch.memory = Memory::fixed(32);
        launch.paused = true;
        launch.video = Video::None;
        launch.ports = 2;
        if nix::unistd::geteuid().is_root() {
            launch.user = Some((640_055, 640_055));
        }
        launch
    }

    /// A guest that boots this sector from a virtio disk.
    pub(super) fn booting(&self, name: &str, sector: &[u8]) -> (Launch, BTreeMap<String, OwnedFd>) {
        let mut launch = self.launch(name);
        let path = self.root.path().join("disk");
        std::fs::write(&path, sector).unwrap();
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(1 << 20)
            .unwrap();
        let mut disk = Disk::virtio("root", "disk/root", Format::Raw, 0);
        disk.cache = Cache::Writeback;
        disk.boot_index = Some(0);
        disk.iothread = Some(0);
        launch.disks = vec![disk];
        let file = File::options().read(true).write(true).open(&path).unwrap();
        (
            launch,
            BTreeMap::from([("disk/root".to_owned(), file.into())]),
        )
    }
}

pub(super) async fn reach(handle: &Handle, wanted: &RunState) {
    let mut state = handle.state();
    let reached = tokio::time::timeout(SOON, state.wait_for(|state| state == wanted)).await;
    if reached.is_err() {
        let state = handle.state().borrow().clone();
        panic!("{state:?}, not {wanted:?}; log: {}", handle.log_tail());
    }
}

pub(super) async fn serial_says(handle: &Handle, wanted: &str) {
    let mut serial = tokio::net::UnixStream::connect(&handle.sockets().serial)
        .await
        .unwrap();
    handle.resume().await.unwrap();
    let mut text = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&text).contains(wanted) {
            assert_ne!(
                serial.read_buf(&mut text).await.unwrap(),
                0,
                "serial closed"
            );
        }
    };
    tokio::time::timeout(SOON, read)
        .await
        .expect("the serial line");
}

#[tokio::test]
async fn a_guest_runs_unprivileged_is_paused_resumed_and_ended() {
    let place = Place::new();
    let (launch, fds) = place.booting("hostq-hello", &says("hello from 512 bytes\n", &[]));
    let handle = driver().launch(&launch, fds).await.unwrap();
    assert_eq!(
        *handle.state().borrow(),
        RunState::Paused(PauseReason::NotStarted)
    );
    serial_says(&handle, "hello from 512 bytes\n").await;
    reach(&handle, &RunState::Running).await;
    // Known when the call returns: whoever looks next does not ask again.
    for _ in 0..5 {
        handle.pause().await.unwrap();
        assert_eq!(
            *handle.state().borrow(),
            RunState::Paused(PauseReason::Asked)
        );
        handle.resume().await.unwrap();
        assert_eq!(*handle.state().borrow(), RunState::Running);
    }

    let status = std::fs::read_to_string(format!("/proc/{}/status", handle.pid())).unwrap();
    if let Some((uid, _)) = launch.user {
        assert!(
            status.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")),
            "{status}"
        );
        assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    }
    assert!(status.contains("Seccomp:\t2"), "{status}");
    let pid = handle.pid().to_string();
    let sockets = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
    let own = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok())
        .filter_map(|to| {
            to.to_str()?
                .strip_prefix("socket:[")?
                .strip_suffix(']')
                .map(str::to_owned)
        })
        .filter(|inode| sockets.split_ascii_whitespace().any(|word| word == inode))
        .count();
    assert_eq!(own, 0, "QEMU has a TCP socket");

    let exit = handle.destroy(GRACE).await.unwrap();
    assert_eq!(exit, Exit::Code(0));
    reach(&handle, &RunState::Exited).await;
    assert!(driver().adopt(&place.dir()).await.unwrap().is_none());
    assert!(!place.dir().join("launch.json").exists());
    assert!(!place.dir().join("run").exists());
    assert!(matches!(handle.qmp().await, Err(DriverError::Gone { .. })));
}

#[tokio::test]
async fn power_off_and_reboot_by_the_guest_are_told_apart() {
    let place = Place::new();
    let (mut launch, fds) = place.booting("hostq-off", &says("off\n", POWER_OFF));
    launch.paused = false;
    let handle = driver().launch(&launch, fds).await.unwrap();
    reach(&handle, &RunState::Shutdown(ShutdownReason::Guest)).await;
    // It waits to be ended, and somebody who comes later still sees it.
    assert!(handle.is_running());
    drop(handle);
    let handle = driver().adopt(&place.dir()).await.unwrap().unwrap();
    reach(&handle, &RunState::Shutdown(ShutdownReason::Unseen)).await;
    handle.destroy(GRACE).await.unwrap();
    reach(&handle, &RunState::Shutdown(ShutdownReason::Unseen)).await;

    let (mut launch, fds) = place.booting("hostq-reboot", &says("reboot\n", RESET));
    launch.paused = false;
    launch.on_reboot = OnReboot::Shutdown;
    let handle = driver().launch(&launch, fds).await.unwrap();
    reach(&handle, &RunState::Shutdown(ShutdownReason::Reboot)).await;
    handle.destroy(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_killed_qemu_is_a_crash_with_its_reason() {
    let place = Place::new();
    let handle = driver()
        .launch(&place.launch("hostq-kill"), BTreeMap::new())
        .await
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(handle.pid().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let mut state = handle.state();
    let state = tokio::time::timeout(SOON, state.wait_for(RunState::is_over))
        .await
        .unwrap()
        .unwrap()
        .clone();
    let RunState::Crashed(CrashReason::QemuEnded { exit, .. }) = &state else {
        panic!("{state}");
    };
    assert_eq!(*exit, Exit::Signal(9));
    // What is left does not stand in the way of the next start.
    let again = driver()
        .launch(&place.launch("hostq-kill"), BTreeMap::new())
        .await
        .unwrap();
    assert_ne!(again.record().incarnation, handle.record().incarnation);
    again.destroy(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_guest_outlives_its_handle_and_is_adopted() {
    let place = Place::new();
    let (launch, fds) = place.booting("hostq-adopt", &says("up\n", &[]));
    let handle = driver().launch(&launch, fds).await.unwrap();
    serial_says(&handle, "up\n").await;
    let (pid, incarnation) = (handle.pid(), handle.record().incarnation.clone());
    drop(handle);

    let again = driver()
        .launch(&place.launch("hostq-adopt"), BTreeMap::new())
        .await;
    assert!(matches!(again, Err(DriverError::AlreadyRuns { pid: p, .. }) if p == pid));
    let adopted = driver().adopt(&place.dir()).await.unwrap().unwrap();
    assert_eq!(
        (adopted.pid(), &adopted.record().incarnation),
        (pid, &incarnation)
    );
    reach(&adopted, &RunState::Running).await;

    // A crash between start and the second writing of the record.
    let file = place.dir().join("launch.json");
    let text = std::fs::read_to_string(&file).unwrap();
    let mut record: LaunchRecord = serde_json::from_str(&text).unwrap();
    let identity = record.qemu.take().unwrap();
    std::fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
    drop(adopted);
    let adopted = driver().adopt(&place.dir()).await.unwrap().unwrap();
    assert_eq!(adopted.pid(), pid);
    drop(adopted);

    // A pid that now belongs to another process, and another boot.
    let mut wrong = record.clone();
    wrong.qemu = Some(crate::process::Identity {
        start_time: identity.start_time - 1,
        ..identity.clone()
    });
    std::fs::write(&file, serde_json::to_vec(&wrong).unwrap()).unwrap();
    assert!(driver().adopt(&place.dir()).await.unwrap().is_none());
    record.qemu = Some(identity);
    std::fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
    let rebooted = Driver::new(DriverConfig {
        clock: Arc::new(SystemClock::with_boot_id(BootId::new("next"))),
        ..DriverConfig::new(clock())
    });
    assert!(rebooted.adopt(&place.dir()).await.unwrap().is_none());

    driver().destroy(&place.dir(), GRACE).await.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    driver().destroy(&place.dir(), GRACE).await.unwrap();
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let place = Place::new();
    let handle = driver()
        .launch(&place.launch("hostq-again"), BTreeMap::new())
        .await
        .unwrap();
    let qmp = handle.qmp().await.unwrap();
    let instances = serde_json::json!({ "instances": [{ "type": "chardev", "id": "qmp" }] });
    // QEMU drops the connection on which it is asked to.
    let _ = qmp.execute("yank", instances).await;
    tokio::time::timeout(SOON, qmp.closed())
        .await
        .expect("the end of the connection");
    let done = tokio::time::timeout(SOON, async {
        while handle.resume().await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    done.await.expect("a new connection");
    reach(&handle, &RunState::Running).await;
    handle.destroy(GRACE).await.unwrap();
}

#[tokio::test]
async fn what_qemu_refuses_comes_back_in_its_words_and_leaves_nothing() {
    let place = Place::new();
    let mut launch = place.launch("hostq-bad");
    launch.machine = "pc-q35-0.1".to_owned();
    let error = driver().launch(&launch, BTreeMap::new()).await.unwrap_err();
    assert!(matches!(error, DriverError::Early { .. }), "{error}");
    assert!(
        error.to_string().contains("unsupported machine type"),
        "{error}"
    );
    assert!(!place.dir().join("launch.json").exists());

    let (launch, _) = place.booting("hostq-bad", b"");
    let error = driver().launch(&launch, BTreeMap::new()).await.unwrap_err();
    let text = "guest `hostq-bad`: descriptor `disk/root` is named by the launch but not given";
    assert_eq!(error.to_string(), text);

    let missing = Driver::new(DriverConfig {
        qemu: "/nowhere/qemu-system-x86_64".into(),
        ..DriverConfig::new(clock())
    });
    let error = missing
        .launch(&place.launch("hostq-bad"), BTreeMap::new())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("Debian package `qemu-system-x86`"),
        "{error}"
    );
    assert!(!place.dir().join("launch.json").exists());
}

#[tokio::test]
async fn uefi_with_secure_boot_and_a_tpm_starts_and_both_processes_end() {
    let code = Path::new("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd");
    if !code.exists() || !Path::new("/usr/bin/swtpm").exists() {
        eprintln!("SKIPPED: needs the packages ovmf and swtpm");
        return;
    }
    let place = Place::new();
    let mut launch = place.launch("hostq-uefi");
    let vars = place.root.path().join("vars");
    std::fs::copy("/usr/share/OVMF/OVMF_VARS_4M.ms.fd", &vars).unwrap();
    launch.firmware = Firmware::Uefi {
        code: code.into(),
        vars_fd: "vars".to_owned(),
        secure: true,
    };
    let state = place.root.path().join("tpm");
    std::fs::create_dir(&state).unwrap();
    if let Some((uid, gid)) = launch.user {
        std::os::unix::fs::chown(&state, Some(uid), Some(gid)).unwrap();
    }
    launch.tpm_state = Some(state.clone());
    let vars = File::options().read(true).write(true).open(&vars).unwrap();
    let fds = BTreeMap::from([("vars".to_owned(), vars.into())]);
    let handle = driver().launch(&launch, fds).await.unwrap();
    let qmp = handle.qmp().await.unwrap();
    let tpm = qmp
        .execute("query-tpm", serde_json::Value::Null)
        .await
        .unwrap();
    assert_eq!(tpm[0]["model"], "tpm-crb", "{tpm}");
    let identity = handle.record().tpm.clone().unwrap();
    drop(handle);
    // As after a crash between the start of the TPM and the second writing of the record, before QEMU came.
    let file = place.dir().join("launch.json");
    let mut record = LaunchRecord::read(&place.dir()).unwrap().unwrap();
    record.tpm = None;
    std::fs::write(&file, serde_json::to_vec(&record).unwrap()).unwrap();
    driver().destroy(&place.dir(), GRACE).await.unwrap();
    assert!(
        crate::process::Process::adopt(&identity, &*clock())
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn hardware_is_plugged_into_a_running_machine() {
    let place = Place::new();
    let mut launch = place.launch("hostq-plug");
    launch.ports = 4;
    launch.video = Video::Vga;
    launch.topology = Topology {
        boot: 1,
        sockets: 1,
        cores: 4,
        threads: 1,
    };
    launch.memory = Memory {
        mib: 128,
        max_mib: 1024,
        slots: 2,
        shared: false,
        huge_page: None,
    };
    let handle = driver().launch(&launch, BTreeMap::new()).await.unwrap();
    let qmp = handle.qmp().await.unwrap();

    let path = place.root.path().join("extra");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let open = |write: bool| File::options().read(true).write(write).open(&path).unwrap();
    let mut disk = Disk::virtio("extra", "disk/extra", Format::Raw, 1);
    disk.cache = Cache::Writeback;
    let fds = |file: File| BTreeMap::from([("disk/extra".to_owned(), OwnedFd::from(file))]);
    // A descriptor of the wrong mode is refused, and leaves nothing behind.
    let error = handle.plug_disk(&disk, fds(open(false))).await.unwrap_err();
    assert!(matches!(error, DriverError::Qmp { .. }), "{error}");
    handle.plug_disk(&disk, fds(open(true))).await.unwrap();
    handle.resize_disk(&disk, 2 << 20).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 2 << 20);
    let again = handle.plug_disk(&disk, fds(open(true))).await.unwrap_err();
    assert!(again.to_string().contains("disk-extra"), "{again}");
    let nodes = qmp.block_nodes().await.unwrap();
    assert!(
        nodes.iter().any(|node| node.node_name == "disk-extra"),
        "the failed second plug took the first away"
    );

    handle.set_vcpus(3).await.unwrap();
    assert_eq!(qmp.cpus().await.unwrap().len(), 3);
    let error = handle.set_vcpus(5).await.unwrap_err();
    assert!(error.to_string().contains("places for 4"), "{error}");
    let error = handle.set_vcpus(0).await.unwrap_err();
    assert!(
        error.to_string().contains("there since the start"),
        "{error}"
    );

    handle.plug_memory(256).await.unwrap();
    assert_eq!(qmp.memory_size().await.unwrap(), (128 << 20, 256 << 20));
    assert!(handle.plug_memory(100).await.is_err());

    let mut vnc = tokio::net::UnixStream::connect(&handle.sockets().vnc)
        .await
        .unwrap();
    let mut hello = [0; 12];
    tokio::time::timeout(SOON, vnc.read_exact(&mut hello))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&hello, b"RFB 003.008\n");
    let picture = handle.screenshot().await.unwrap();
    assert!(picture.starts_with(b"\x89PNG"), "{} bytes", picture.len());
    let sets = qmp
        .execute("query-fdsets", serde_json::Value::Null)
        .await
        .unwrap();
    let open = sets
        .as_array()
        .unwrap()
        .iter()
        .filter(|set| !set["fds"].as_array().unwrap().is_empty());
    assert_eq!(open.count(), 1, "{sets}");
    handle.destroy(GRACE).await.unwrap();
}

#[tokio::test]
async fn a_saved_state_is_loaded_into_another_machine() {
    let place = Place::new();
    let (launch, fds) = place.booting("hostq-save", &says("once\n", &[]));
    let handle = driver().launch(&launch, fds).await.unwrap();
    serial_says(&handle, "once\n").await;
    let qmp = handle.qmp().await.unwrap();
    let state = place.root.path().join("state");
    let file = File::options()
        .create(true)
        .read(true)
        .write(true)
        .truncate(true)
        .open(&state)
        .unwrap();
    let writing = File::options().write(true).open(&state).unwrap();
    let set = qmp.add_fd(writing.into(), "state").await.unwrap();
    let path = format!("/dev/fdset/{set}");
    qmp.save_state(Path::new(&path), SOON).await.unwrap();
    reach(&handle, &RunState::Paused(PauseReason::Migrated)).await;
    handle.destroy(GRACE).await.unwrap();

    let (mut launch, fds) = place.booting("hostq-load", &says("once\n", &[]));
    launch.incoming = true;
    launch.paused = false;
    let handle = driver().launch(&launch, fds).await.unwrap();
    assert_eq!(
        *handle.state().borrow(),
        RunState::Paused(PauseReason::Incoming)
    );
    let qmp = handle.qmp().await.unwrap();
    drop(file);
    let reading = File::open(&state).unwrap();
    let set = qmp.add_fd(reading.into(), "state").await.unwrap();
    let path = format!("/dev/fdset/{set}");
    qmp.load_state(Path::new(&path), SOON).await.unwrap();
    // It was stopped when it was saved, and so it is again.
    reach(&handle, &RunState::Paused(PauseReason::Asked)).await;
    handle.resume().await.unwrap();
    reach(&handle, &RunState::Running).await;
    handle.destroy(GRACE).await.unwrap();
}

#[tokio::test]
async fn qemu_takes_every_kind_of_hardware_we_name() {
    let place = Place::new();
    let file = |name: &str| {
        let path = place.root.path().join(name);
        File::create(&path).unwrap().set_len(1 << 20).unwrap();
        path
    };
    let write =
        |path: &Path| OwnedFd::from(File::options().read(true).write(true).open(path).unwrap());
    let mut launch = place.launch("hostq-all");
    launch.topology = Topology {
        boot: 2,
        sockets: 2,
        cores: 2,
        threads: 1,
    };
    launch.memory = Memory {
        mib: 64,
        max_mib: 512,
        slots: 2,
        shared: true,
        huge_page: None,
    };
    launch.video = Video::Virtio;
    launch.tablet = true;
    launch.iothreads = 2;
    launch.smbios_serial = Some("ds=nocloud;s=http://[::1]/,x".to_owned());
    let mut fds = BTreeMap::new();
    let base = file("base");
    let top = place.root.path().join("top");
    crate::img::Tool::new(launch.user)
        .create(
            &top,
            crate::img::ImageFormat::Qcow2,
            1 << 20,
            crate::img::Qcow2Options::default(),
        )
        .await
        .unwrap();
    fds.insert("base".to_owned(), OwnedFd::from(File::open(&base).unwrap()));
    fds.insert("top".to_owned(), write(&top));
    let mut chain = Disk::virtio("chain", "top", Format::Qcow2, 0);
    chain.layers.push(Layer {
        fd: "base".to_owned(),
        format: Format::Raw,
        block_device: false,
    });
    chain.aio = Aio::IoUring;
    chain.iothread = Some(1);
    chain.serial = Some("chain-0001".to_owned());
    launch.disks.push(chain);
    for (name, bus, slot) in [
        ("scsi", Bus::Scsi, 2),
        ("sata", Bus::Sata, 5),
        ("nvme", Bus::Nvme, 1),
    ] {
        fds.insert(name.to_owned(), write(&file(name)));
        launch.disks.push(Disk {
            bus,
            cache: Cache::Writeback,
            boot_index: Some(slot),
            ..Disk::virtio(name, name, Format::Raw, slot)
        });
    }
    for (name, bus) in [("cd", Bus::Scsi), ("dvd", Bus::Sata)] {
        fds.insert(
            name.to_owned(),
            OwnedFd::from(File::open(file(name)).unwrap()),
        );
        launch.disks.push(Disk {
            bus,
            ..Disk::cdrom(name, name, 0)
        });
    }
    for disk in &mut launch.disks {
        disk.cache = Cache::Writeback;
    }
    let handle = driver().launch(&launch, fds).await.unwrap();
    let qmp = handle.qmp().await.unwrap();
    let nodes = qmp.block_nodes().await.unwrap();
    for disk in &launch.disks {
        let node = nodes
            .iter()
            .find(|node| node.node_name == disk.node_name())
            .unwrap();
        assert_eq!(node.ro, disk.read_only, "{}", disk.id);
    }
    assert_eq!(qmp.cpus().await.unwrap().len(), 2);
    handle.destroy(GRACE).await.unwrap();
}
