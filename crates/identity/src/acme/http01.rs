//! Answers http-01: a listener that is there while an order is validated and knows nothing but its tokens.

use model::{Error, Result};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// One order at a time has the port.
static PORT: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// Connections at once.
const MOST: usize = 64;
/// Longest head of a request.
const LONGEST: usize = 4096;
const PATIENCE: Duration = Duration::from_secs(5);
const PATH: &str = "/.well-known/acme-challenge/";

/// The listener; closed when dropped.
pub(super) struct Listener {
    _tasks: JoinSet<()>,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

/// Listens and answers for these tokens.
pub(super) async fn open(at: &str, answers: HashMap<String, String>) -> Result<Listener> {
    let turn = PORT.lock().await;
    let parsed: SocketAddr = at.parse().map_err(|_| {
        Error::refused(format!(
            "the setting acme-http-address `{at}` is not an address and a port"
        ))
    })?;
    let listener = TcpListener::bind(parsed).await.map_err(|e| {
        Error::unavailable(format!("cannot listen on {at} for http-01: {e}")).hint(
            "another web server may have port 80: stop it while the order runs, use dns-01, or forward the port and set acme-http-address",
        )
    })?;
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, Arc::new(answers)));
    Ok(Listener {
        _tasks: tasks,
        _turn: turn,
    })
}

async fn serve(listener: TcpListener, answers: Arc<HashMap<String, String>>) {
    let places = Arc::new(Semaphore::new(MOST));
    let mut open = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answers = answers.clone();
                open.spawn(async move {
                    let _ = tokio::time::timeout(PATIENCE, answer(stream, &answers)).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        while open.try_join_next().is_some() {}
    }
}

async fn answer(mut stream: TcpStream, answers: &HashMap<String, String>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).await?;
        if read == 0 || head.len() + read > LONGEST {
            return Ok(());
        }
        head.extend_from_slice(&part[..read]);
    }
    let (status, body) = match token(&head).and_then(|token| answers.get(token)) {
        Some(body) => ("200 OK", body.as_str()),
        None => ("404 Not Found", ""),
    };
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await?;
    stream.shutdown().await
}

/// The token that a request asks for.
fn token(head: &[u8]) -> Option<&str> {
    let line = head.split(|b| *b == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    (words.next()? == "GET").then_some(())?;
    words.next()?.strip_prefix(PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_challenge_path_is_read() {
        assert_eq!(
            token(b"GET /.well-known/acme-challenge/abc HTTP/1.1\r\n\r\n"),
            Some("abc")
        );
        for bad in [
            &b"POST /.well-known/acme-challenge/abc HTTP/1.1\r\n\r\n"[..],
            b"GET / HTTP/1.1\r\n",
            b"GET",
            b"",
            b"\xff\xff \xff\r\n",
        ] {
            assert_eq!(token(bad), None);
        }
    }
}
