use super::*;
use crate::clock::{BootId, SystemClock};
use std::time::Instant;

fn clock(boot: &str) -> SystemClock {
    SystemClock::with_boot_id(BootId::new(boot))
}

fn probe(dir: &Path) -> AccelProbe {
    AccelProbe::new(
        Path::new("qemu-system-x86_64"),
        &dir.join("accel.json"),
        true,
    )
}

/// Whatever this machine can: the probe comes to an answer in time, and keeps it for the boot.
#[tokio::test]
async fn the_answer_comes_in_time_and_is_kept_for_the_boot() {
    let dir = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let first = probe(dir.path()).ask(&clock("one")).await;
    assert!(began.elapsed() < Duration::from_secs(6), "{first:?}");
    eprintln!("{first:?}");
    match first.accel {
        Accel::Kvm => assert_eq!(first.because, "a probe guest ran under KVM"),
        Accel::Tcg => assert!(!first.because.is_empty()),
    }
    let began = Instant::now();
    assert_eq!(probe(dir.path()).ask(&clock("one")).await, first);
    assert!(began.elapsed() < Duration::from_millis(500));

    // The kept answer is really what is used, and only in its own boot.
    let file = dir.path().join("accel.json");
    let kept = fs::read_to_string(&file).unwrap();
    let told = serde_json::to_string(&first.because).unwrap();
    fs::write(&file, kept.replace(&told, "\"kept\"")).unwrap();
    assert_eq!(probe(dir.path()).ask(&clock("one")).await.because, "kept");
    let quick = probe(dir.path()).device(Path::new("/nowhere"));
    assert!(
        quick
            .ask(&clock("two"))
            .await
            .because
            .contains("does not exist")
    );
}

/// What was found without the device does not hold any more when that is there, in the same boot.
#[tokio::test]
async fn a_device_that_comes_is_tried() {
    let dir = tempfile::tempdir().unwrap();
    let device = dir.path().join("kvm");
    let ask = || async { probe(dir.path()).device(&device).ask(&clock("one")).await };
    assert!(ask().await.because.contains("does not exist"));
    std::os::unix::fs::symlink("/dev/null", &device).unwrap();
    let then = ask().await;
    assert!(!then.because.contains("does not exist"), "{then:?}");
}

/// The probe guest itself is right: under TCG it ends QEMU with the code expected.
#[tokio::test]
async fn the_probe_guest_answers_where_guests_run() {
    let (run, path) = Run::new("qemu-system-x86_64").secret(&disk()).unwrap();
    let run = run
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-machine",
            "q35",
            "-accel",
            "tcg",
            "-m",
            "32",
        ])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"])
        .args(["-drive", &format!("if=virtio,format=raw,file={path}")])
        .accept([EXPECTED])
        .timeout(Duration::from_secs(30));
    assert_eq!(run.output().await.unwrap().code, EXPECTED);
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let none = AccelProbe::new(Path::new("/nowhere/qemu"), &dir.path().join("a"), true);
    assert_eq!(
        none.ask(&clock("one")).await,
        tcg("`/nowhere/qemu` is not installed".to_owned())
    );
    let file = dir.path().join("kvm");
    fs::write(&file, b"").unwrap();
    let answer = probe(dir.path()).device(&file).ask(&clock("one")).await;
    assert!(answer.because.ends_with("is no device"), "{answer:?}");
}
