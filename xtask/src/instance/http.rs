//! Speaks to a daemon over its unix socket, with just enough HTTP to ask whether it is ready and to get a login code.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// What may be sent along with a request.
pub enum Body<'a> {
    None,
    Json(&'a Value),
    MergePatch(&'a Value),
}

/// Whether `/health/ready` answers 200.
pub fn ready(socket: &Path) -> Result<bool> {
    Ok(ask(socket, "GET", "/health/ready", &Body::None)?.starts_with("HTTP/1.1 200"))
}

/// What `/health/detail` finds wrong, in its own words.
pub fn complaints(socket: &Path) -> Result<String> {
    let answer = ask(socket, "GET", "/health/detail", &Body::None)?;
    let json = answer
        .find('{')
        .zip(answer.rfind('}'))
        .map(|(from, to)| &answer[from..=to]);
    let found: Value = serde_json::from_str(json.unwrap_or_default())?;
    let checks = found["checks"].as_array().cloned().unwrap_or_default();
    let wrong = checks.iter().filter(|check| check["state"] == "error");
    let words = wrong.map(|check| {
        let text = |name: &str| check[name].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", text("name"), text("message"))
    });
    Ok(words.collect::<Vec<_>>().join("; "))
}

/// The JSON object that a request is answered with; any other answer than 2xx is an error with what it says.
pub fn call(socket: &Path, method: &str, path: &str, body: &Body<'_>) -> Result<Value> {
    let answer = ask(socket, method, path, body)?;
    let (head, text) = answer
        .split_once("\r\n\r\n")
        .context("an answer without a head")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 20") {
        bail!(
            "{method} {path} was answered with `{status}`: {}",
            text.trim()
        );
    }
    // From the first brace to the last: a body in one chunk has its length around it.
    let json = text
        .find('{')
        .zip(text.rfind('}'))
        .map(|(from, to)| &text[from..=to]);
    serde_json::from_str(json.unwrap_or_default())
        .with_context(|| format!("{method} {path} was not answered with JSON"))
}

/// The whole answer, head and body.
fn ask(socket: &Path, method: &str, path: &str, body: &Body<'_>) -> Result<String> {
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("cannot connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    let (kind, body) = match body {
        Body::None => ("", String::new()),
        Body::Json(value) => ("Content-Type: application/json\r\n", value.to_string()),
        Body::MergePatch(value) => (
            "Content-Type: application/merge-patch+json\r\n",
            value.to_string(),
        ),
    };
    // In one write: a server that answers after the first line would otherwise break the pipe under the rest.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(4 << 20).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread};

    use super::*;

    #[test]
    fn only_a_200_is_ready() {
        let folder = std::env::temp_dir().join(format!("xtask-health-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || {
            for status in ["503 Service Unavailable", "200 OK"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 256];
                let _ = stream.read(&mut request).unwrap();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
        });
        assert!(!ready(&socket).unwrap());
        assert!(ready(&socket).unwrap());
        server.join().unwrap();
        assert!(ready(&folder.join("none")).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
