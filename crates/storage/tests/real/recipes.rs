//! Builds the image recipes for real and boots what they made, in BIOS and UEFI, with and without Secure Boot.
//!
//! The images stay in the cache (see `storage::image::recipe::default_cache`), where later tests find them.

use host::process::Run;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use storage::image::recipe::{Recipe, Release, default_cache};
use tokio_util::sync::CancellationToken;

/// Images can only be built by root, with these programs.
fn possible() -> bool {
    let programs = [
        "mmdebstrap",
        "sgdisk",
        "mformat",
        "qemu-system-x86_64",
        "genisoimage",
    ];
    let missing: Vec<_> = programs
        .into_iter()
        .filter(|p| {
            !["/usr/bin", "/usr/sbin"]
                .iter()
                .any(|d| Path::new(d).join(p).exists())
        })
        .collect();
    if !nix::unistd::geteuid().is_root() || !missing.is_empty() {
        eprintln!(
            "SKIPPED: image recipes need root and these programs, which are missing: {missing:?}"
        );
        return false;
    }
    true
}

async fn image(recipe: Recipe) -> PathBuf {
    let progress = |step: &str, percent: u8| println!("{percent:3} % {step}");
    recipe
        .image(&default_cache(), &progress, &CancellationToken::new())
        .await
        .map_err(|e| format!("{e:#}"))
        .expect("the image is built")
}

/// How a guest is started.
enum Firmware {
    Bios,
    Uefi,
    SecureBoot,
}

impl Firmware {
    fn arguments(&self, folder: &Path) -> Vec<String> {
        let (code, vars, machine) = match self {
            Self::Bios => return vec!["-machine".into(), "q35".into()],
            Self::Uefi => ("OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd", "q35"),
            Self::SecureBoot => (
                "OVMF_CODE_4M.secboot.fd",
                "OVMF_VARS_4M.ms.fd",
                "q35,smm=on",
            ),
        };
        let own = folder.join("vars.fd");
        std::fs::copy(Path::new("/usr/share/OVMF").join(vars), &own)
            .expect("the Debian package `ovmf` is installed");
        let guarded = if matches!(self, Self::SecureBoot) {
            "on"
        } else {
            "off"
        };
        vec![
            "-machine".into(),
            machine.into(),
            "-global".into(),
            format!("driver=cfi.pflash01,property=secure,value={guarded}"),
            "-drive".into(),
            format!("if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/{code}"),
            "-drive".into(),
            format!("if=pflash,unit=1,format=raw,file={}", own.display()),
        ]
    }
}

/// Boots `image` (which is not changed) until its serial line has said all of `wanted`, in this order. Gives back all
/// it said, or panics with it.
async fn boot(
    image: &Path,
    firmware: Firmware,
    memory: u32,
    extra: &[&str],
    wanted: &[&str],
    limit: Duration,
) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut said = String::new();
    let mut next = 0;
    let seen = CancellationToken::new();
    let machine = Run::new("qemu-system-x86_64")
        .args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-accel",
            "tcg,tb-size=256",
            "-serial",
            "stdio",
            "-vga",
            "std",
        ])
        .args(["-m", &memory.to_string(), "-smp", "1", "-no-reboot"])
        .args(firmware.arguments(folder.path()))
        .args([
            "-drive",
            &format!(
                "if=virtio,format=qcow2,snapshot=on,file.locking=off,file={}",
                image.display()
            ),
        ])
        .args([
            "-netdev",
            "user,id=n0,restrict=on",
            "-device",
            "virtio-net-pci,netdev=n0",
            "-device",
            "virtio-rng-pci",
        ])
        .args([
            "-device",
            "virtio-serial",
            "-chardev",
            "null,id=ga",
            "-device",
            "virtserialport,chardev=ga,name=org.qemu.guest_agent.0",
        ])
        .args(extra);
    let watching = machine.lines(|line| {
        let _ = writeln!(said, "{line}");
        if wanted.get(next).is_some_and(|w| line.contains(w)) {
            next += 1;
        }
        if next == wanted.len() {
            seen.cancel();
        }
    });
    let ended = tokio::select! {
        () = seen.cancelled() => None,
        ended = tokio::time::timeout(limit, watching) => Some(ended),
    };
    if let Some(ended) = ended
        && next < wanted.len()
    {
        panic!(
            "the guest did not say `{}`: {ended:?}\n{said}",
            wanted[next]
        );
    }
    said
}

