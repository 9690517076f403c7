use super::*;
use crate::process::Run;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// What a real `qemu-img`, run freely, makes for us to look at.
async fn img(args: &[&str], dir: &Path) {
    Run::new("qemu-img")
        .args(args)
        .cwd(dir)
        .output()
        .await
        .unwrap();
}

fn tool() -> Tool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED: needs root for the cage; running without");
    }
    Tool::new(root.then_some((640_099, 640_099)))
}

fn dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::Builder::new()
        .prefix("hostq-img-")
        .tempdir()
        .unwrap();
    // Closed to everybody else, as our pools are.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

/// A disk with something on it: a boot signature and a pattern.
fn disk(dir: &Path) -> PathBuf {
    let path = dir.join("disk.raw");
    let mut bytes = vec![0; 3 << 20];
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes[1 << 20..(1 << 20) + 8].copy_from_slice(b"debvisor");
    std::fs::write(&path, bytes).unwrap();
    path
}

const RAW: ImageFormat = ImageFormat::Raw;
const QCOW2: ImageFormat = ImageFormat::Qcow2;

#[tokio::test]
async fn every_format_is_recognised_and_converted_without_loss() {
    let dir = dir();
    let raw = disk(dir.path());
    for format in [
        ImageFormat::Qcow2,
        ImageFormat::Vmdk,
        ImageFormat::Vhdx,
        ImageFormat::Vdi,
        ImageFormat::Vpc,
    ] {
        let name = format!("disk.{format}");
        let mut args = vec!["convert", "-O", format.as_str()];
        if format == ImageFormat::Vmdk {
            args.extend(["-o", "subformat=streamOptimized"]);
        }
        if format == ImageFormat::Vpc {
            args.extend(["-o", "force_size=on"]);
        }
        args.extend(["disk.raw", &name]);
        img(&args, dir.path()).await;
        let file = dir.path().join(&name);
        let (foreign, info) = tool().inspect(&file).await.unwrap();
        assert_eq!(foreign.format, format);
        assert_eq!(info.virtual_size, 3 << 20, "{format}");

        let back = dir.path().join(format!("{format}.back"));
        let mut seen = Vec::new();
        let options = Qcow2Options::default();
        tool()
            .convert(&file, format, &back, RAW, options, |p| seen.push(p))
            .await
            .unwrap();
        assert_eq!(seen.last(), Some(&100.0), "{format}");
        assert!(
            std::fs::read(&back).unwrap() == std::fs::read(&raw).unwrap(),
            "{format}"
        );
    }
    let (foreign, _) = tool().inspect(&raw).await.unwrap();
    assert_eq!((foreign.format, foreign.looks_bootable), (RAW, true));
}

#[tokio::test]
async fn files_that_refer_to_others_are_refused() {
    let dir = dir();
    disk(dir.path());
    img(
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "disk.raw",
            "-F",
            "raw",
            "backing.qcow2",
        ],
        dir.path(),
    )
    .await;
    img(
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-o",
            "data_file=data,data_file_raw=on",
            "data.qcow2",
            "1M",
        ],
        dir.path(),
    )
    .await;
    img(
        &[
            "create",
            "-q",
            "-f",
            "vmdk",
            "-o",
            "subformat=monolithicFlat",
            "flat.vmdk",
            "1M",
        ],
        dir.path(),
    )
    .await;
    img(
        &["create", "-q", "-f", "vmdk", "base.vmdk", "1M"],
        dir.path(),
    )
    .await;
    img(
        &[
            "create",
            "-q",
            "-f",
            "vmdk",
            "-b",
            "base.vmdk",
            "-F",
            "vmdk",
            "child.vmdk",
        ],
        dir.path(),
    )
    .await;
    // A sparse VMDK whose embedded descriptor was edited to read a file of the host.
    let mut edited = std::fs::read(dir.path().join("base.vmdk")).unwrap();
    let sparse = b"SPARSE \"base.vmdk\"";
    let at = edited
        .windows(sparse.len())
        .position(|w| w == sparse)
        .unwrap();
    edited[at..at + sparse.len()].copy_from_slice(b"FLAT \"/etc/passwd\"");
    std::fs::write(dir.path().join("edited.vmdk"), edited).unwrap();
    for (name, words) in [
        ("backing.qcow2", "backing file \"disk.raw\""),
        ("data.qcow2", "an external data file"),
        ("flat.vmdk", "a VMDK descriptor names its data file"),
        ("child.vmdk", "a parent disk"),
        ("edited.vmdk", "FLAT \"/etc/passwd\""),
    ] {
        let error = tool().inspect(&dir.path().join(name)).await.unwrap_err();
        assert!(
            matches!(
                error,
                ImgError::Refused {
                    why: Refusal::Refers(_),
                    ..
                }
            ),
            "{name}: {error}"
        );
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
}

