//! Brings a file from outside into a folder of ours, with its checksums: from an address, from a file of the node, or
//! from what a client has sent. It never looks at what the file is, and never leaves a file that is not whole.

use super::rules::importable;
use crate::FetchLimits;
use model::{Error, Result};
use reqwest::redirect::Policy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use std::path::Path;
use std::time::Duration;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

/// How long the other side may take to answer at all.
const CONNECT: Duration = Duration::from_secs(15);

/// A file that has been fetched whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fetched {
    /// How many bytes it has.
    pub(super) bytes: u64,
    /// SHA-256 in lower-case hex.
    pub(super) sha256: String,
    /// SHA-512 in lower-case hex.
    pub(super) sha512: String,
}

/// Told how many bytes are there, of how many (0: not known).
pub(super) type Seen<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Computes both checksums on the way.
#[derive(Default)]
struct Sums {
    bytes: u64,
    sha256: Sha256,
    sha512: Sha512,
}

impl Sums {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sha256.update(bytes);
        self.sha512.update(bytes);
    }

    fn done(self) -> Fetched {
        Fetched {
            bytes: self.bytes,
            sha256: hex::encode(self.sha256.finalize()),
            sha512: hex::encode(self.sha512.finalize()),
        }
    }
}

fn cancelled() -> Error {
    Error::refused("the import was cancelled")
}

/// An error of reading or writing `path`, with a full disk said plainly.
pub(super) fn file_failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::refused(format!("{what} {}: the disk is full", path.display()))
                .hint("free some space in the pool, or use another pool")
        }
        _ => Error::internal(format!("{what} {}: {error}", path.display())).because(error),
    }
}

/// Refuses before anything is written when `bytes` will not fit into `free`.
pub(super) fn fits(bytes: u64, free: u64) -> Result<()> {
    if bytes <= free {
        return Ok(());
    }
    Err(Error::refused(format!(
        "the image has {} MiB and the pool has {} MiB free",
        bytes >> 20,
        free >> 20
    ))
    .hint("free some space in the pool, or use another pool"))
}

/// The host and port of an address, for the name of its breaker.
pub(super) fn host_of(url: &str) -> String {
    let url = reqwest::Url::parse(url).ok();
    let host = url.as_ref().and_then(|url| {
        let host = url.host_str()?;
        Some(match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
    });
    host.unwrap_or_else(|| "unknown".to_owned())
}

/// Fetches `url` into `to`, over TLS that is verified, following redirects only from http(s) to http(s) and never from
/// https to http. `free` is how much fits.
///
/// # Errors
/// `Unavailable` when the other side does not answer, stalls or breaks off: trying again may help. `Refused` when it
/// says no, or the file is too large.
pub(super) async fn url(
    url: &str,
    to: &Path,
    free: u64,
    limits: &FetchLimits,
    seen: Seen<'_>,
    cancel: &CancellationToken,
) -> Result<Fetched> {
    let client = client(limits)?;
    let gone = |error: reqwest::Error| {
        let mut why = root_cause(&error);
        if error.is_timeout() {
            why = format!("nothing came for {} s", limits.stall.as_secs_f32());
        }
        let message = format!("fetching {url}: {why}");
        // Where it sends us is what it answers: asking again changes nothing.
        match error.is_redirect() {
            true => Error::refused(message).because(error),
            false => Error::unavailable(message).because(error),
        }
    };
    let answer = tokio::select! {
        () = cancel.cancelled() => return Err(cancelled()),
        answer = client.get(url).header("accept-encoding", "identity").send() => answer.map_err(gone)?,
    };
    if answer.status().is_redirection() {
        let to = answer
            .headers()
            .get("location")
            .and_then(|to| to.to_str().ok())
            .unwrap_or("nowhere");
        return Err(Error::refused(format!(
            "fetching {url}: it redirects to `{to}`, which is not followed"
        )));
    }
    if !answer.status().is_success() {
        let error = format!("fetching {url}: the server answered {}", answer.status());
        return Err(if answer.status().is_server_error() {
            Error::unavailable(error)
        } else {
            Error::refused(error).hint("check the address")
        });
    }
    let total = answer.content_length();
    if let Some(total) = total {
        too_large(total, limits.size, url)?;
        fits(total, free)?;
    }
    let mut file = File::create(to)
        .await
        .map_err(|error| file_failed("writing", to, error))?;
    let mut sums = Sums::default();
    let mut answer = answer;
    loop {
        let chunk = tokio::select! {
            () = cancel.cancelled() => return Err(cancelled()),
            chunk = answer.chunk() => chunk.map_err(gone)?,
        };
        let Some(chunk) = chunk else { break };
        sums.add(&chunk);
        too_large(sums.bytes, limits.size, url)?;
        fits(sums.bytes, free)?;
        file.write_all(&chunk)
            .await
            .map_err(|error| file_failed("writing", to, error))?;
        seen(sums.bytes, total.unwrap_or(0));
    }
    file.sync_all()
        .await
        .map_err(|error| file_failed("writing", to, error))?;
    Ok(sums.done())
}

fn too_large(bytes: u64, limit: u64, url: &str) -> Result<()> {
    if bytes <= limit {
        return Ok(());
    }
    Err(Error::refused(format!(
        "fetching {url}: the file has over {} MiB, and at most {} MiB are fetched",
        bytes >> 20,
        limit >> 20
    )))
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn client(limits: &FetchLimits) -> Result<reqwest::Client> {
    // Another part of the process may have chosen it already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let policy = Policy::custom(|attempt| {
        let from_https = attempt
            .previous()
            .last()
            .is_some_and(|url| url.scheme() == "https");
        match attempt.url().scheme() {
            "https" => {}
            "http" if !from_https => {}
            other => {
                let error = format!("it redirects to `{other}`, which is not followed");
                return attempt.error(error);
            }
        }
        if attempt.previous().len() > 10 {
            attempt.error("it redirects in circles")
        } else {
            attempt.follow()
        }
    });
    let mut builder = reqwest::Client::builder()
        .redirect(policy)
        .connect_timeout(CONNECT)
        .read_timeout(limits.stall);
    let mut trust = Vec::new();
    for pem in &limits.trust {
        trust.push(
            reqwest::Certificate::from_pem(pem.as_bytes()).map_err(|error| {
                Error::internal("a certificate that is to be trusted cannot be read").because(error)
            })?,
        );
    }
    if !trust.is_empty() {
        builder = builder.tls_certs_merge(trust);
    }
    builder
        .build()
        .map_err(|error| Error::internal("the HTTP client cannot be set up").because(error))
}

