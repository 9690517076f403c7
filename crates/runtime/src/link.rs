//! The link between an agent and an api process: one connection, dialled by the agent, that carries many streams.
//!
//! Over it run the agent's store access, its events and task lines, and the streams of its guests. Locally it is a unix
//! socket whose peer must be root or the user that the api runs as (SO_PEERCRED).
//!
//! Each stream begins with one JSON line that says what it is; object streams go on in frames of
//! `length u32 | sort u8 | payload`.

mod ask;
mod connection;
mod frames;
mod scope;

use crate::event::{Event, EventLog};
use crate::resilience::{Retry, Standing};
use crate::task::{Line, LineLog};
use crate::{Cx, Msg, StreamIo, StreamRequest};
use connection::Mux;
use futures::future::BoxFuture;
use model::{Error, ObjectRef, Result, Uid};
use parking_lot::Mutex;
use scope::NodeScope;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::remote::{BoxIo, OpenStream};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

/// Longest first line of a stream: a request with an object in it.
const MAX_GREETING: usize = 2 * store::MAX_VALUE;

/// How the socket is dialled again, and streams are asked for again, while the other side refuses.
const DIAL: Retry = Retry {
    tries: u32::MAX,
    base: Duration::from_millis(50),
    cap: Duration::from_secs(2),
};

/// How long a call waits for a connection.
const SOON: Duration = Duration::from_secs(2);

/// How often it is told at most how dependencies stand.
const CALM: Duration = Duration::from_secs(1);

/// What a stream of the link is.
#[derive(Serialize, Deserialize)]
#[serde(tag = "open", rename_all = "snake_case")]
enum Hello {
    /// Store access.
    Store,
    /// Events, one JSON line each.
    Events,
    /// Lines of task logs, one JSON line each.
    Lines,
    /// How the agent's dependencies stand, one JSON line each time.
    Standings,
    /// A request of one of the agent's loops; the answer is one JSON document.
    Ask { ask: Box<ask::Ask> },
    /// A stream of an object.
    Stream { request: Box<StreamRequest> },
}

/// The agents that are connected to this api process.
#[derive(Clone, Default)]
pub struct Links(Arc<Mutex<Vec<Mux>>>);

impl Links {
    /// Whether any agent is connected.
    pub fn connected(&self) -> bool {
        self.0.lock().iter().any(|m| !m.closed())
    }

    /// Opens a stream of an object at its agent and runs it to its end.
    pub(crate) async fn open_stream(&self, request: StreamRequest, io: StreamIo) -> Result<()> {
        let mux = self.0.lock().iter().rev().find(|m| !m.closed()).cloned();
        let Some(mux) = mux else {
            return Err(
                Error::unavailable("the agent of this node is not connected")
                    .hint("is debvisord-agent running? see its log"),
            );
        };
        let mut stream = mux.open().await?;
        hello(
            &mut stream,
            &Hello::Stream {
                request: Box::new(request),
            },
        )
        .await?;
        frames::run(stream, io).await
    }
}

async fn hello(stream: &mut BoxIo, hello: &Hello) -> Result<()> {
    let mut line =
        serde_json::to_vec(hello).map_err(|e| Error::internal("link greeting").because(e))?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(broken)
}

fn broken(error: std::io::Error) -> Error {
    Error::unavailable("the link between api and agent broke").because(error)
}

/// Accepts agents at a unix socket until the process ends. Only these user ids may connect.
pub async fn serve(cx: Cx, listener: UnixListener, allowed: Vec<u32>) {
    let stop = cx.shutdown();
    let mut refused = 0;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(cred) if allowed.contains(&cred.uid()) => {
                    tracing::info!(uid = cred.uid(), pid = cred.pid(), "agent connected");
                    let (mux, inbound) = Mux::start(&cx, stream, yamux::Mode::Server);
                    cx.links().0.lock().retain(|m| !m.closed());
                    cx.links().0.lock().push(mux);
                    // On this machine there is one node: ours.
                    let scope = NodeScope::new(&cx, cx.node());
                    cx.life()
                        .spawn("link", accept(cx.clone(), inbound, Some(scope)));
                }
                Ok(cred) => tracing::warn!(
                    uid = cred.uid(),
                    "a user that is no agent was refused at the agent socket"
                ),
                Err(error) => tracing::warn!(%error, "peer of the agent socket is not known"),
            },
            // The machine refuses: it is short of descriptors or memory.
            Err(error) => {
                refused += 1;
                tracing::warn!(%error, "agent socket");
                tokio::time::sleep(DIAL.wait(refused, rand::random())).await;
                continue;
            }
        }
    }
}

