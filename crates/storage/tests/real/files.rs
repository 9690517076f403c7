//! Files of the node: every format, hostile ones, full disks, and a crash at every moment.

use super::world::{World, create, disk, files, process, qemu_img, target, until};
use runtime::law;
use serde_json::json;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use storage::FetchLimits;

#[tokio::test(flavor = "multi_thread")]
async fn every_format_becomes_the_same_disk() {
    let world = World::new().await;
    let raw = world.path("disk.raw");
    let content = disk(&raw, 3);
    let raw = raw.to_str().unwrap();
    for (format, options) in [
        ("qcow2", "compat=1.1"),
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("vhdx", "subformat=dynamic"),
        ("vdi", "static=off"),
        ("vpc", "force_size=on"),
    ] {
        let name = format!("{format}{}", options.len());
        let file = world.path(&name);
        let file = file.to_str().unwrap();
        qemu_img(&[
            "convert", "-f", "raw", "-O", format, "-o", options, raw, file,
        ])
        .await;
        let image = world.import(&name, json!({ "file": file })).await.unwrap();
        let path = image["status"]["path"].as_str().unwrap();
        let out = world.path("out.raw");
        qemu_img(&[
            "convert",
            "-f",
            "qcow2",
            "-O",
            "raw",
            path,
            out.to_str().unwrap(),
        ])
        .await;
        let back = std::fs::read(&out).unwrap();
        assert!(back[..content.len()] == content[..], "{format} {options}");
        assert_eq!(
            std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(path).unwrap()),
            0
        );
    }
    let image = world.import("raw", json!({ "file": raw })).await.unwrap();
    assert_eq!(image["status"]["virtual_size"], 3 << 20);
    assert_eq!(image["status"]["imported_as"], "raw");
    assert!(
        world.files().iter().all(|f| !f.starts_with("staging")),
        "{:?}",
        world.files()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_and_broken_files_are_refused_and_leave_nothing() {
    let world = World::new().await;
    let path = |name: &str| world.path(name).display().to_string();
    disk(&world.path("good.raw"), 2);
    qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        &path("good.raw"),
        &path("good.qcow2"),
    ])
    .await;
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "/etc/passwd",
        "-u",
        &path("backing.qcow2"),
        "1M",
    ])
    .await;
    let data = format!("data_file={},data_file_raw=on", path("outside.raw"));
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        &data,
        &path("data.qcow2"),
        "1M",
    ])
    .await;
    qemu_img(&["create", "-q", "-f", "qcow2", &path("huge.qcow2"), "20T"]).await;
    let (a_luks, luks_qcow2) = (path("a.luks"), path("luks.qcow2"));
    let secret = ["--object", "secret,id=s,data=x", "-q"];
    let luks = [
        &["create"],
        &secret[..],
        &[
            "-f",
            "luks",
            "-o",
            "key-secret=s,iter-time=10",
            &a_luks,
            "1M",
        ],
    ]
    .concat();
    qemu_img(&luks).await;
    let options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
    let encrypted = [
        &["create"],
        &secret[..],
        &["-f", "qcow2", "-o", options, &luks_qcow2, "1M"],
    ]
    .concat();
    qemu_img(&encrypted).await;
    let write = |name: &str, bytes: &[u8]| std::fs::write(world.path(name), bytes).unwrap();
    write("list.vmdk", b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\nRW 8 FLAT \"/etc/passwd\" 0\n");
    write("empty", b"");
    write("page.html", b"<!DOCTYPE html><title>404</title>");
    write("notes.txt", b"not a disk at all\n");
    write("packed.gz", b"\x1f\x8b\x08\0\0\0\0\0");
    let whole = std::fs::read(world.path("good.qcow2")).unwrap();
    write("cut.qcow2", &whole[..whole.len() / 2]);
    write("stub.qcow2", &whole[..40]);

    for (n, (file, more, wanted)) in [
        ("backing.qcow2", json!({}), "/etc/passwd"),
        ("data.qcow2", json!({}), "data file"),
        ("huge.qcow2", json!({}), "at most"),
        ("a.luks", json!({}), "encrypted"),
        ("a.luks", json!({ "format": "raw" }), "encrypted"),
        ("luks.qcow2", json!({}), "encrypted"),
        ("list.vmdk", json!({}), "names its data file"),
        (
            "list.vmdk",
            json!({ "format": "vmdk" }),
            "names its data file",
        ),
        ("empty", json!({}), "empty"),
        ("page.html", json!({}), "error page"),
        ("notes.txt", json!({}), "no disk image"),
        ("packed.gz", json!({}), "gzip"),
        ("cut.qcow2", json!({}), "cut short"),
        ("stub.qcow2", json!({}), ""),
        ("good.qcow2", json!({ "format": "vdi" }), "is qcow2"),
        (
            "good.qcow2",
            json!({ "sha256": "0".repeat(64) }),
            "was expected",
        ),
        ("missing", json!({}), "No such file"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut source = more;
        source["file"] = json!(path(file));
        let error = world
            .import(&format!("i{n}"), source.clone())
            .await
            .expect_err(file);
        assert!(error.contains(wanted), "{source}: {error}");
    }
    assert_eq!(world.files(), Vec::<String>::new());
    std::os::unix::fs::symlink("/etc/shadow", world.path("link")).unwrap();
    let error = world
        .import("link", json!({ "file": path("link"), "format": "raw" }))
        .await
        .unwrap_err();
    assert!(error.contains("nothing is imported"), "{error}");

    // What failed can be tried again, by the same name, once the file is right.
    write("notes.txt", &std::fs::read(world.path("good.raw")).unwrap());
    world.act("image", "i10", "import").await.unwrap();
    world
        .until("image", "i10", |o| o["status"]["state"] == "ready")
        .await;
}