/// Copies the file `from` of this node into `to`. Links are followed, and what they lead to is checked.
///
/// # Errors
/// `Refused` when it is not a plain file, lies where secrets are, or does not fit into `free`.
pub(super) async fn local(
    from: &Path,
    to: &Path,
    free: u64,
    seen: Seen<'_>,
    cancel: &CancellationToken,
) -> Result<Fetched> {
    let refused =
        |message: String| Error::refused(format!("importing {}: {message}", from.display()));
    let real = tokio::fs::canonicalize(from)
        .await
        .map_err(|error| refused(error.to_string()))?;
    if let Some(message) = importable(&real) {
        return Err(refused(message));
    }
    // Not to wait for a writer, should it be a pipe.
    let file = File::options()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOFOLLOW)
        .open(&real)
        .await;
    let mut file = file.map_err(|error| refused(error.to_string()))?;
    let about = file
        .metadata()
        .await
        .map_err(|error| refused(error.to_string()))?;
    if !about.is_file() {
        return Err(refused("it is not a plain file".to_owned()));
    }
    fits(about.len(), free)?;
    let mut out = File::create(to)
        .await
        .map_err(|error| file_failed("writing", to, error))?;
    let sums = copy(
        &mut file,
        Some(&mut out),
        from,
        to,
        about.len(),
        seen,
        cancel,
    )
    .await?;
    out.sync_all()
        .await
        .map_err(|error| file_failed("writing", to, error))?;
    Ok(sums)
}

/// Computes the checksums of a file that is in place already.
pub(super) async fn sum(
    path: &Path,
    seen: Seen<'_>,
    cancel: &CancellationToken,
) -> Result<Fetched> {
    let mut file = File::open(path)
        .await
        .map_err(|error| file_failed("reading", path, error))?;
    let total = file
        .metadata()
        .await
        .map_err(|error| file_failed("reading", path, error))?
        .len();
    copy(&mut file, None, path, path, total, seen, cancel).await
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    mut out: Option<&mut File>,
    source: &Path,
    to: &Path,
    total: u64,
    seen: Seen<'_>,
    cancel: &CancellationToken,
) -> Result<Fetched> {
    let mut sums = Sums::default();
    let mut chunk = vec![0; 1 << 20];
    loop {
        if cancel.is_cancelled() {
            return Err(cancelled());
        }
        let read = from
            .read(&mut chunk)
            .await
            .map_err(|error| file_failed("reading", source, error))?;
        if read == 0 {
            return Ok(sums.done());
        }
        sums.add(&chunk[..read]);
        if let Some(out) = out.as_deref_mut() {
            out.write_all(&chunk[..read])
                .await
                .map_err(|error| file_failed("writing", to, error))?;
        }
        seen(sums.bytes, total);
    }
}
