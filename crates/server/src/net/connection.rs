//! Accepts connections and serves HTTP on each: handshake and head time-outs, caps, graceful end.
//!
//! Every connection is a task of the listener's own set, so that none outlives the server.

use super::peer::{Leaf, Peer};
use super::tls::Tls;
use crate::Limits;
use axum::body::Body;
use axum::response::Response;
use futures::future::BoxFuture;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Streams of one connection that may be reset before anybody has looked at them.
const RESETS: usize = 32;
/// How long who was let in may take to ask for the first time when all are asked to go.
const FIRST: Duration = Duration::from_secs(1);

/// Answers one request.
pub(crate) type Answerer =
    Arc<dyn Fn(Peer, Request<Body>) -> BoxFuture<'static, Response> + Send + Sync>;

/// What all listeners of a server share.
#[derive(Clone)]
pub(crate) struct Doors {
    limits: Arc<Limits>,
    /// Besides root, the uid that may always come in by the local socket.
    owner: u32,
    network: Arc<Semaphore>,
    local: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<Whose, usize>>>,
    /// Connections finish what they do and take nothing new.
    closing: CancellationToken,
    /// Connections end now.
    abort: CancellationToken,
}

/// Whose connections are counted together.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Address(IpAddr),
    Uid(u32),
}

impl Doors {
    pub(crate) fn new(
        limits: Arc<Limits>,
        owner: u32,
        closing: CancellationToken,
        abort: CancellationToken,
    ) -> Doors {
        Doors {
            network: Arc::new(Semaphore::new(limits.connections)),
            local: Arc::new(Semaphore::new(limits.local_connections)),
            taken: Arc::default(),
            owner,
            limits,
            closing,
            abort,
        }
    }

    /// A place for one connection, or none when the house is full. Local ones have places of their own, and root and the
    /// owner of the instance always have one: they are the way in when everything else is closed.
    fn place(&self, peer: &Peer) -> Option<Place> {
        let (whose, places, most) = match peer {
            Peer::Local { uid } if *uid == 0 || *uid == self.owner => return Some(Place::default()),
            Peer::Local { uid } => (
                Whose::Uid(*uid),
                &self.local,
                self.limits.connections_per_uid,
            ),
            Peer::Remote { at, .. } => (
                Whose::Address(runtime::limit::network(at.ip())),
                &self.network,
                self.limits.connections_per_address,
            ),
        };
        let permit = places.clone().try_acquire_owned().ok()?;
        let mut taken = self.taken.lock();
        let count = taken.entry(whose).or_insert(0);
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place {
            _taken: Some(Taken {
                whose,
                taken: self.taken.clone(),
                _permit: permit,
            }),
        })
    }
}

/// A place taken by one connection; given back when dropped. A socket that a connection has become holds it on.
#[derive(Default)]
pub(crate) struct Place {
    _taken: Option<Taken>,
}

struct Taken {
    whose: Whose,
    taken: Arc<Mutex<HashMap<Whose, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Some(count) = taken.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.whose);
            }
        }
    }
}

/// What goes on on a connection: it ends when nothing has for a while.
struct Pulse {
    /// Held once here, once by each request, and by each socket that the connection has become or carries.
    place: Arc<Place>,
    begun: Instant,
    /// Requests that are not answered to the last byte.
    busy: AtomicUsize,
    /// Milliseconds after `begun` of the last request that was let in, or of its end.
    last: AtomicU64,
    asked: AtomicBool,
    /// Told when it asks for the first time.
    came: Notify,
}

impl Pulse {
    fn new(place: Place) -> Arc<Pulse> {
        Arc::new(Pulse {
            place: Arc::new(place),
            begun: Instant::now(),
            busy: AtomicUsize::new(0),
            last: AtomicU64::new(0),
            asked: AtomicBool::new(false),
            came: Notify::new(),
        })
    }

