//! What every driver must do, checked against the real thing: create, grow, open, delete, list, usage, images and
//! layers, and each of them cut off in the middle.

use super::driver::{Driver, ImageRecord, Make, Origin};
use crate::image::Format;
use crate::volume::{Provisioned, VolumeFormat};
use model::Uid;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// A folder to test in, or `None` when this machine lacks what the suite needs.
pub(super) fn folder() -> Option<tempfile::TempDir> {
    let qemu_img = ["/usr/bin/qemu-img", "/usr/local/bin/qemu-img"]
        .iter()
        .any(|p| std::path::Path::new(p).exists());
    if !qemu_img {
        eprintln!(
            "SKIPPED: the conformance of pool drivers needs `qemu-img` (Debian package qemu-utils)"
        );
        return None;
    }
    Some(tempfile::tempdir().unwrap())
}

fn uid(n: u64) -> Uid {
    Uid::from_parts(n, [3; 10])
}

fn empty(size: u64, format: VolumeFormat, provisioned: Provisioned) -> Make {
    Make {
        size,
        format,
        provisioned,
        from: None,
    }
}

/// Runs the suite. `driver` gives the driver of one and the same pool, which is not prepared yet, as a restarted
/// process would.
pub(super) async fn run(driver: impl Fn() -> Box<dyn Driver>) {
    let pool = driver();
    pool.prepare(true).await.unwrap();
    pool.prepare(true).await.unwrap();
    driver().prepare(false).await.unwrap();
    let usage = pool.usage().await.unwrap();
    assert!(usage.free > 0 && usage.percent() <= 100);
    assert_eq!(pool.list().await.unwrap(), []);

    empty_volumes(&*pool).await;
    image_and_layers(&*pool).await;
    cut_off(&driver).await;

    for volume in pool.list().await.unwrap() {
        pool.delete(volume).await.unwrap();
    }
    pool.delete_image(uid(50)).await.unwrap();
    pool.delete_image(uid(50)).await.unwrap();
    assert_eq!(pool.image(uid(50)).await.unwrap(), None);
    pool.abandon().await.unwrap();
    pool.abandon().await.unwrap();
}

async fn empty_volumes(pool: &dyn Driver) {
    for (n, format, provisioned) in [
        (1, VolumeFormat::Qcow2, Provisioned::Thin),
        (2, VolumeFormat::Raw, Provisioned::Thin),
        (3, VolumeFormat::Raw, Provisioned::Thick),
        (4, VolumeFormat::Qcow2, Provisioned::Thick),
    ] {
        let volume = uid(n);
        assert_eq!(pool.look(volume).await.unwrap(), None);
        let make = empty(8 * MIB, format, provisioned);
        pool.create(volume, &make).await.unwrap();
        let seen = pool.look(volume).await.unwrap().unwrap();
        assert_eq!(
            (seen.size, seen.format, seen.layer_on),
            (8 * MIB, format, None)
        );
        match provisioned {
            Provisioned::Thin => assert!(seen.allocated < 2 * MIB, "{seen:?}"),
            Provisioned::Thick => assert!(seen.allocated >= 8 * MIB, "{seen:?}"),
        }
        // Made again, it is the same volume with the same content.
        let layers = pool.open(volume).await.unwrap();
        assert!(layers.len() == 1 && layers[0].writable && layers[0].format == format);
        std::os::unix::fs::FileExt::write_all_at(&layers[0].file, b"kept", 7 * MIB).unwrap();
        pool.create(volume, &make).await.unwrap();
        let again = pool.open(volume).await.unwrap();
        let mut bytes = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&again[0].file, &mut bytes, 7 * MIB).unwrap();
        assert_eq!(&bytes, b"kept");

        pool.grow(volume, 16 * MIB, provisioned).await.unwrap();
        pool.grow(volume, 16 * MIB, provisioned).await.unwrap();
        assert_eq!(pool.look(volume).await.unwrap().unwrap().size, 16 * MIB);
        pool.grow(volume, 4 * MIB, provisioned).await.unwrap();
        assert_eq!(
            pool.look(volume).await.unwrap().unwrap().size,
            16 * MIB,
            "it never shrinks"
        );
    }
    assert_eq!(pool.list().await.unwrap(), [1, 2, 3, 4].map(uid));
    pool.delete(uid(2)).await.unwrap();
    pool.delete(uid(2)).await.unwrap();
    assert_eq!(pool.look(uid(2)).await.unwrap(), None);
    assert_eq!(pool.open(uid(2)).await.unwrap_err().code(), "NOT_FOUND");
    assert_eq!(pool.list().await.unwrap(), [1, 3, 4].map(uid));
    let huge = empty(1 << 60, VolumeFormat::Raw, Provisioned::Thick);
    let error = pool.create(uid(9), &huge).await.unwrap_err();
    assert_eq!(error.code(), "REFUSED", "{error}");
    assert_eq!(pool.look(uid(9)).await.unwrap(), None);
}

