//! A client that costs little: HTTP/1.1 over TLS, one request after the other on one connection.

use crate::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// One connection that is kept alive.
pub struct Client {
    stream: TlsStream<TcpStream>,
    /// Lines of the head besides the first and the host, each with its end.
    head: String,
    buffer: Vec<u8>,
}

impl Client {
    /// Over an open TLS connection.
    pub fn new(stream: TlsStream<TcpStream>, head: String) -> Client {
        Client {
            stream,
            head,
            buffer: Vec::with_capacity(1 << 20),
        }
    }

    /// The body of a path.
    pub async fn get(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        let body = self.ask(path).await?;
        Ok(self.buffer[body..].to_vec())
    }

    /// Reads the body of a path and drops it.
    pub async fn skip(&mut self, path: &str) -> Result<(), Failure> {
        self.ask(path).await.map(|_| ())
    }

    /// Fills the buffer with one response; answers where its body begins.
    async fn ask(&mut self, path: &str) -> Result<usize, Failure> {
        let more = &self.head;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{more}\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.stream.flush().await?;
        self.buffer.clear();
        let mut whole = None;
        loop {
            if let Some((body, length)) = whole
                && self.buffer.len() >= body + length
            {
                return Ok(body);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server hung up".into());
            }
            if whole.is_none() {
                whole = head(&self.buffer)?;
            }
        }
    }
}

/// Where the body begins and how long it is, once the head is there.
fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>, Failure> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end])?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(format!("unexpected answer: {head}").into());
    }
    let length = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        })
        .ok_or("no content-length")?;
    Ok(Some((end + 4, length)))
}