#[tokio::test]
async fn tiny_boots_in_bios_uefi_and_secure_boot() {
    if !possible() {
        return;
    }
    let image = image(Recipe::Tiny).await;
    let ready = ["TINY-UP", "TINY-READY"];
    let limit = Duration::from_secs(120);
    let said = boot(&image, Firmware::Bios, 192, &[], &ready, limit).await;
    assert!(said.contains("TINY-AGENT"), "{said}");
    boot(&image, Firmware::Uefi, 384, &[], &ready, limit).await;
    boot(&image, Firmware::SecureBoot, 512, &[], &ready, limit).await;
}

/// A NoCloud seed as a disk image.
async fn seed(folder: &Path) -> PathBuf {
    let user = "#cloud-config\nssh_authorized_keys: [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJfVOxzRQQdPDt9z0pVvDBu8dUMuVQv2FRkfEcMKVrVK test\"]\n\
        runcmd:\n  - [sh, -c, \"echo SEED-RUN $(hostname) $(findmnt -no SOURCE,SIZE /) $(ls /etc/ssh/ssh_host_*_key | wc -l) > /dev/ttyS0\"]\n";
    std::fs::write(folder.join("user-data"), user).unwrap();
    std::fs::write(
        folder.join("meta-data"),
        "instance-id: i-1\nlocal-hostname: web1\n",
    )
    .unwrap();
    let iso = folder.join("seed.iso");
    let make = Run::new("genisoimage")
        .args(["-quiet", "-V", "cidata", "-J", "-r", "-o"])
        .arg(&iso);
    make.arg(folder.join("user-data"))
        .arg(folder.join("meta-data"))
        .output()
        .await
        .unwrap();
    iso
}

async fn debian_is_configured_by_cloud_init(release: Release, firmware: Firmware) {
    if !possible() {
        return;
    }
    let built = image(Recipe::Debian { release }).await;
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let iso = seed(folder.path()).await;
    // A larger disk than the image, so that growing the root is seen.
    let disk = folder.path().join("disk.qcow2");
    let create = Run::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"])
        .arg(&built)
        .arg(&disk)
        .arg("4G");
    create.output().await.unwrap();
    let drive = format!("if=virtio,format=raw,readonly=on,file={}", iso.display());
    let said = boot(
        &disk,
        firmware,
        768,
        &["-drive", &drive],
        &["SEED-RUN", "finished at"],
        Duration::from_secs(420),
    )
    .await;
    let line = said.lines().find(|l| l.contains("SEED-RUN")).unwrap();
    let words: Vec<_> = line
        .split_whitespace()
        .skip_while(|w| !w.ends_with("SEED-RUN"))
        .collect();
    assert_eq!(words[1], "web1", "{line}");
    assert_eq!(words[2], "/dev/vda3", "{line}");
    assert!(words[3].starts_with("3."), "the root did not grow: {line}");
    assert_eq!(words[4], "1", "only the ed25519 key is made: {line}");
}

#[tokio::test]
async fn debian_12_is_configured_by_cloud_init() {
    debian_is_configured_by_cloud_init(Release::Bookworm, Firmware::Bios).await;
}

#[tokio::test]
async fn debian_13_boots_by_secure_boot_and_is_configured_by_cloud_init() {
    debian_is_configured_by_cloud_init(Release::Trixie, Firmware::SecureBoot).await;
}

#[tokio::test]
async fn a_cancelled_build_leaves_nothing() {
    if !possible() {
        return;
    }
    let cache = tempfile::tempdir_in("/var/tmp").unwrap();
    let cancel = CancellationToken::new();
    let progress = |step: &str, _: u8| {
        if step == "unpacking packages" {
            cancel.cancel();
        }
    };
    let error = Recipe::Tiny
        .image(cache.path(), &progress, &cancel)
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("cancelled"), "{error:#}");
    let left: Vec<_> = std::fs::read_dir(cache.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, [".tiny.lock"]);
}