async fn image_and_layers(pool: &dyn Driver) {
    let image = uid(50);
    let staging = pool.staging(uid(60));
    std::fs::create_dir_all(&staging).unwrap();
    let staged = staging.join("disk.qcow2");
    let raw = staging.join("disk.raw");
    let content: Vec<u8> = (0..4 * MIB).map(|n| (n / 4096 % 251) as u8).collect();
    std::fs::write(&raw, &content).unwrap();
    host::process::Run::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .arg(&raw)
        .arg(&staged)
        .output()
        .await
        .unwrap();
    let record = ImageRecord {
        virtual_size: 4 * MIB,
        sha256: "00".repeat(32),
        imported_as: Format::Raw,
    };
    assert_eq!(pool.image(image).await.unwrap(), None);
    pool.publish(image, &staged, &record).await.unwrap();
    pool.publish(image, &staged, &record).await.unwrap();
    let (seen, path, allocated) = pool.image(image).await.unwrap().unwrap();
    assert_eq!(seen, record);
    assert!(allocated > 0 && path.exists() && !staged.exists());

    let read = |path: std::path::PathBuf, format: VolumeFormat, out: std::path::PathBuf| async move {
        let convert = host::process::Run::new("qemu-img")
            .args(["convert", "-f", format.word(), "-O", "raw"])
            .arg(path)
            .arg(&out);
        convert.output().await.unwrap();
        std::fs::read(out).unwrap()
    };
    for (n, format, provisioned, from, layers) in [
        (
            11,
            VolumeFormat::Qcow2,
            Provisioned::Thin,
            Origin::Image(image),
            2,
        ),
        (
            12,
            VolumeFormat::Raw,
            Provisioned::Thin,
            Origin::Image(image),
            1,
        ),
        (
            13,
            VolumeFormat::Qcow2,
            Provisioned::Thick,
            Origin::Image(image),
            1,
        ),
        (
            14,
            VolumeFormat::Qcow2,
            Provisioned::Thin,
            Origin::File(path.clone()),
            1,
        ),
    ] {
        pool.create(
            uid(n),
            &Make {
                size: 6 * MIB,
                format,
                provisioned,
                from: Some(from),
            },
        )
        .await
        .unwrap();
        let seen = pool.look(uid(n)).await.unwrap().unwrap();
        assert_eq!(seen.size, 6 * MIB, "volume {n}");
        assert_eq!(seen.layer_on, (layers == 2).then_some(image), "volume {n}");
        let opened = pool.open(uid(n)).await.unwrap();
        assert_eq!(opened.len(), layers, "volume {n}");
        assert!(opened[0].writable && opened[1..].iter().all(|layer| !layer.writable));
        let bytes = read(seen.path, format, staging.join("out")).await;
        assert!(
            bytes[..content.len()] == content[..] && bytes[content.len()..].iter().all(|&b| b == 0),
            "volume {n}"
        );
    }
    std::fs::remove_dir_all(&staging).unwrap();
}

/// Each call dropped at many moments, then made again by a fresh driver.
async fn cut_off(driver: &impl Fn() -> Box<dyn Driver>) {
    let big = Make {
        size: 64 * MIB,
        format: VolumeFormat::Raw,
        provisioned: Provisioned::Thin,
        from: Some(Origin::Image(uid(50))),
    };
    let layer = Make {
        size: 8 * MIB,
        format: VolumeFormat::Qcow2,
        provisioned: Provisioned::Thin,
        from: Some(Origin::Image(uid(50))),
    };
    let mut cut = 0;
    for moment in 0..14 {
        let after = Duration::from_micros(300 << moment.min(8));
        for (n, make) in [(100 + moment, &big), (200 + moment, &layer)] {
            let volume = uid(n);
            if tokio::time::timeout(after, driver().create(volume, make))
                .await
                .is_err()
            {
                cut += 1;
                // Either it is not there at all, or it is whole.
                if let Some(seen) = driver().look(volume).await.unwrap() {
                    assert_eq!(seen.size, make.size);
                }
            }
            let pool = driver();
            pool.create(volume, make).await.unwrap();
            assert_eq!(pool.look(volume).await.unwrap().unwrap().size, make.size);
            let _ = tokio::time::timeout(after, driver().grow(volume, 96 * MIB, make.provisioned))
                .await;
            pool.grow(volume, 96 * MIB, make.provisioned).await.unwrap();
            let seen = pool.look(volume).await.unwrap().unwrap();
            assert_eq!(seen.size, 96 * MIB);
            let info = host::process::Run::new("qemu-img")
                .args(["info", "-f", make.format.word()])
                .arg(&seen.path);
            info.output().await.unwrap();
            let _ = tokio::time::timeout(after, driver().delete(volume)).await;
            pool.delete(volume).await.unwrap();
            assert_eq!(pool.look(volume).await.unwrap(), None);
        }
    }
    assert!(
        cut > 0,
        "no call was ever cut off: the suite checks nothing"
    );
    // A creation that is never repeated leaves nothing once the volume is deleted.
    let _ = tokio::time::timeout(Duration::from_micros(500), driver().create(uid(300), &big)).await;
    driver().delete(uid(300)).await.unwrap();
}
