//! Uploads: cut, taken up again, finished, imported.

use super::world::{World, disk, target};
use bytes::Bytes;
use runtime::{Actor, Msg, StreamIo, StreamRequest};
use serde_json::{Value, json};

struct Client {
    io: StreamIo,
    server: tokio::task::JoinHandle<model::Result<()>>,
}

impl Client {
    fn open(world: &World, image: &str) -> Client {
        let (io, ours) = StreamIo::pair();
        let request = StreamRequest {
            target: target("image", image),
            stream: "upload".into(),
            params: json!({}),
            actor: Actor::administrator("tester"),
            request_id: "r1".into(),
        };
        let (_, open) = storage::image::SUBSYSTEM.streams[0];
        #[allow(clippy::disallowed_methods, reason = "the test holds its handle")]
        let server = tokio::spawn(open(world.cx.clone(), request, ours));
        Client { io, server }
    }

    async fn told(&mut self) -> Option<Value> {
        match self.io.recv().await {
            Some(Msg::Control(value)) => Some(value),
            other => {
                assert!(other.is_none(), "{other:?}");
                None
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_upload_goes_on_where_it_was() {
    let world = World::new().await;
    let content = disk(&world.path("disk.raw"), 3);
    let half = content.len() / 2;
    world
        .create(
            "image",
            "up",
            json!({ "source": { "upload": { "size": content.len() } } }),
        )
        .await
        .unwrap();
    world
        .until("image", "up", |o| {
            o["status"]["message"]
                .as_str()
                .is_some_and(|m| m.contains("uploaded"))
        })
        .await;

    let mut first = Client::open(&world, "up");
    assert_eq!(first.told().await.unwrap()["offset"], 0);
    let second = Client::open(&world, "up");
    assert!(
        second
            .server
            .await
            .unwrap()
            .unwrap_err()
            .to_string()
            .contains("another client")
    );
    first
        .io
        .data(Bytes::copy_from_slice(&content[..half]))
        .await
        .unwrap();
    drop(first.io);
    first.server.await.unwrap().unwrap();

    let mut again = Client::open(&world, "up");
    assert_eq!(again.told().await.unwrap()["offset"], half);
    for chunk in content[half..].chunks(64 * 1024) {
        again.io.data(Bytes::copy_from_slice(chunk)).await.unwrap();
    }
    assert_eq!(again.told().await.unwrap()["complete"], true);
    again.server.await.unwrap().unwrap();
    let image = world
        .until("image", "up", |o| o["status"]["state"] == "ready")
        .await;
    world.settled(&image).await;
    assert_eq!(image["status"]["virtual_size"], content.len());
    assert!(
        world
            .files()
            .iter()
            .all(|file| !file.starts_with("staging")),
        "{:?}",
        world.files()
    );
    let late = Client::open(&world, "up");
    assert!(
        late.server
            .await
            .unwrap()
            .unwrap_err()
            .to_string()
            .contains("ready")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_was_announced_is_refused_and_a_bad_file_can_be_sent_again() {
    let world = World::new().await;
    let content = disk(&world.path("disk.raw"), 1);
    world
        .create(
            "image",
            "up",
            json!({ "source": { "upload": { "size": content.len() } } }),
        )
        .await
        .unwrap();
    world
        .until("image", "up", |o| o["status"]["state"] == "waiting")
        .await;
    let mut client = Client::open(&world, "up");
    client.told().await.unwrap();
    client.io.data(vec![0; content.len() + 1]).await.unwrap();
    assert!(
        client
            .server
            .await
            .unwrap()
            .unwrap_err()
            .to_string()
            .contains("announced")
    );

    for (bytes, state) in [
        (vec![b'x'; content.len()], "failed"),
        (content.clone(), "ready"),
    ] {
        let mut client = Client::open(&world, "up");
        assert_eq!(client.told().await.unwrap()["offset"], 0);
        client.io.data(bytes).await.unwrap();
        assert_eq!(client.told().await.unwrap()["complete"], true);
        world
            .until("image", "up", |o| o["status"]["state"] == state)
            .await;
    }
}
