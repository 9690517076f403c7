//! A watch that is cut and taken up again misses nothing over WebSocket and server-sent events, who is gone is noticed,
//! streams carry bytes both ways, and a ticket opens one of them once.

use crate::house::{House, told};
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use runtime::Authority;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

const LAMPS: &str = "/api/v1/projects/default/lamps";
pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// A TLS connection as the administrator.
pub async fn tls(house: &House, at: std::net::SocketAddr, alpn: &[u8]) -> TlsStream<TcpStream> {
    tls_as(house, at, alpn, Some(&house.identity)).await
}

/// A TLS connection as whoever a certificate says.
pub async fn tls_as(
    house: &House,
    at: std::net::SocketAddr,
    alpn: &[u8],
    who: Option<&(String, String)>,
) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(house.ca.ca().der)).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let mut config = match who {
        Some((certificate, key)) => config
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    let stream = TcpStream::connect(at).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

pub async fn socket(house: &House, path: &str, protocol: Option<&str>) -> Result<Socket, Error> {
    let stream = tls(house, house.https, b"http/1.1").await;
    socket_over(stream, house, path, protocol, None).await
}

/// A socket over a connection, with a token.
pub async fn socket_over(
    stream: TlsStream<TcpStream>,
    house: &House,
    path: &str,
    protocol: Option<&str>,
    token: Option<&str>,
) -> Result<Socket, Error> {
    let mut request = format!("wss://{}{path}", house.https)
        .into_client_request()
        .unwrap();
    if let Some(protocol) = protocol {
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol.parse().unwrap());
    }
    if let Some(token) = token {
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
    }
    tokio_tungstenite::client_async(request, stream)
        .await
        .map(|(socket, _)| socket)
}

