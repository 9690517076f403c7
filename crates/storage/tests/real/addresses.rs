//! Addresses: a real HTTP and HTTPS server that answers well, stalls, breaks off, lies and redirects.

use super::world::{World, disk};
use runtime::resilience::{BreakerState, Standing};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use storage::FetchLimits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Serves one file by paths that say how.
struct Server {
    http: String,
    https: String,
    pem: String,
    _tasks: JoinSet<()>,
}

async fn answer(
    mut io: impl AsyncRead + AsyncWrite + Unpin,
    body: Arc<Vec<u8>>,
    http: String,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(io.read_u8().await?);
    }
    let path = String::from_utf8_lossy(&head)
        .split(' ')
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    let ok = |length: usize| {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
    };
    let moved = |to: &str| {
        format!(
            "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        )
    };
    match path.as_str() {
        "/disk" => {
            io.write_all(ok(body.len()).as_bytes()).await?;
            io.write_all(&body).await?;
        }
        "/unsized" => {
            io.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
                .await?;
            io.write_all(&body).await?;
        }
        "/cut" => {
            io.write_all(ok(body.len()).as_bytes()).await?;
            io.write_all(&body[..body.len() / 2]).await?;
        }
        "/stall" => {
            io.write_all(ok(body.len()).as_bytes()).await?;
            io.write_all(&body[..body.len() / 2]).await?;
            io.flush().await?;
            std::future::pending::<()>().await;
        }
        "/moved" => io.write_all(moved("/disk").as_bytes()).await?,
        "/circle" => io.write_all(moved("/circle").as_bytes()).await?,
        "/to-file" => io.write_all(moved("file:///etc/passwd").as_bytes()).await?,
        "/to-ftp" => {
            io.write_all(moved("ftp://localhost/disk").as_bytes())
                .await?
        }
        "/to-http" => {
            io.write_all(moved(&format!("{http}/disk")).as_bytes())
                .await?
        }
        _ => {
            io.write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            )
            .await?
        }
    }
    io.shutdown().await
}