/// Serves the streams that the other side opens. With a scope the other side is an agent, without one it is the api.
async fn accept(cx: Cx, mut inbound: mpsc::Receiver<BoxIo>, scope: Option<NodeScope>) {
    let stop = cx.shutdown();
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            stream = inbound.recv() => stream,
        };
        let Some(stream) = stream else { return };
        let (served, scope) = (cx.clone(), scope.clone());
        cx.life().spawn("link stream", async move {
            if let Err(error) = serve_one(served, stream, scope).await {
                tracing::debug!(%error, "stream of the link ended");
            }
        });
    }
}

async fn serve_one(cx: Cx, mut stream: BoxIo, scope: Option<NodeScope>) -> Result<()> {
    let mut line = Vec::new();
    // Byte by byte up to the newline, so that nothing behind it is swallowed by a buffer.
    loop {
        let byte = stream.read_u8().await.map_err(broken)?;
        if byte == b'\n' {
            break;
        }
        line.push(byte);
        if line.len() > MAX_GREETING {
            return Err(Error::unparseable("greeting of a link stream is too long"));
        }
    }
    let hello: Hello = serde_json::from_slice(&line)
        .map_err(|e| Error::unparseable("greeting of a link stream").because(e))?;
    match (hello, scope) {
        (Hello::Store, Some(scope)) => {
            let stop = cx.shutdown();
            let serve = store::remote::serve_store(stream, cx.store_handle(), Arc::new(scope));
            tokio::select! {
                () = stop.cancelled() => {}
                served = serve => served.map_err(broken)?,
            }
            Ok(())
        }
        (Hello::Ask { ask }, Some(scope)) => ask::answer(&cx, &scope, *ask, stream).await,
        (Hello::Events, Some(scope)) => {
            let mut lines = BufReader::new(stream).lines();
            while let Some(line) = lines.next_line().await.map_err(broken)? {
                if let Ok(event) = serde_json::from_str::<Event>(&line)
                    && scope.may_tell(&event)
                {
                    cx.events().accept(event).await;
                }
            }
            Ok(())
        }
        (Hello::Standings, Some(scope)) => {
            let mut lines = BufReader::new(stream).lines();
            let took = async {
                while let Some(line) = lines.next_line().await? {
                    if let Ok(standings) = serde_json::from_str::<Vec<Standing>>(&line) {
                        cx.dependencies().accept(scope.node(), standings);
                    }
                }
                Ok(())
            };
            let ended = took.await.map_err(broken);
            cx.dependencies().forget(scope.node());
            ended
        }
        (Hello::Lines, Some(scope)) => {
            let logs = crate::task::TaskLogs::of(&cx);
            let mut lines = BufReader::new(stream).lines();
            while let Some(line) = lines.next_line().await.map_err(broken)? {
                if let Ok(line) = serde_json::from_str::<Line>(&line)
                    && scope.runs_task(line.task)
                {
                    logs.accept(line).await;
                }
            }
            Ok(())
        }
        (Hello::Stream { request }, None) => {
            let (ours, theirs) = StreamIo::pair();
            let id = request.request_id.clone();
            let desk = cx.desk();
            let span = tracing::info_span!("stream", request_id = id, target = %request.target);
            let work = async move {
                let (rx, tx) = theirs.split();
                let refuse = tx.clone();
                let io = StreamIo::from_parts(rx, tx);
                if let Err(error) = desk.open_stream(*request, io).await {
                    let problem = serde_json::to_value(error.problem(&id)).unwrap_or_default();
                    let _ = refuse
                        .send(Msg::Control(serde_json::json!({ "error": problem })))
                        .await;
                }
            };
            let (carried, ()) = tokio::join!(frames::run(stream, ours), work.instrument(span));
            carried
        }
        (Hello::Stream { .. }, Some(_)) => Err(Error::denied("an agent opens no streams")),
        (_, None) => Err(Error::denied("the api reads nothing from an agent's store")),
    }
}