/// A small file system of its own, or `None` without the right to mount one.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf, size: &str) -> Option<Small> {
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        match nix::mount::mount(
            Some("recipe"),
            &at,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        ) {
            Ok(()) => Some(Small(at)),
            Err(error) => {
                eprintln!("SKIPPED: a full disk needs the right to mount a tmpfs: {error}");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_leaves_nothing() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let Some(small) = Small::mount(folder.path().join("small"), "12m") else {
        return;
    };
    let world = World::with(FetchLimits::default(), json!({ "path": small.0 })).await;
    disk(&world.path("large.raw"), 20);
    let error = world
        .import("large", json!({ "file": world.path("large.raw") }))
        .await
        .unwrap_err();
    assert!(error.contains("the pool has"), "{error}");
    // It fits once, but not twice: the disk fills up while it is converted.
    disk(&world.path("medium.raw"), 7);
    let error = world
        .import("medium", json!({ "file": world.path("medium.raw") }))
        .await
        .unwrap_err();
    assert!(error.contains("the disk is full"), "{error}");
    assert_eq!(files(&small.0), Vec::<String>::new());
    disk(&world.path("small.raw"), 2);
    world
        .import("fits", json!({ "file": world.path("small.raw") }))
        .await
        .unwrap();
    world
        .cx
        .life()
        .stop(std::time::Duration::from_secs(5))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_survives_a_crash_at_every_commit() {
    let place: std::sync::Mutex<Option<tempfile::TempDir>> = std::sync::Mutex::default();
    let here = || {
        place
            .lock()
            .unwrap()
            .as_ref()
            .map(|f| f.path().to_owned())
            .unwrap()
    };
    let scene = law::Scene {
        start: &|store| {
            Box::pin(async move { process(store, &here(), FetchLimits::default()).await })
        },
        fresh: &|_| *place.lock().unwrap() = Some(tempfile::tempdir().unwrap()),
        setup: &|cx| {
            Box::pin(async move {
                create(&cx, "pool", "default", json!({})).await?;
                until(&cx, "pool", "default", |o| o["status"]["state"] == "online").await;
                // It begins by itself and fails, because the file is not there yet.
                let source = json!({ "source": { "file": here().join("disk.raw") } });
                create(&cx, "image", "a", source).await?;
                until(&cx, "image", "a", |o| o["status"]["state"] == "failed").await;
                disk(&here().join("disk.raw"), 1);
                Ok(())
            })
        },
        target: target("image", "a"),
        verb: "import",
        params: json!({}),
        batch: false,
        failing: &[],
        holds: &|cx, _| consistent(cx, &here().join("pools/default")),
    };
    let survived = law::procedure_survives(&scene).await.unwrap();
    assert!(survived > 20, "{survived}");
}

/// No staging folder is left, and the image is there whole or not at all.
fn consistent(cx: &runtime::Cx, pool: &Path) -> Result<(), String> {
    let found = files(pool);
    if found.iter().any(|file| file.starts_with("staging")) {
        return Err(format!("left behind: {found:?}"));
    }
    let succeeded = cx.list::<runtime::task::Task>(None).iter().any(|task| {
        task.status
            .as_ref()
            .is_some_and(|s| s.state == runtime::task::TaskState::Succeeded)
    });
    match (succeeded, found.len()) {
        (true, 2) | (false, 0) => {}
        (succeeded, _) => return Err(format!("succeeded: {succeeded}, yet there is {found:?}")),
    }
    for file in found.iter().filter(|file| file.ends_with(".qcow2")) {
        let mut magic = [0; 4];
        let opened = std::fs::File::open(pool.join(file)).map_err(|e| e.to_string())?;
        opened
            .read_exact_at(&mut magic, 0)
            .map_err(|e| e.to_string())?;
        if &magic != b"QFI\xfb" {
            return Err(format!("{file} is not whole"));
        }
    }
    Ok(())
}
