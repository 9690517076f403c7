//! One connection: a task that owns the socket, and the handle that others hold.

use super::error::QmpError;
use super::wire::{Lines, Message};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a command may take unless told otherwise.
const COMMAND: Duration = Duration::from_secs(20);
/// Most commands that wait for their answer.
const WAITING: usize = 64;
/// Events kept for a slow subscriber; then it is told how many it missed.
const EVENTS: usize = 256;

/// Something that happened in QEMU.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name, such as `SHUTDOWN`.
    pub name: String,
    /// What it says; an empty object when nothing.
    pub data: Value,
    /// When, in microseconds since 1970 by the host's clock.
    pub at_micros: i64,
}

impl Event {
    /// A text within the event's data.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.data.get(key).and_then(Value::as_str)
    }
}

struct Request {
    command: String,
    line: Vec<u8>,
    id: u64,
    fd: Option<OwnedFd>,
    answer: oneshot::Sender<Result<Value, QmpError>>,
}

#[derive(Debug)]
struct Shared {
    requests: mpsc::Sender<Request>,
    events: broadcast::Sender<Arc<Event>>,
    version: (u32, u32, u32),
    next_id: std::sync::atomic::AtomicU64,
    why_closed: Arc<Mutex<Option<String>>>,
    /// Ends the task when the last handle goes.
    _task: JoinSet<()>,
}

/// A connection to one QEMU. Cheap to clone; the socket closes with the last clone.
#[derive(Debug, Clone)]
pub struct Qmp {
    shared: Arc<Shared>,
}

impl Qmp {
    /// Connects and negotiates, within `limit` for all of it. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// When nobody listens, or no greeting comes.
    pub async fn connect(path: &Path, limit: Duration) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(path)
            .await
            .map_err(|error| QmpError::Connect {
                path: path.to_owned(),
                cause: error.to_string(),
            })?;
        match timeout(limit, Self::negotiate(stream)).await {
            Ok(done) => done,
            Err(_) => Err(QmpError::NoGreeting {
                path: path.to_owned(),
                after: limit,
            }),
        }
    }

    /// Negotiates on a connected socket.
    ///
    /// # Errors
    /// When the other side is no QMP server or goes away.
    pub async fn negotiate(stream: UnixStream) -> Result<Self, QmpError> {
        let closed = |why: String| QmpError::Closed { why };
        let mut lines = Lines::default();
        let version = loop {
            if let Some(line) = lines.next().map_err(|error| closed(error.to_string()))? {
                match Message::parse(&line) {
                    Ok(Message::Greeting { version, .. }) => break version,
                    Ok(_) => return Err(closed("the first message is no greeting".to_owned())),
                    Err(error) => return Err(closed(error.to_string())),
                }
            }
            fill(&stream, &mut lines).await.map_err(closed)?;
        };
        let (requests, queue) = mpsc::channel(WAITING);
        let (events, _) = broadcast::channel(EVENTS);
        let why_closed = Arc::new(Mutex::new(None));
        let mut task = JoinSet::new();
        let connection = Connection {
            stream,
            lines,
            queue,
            events: events.clone(),
            waiting: HashMap::new(),
            out: VecDeque::new(),
        };
        let why = why_closed.clone();
        task.spawn(async move { connection.run(&why).await });
        let qmp = Self {
            shared: Arc::new(Shared {
                requests,
                events,
                version,
                next_id: std::sync::atomic::AtomicU64::new(1),
                why_closed,
                _task: task,
            }),
        };
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// QEMU's version from its greeting: major, minor, micro. For messages; features are probed, never guessed from it.
    pub fn version(&self) -> (u32, u32, u32) {
        self.shared.version
    }

    /// Events from now on. A receiver that falls behind is told how many it missed; then ask for the state again.
    pub fn events(&self) -> broadcast::Receiver<Arc<Event>> {
        self.shared.events.subscribe()
    }

    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        self.shared.requests.is_closed()
    }

    /// Returns when the connection is over.
    pub async fn closed(&self) {
        self.shared.requests.closed().await;
    }

    /// Sends a command and waits for its result, 20 s at most. `arguments` is an object, or null for none.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn execute(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.send(command, arguments, None, COMMAND).await
    }

    /// As [`Qmp::execute`], with another time limit.
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn execute_within(
        &self,
        command: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        self.send(command, arguments, None, limit).await
    }

    /// As [`Qmp::execute`], and passes a descriptor along (for `getfd` and `add-fd`).
    ///
    /// # Errors
    /// See [`QmpError`].
    pub async fn execute_with_fd(
        &self,
        command: &str,
        arguments: Value,
        fd: OwnedFd,
    ) -> Result<Value, QmpError> {
        self.send(command, arguments, Some(fd), COMMAND).await
    }

    /// As [`Qmp::execute`], with the result read into a type.
    ///
    /// # Errors
    /// [`QmpError::Unexpected`] when it does not fit, else as [`Qmp::execute`].
    pub async fn query<T: DeserializeOwned>(
        &self,
        command: &str,
        arguments: Value,
    ) -> Result<T, QmpError> {
        let value = self.execute(command, arguments).await?;
        serde_json::from_value(value).map_err(|error| QmpError::Unexpected {
            command: command.to_owned(),
            cause: error.to_string(),
        })
    }

    async fn send(
        &self,
        command: &str,
        arguments: Value,
        fd: Option<OwnedFd>,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        let id = self
            .shared
            .next_id
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            message["arguments"] = arguments;
        }
        let mut line = message.to_string().into_bytes();
        line.push(b'\n');
        let (answer, answered) = oneshot::channel();
        let request = Request {
            command: command.to_owned(),
            line,
            id,
            fd,
            answer,
        };
        let work = async {
            if self.shared.requests.send(request).await.is_err() {
                return Err(self.closed_error());
            }
            answered.await.unwrap_or_else(|_| Err(self.closed_error()))
        };
        let result = timeout(limit, work).await.unwrap_or_else(|_| {
            Err(QmpError::Timeout {
                command: command.to_owned(),
                after: limit,
            })
        });
        told(command, &result);
        result
    }

    fn closed_error(&self) -> QmpError {
        let why = self
            .shared
            .why_closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        QmpError::Closed {
            why: why.clone().unwrap_or_else(|| "QEMU closed it".to_owned()),
        }
    }
}

