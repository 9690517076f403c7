//! A hostile or broken peer (heads and bodies that are too large or too slow, TLS 1.2, plain HTTP, a foreign certificate)
//! is refused or hung up on in time, and takes nothing from others.

use crate::house::{House, brisk, limits, told};
use reqwest::Method;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use server::Limits;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

async fn tls(house: &House) -> TlsStream<TcpStream> {
    use runtime::Authority;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(house.ca.ca().der)).unwrap();
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(house.https).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap()
}

/// Everything until the peer closes, and how long that took.
async fn until_closed(stream: &mut (impl AsyncReadExt + Unpin)) -> (String, Duration) {
    let begun = Instant::now();
    let mut all = Vec::new();
    let read = stream.read_to_end(&mut all);
    let _ = tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .expect("the server hangs up");
    (String::from_utf8_lossy(&all).into_owned(), begun.elapsed())
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let house = House::with(brisk()).await;
    let mut stream = tls(&house).await;
    let head = format!(
        "GET /health/live HTTP/1.1\r\nhost: x\r\nx-big: {}\r\n\r\n",
        "x".repeat(1024 * 1024)
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.flush().await;
    // What was sent and not read makes the kernel reset the connection, so the answer may be lost on its way.
    let (answer, _) = until_closed(&mut stream).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let mut stream = tls(&house).await;
    let many: String = (0..200).map(|n| format!("x-{n}: 1\r\n")).collect();
    let _ = stream
        .write_all(format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{many}\r\n").as_bytes())
        .await;
    stream.flush().await.unwrap();
    let (answer, _) = until_closed(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_too_large_or_too_slow_is_refused() {
    let house = House::with(brisk()).await;
    let path = "/api/v1/projects/default/lamps";
    let body = json!({ "metadata": { "name": "a" }, "spec": { "x": "x".repeat(2 << 20) } });
    let (status, problem) = told(
        house
            .ask(Method::POST, path)
            .json(&body)
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (413, Some("BODY_TOO_LARGE"))
    );
    let slow = async_stream::stream! {
        yield Ok::<_, std::io::Error>(bytes::Bytes::from_static(b"{"));
        std::future::pending::<()>().await;
    };
    let asked = house
        .ask(Method::POST, path)
        .header("content-type", "application/json")
        .body(reqwest::Body::wrap_stream(slow));
    let (status, _) = told(asked.send().await.unwrap()).await;
    assert_eq!(status, 408);
    // Also where nobody needs a login.
    let head =
        "POST /pki/ocsp HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nconnection: close\r\n\r\nx";
    let said = says(&house, head).await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
}

#[tokio::test]
async fn who_says_nothing_or_dribbles_is_hung_up_on() {
    let house = House::with(brisk()).await;
    // No handshake at all.
    let mut silent = TcpStream::connect(house.https).await.unwrap();
    let (_, took) = until_closed(&mut silent).await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    // A handshake and nothing more.
    let (_, took) = until_closed(&mut tls(&house).await).await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    // A head, one byte at a time, without end.
    let (mut reader, mut writer) = tokio::io::split(tls(&house).await);
    let dribble = async {
        for byte in b"GET /health/live HTTP/1.1\r\nhost: x\r\n"
            .iter()
            .chain(std::iter::repeat(&b'x'))
        {
            if writer.write_all(&[*byte]).await.is_err() || writer.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let took = tokio::select! {
        () = dribble => Duration::ZERO,
        (_, took) = until_closed(&mut reader) => took,
    };
    assert!(took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test]
async fn one_address_cannot_take_all_connections() {
    let house = House::with(Limits {
        connections_per_address: 3,
        head: Duration::from_secs(20),
        ..limits()
    })
    .await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(tls(&house).await);
    }
    let mut fourth = TcpStream::connect(house.https).await.unwrap();
    let (_, took) = until_closed(&mut fourth).await;
    assert!(
        took < Duration::from_secs(5),
        "closed before the handshake could time out: {took:?}"
    );
    drop(open);
    let again = async {
        loop {
            if house
                .stranger()
                .get(house.url("/health/live"))
                .send()
                .await
                .is_ok()
            {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), again)
        .await
        .unwrap();
}

/// A ClientHello that offers TLS 1.2 at most, byte by byte as RFC 5246 has it: our own TLS library cannot make one.
#[tokio::test]
async fn tls_1_2_is_refused() {
    let house = House::open().await;
    for at in [house.https, house.grpc] {
        let mut hello = vec![0x03, 0x03];
        hello.extend([7u8; 32]);
        hello.push(0);
        hello.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]); // ECDHE with AES-128-GCM
        hello.extend([1, 0]);
        let mut extensions = Vec::new();
        extensions.extend([0, 10, 0, 4, 0, 2, 0, 29]); // supported_groups: x25519
        extensions.extend([0, 11, 0, 2, 1, 0]); // ec_point_formats
        extensions.extend([0, 13, 0, 6, 0, 4, 4, 3, 8, 4]); // signature_algorithms
        hello.extend((extensions.len() as u16).to_be_bytes());
        hello.extend(extensions);
        let mut message = vec![1, 0];
        message.extend((hello.len() as u16).to_be_bytes());
        message.extend(hello);
        let mut record = vec![22, 3, 1];
        record.extend((message.len() as u16).to_be_bytes());
        record.extend(message);
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(&record).await.unwrap();
        let mut answer = [0u8; 7];
        tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (answer[0], answer[5], answer[6]),
            (21, 2, 70),
            "a fatal alert: protocol_version"
        );
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_no_certificate() {
    let house = House::open().await;
    let other = House::open().await;
    let stranger = crate::house::client(&house.ca, Some(&other.identity));
    assert!(
        stranger
            .get(house.url("/health/live"))
            .send()
            .await
            .is_err()
    );
}

#[tokio::test]
async fn plain_http_answers_nothing() {
    let house = House::with(brisk()).await;
    let mut stream = TcpStream::connect(house.https).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let (answer, _) = until_closed(&mut stream).await;
    assert!(!answer.contains("HTTP"), "{answer}");
}

/// What is answered to a text, until the connection ends.
pub async fn says(house: &House, text: &str) -> String {
    let mut stream = tls(house).await;
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    until_closed(&mut stream).await.0
}

/// What two readers could read two ways is how a request is hidden in another one.
#[tokio::test]
async fn a_head_with_two_meanings_is_refused() {
    let house = House::with(brisk()).await;
    let plain = "GET /health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    let good = says(&house, &format!("{plain}\r\n")).await;
    assert!(good.starts_with("HTTP/1.1 200"), "{good}");
    for twice in [
        "host: b",
        "Host: a",
        "content-type: a\r\ncontent-type: b",
        "origin: https://a\r\norigin: https://b",
        "content-length: 1\r\ncontent-length: 2",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, identity",
        "content-length: +1",
        "x y: 1",
    ] {
        let said = says(&house, &format!("{plain}{twice}\r\n\r\n0\r\n\r\n")).await;
        assert!(said.starts_with("HTTP/1.1 400"), "{twice}: {said}");
    }
    let none = says(
        &house,
        "GET /health/live HTTP/1.1\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(none.starts_with("HTTP/1.1 400"), "{none}");
    let other = "GET https://b/health/live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let other = says(&house, other).await;
    assert!(other.starts_with("HTTP/1.1 400"), "{other}");
    // Chunks and a length: the chunks count, and then the connection ends, so that nothing can follow.
    for two in [
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 4\r\ntransfer-encoding: chunked",
    ] {
        let hidden = format!(
            "POST /api/v1/login HTTP/1.1\r\nhost: a\r\n{two}\r\n\r\n0\r\n\r\nGET /health/live HTTP/1.1\r\nhost: a\r\n\r\n"
        );
        let said = says(&house, &hidden).await;
        assert_eq!(said.matches("HTTP/1.1").count(), 1, "{said}");
    }
}

#[tokio::test]
async fn all_addresses_together_cannot_take_more_than_there_is() {
    let few = Limits {
        connections: 2,
        head: Duration::from_secs(20),
        ..limits()
    };
    let house = House::with(few).await;
    let (one, two) = (tls(&house).await, tls(&house).await);
    let mut third = TcpStream::connect(house.https).await.unwrap();
    let (answer, _) = until_closed(&mut third).await;
    assert_eq!(answer, "");
    // Root on the machine has a way in.
    let local = reqwest::Client::builder()
        .unix_socket(house.unix.clone())
        .timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    let asked = local.get("http://localhost/health/live").send();
    assert_eq!(asked.await.unwrap().status(), 200);
    drop((one, two));
}

/// One frame of HTTP/2 (RFC 9113, 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A connection that asked once and answers every ping takes a place for ever, unless somebody looks. Nor does asking
/// keep it that is refused.
#[tokio::test]
async fn an_idle_http_2_connection_is_closed() {
    let house = House::with(brisk()).await;
    for refused in [false, true] {
        if refused {
            crate::house::rate(&house.cx, &runtime::limit::ANONYMOUS, 1).await;
            let asked = house.stranger().get(house.url("/health/live")).send();
            asked.await.unwrap();
        }
        let stream = crate::watch::tls_as(&house, house.https, b"h2", None).await;
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        out.extend(frame(4, 0, 0, &[]));
        // HPACK: GET, https, /, and the authority `a` as a literal.
        let head = [0x82, 0x87, 0x84, 0x41, 1, b'a'];
        out.extend(frame(1, 5, 1, &head));
        writer.write_all(&out).await.unwrap();
        let mut nth = 3;
        let mut again = tokio::time::interval(Duration::from_millis(300));
        let talk = async {
            let mut all = Vec::new();
            loop {
                let mut piece = [0; 4096];
                tokio::select! {
                    read = reader.read(&mut piece) => match read {
                        Ok(0) | Err(_) => return,
                        Ok(n) => all.extend_from_slice(&piece[..n]),
                    },
                    _ = again.tick(), if refused => {
                        let _ = writer.write_all(&frame(1, 5, nth, &head)).await;
                        nth += 2;
                    }
                }
                while all.len() >= 9 {
                    let long = u32::from_be_bytes([0, all[0], all[1], all[2]]) as usize;
                    if all.len() < 9 + long {
                        break;
                    }
                    let one: Vec<u8> = all.drain(..9 + long).collect();
                    if one[3] == 6 && one[4] & 1 == 0 {
                        let _ = writer.write_all(&frame(6, 1, 0, &one[9..])).await;
                    }
                }
                let _ = writer.flush().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(15), talk)
            .await
            .unwrap_or_else(|_| panic!("it stays, refused: {refused}"));
    }
}

/// Opens streams and resets each at once: cheap for who does it, dear for who answers (CVE-2023-44487).
#[tokio::test]
async fn streams_that_are_reset_at_once_end_the_connection() {
    let house = House::open().await;
    let stream = crate::watch::tls(&house, house.https, b"h2").await;
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    out.extend(frame(4, 0, 0, &[]));
    // HPACK: GET, https, /, and the authority `a` as a literal.
    let head = [0x82, 0x87, 0x84, 0x41, 1, b'a'];
    for n in 0..2000u32 {
        out.extend(frame(1, 5, 2 * n + 1, &head));
        out.extend(frame(3, 0, 2 * n + 1, &8u32.to_be_bytes()));
    }
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut all = Vec::new();
    let write = async {
        // It may hang up before all is said.
        let _ = writer.write_all(&out).await;
        let _ = writer.flush().await;
    };
    let read = async {
        let read = reader.read_to_end(&mut all);
        let _ = tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .expect("the server hangs up");
    };
    tokio::join!(write, read);
    let mut rest = &all[..];
    let mut goaway = None;
    while rest.len() >= 9 {
        let long = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        if rest[3] == 7 && rest.len() >= 17 {
            goaway = Some(u32::from_be_bytes([rest[13], rest[14], rest[15], rest[16]]));
        }
        rest = &rest[(9 + long).min(rest.len())..];
    }
    assert_eq!(goaway, Some(11), "ENHANCE_YOUR_CALM");
    assert_eq!(house.get("/health/live").await.0, 200, "others go on");
}