/// What waits to be sent to the api.
struct Queues {
    events: mpsc::Receiver<Event>,
    lines: mpsc::Receiver<Line>,
}

/// The agent's end: connects, reconnects, and is what its store, events and lines go through. Cheap to clone.
#[derive(Clone)]
pub struct AgentLink {
    path: PathBuf,
    mux: watch::Receiver<Option<Mux>>,
    found: watch::Sender<Option<Mux>>,
    inbound: Arc<Mutex<Option<mpsc::Receiver<mpsc::Receiver<BoxIo>>>>>,
    connections: mpsc::Sender<mpsc::Receiver<BoxIo>>,
    events: mpsc::Sender<Event>,
    lines: mpsc::Sender<Line>,
    queues: Arc<Mutex<Option<Queues>>>,
}

impl AgentLink {
    /// A link that will dial this socket; nothing happens before [`AgentLink::run`].
    pub fn new(path: &Path) -> AgentLink {
        let (found, mux) = watch::channel(None);
        let (connections, inbound) = mpsc::channel(4);
        let (events, event_queue) = mpsc::channel(4096);
        let (lines, line_queue) = mpsc::channel(4096);
        AgentLink {
            path: path.to_owned(),
            mux,
            found,
            inbound: Arc::new(Mutex::new(Some(inbound))),
            connections,
            events,
            lines,
            queues: Arc::new(Mutex::new(Some(Queues {
                events: event_queue,
                lines: line_queue,
            }))),
        }
    }

    /// Keeps the connection up for as long as the future is polled.
    pub async fn run(&self, stop: tokio_util::sync::CancellationToken) {
        let mut refused = 0;
        loop {
            match UnixStream::connect(&self.path).await {
                Ok(stream) => {
                    refused = 0;
                    let (mux, inbound, driver) = Mux::prepare(stream, yamux::Mode::Client);
                    self.found.send_replace(Some(mux.clone()));
                    let _ = self.connections.send(inbound).await;
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = driver => tracing::warn!("link to the api broke; dialling again"),
                    }
                    self.found.send_replace(None);
                }
                Err(error) => {
                    tracing::debug!(path = %self.path.display(), %error, "api does not answer");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(DIAL.wait(refused + 1, rand::random())) => refused += 1,
            }
        }
    }

    /// Serves what the api opens, and sends the queued events and lines, until the process ends.
    pub fn serve(&self, cx: &Cx) {
        if let Some(mut inbound) = self.inbound.lock().take() {
            let served = cx.clone();
            cx.life().spawn("link", async move {
                let stop = served.shutdown();
                loop {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        next = inbound.recv() => match next {
                            Some(streams) => served.life().spawn("link", accept(served.clone(), streams, None)),
                            None => return,
                        },
                    }
                }
            });
        }
        if let Some(Queues { events, lines }) = self.queues.lock().take() {
            cx.life().spawn(
                "link events",
                pump(self.clone(), cx.clone(), Hello::Events, events),
            );
            cx.life()
                .spawn("link standings", tell(self.clone(), cx.clone()));
            cx.life().spawn(
                "link lines",
                pump(self.clone(), cx.clone(), Hello::Lines, lines),
            );
        }
    }

    /// The connection, as soon as there is one that lives.
    async fn connection(&self) -> std::io::Result<Mux> {
        let mut mux = self.mux.clone();
        let lives = |mux: &Option<Mux>| mux.as_ref().is_some_and(|mux| !mux.closed());
        let found = mux.wait_for(lives).await.map_err(|_| gone())?;
        found.clone().ok_or_else(gone)
    }

    /// The connection, when there is one or comes one soon.
    async fn connected(&self) -> std::io::Result<Mux> {
        tokio::time::timeout(SOON, self.connection())
            .await
            .unwrap_or_else(|_| Err(gone()))
    }

    /// A new stream of this sort, as soon as there is a connection that gives one.
    async fn stream(&self, what: &Hello) -> BoxIo {
        let mut refused = 0;
        loop {
            let opened = async {
                let mut stream = self.connection().await.map_err(broken)?.open().await?;
                hello(&mut stream, what).await?;
                Ok::<_, Error>(stream)
            };
            match opened.await {
                Ok(stream) => return stream,
                Err(error) => {
                    refused += 1;
                    tracing::debug!(%error, "the api gives no stream");
                    tokio::time::sleep(DIAL.wait(refused, rand::random())).await;
                }
            }
        }
    }
}