    fn begins(self: &Arc<Self>) -> Busy {
        if !self.asked.swap(true, Ordering::Relaxed) {
            self.came.notify_one();
        }
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy {
            pulse: self.clone(),
            counts: true,
        }
    }

    fn beat(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Resolves when for so long nothing was asked that was let in, and nothing is being answered.
    async fn stops(&self, patience: Duration) {
        loop {
            let quiet = self
                .begun
                .elapsed()
                .saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)));
            let idle =
                self.busy.load(Ordering::Relaxed) == 0 && Arc::strong_count(&self.place) == 1;
            if idle && quiet >= patience {
                return;
            }
            let wait = if idle { patience - quiet } else { patience };
            tokio::time::sleep(wait).await;
        }
    }
}

/// One request that is being answered.
struct Busy {
    pulse: Arc<Pulse>,
    /// Whether its end keeps the connection alive.
    counts: bool,
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.counts {
            self.pulse.beat();
        }
        self.pulse.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that says when it is through.
struct Told {
    body: Body,
    _busy: Busy,
}

impl http_body::Body for Told {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Which HTTP a connection speaks.
#[derive(Clone, Copy)]
enum Http {
    One,
    Two,
    Both,
}

/// One sort of listener: how its connections begin and who answers them.
#[derive(Clone)]
pub(crate) struct Acceptor {
    doors: Doors,
    answer: Answerer,
}

impl Acceptor {
    pub(crate) fn new(doors: Doors, answer: Answerer) -> Acceptor {
        Acceptor { doors, answer }
    }

