//! The serial line of one guest. QEMU lets one client connect: this task is it. It keeps what was said last, in memory and
//! in a bounded log, and shares the line among all who have it open.
//!
//! The log is written here and not by QEMU, whose `logfile` of a character device grows without end and cannot be changed
//! for another while the guest runs: a guest that writes for ever would fill the host. What is written while no process
//! of ours holds the line is lost, and fills nothing.

use super::super::hypervisor::Console;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, watch};

/// What is kept for those who open the line later.
const KEPT: usize = 64 * 1024;
/// Where the log begins anew; the former one is kept beside it.
const LOG: u64 = if cfg!(test) { 96 << 10 } else { 1 << 20 };
/// Messages kept for a slow reader.
const WAITING: usize = 256;

/// What was said last, and who hears what comes. Changed together, so that nobody hears a byte twice or never.
struct Said {
    last: BytesMut,
    output: broadcast::Sender<Bytes>,
}

/// The serial line.
pub(super) struct Line {
    said: Arc<Mutex<Said>>,
    input: mpsc::Sender<Bytes>,
    connected: watch::Receiver<bool>,
}

impl Line {
    /// The line, and the work that keeps it; the owner of the guest runs that.
    pub(super) fn new(
        socket: &Path,
        dir: &Path,
    ) -> (Line, impl Future<Output = ()> + Send + 'static) {
        let log = dir.join("console.log");
        let said = Arc::new(Mutex::new(Said {
            last: said_before(&log),
            output: broadcast::Sender::new(WAITING),
        }));
        let (input, typed) = mpsc::channel(64);
        let (connected, seen) = watch::channel(false);
        let work = Work {
            socket: socket.to_owned(),
            log: Log::open(log),
            said: said.clone(),
            typed,
            connected,
        };
        let line = Line {
            said,
            input,
            connected: seen,
        };
        (line, work.run())
    }

    /// Returns once the line is held, or after a second.
    pub(super) async fn held(&self) {
        let mut connected = self.connected.clone();
        let wait = connected.wait_for(|c| *c);
        let _ = tokio::time::timeout(Duration::from_secs(1), wait).await;
    }

    /// Opens it.
    pub(super) fn open(&self) -> Console {
        let said = self.said.lock();
        Console {
            before: Bytes::copy_from_slice(&said.last),
            output: said.output.subscribe(),
            input: self.input.clone(),
        }
    }
}

struct Work {
    socket: PathBuf,
    log: Log,
    said: Arc<Mutex<Said>>,
    typed: mpsc::Receiver<Bytes>,
    connected: watch::Sender<bool>,
}

impl Work {
    async fn run(mut self) {
        let mut pause = Duration::from_millis(2);
        loop {
            if let Ok(stream) = UnixStream::connect(&self.socket).await {
                self.connected.send_replace(true);
                pause = Duration::from_millis(100);
                self.serve(stream).await;
                self.connected.send_replace(false);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    async fn serve(&mut self, stream: UnixStream) {
        let (mut from, mut to) = stream.into_split();
        let mut buffer = vec![0; 8192];
        loop {
            tokio::select! {
                read = from.read(&mut buffer) => match read {
                    Ok(0) | Err(_) => return,
                    Ok(n) => self.heard(&buffer[..n]),
                },
                typed = self.typed.recv() => match typed {
                    Some(bytes) => {
                        if to.write_all(&bytes).await.is_err() {
                            return;
                        }
                    }
                    None => return,
                },
            }
        }
    }

    fn heard(&mut self, bytes: &[u8]) {
        self.log.append(bytes);
        let mut said = self.said.lock();
        said.last.extend_from_slice(bytes);
        if said.last.len() > 2 * KEPT {
            let from = said.last.len() - KEPT;
            said.last = BytesMut::from(&said.last[from..]);
        }
        // Nobody listening is no failure.
        let _ = said.output.send(Bytes::copy_from_slice(bytes));
    }
}

/// What was said last, from the log and, when that has just begun anew, from the former one.
fn said_before(log: &Path) -> BytesMut {
    let mut bytes = std::fs::read(log).unwrap_or_default();
    if bytes.len() < KEPT {
        let mut former = std::fs::read(former(log)).unwrap_or_default();
        former.append(&mut bytes);
        bytes = former;
    }
    let from = bytes.len().saturating_sub(KEPT);
    BytesMut::from(&bytes[from..])
}

fn former(log: &Path) -> PathBuf {
    log.with_extension("log.1")
}

/// The bounded log: at most twice [`LOG`] with the former one. It lies in memory (`/run`), so a write does not wait. What it cannot write is only lost to later readers.
struct Log {
    path: PathBuf,
    file: Option<File>,
    len: u64,
}

impl Log {
    fn open(path: PathBuf) -> Log {
        let file = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path);
        let file = file
            .inspect_err(
                |error| tracing::warn!(%error, path = %path.display(), "a console is not logged"),
            )
            .ok();
        let len = file
            .as_ref()
            .and_then(|f| f.metadata().ok())
            .map_or(0, |m| m.len());
        Log { path, file, len }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.len + bytes.len() as u64 > LOG {
            let _ = std::fs::rename(&self.path, former(&self.path));
            *self = Log::open(std::mem::take(&mut self.path));
        }
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_ok()
        {
            self.len += bytes.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_bounded_and_what_was_said_last_survives_its_turn() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let mut log = Log::open(path.clone());
        let mut all = Vec::new();
        for n in 0..40_000 {
            let line = format!("line {n}\r\n");
            log.append(line.as_bytes());
            all.extend(line.into_bytes());
            if n % 1000 == 0 {
                let kept = said_before(&path);
                assert_eq!(kept, all[all.len() - kept.len()..]);
                assert_eq!(kept.len(), all.len().min(KEPT));
            }
        }
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(size(&path) <= LOG && size(&former(&path)) <= LOG);
        assert!(all.len() as u64 > 4 * LOG);
    }
}