fn gone() -> std::io::Error {
    std::io::Error::new(
        std::io::ErrorKind::NotConnected,
        "the api process does not answer",
    )
}

/// Sends queued values as JSON lines; what could not be sent is sent over the next connection.
async fn pump<T: Serialize>(link: AgentLink, cx: Cx, what: Hello, mut queue: mpsc::Receiver<T>) {
    let stop = cx.shutdown();
    let mut held: Option<Vec<u8>> = None;
    loop {
        let mut stream = tokio::select! {
            () = stop.cancelled() => return,
            stream = link.stream(&what) => stream,
        };
        loop {
            let line = match held.take() {
                Some(line) => line,
                None => tokio::select! {
                    () = stop.cancelled() => return,
                    value = queue.recv() => match value.map(|v| serde_json::to_vec(&v)) {
                        Some(Ok(mut line)) => {
                            line.push(b'\n');
                            line
                        }
                        Some(Err(_)) => continue,
                        None => return,
                    },
                },
            };
            if stream.write_all(&line).await.is_err() || stream.flush().await.is_err() {
                held = Some(line);
                break;
            }
        }
    }
}

/// Tells how the dependencies of this process stand, whenever that has changed.
async fn tell(link: AgentLink, cx: Cx) {
    let stop = cx.shutdown();
    let mut told = cx.dependencies().told();
    let work = async {
        loop {
            let mut stream = link.stream(&Hello::Standings).await;
            loop {
                told.mark_unchanged();
                let mut line = serde_json::to_vec(&cx.dependencies().ours()).unwrap_or_default();
                line.push(b'\n');
                if stream.write_all(&line).await.is_err() || stream.flush().await.is_err() {
                    break;
                }
                // The api says nothing here: what comes is its end.
                tokio::select! {
                    _ = stream.read_u8() => break,
                    _ = told.changed() => tokio::time::sleep(CALM).await,
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

impl OpenStream for AgentLink {
    fn open(&self) -> BoxFuture<'_, std::io::Result<BoxIo>> {
        Box::pin(async move {
            let mux = self.connected().await?;
            let mut stream = mux.open().await.map_err(std::io::Error::other)?;
            hello(&mut stream, &Hello::Store)
                .await
                .map_err(std::io::Error::other)?;
            Ok(stream)
        })
    }
}

impl EventLog for AgentLink {
    fn append(&self, event: Event) -> BoxFuture<'_, u64> {
        // A full queue means minutes without an api; then the oldest news matter least, and guests matter most.
        if self.events.try_send(event).is_err() {
            tracing::warn!("an event was dropped: the link is down and its queue is full");
        }
        Box::pin(async { 0 })
    }
    fn read(&self, _: u64, _: usize) -> BoxFuture<'_, Vec<Event>> {
        Box::pin(async { Vec::new() })
    }
    fn about<'a>(&'a self, _: &'a ObjectRef, _: usize) -> BoxFuture<'a, Vec<Event>> {
        Box::pin(async { Vec::new() })
    }
}

impl LineLog for AgentLink {
    fn append(&self, line: Line) -> BoxFuture<'_, ()> {
        if self.lines.try_send(line).is_err() {
            tracing::warn!("a task line was dropped: the link is down and its queue is full");
        }
        Box::pin(async {})
    }
    fn read(&self, _: Uid) -> BoxFuture<'_, Vec<Line>> {
        Box::pin(async { Vec::new() })
    }
}