    /// Accepts TLS connections until closing; ends when the last of them has ended.
    pub(crate) async fn tls(self, listener: TcpListener, tls: Arc<Tls>) {
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.doors.closing.cancelled() => break,
                Some(_) = open.join_next(), if !open.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, at)) => {
                    let peer = Peer::Remote { at, leaf: None };
                    let Some(place) = self.doors.place(&peer) else {
                        tracing::debug!(peer = %at, "a connection was closed: too many are open");
                        continue;
                    };
                    let (this, tls) = (self.clone(), TlsAcceptor::from(tls.now()));
                    open.spawn(async move {
                        this.handshake(tls, stream, at, place).await;
                    });
                }
                Err(error) => pause(&error).await,
            }
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    /// Accepts local connections until closing; ends when the last of them has ended.
    pub(crate) async fn unix(self, listener: UnixListener) {
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.doors.closing.cancelled() => break,
                Some(_) = open.join_next(), if !open.is_empty() => continue,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let peer = match stream.peer_cred() {
                        Ok(who) => Peer::Local { uid: who.uid() },
                        Err(error) => {
                            tracing::warn!(%error, "the kernel does not say who a local peer is");
                            continue;
                        }
                    };
                    let Some(place) = self.doors.place(&peer) else {
                        tracing::debug!("a local connection was closed: too many are open");
                        continue;
                    };
                    open.spawn(self.clone().serve(stream, peer, Http::Both, place));
                }
                Err(error) => pause(&error).await,
            }
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    async fn handshake(
        self,
        tls: TlsAcceptor,
        stream: TcpStream,
        at: std::net::SocketAddr,
        place: Place,
    ) {
        let _ = stream.set_nodelay(true);
        let shaken = tokio::time::timeout(self.doors.limits.handshake, tls.accept(stream));
        let stream = tokio::select! {
            () = self.doors.abort.cancelled() => return,
            shaken = shaken => match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::debug!(peer = %at, %error, "a TLS handshake failed");
                    return;
                }
                Err(_) => {
                    tracing::debug!(peer = %at, "a TLS handshake took too long");
                    return;
                }
            },
        };
        let session = stream.get_ref().1;
        let leaf = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .map(|leaf| Leaf::new(leaf.as_ref()));
        let http = match session.alpn_protocol() {
            Some(b"h2") => Http::Two,
            _ => Http::One,
        };
        self.serve(stream, Peer::Remote { at, leaf }, http, place)
            .await;
    }

    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        http: Http,
        place: Place,
    ) {
        let limits = &self.doors.limits;
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_headers(limits.headers)
            .max_buf_size(limits.head_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(limits.head_bytes as u32)
            .max_concurrent_streams(limits.streams)
            // Streams that are opened and reset at once (CVE-2023-44487) end the connection, as do streams that break rules.
            .max_pending_accept_reset_streams(RESETS)
            .max_local_error_reset_streams(RESETS)
            .keep_alive_interval(Some(Duration::from_secs(20)))
            .keep_alive_timeout(Duration::from_secs(20))
            .adaptive_window(true)
            .enable_connect_protocol();
        let builder = match http {
            Http::Both => builder,
            Http::One => builder.http1_only(),
            Http::Two => builder.http2_only(),
        };
        let answer = self.answer.clone();
        let pulse = Pulse::new(place);
        let beats = pulse.clone();
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            let mut busy = beats.begins();
            request.extensions_mut().insert(beats.place.clone());
            let answered = answer(peer.clone(), request.map(Body::new));
            async move {
                let response = answered.await;
                // Who is sent away keeps no connection open by asking again.
                busy.counts = response.status() != StatusCode::TOO_MANY_REQUESTS;
                let told = |body| Body::new(Told { body, _busy: busy });
                Ok::<_, Infallible>(response.map(told))
            }
        });
        // hyper knows no idle HTTP/2 connection, and times heads only once it knows the version.
        let idle = pulse.stops(limits.head);
        tokio::pin!(idle);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let closing = async {
            self.doors.closing.cancelled().await;
            // hyper hangs up unread on who was accepted and has not asked yet.
            if !pulse.asked.load(Ordering::Relaxed) {
                let _ = tokio::time::timeout(FIRST, pulse.came.notified()).await;
            }
        };
        tokio::pin!(closing);
        let mut told = false;
        loop {
            tokio::select! {
                () = self.doors.abort.cancelled() => return,
                () = &mut idle => {
                    if told || !pulse.asked.load(Ordering::Relaxed) {
                        return;
                    }
                    // It is said goodbye to, and hung up on when it does not go.
                    told = true;
                    connection.as_mut().graceful_shutdown();
                    idle.set(pulse.stops(limits.head * 2));
                }
                () = &mut closing, if !told => {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection broke");
                    }
                    return;
                }
            }
        }
    }
}

/// A failed accept (too many open files, say) must not spin.
async fn pause(error: &std::io::Error) {
    tracing::warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_whose_they_are() {
        let limits = Limits {
            connections: 3,
            connections_per_address: 2,
            local_connections: 3,
            connections_per_uid: 2,
            ..Limits::default()
        };
        let (closing, abort) = (CancellationToken::new(), CancellationToken::new());
        let doors = Doors::new(Arc::new(limits), 7, closing, abort);
        let net = |at: &str| Peer::Remote {
            at: at.parse().unwrap(),
            leaf: None,
        };
        let uid = |uid| Peer::Local { uid };
        let mut held = Vec::new();
        for (peer, fits) in [
            (net("192.0.2.1:1"), true),
            (net("192.0.2.1:2"), true),
            (net("192.0.2.1:3"), false),
            (net("192.0.2.2:1"), true),
            // The network is full, the local socket is not.
            (net("192.0.2.3:1"), false),
            (uid(1000), true),
            (uid(1000), true),
            (uid(1000), false),
            (uid(1001), true),
            // It is now; root and the owner come in all the same.
            (uid(1002), false),
            (uid(0), true),
            (uid(7), true),
        ] {
            let place = doors.place(&peer);
            assert_eq!(place.is_some(), fits, "{:?}", peer.ip());
            held.extend(place);
        }
        held.clear();
        assert!(doors.taken.lock().is_empty());
        assert!(doors.place(&uid(1002)).is_some());
    }
}
