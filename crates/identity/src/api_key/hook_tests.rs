//! Warnings are posted to a real receiver, in another language, which works out the signature by itself.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a receiver that is no program of ours"
)]

use super::policy::{self, DEFAULT};
use super::policy_tests::act;
use crate::access::tests::{World, patch, world};
use runtime::{Actor, Engine};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const SECRET: &str = "thirty-two bytes and some more of them";

/// The receiver, until it is dropped.
struct Receiver {
    child: Child,
    port: u16,
    lines: mpsc::Receiver<Value>,
}

impl Receiver {
    /// `None` where no Python is.
    fn start(secret: &str) -> Option<Receiver> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api_key/receiver.py");
        let mut child = match Command::new("python3")
            .args([script, secret])
            .stdout(Stdio::piped())
            .spawn()
        {
            Ok(child) => child,
            Err(error) => {
                eprintln!("SKIPPED: python3 cannot be started: {error}");
                return None;
            }
        };
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = out.next().unwrap().unwrap().parse().unwrap();
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.map_while(Result::ok) {
                let _ = tell.send(serde_json::from_str(&line).unwrap());
            }
        });
        Some(Receiver { child, port, lines })
    }

    /// What it has got next.
    async fn next(&self) -> Value {
        for _ in 0..400 {
            if let Ok(line) = self.lines.try_recv() {
                return line;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("nothing was posted");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root() -> Actor {
    Actor::administrator("root@unix")
}

async fn hooked(port: u16) -> World {
    let world = world().await;
    policy::make(&world.cx).await.unwrap();
    let secret = json!({ "value": SECRET });
    world
        .root("secret", Some("shop"), "hook", json!({}), secret)
        .await
        .unwrap();
    let url = format!("http://127.0.0.1:{port}/keys?from=debvisor");
    let spec = json!({ "spec": { "webhook": { "url": url, "secret": "shop/hook" } } });
    let op = patch("api-key-policy", None, DEFAULT, spec);
    world.ask(root(), None, op).await.unwrap();
    world
}

#[tokio::test]
async fn a_warning_is_posted_and_its_signature_is_right() {
    let Some(receiver) = Receiver::start(SECRET) else {
        return;
    };
    let world = hooked(receiver.port).await;
    // The receiver compares with its own clock.
    let now = runtime::Clock::now(&runtime::SystemClock);
    world
        .clock
        .jump(now.millis() - world.cx.clock().now().millis());
    Engine::start(&world.cx);
    act(&world, root(), "test").await;
    let got = receiver.next().await;
    assert_eq!(got["verdict"], "good", "{got}");
    assert_eq!(got["target"], "/keys?from=debvisor");
    assert_eq!(got["key"], "hook-1");
    assert_eq!(got["body"]["event"], "test");
    // A key that ends soon: its owner is told by mail, and whoever listens here.
    world
        .root("user", None, "ann", json!({}), json!({}))
        .await
        .unwrap();
    let end = world
        .cx
        .clock()
        .now()
        .plus(Duration::from_secs(5 * 24 * 3600));
    let spec = json!({ "owner": "ann", "expires": end });
    world
        .root("api-key", None, "ci", json!({}), spec)
        .await
        .unwrap();
    super::policy_tests::shown(&world, "ci").await;
    let got = receiver.next().await;
    assert_eq!(got["verdict"], "good", "{got}");
    let body = &got["body"];
    assert_eq!(body["event"], "api-key.expiring");
    assert_eq!(
        (&body["key"], &body["owner"]),
        (&json!("ci"), &json!("ann"))
    );
    assert_eq!(body["expires"], json!(end));
    // No part of a secret is in it.
    assert!(!body.to_string().contains("dv_") && !body.to_string().contains(SECRET));
}

#[tokio::test]
async fn what_is_not_taken_is_told() {
    // It knows another secret, and refuses.
    let Some(receiver) = Receiver::start("another secret of more than thirty-two bytes") else {
        return;
    };
    let world = hooked(receiver.port).await;
    let now = runtime::Clock::now(&runtime::SystemClock);
    world
        .clock
        .jump(now.millis() - world.cx.clock().now().millis());
    Engine::start(&world.cx);
    super::hook::warn(&world.cx, json!({ "event": "test" }));
    assert_eq!(receiver.next().await["verdict"], "bad signature");
    let wait = async {
        loop {
            let events = world.cx.events().read(0, 1000).await;
            let told = |e: &&_| {
                let e: &runtime::event::Event = e;
                e.event == "api-key-policy.unposted"
            };
            if let Some(event) = events.iter().find(told) {
                return event.message.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap();
    assert!(text.contains("401"), "{text}");
    assert!(!text.contains(SECRET));
}

#[tokio::test]
async fn a_webhook_is_named_by_who_may_see_its_secret_and_never_in_the_clear() {
    let world = hooked(1).await;
    let allow = json!({ "allow": ["api-key-policy.*", "secret.read", "project.read"] });
    world
        .root("role", None, "keeper", json!({}), allow)
        .await
        .unwrap();
    world
        .grant(
            "eve",
            json!({ "user": "eve", "role": "keeper", "scope": "/" }),
        )
        .await;
    let set = |url: &str| {
        let hook = json!({ "spec": { "webhook": { "url": url, "secret": "shop/hook" } } });
        patch("api-key-policy", None, DEFAULT, hook)
    };
    assert_eq!(world.told("eve", set("https://evil.example/x")).await, 403);
    let other = patch(
        "api-key-policy",
        None,
        DEFAULT,
        json!({ "spec": { "overlap_hours": 1 } }),
    );
    assert_eq!(world.told("eve", other).await, 200);
    for url in [
        "http://example.org/x",
        "ftp://127.0.0.1/x",
        "https://",
        "nonsense",
    ] {
        let error = world.ask(root(), None, set(url)).await.unwrap_err();
        assert_eq!(error.status(), 422, "{url}: {error}");
    }
    let away = patch(
        "api-key-policy",
        None,
        DEFAULT,
        json!({ "spec": { "webhook": null } }),
    );
    assert_eq!(world.told("eve", away).await, 200);
}
