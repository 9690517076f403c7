//! What a client can take from us is bounded: a watch that is not read is compacted, pings have their time, and large
//! answers are compressed when the client asks for it, streams never.

use crate::house::{House, told};
use futures::StreamExt;
use reqwest::{Method, Response};
use serde_json::{Value, json};
use server::Limits;
use std::time::Duration;
use store::Txn;

const LAMPS: &str = "/api/v1/projects/default/lamps";

#[test]
fn the_times_of_the_reference() {
    let limits = Limits::default();
    assert_eq!(limits.ping, Duration::from_secs(5));
    assert_eq!(limits.pong, Duration::from_secs(10));
}

/// A client that opens a watch and reads nothing holds up nobody, and costs a bounded number of changes: then it is told
/// to list again.
#[tokio::test]
async fn a_watch_that_is_not_read_is_compacted() {
    let house = House::open().await;
    for name in ["big", "small"] {
        house.lamp(name).await;
    }
    let asked = house
        .ask(Method::GET, "/api/v1/watch?kind=lamp")
        .header("accept", "text/event-stream")
        .timeout(Duration::from_secs(300));
    let mut unread = asked.send().await.unwrap().bytes_stream();
    // More than the buffers on the way hold, so that the server cannot go on sending.
    let big = format!("{LAMPS}/big");
    for n in 0..60 {
        let parts = json!([{ "glass": format!("{n}{}", "x".repeat(200_000)) }]);
        let asked = house
            .ask(Method::PATCH, &big)
            .json(&json!({ "spec": { "parts": parts } }));
        assert_eq!(asked.send().await.unwrap().status(), 200);
    }
    // More changes than are kept for a slow watcher.
    let small = runtime::object_key("lamp", Some("default"), "small");
    let entry = house.store.get(&small).await.unwrap().unwrap();
    for _ in 0..4200 {
        let txn = Txn::new().put(small.clone(), entry.value.clone());
        house.store.commit(txn).await.unwrap();
    }
    let (mut tail, mut bytes) = (String::new(), 0);
    let reading = async {
        while let Some(piece) = unread.next().await {
            let piece = piece.unwrap();
            bytes += piece.len();
            tail.push_str(&String::from_utf8_lossy(&piece));
            if tail.len() > 8192 {
                let mut from = tail.len() - 4096;
                while !tail.is_char_boundary(from) {
                    from += 1;
                }
                tail = tail.split_off(from);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(100), reading)
        .await
        .expect("the watch ends");
    assert!(
        tail.contains("event: compacted"),
        "{bytes} bytes, then {tail}"
    );
    assert!(tail.contains("\"code\":\"GONE\""), "{tail}");
}

fn encoding(response: &Response) -> String {
    let header = response.headers().get("content-encoding");
    header.map_or("", |v| v.to_str().unwrap()).to_owned()
}

#[tokio::test]
async fn large_answers_are_compressed_when_asked_for() {
    let house = House::open().await;
    for n in 0..20 {
        house.lamp(&format!("l{n}")).await;
    }
    let ask = |path: &str, accept: &'static str| {
        house
            .ask(Method::GET, path)
            .header("accept-encoding", accept)
            .send()
    };
    let plain = house.ask(Method::GET, LAMPS).send().await.unwrap();
    assert_eq!(encoding(&plain), "");
    let plain = plain.bytes().await.unwrap();
    let magic: [(&'static str, &str, &[u8]); 3] = [
        ("gzip", "gzip", &[0x1f, 0x8b]),
        ("zstd", "zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
        ("gzip;q=0.5, zstd", "zstd", &[0x28, 0xb5, 0x2f, 0xfd]),
    ];
    for (accept, got, begins) in magic {
        let response = ask(LAMPS, accept).await.unwrap();
        assert_eq!(encoding(&response), got, "{accept}");
        assert_eq!(response.headers()["vary"], "accept-encoding");
        let bytes = response.bytes().await.unwrap();
        assert!(
            bytes.starts_with(begins) && bytes.len() < plain.len() / 4,
            "{accept}"
        );
    }
    for (path, accept) in [
        // Small, of another sort, a stream, or a secret.
        ("/api/v1/whoami", "gzip"),
        (LAMPS, "br"),
        (LAMPS, "identity"),
        ("/api/v1/events?limit=1000", "gzip"),
        (
            "/api/v1/projects/default/lamps/l0/streams/light?flashes=100",
            "gzip",
        ),
    ] {
        let response = ask(path, accept).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), encoding(&response)),
            (200, String::new()),
            "{path} {accept}"
        );
    }
    let watch = house
        .ask(Method::GET, "/api/v1/watch?kind=lamp")
        .header("accept", "text/event-stream")
        .header("accept-encoding", "gzip");
    assert_eq!(encoding(&watch.send().await.unwrap()), "");
    // The tag names the revision, whatever the encoding: nothing is sent twice.
    let tag = ask("/api/v1/registry", "gzip").await.unwrap();
    assert_eq!(encoding(&tag), "gzip");
    let known = house
        .ask(Method::GET, "/api/v1/registry")
        .header("accept-encoding", "gzip")
        .header("if-none-match", tag.headers()["etag"].clone());
    assert_eq!(told(known.send().await.unwrap()).await, (304, Value::Null));
}