/// The next text message, as JSON; pings are answered by the library.
pub async fn heard(socket: &mut Socket) -> Option<Value> {
    let next = async {
        loop {
            match socket.next().await? {
                Ok(Message::Text(text)) => return Some(serde_json::from_str(&text).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), next)
        .await
        .expect("something is said")
}

#[tokio::test]
async fn a_reconnect_misses_nothing() {
    let house = House::open().await;
    let mut socket = socket(&house, "/api/v1/watch?kind=lamp&project=default", None)
        .await
        .unwrap();
    let bookmark = heard(&mut socket).await.unwrap();
    assert_eq!(bookmark["type"], "bookmark");
    let writers: Vec<_> = (0..4)
        .map(|w| {
            let client = house.client.clone();
            let url = house.url(LAMPS);
            async move {
                for n in 0..25 {
                    let body = json!({ "metadata": { "name": format!("w{w}-{n}") } });
                    assert_eq!(
                        client.post(&url).json(&body).send().await.unwrap().status(),
                        201
                    );
                }
            }
        })
        .collect();
    let watching = async {
        let mut seen = BTreeSet::new();
        let mut after = bookmark["revision"].as_str().unwrap().to_owned();
        let mut events = 0;
        while seen.len() < 100 {
            let event = heard(&mut socket).await.unwrap();
            assert_ne!(event["type"], "compacted");
            if let Some(revision) = event["revision"].as_str() {
                after = revision.to_owned();
            }
            if event["type"] == "put" {
                assert_eq!(event["key"]["project"], "default");
                seen.insert(event["key"]["name"].as_str().unwrap().to_owned());
            }
            events += 1;
            // Every few events the line breaks, without a word.
            if events % 7 == 0 {
                let path = format!("/api/v1/watch?kind=lamp&project=default&after={after}");
                socket = crate::watch::socket(&house, &path, None).await.unwrap();
            }
        }
        seen.len()
    };
    let (seen, _) = tokio::join!(watching, futures::future::join_all(writers));
    assert_eq!(seen, 100);
}

#[tokio::test]
async fn what_is_too_old_is_told() {
    let house = House::open().await;
    house.lamp("a").await;
    let (_, list) = house.get(LAMPS).await;
    let good = list["revision"].as_str().unwrap();
    let mut resumed = socket(
        &house,
        &format!("/api/v1/watch?kind=lamp&after={good}"),
        None,
    )
    .await
    .unwrap();
    house.lamp("b").await;
    loop {
        let event = heard(&mut resumed).await.unwrap();
        if event["key"]["name"] == "b" {
            break;
        }
    }
    let (status, problem) = house.get("/api/v1/watch?kind=lamp&after=soon").await;
    assert_eq!(
        (status, problem["violations"][0]["field"].as_str()),
        (422, Some("?after"))
    );
    let (status, problem) = house.get("/api/v1/watch?kind=lmap").await;
    assert_eq!(status, 404, "{problem}");
    assert_eq!(house.get("/api/v1/watch").await.0, 422);
}

#[tokio::test]
async fn server_sent_events_say_the_same() {
    let house = House::open().await;
    house.lamp("a").await;
    let asked = house
        .ask(Method::GET, "/api/v1/watch?kind=lamp")
        .header("accept", "text/event-stream");
    let mut body = asked.send().await.unwrap().bytes_stream();
    let mut text = String::new();
    let mut created = false;
    let reading = async {
        while !(text.contains("\"b\"") && text.contains(": ping")) {
            text.push_str(&String::from_utf8_lossy(
                &body.next().await.unwrap().unwrap(),
            ));
            if text.contains("event: bookmark") && !created {
                created = true;
                house.lamp("b").await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .unwrap();
    assert!(
        text.contains("event: put\ndata: {\"type\":\"put\",\"kind\":\"lamp\""),
        "{text}"
    );
    let id = text
        .split("id: ")
        .nth(1)
        .unwrap()
        .split('\n')
        .next()
        .unwrap();
    assert!(id.parse::<u64>().is_ok());
}

#[tokio::test]
async fn who_does_not_answer_pings_is_hung_up_on() {
    let house = House::with(crate::house::brisk()).await;
    let (mut reader, mut writer) = tokio::io::split(tls(&house, house.https, b"http/1.1").await);
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    writer
        .write_all(b"GET /api/v1/watch?kind=lamp HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        .await
        .unwrap();
    writer.flush().await.unwrap();
    let mut all = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), reader.read_to_end(&mut all)).await;
    assert!(ended.is_ok(), "the server hangs up");
    let all = String::from_utf8_lossy(&all);
    assert!(
        all.starts_with("HTTP/1.1 101") && all.contains("bookmark"),
        "{all}"
    );
}

#[tokio::test]
async fn streams_flow_and_tickets_open_once() {
    let house = House::open().await;
    house.lamp("a").await;
    let echo = format!("{LAMPS}/a/streams/echo");
    assert_eq!(house.get(&echo).await.0, 403, "no ticket");
    let ticket = async || {
        let (status, made) = house.post(&format!("{echo}/ticket"), Value::Null).await;
        assert_eq!(status, 201);
        format!("{echo}?ticket={}", made["ticket"].as_str().unwrap())
    };
    let path = ticket().await;
    let mut open = socket(&house, &path, None).await.unwrap();
    for message in [
        Message::Binary(b"hello".to_vec().into()),
        Message::Text("{\"size\":[80,25]}".into()),
    ] {
        open.send(message.clone()).await.unwrap();
        loop {
            match open.next().await.unwrap().unwrap() {
                Message::Ping(_) => {}
                other => {
                    assert_eq!(other, message);
                    break;
                }
            }
        }
    }
    match socket(&house, &path, None).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 403, "a used ticket"),
        other => panic!("{other:?}"),
    }
    // A failure is the last word.
    open.send(Message::Text("\"break\"".into())).await.unwrap();
    let last = heard(&mut open).await.unwrap();
    assert_eq!(last["error"]["code"], "REFUSED");
    assert_eq!(heard(&mut open).await, None);

    let response = house
        .ask(Method::GET, &format!("{LAMPS}/a/streams/light?flashes=3"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        response.text().await.unwrap(),
        "flash 0\nflash 1\nflash 2\n"
    );
    for (query, status) in [
        ("flashes=1000", 422),
        ("flashes=x", 422),
        ("flahes=1", 422),
        ("", 422),
    ] {
        let (got, problem) = house.get(&format!("{LAMPS}/a/streams/light?{query}")).await;
        assert_eq!(got, status, "{query} {problem}");
    }
    assert_eq!(
        house
            .get(&format!("{LAMPS}/nobody/streams/light?flashes=1"))
            .await
            .0,
        404
    );
    let sse = house
        .ask(Method::GET, &format!("{LAMPS}/a/streams/light?flashes=1"))
        .header("accept", "text/event-stream");
    assert!(
        sse.send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
            .starts_with("event: data\ndata: flash 0\n")
    );

    let put = house
        .ask(Method::PUT, &format!("{LAMPS}/a/streams/fill"))
        .body(vec![7u8; 3 << 20]);
    let (status, said) = told(put.send().await.unwrap()).await;
    assert_eq!(
        (status, said),
        (200, json!({ "bytes": 3 << 20 })),
        "larger than any JSON body"
    );
}

#[tokio::test]
async fn events_are_lines_that_go_on() {
    let house = House::open().await;
    house.lamp("a").await;
    let (_, text) = house.get("/api/v1/events?limit=1000").await;
    let lines = match text {
        Value::String(text) => text
            .lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect(),
        one => vec![one],
    };
    let made: &Value = lines
        .iter()
        .find(|e: &&Value| e["event"] == "lamp.created")
        .unwrap();
    let since = made["seq"].as_u64().unwrap();
    let asked = house.ask(
        Method::GET,
        &format!("/api/v1/events?since={since}&follow=true"),
    );
    let mut body = asked.send().await.unwrap().bytes_stream();
    house.lamp("b").await;
    let mut text = String::new();
    let reading = async {
        while !text.contains("\"name\":\"b\"") {
            text.push_str(&String::from_utf8_lossy(
                &body.next().await.unwrap().unwrap(),
            ));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .unwrap();
    assert!(!text.contains("\"name\":\"a\""), "{text}");
}
