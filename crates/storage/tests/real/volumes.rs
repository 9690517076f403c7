//! Pools and volumes through the gate, with their files looked at.

use super::world::{World, disk};
use serde_json::json;
use storage::volume::Volume;

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_volume_made_from_an_image() {
    let world = World::new().await;
    disk(&world.path("disk.raw"), 4);
    // The volume is asked for before its image is there: it waits.
    world
        .create(
            "image",
            "base",
            json!({ "source": { "file": world.path("disk.raw") } }),
        )
        .await
        .unwrap();
    world
        .create("volume", "root1", json!({ "image": "base" }))
        .await
        .unwrap();
    let volume = world
        .until("volume", "root1", |o| o["status"]["state"] == "available")
        .await;
    assert_eq!(volume["status"]["size"], 4 << 20);
    assert!(volume["status"]["layer_on"].is_string(), "{volume:#}");
    let typed = world.cx.get::<Volume>(Some("default"), "root1").unwrap();
    let layers = storage::volume::open(&world.cx, &typed).await.unwrap();
    assert_eq!(
        layers.iter().map(|l| l.writable).collect::<Vec<_>>(),
        [true, false]
    );

    let error = world.delete("image", "base").await.unwrap_err().to_string();
    assert!(error.contains("volume default/root1"), "{error}");
    let error = world
        .delete("pool", "default")
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("is used by"), "{error}");
    let error = world
        .create("volume", "less", json!({ "image": "base", "size": "2MiB" }))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("of its image"), "{error}");
    let error = world
        .change("volume", "root1", json!({ "size": "1MiB" }))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("never shrinks"), "{error}");
    world
        .change("volume", "root1", json!({ "size": "64MiB" }))
        .await
        .unwrap();
    world
        .until("volume", "root1", |o| o["status"]["size"] == 64 << 20)
        .await;

    world.delete("volume", "root1").await.unwrap();
    world.gone("volume", "root1").await;
    world.delete("image", "base").await.unwrap();
    world.gone("image", "base").await;
    assert_eq!(world.files(), Vec::<String>::new());
    world.delete("pool", "default").await.unwrap();
    world.gone("pool", "default").await;
    assert!(!world.pool().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_lost_its_file_is_never_made_anew() {
    let world = World::new().await;
    world
        .create(
            "volume",
            "data",
            json!({ "size": "8MiB", "format": "raw", "provisioned": "thick" }),
        )
        .await
        .unwrap();
    let volume = world
        .until("volume", "data", |o| o["status"]["state"] == "available")
        .await;
    let path = volume["status"]["path"].as_str().unwrap().to_owned();
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::rename(&path, world.path("away")).unwrap();
    world
        .change("volume", "data", json!({ "size": "9MiB" }))
        .await
        .unwrap();
    let volume = world
        .until("volume", "data", |o| o["status"]["state"] == "error")
        .await;
    assert!(
        volume["status"]["message"]
            .as_str()
            .unwrap()
            .contains("is gone"),
        "{volume:#}"
    );
    assert!(!std::path::Path::new(&path).exists());
    // Back in its place, it is as it was, and grows as asked.
    std::fs::rename(world.path("away"), &path).unwrap();
    world
        .until("volume", "data", |o| o["status"]["size"] == 9 << 20)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_pools_and_volumes_are_refused_with_the_field() {
    let world = World::new().await;
    for (kind, spec, wanted) in [
        ("pool", json!({ "path": "/etc/x" }), "spec.path"),
        ("pool", json!({ "pathh": "/srv/x" }), "path"),
        ("pool", json!({ "warn_percent": 99 }), "spec.warn_percent"),
        ("volume", json!({}), "spec.size"),
        ("volume", json!({ "size": "1XB" }), "size"),
        ("volume", json!({ "size": "1KiB" }), "spec.size"),
        (
            "volume",
            json!({ "size": "1GiB", "pool": "defalt" }),
            "did you mean `default`",
        ),
        (
            "volume",
            json!({ "size": "1GiB", "image": "none" }),
            "there is no image `none`",
        ),
        ("image", json!({ "source": {} }), "none is given"),
        (
            "image",
            json!({ "source": { "recipe": "debian-11" } }),
            "spec.source.recipe",
        ),
    ] {
        let error = world.create(kind, "bad", spec.clone()).await.unwrap_err();
        assert_eq!(error.code(), "INVALID", "{spec}: {error}");
        assert!(error.to_string().contains(wanted), "{spec}: {error}");
    }
    let occupied = world.path("occupied");
    std::fs::create_dir(&occupied).unwrap();
    std::fs::write(occupied.join("mine"), "x").unwrap();
    world
        .create("pool", "taken", json!({ "path": occupied }))
        .await
        .unwrap();
    let pool = world
        .until("pool", "taken", |o| o["status"]["state"] == "offline")
        .await;
    assert!(
        pool["status"]["message"]
            .as_str()
            .unwrap()
            .contains("is not empty")
    );
    let error = world
        .create("pool", "twice", json!({ "path": occupied }))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("another pool"), "{error}");
}