/// Logs a command, in the span of who asked: so it is found by the id of the request that led to it.
fn told(command: &str, result: &Result<Value, QmpError>) {
    let error = result.as_ref().err().map(tracing::field::display);
    // What only looks is asked all the time.
    if command.starts_with("query-") || command.starts_with("qom-") || command == "qmp_capabilities"
    {
        tracing::debug!(command, error, "QMP command");
    } else {
        tracing::info!(command, error, "QMP command");
    }
}

/// Waits for bytes and takes them. An error is why there will be no more.
async fn fill(stream: &UnixStream, lines: &mut Lines) -> Result<(), String> {
    loop {
        let ready = stream.readable().await;
        ready.map_err(|error| error.to_string())?;
        if take(stream, lines)? {
            return Ok(());
        }
    }
}

/// Takes what is there; `false` when nothing is.
fn take(stream: &UnixStream, lines: &mut Lines) -> Result<bool, String> {
    let mut chunk = [0; 16 * 1024];
    match stream.try_read(&mut chunk) {
        Ok(0) => Err("QEMU closed it".to_owned()),
        Ok(n) => {
            lines.push(&chunk[..n]);
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

struct Waiting {
    command: String,
    answer: oneshot::Sender<Result<Value, QmpError>>,
}

struct Connection {
    stream: UnixStream,
    lines: Lines,
    queue: mpsc::Receiver<Request>,
    events: broadcast::Sender<Arc<Event>>,
    waiting: HashMap<u64, Waiting>,
    out: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

impl Connection {
    async fn run(mut self, why_closed: &Mutex<Option<String>>) {
        let why = loop {
            if let Err(why) = self.read_lines() {
                break why;
            }
            let interest = if self.out.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            // Both at once, so that QEMU blocked on writing to us never meets us blocked on writing to it.
            tokio::select! {
                ready = self.stream.ready(interest) => match ready {
                    Ok(ready) => {
                        if ready.is_writable() && let Err(why) = self.write() {
                            break why;
                        }
                        if (ready.is_readable() || ready.is_read_closed())
                            && let Err(why) = take(&self.stream, &mut self.lines)
                        {
                            // What came before the end still counts.
                            let _ = self.read_lines();
                            break why;
                        }
                    }
                    Err(error) => break error.to_string(),
                },
                request = self.queue.recv(), if self.out.len() < WAITING => match request {
                    Some(request) => self.admit(request),
                    None => return,
                },
            }
        };
        *why_closed.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.clone());
        self.queue.close();
        for (_, waiting) in self.waiting.drain() {
            let _ = waiting
                .answer
                .send(Err(QmpError::Closed { why: why.clone() }));
        }
    }

    fn admit(&mut self, request: Request) {
        // Those whose caller has stopped waiting make room.
        self.waiting
            .retain(|_, waiting| !waiting.answer.is_closed());
        if request.answer.is_closed() {
            return;
        }
        if self.waiting.len() >= WAITING {
            let _ = request.answer.send(Err(QmpError::Busy {
                command: request.command,
                waiting: WAITING,
            }));
            return;
        }
        self.out.push_back((request.line, request.fd));
        self.waiting.insert(
            request.id,
            Waiting {
                command: request.command,
                answer: request.answer,
            },
        );
    }

    fn write(&mut self) -> Result<(), String> {
        while let Some((line, fd)) = self.out.front_mut() {
            let raw: Vec<_> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
            let rights = [ControlMessage::ScmRights(&raw)];
            let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
            let socket = self.stream.as_raw_fd();
            let sent = self.stream.try_io(Interest::WRITABLE, || {
                let parts = [IoSlice::new(line)];
                Ok(sendmsg::<()>(
                    socket,
                    &parts,
                    control,
                    MsgFlags::MSG_NOSIGNAL,
                    None,
                )?)
            });
            match sent {
                Ok(n) => {
                    // The descriptor travels with the first byte.
                    *fd = None;
                    line.drain(..n);
                    if line.is_empty() {
                        self.out.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn read_lines(&mut self) -> Result<(), String> {
        while let Some(line) = self.lines.next().map_err(|error| error.to_string())? {
            match Message::parse(&line).map_err(|error| error.to_string())? {
                Message::Return { id, value } => self.answer(id, |_| Ok(value)),
                Message::Error {
                    id,
                    class,
                    description,
                } => self.answer(id, |command| {
                    Err(QmpError::Refused {
                        command,
                        class,
                        description,
                    })
                }),
                Message::Event {
                    name,
                    data,
                    at_micros,
                } => {
                    // Nobody listening is no failure.
                    let _ = self.events.send(Arc::new(Event {
                        name,
                        data,
                        at_micros,
                    }));
                }
                Message::Greeting { .. } => {}
            }
        }
        Ok(())
    }

    fn answer(&mut self, id: Option<u64>, result: impl FnOnce(String) -> Result<Value, QmpError>) {
        // An id nobody waits for belongs to a command that timed out.
        if let Some(waiting) = id.and_then(|id| self.waiting.remove(&id)) {
            let _ = waiting.answer.send(result(waiting.command));
        }
    }
}