#[tokio::test]
async fn what_is_no_image_is_named() {
    let dir = dir();
    img(
        &[
            "create",
            "-q",
            "-f",
            "luks",
            "--object",
            "secret,id=s,data=x",
            "-o",
            "key-secret=s,iter-time=10",
            "luks",
            "1M",
        ],
        dir.path(),
    )
    .await;
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    write("empty", b"");
    write("page", b"<!DOCTYPE html><title>404</title>");
    write("packed", b"\x1f\x8b\x08\0\0\0");
    write("old", b"QFI\xfb\0\0\0\x01");
    for (name, words) in [
        ("luks", "it is encrypted (LUKS)"),
        ("empty", "it is empty"),
        ("page", "error page"),
        ("packed", "gzip"),
        ("old", "qcow version 1"),
    ] {
        let error = tool().inspect(&dir.path().join(name)).await.unwrap_err();
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
    let error = tool().inspect(&dir.path().join("link")).await.unwrap_err();
    assert!(matches!(error, ImgError::File { .. }), "{error}");
}

#[tokio::test]
async fn images_are_made_grown_and_never_shrunk() {
    let dir = dir();
    for format in [RAW, QCOW2] {
        let file = dir.path().join(format!("new.{format}"));
        tool()
            .create(&file, format, 1 << 30, Qcow2Options::default())
            .await
            .unwrap();
        let info = tool().info(&file, format).await.unwrap();
        assert_eq!(info.virtual_size, 1 << 30);
        assert!(info.actual_size < 1 << 20, "{info:?}");
        let again = tool()
            .create(&file, format, 1 << 30, Qcow2Options::default())
            .await;
        assert!(matches!(again, Err(ImgError::File { .. })));
        assert!(file.exists(), "the one that was there stays");

        tool().grow(&file, format, 2 << 30).await.unwrap();
        tool().grow(&file, format, 2 << 30).await.unwrap();
        assert_eq!(
            tool().info(&file, format).await.unwrap().virtual_size,
            2 << 30
        );
        let error = tool().grow(&file, format, 1 << 30).await.unwrap_err();
        assert!(matches!(error, ImgError::Shrinks { .. }), "{error}");
        assert!(tool().check(&file, format, false).await.unwrap().is_sound());
    }
    let error = tool()
        .most(1 << 20)
        .inspect(&dir.path().join("new.qcow2"))
        .await
        .unwrap_err();
    assert!(matches!(error, ImgError::TooLarge { .. }), "{error}");
}

#[tokio::test]
async fn damage_is_found_and_a_failed_conversion_leaves_nothing() {
    let dir = dir();
    let raw = disk(dir.path());
    let file = dir.path().join("x.qcow2");
    tool()
        .convert(&raw, RAW, &file, QCOW2, Qcow2Options::default(), |_| {})
        .await
        .unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    // The table of reference counts points nowhere any more.
    let table = u64::from_be_bytes(bytes[48..56].try_into().unwrap()) as usize;
    bytes[table..table + 8].fill(0);
    std::fs::write(&file, &bytes).unwrap();
    let check = tool().check(&file, QCOW2, false).await.unwrap();
    assert!(!check.is_sound(), "{check:?}");
    let check = tool().check(&file, QCOW2, true).await.unwrap();
    assert!(check.corruptions_fixed > 0 && check.is_sound(), "{check:?}");

    // The first table of addresses is said to lie where none can.
    bytes[40..48].copy_from_slice(&0x123_u64.to_be_bytes());
    std::fs::write(&file, &bytes).unwrap();
    let target = dir.path().join("y.raw");
    let options = Qcow2Options::default();
    let error = tool()
        .convert(&file, QCOW2, &target, RAW, options, |_| {})
        .await
        .unwrap_err();
    assert!(matches!(error, ImgError::Tool { .. }), "{error}");
    assert!(!target.exists());
}

#[tokio::test]
async fn the_cage_keeps_other_files_out() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let dir = dir();
    let raw = disk(dir.path());
    // The name of a file in our directory, instead of a descriptor: what a tricked qemu-img would try.
    let run = Run::new("qemu-img").uid_gid(640_099, 640_099).no_network();
    let error = run.arg("info").arg(&raw).output().await.unwrap_err();
    assert!(error.to_string().contains("Permission denied"), "{error}");
}

#[test]
fn sniffing_takes_any_bytes() {
    let mut state = 1_u64;
    for round in 0..20_000_u32 {
        let magic: &[u8] = match round % 5 {
            0 => b"QFI\xfb\0\0\0\x03",
            1 => b"KDMV\x01\0\0\0",
            2 => b"conectix",
            3 => b"",
            _ => b"# Disk DescriptorFile\n",
        };
        let mut bytes = magic.to_vec();
        for _ in 0..round % 700 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            bytes.push((state >> 56) as u8);
        }
        let _ = sniff(&mut Cursor::new(bytes)).unwrap();
    }
}