impl Server {
    async fn start(body: Vec<u8>) -> Server {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key =
            rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (plain, secure) = (
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        );
        let http = format!("http://localhost:{}", plain.local_addr().unwrap().port());
        let https = format!("https://localhost:{}", secure.local_addr().unwrap().port());
        let body = Arc::new(body);
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (body, http) = (body.clone(), http.clone());
            async move {
                let mut all = JoinSet::new();
                while let Ok((io, _)) = plain.accept().await {
                    let (body, http) = (body.clone(), http.clone());
                    all.spawn(async move { answer(io, body, http).await });
                }
            }
        });
        tasks.spawn({
            let http = http.clone();
            async move {
                let mut all = JoinSet::new();
                while let Ok((io, _)) = secure.accept().await {
                    let (acceptor, body, http) = (acceptor.clone(), body.clone(), http.clone());
                    all.spawn(async move { answer(acceptor.accept(io).await?, body, http).await });
                }
            }
        });
        Server {
            http,
            https,
            pem: own.cert.pem(),
            _tasks: tasks,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_gives_the_image_or_a_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let body = disk(&folder.path().join("disk.raw"), 2);
    let sum = hex::encode(Sha256::digest(&body));
    let server = Server::start(body).await;
    let fetch = FetchLimits {
        stall: Duration::from_millis(700),
        size: 64 << 20,
        trust: vec![server.pem.clone()],
    };
    let world = World::with(fetch, json!({})).await;
    let (http, https) = (&server.http, &server.https);
    let images = std::cell::Cell::new(0);
    let import = async |url: String, sum: &str| {
        images.set(images.get() + 1);
        world
            .import(
                &format!("i{}", images.get()),
                json!({ "url": url, "sha256": sum }),
            )
            .await
    };
    for url in [
        format!("{https}/disk"),
        format!("{http}/disk"),
        format!("{https}/moved"),
        format!("{http}/unsized"),
    ] {
        let image = import(url.clone(), &sum)
            .await
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(image["status"]["sha256"], sum);
    }
    let before = world.files();
    for (url, wanted) in [
        (format!("{http}/missing"), "404"),
        (format!("{http}/circle"), "in circles"),
        (format!("{https}/to-file"), "not followed"),
        (format!("{https}/to-ftp"), "not followed"),
        (format!("{https}/to-http"), "not followed"),
        (format!("{http}/cut"), "fetching"),
        (format!("{https}/stall"), "nothing came for"),
        (format!("{https}/cut"), "fetching"),
        ("http://127.0.0.1:1/disk".to_owned(), "fetching"),
    ] {
        let error = import(url.clone(), &sum).await.expect_err(&url);
        assert!(error.contains(wanted), "{url}: {error}");
    }
    let error = import(format!("{http}/disk"), &"1".repeat(64))
        .await
        .unwrap_err();
    assert!(error.contains("was expected"), "{error}");
    assert_eq!(world.files(), before, "failed imports leave nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_certificate_and_a_file_that_is_too_large_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let body = disk(&folder.path().join("disk.raw"), 2);
    let sum = hex::encode(Sha256::digest(&body));
    let server = Server::start(body).await;
    let world = World::with(
        FetchLimits {
            size: 1 << 20,
            ..FetchLimits::default()
        },
        json!({}),
    )
    .await;
    let error = world
        .import(
            "a",
            json!({ "url": format!("{}/disk", server.https), "sha256": sum }),
        )
        .await
        .unwrap_err();
    assert!(error.to_lowercase().contains("certificate"), "{error}");
    for path in ["disk", "unsized"] {
        let error = world
            .import(
                path,
                json!({ "url": format!("{}/{path}", server.http), "sha256": sum }),
            )
            .await
            .unwrap_err();
        assert!(error.contains("at most 1 MiB"), "{error}");
    }
    assert_eq!(world.files(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_fetch_leaves_nothing() {
    let server = Server::start(vec![0; 1 << 20]).await;
    let world = World::new().await;
    let source = json!({ "url": format!("{}/stall", server.http), "sha256": "0".repeat(64) });
    world
        .create("image", "slow", json!({ "source": source }))
        .await
        .unwrap();
    let image = world
        .until("image", "slow", |o| {
            o["status"]["state"] == "importing" && o["status"]["task"].is_string()
        })
        .await;
    let task = image["status"]["task"].as_str().unwrap().to_owned();
    world
        .until("task", &task, |o| o["status"]["step"] == "fetch")
        .await;
    world.act("task", &task, "cancel").await.unwrap();
    let image = world
        .until("image", "slow", |o| o["status"]["state"] == "failed")
        .await;
    assert!(
        image["status"]["message"]
            .as_str()
            .unwrap()
            .contains("cancelled"),
        "{image:#}"
    );
    world
        .until("task", &task, |o| o["status"]["state"] == "cancelled")
        .await;
    assert_eq!(world.files(), Vec::<String>::new());
    world.delete("image", "slow").await.unwrap();
    world.gone("image", "slow").await;
}

/// A server that closes every connection while it is dead, and counts them.
struct Mortal {
    url: String,
    alive: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Mortal {
    async fn start(body: Vec<u8>) -> Mortal {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/disk", listener.local_addr().unwrap());
        let (alive, connections) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let body = Arc::new(body);
        let mut task = JoinSet::new();
        task.spawn({
            let (alive, connections): (Arc<AtomicBool>, Arc<AtomicUsize>) =
                (alive.clone(), Arc::clone(&connections));
            async move {
                while let Ok((io, _)) = listener.accept().await {
                    connections.fetch_add(1, Ordering::SeqCst);
                    if alive.load(Ordering::SeqCst) {
                        // A client that breaks off is its own business.
                        let _ = answer(io, body.clone(), String::new()).await;
                    }
                }
            }
        });
        Mortal {
            url,
            alive,
            connections,
            _task: task,
        }
    }
}

#[tokio::test]
async fn a_dead_host_is_left_alone_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let body = disk(&folder.path().join("disk.raw"), 2);
    let sum = hex::encode(Sha256::digest(&body));
    let server = Mortal::start(body).await;
    let world = World::new().await;
    let import = async |name: &str| {
        let source = json!({ "url": server.url, "sha256": sum });
        world.import(name, source).await
    };
    let count = || server.connections.load(Ordering::SeqCst);
    let standing = || {
        let all = world.cx.dependencies().standings();
        let named = |s: &Standing| s.name.starts_with("image host 127.0.0.1:");
        all.into_iter().find(named).unwrap()
    };
    import("a").await.unwrap_err();
    assert_eq!(count(), 3, "it is tried again");
    import("b").await.unwrap_err();
    assert_eq!(count(), 5);
    assert_eq!(standing().state, BreakerState::Open);
    for name in ["c", "d"] {
        let error = import(name).await.unwrap_err();
        assert!(error.contains("is left alone for"), "{error}");
    }
    assert_eq!(count(), 5, "nobody calls it");
    assert_eq!(standing().refused, 2);
    // It is back, and is looked for when its time has come.
    server.alive.store(true, Ordering::SeqCst);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    for name in ["e", "f", "g"] {
        import(name).await.unwrap();
    }
    assert_eq!(standing().state, BreakerState::Closed);
    assert_eq!(count(), 8);
}
