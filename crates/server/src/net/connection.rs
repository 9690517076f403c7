//! Accepts connections and serves HTTP on each: handshake and head time-outs, caps, graceful end.
//!
//! Every connection is a task of the listener's own set, so that none outlives the server.

use super::peer::{Leaf, Peer};
use crate::Limits;
use axum::body::Body;
use axum::response::Response;
use futures::future::BoxFuture;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use parking_lot::Mutex;
use rustls::ServerConfig;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Streams of one connection that may be reset before anybody has looked at them.
const RESETS: usize = 32;

/// Answers one request.
pub(crate) type Answerer =
    Arc<dyn Fn(Peer, Request<Body>) -> BoxFuture<'static, Response> + Send + Sync>;

/// What all listeners of a server share.
#[derive(Clone)]
pub(crate) struct Doors {
    limits: Arc<Limits>,
    places: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    /// Connections finish what they do and take nothing new.
    closing: CancellationToken,
    /// Connections end now.
    abort: CancellationToken,
}

impl Doors {
    pub(crate) fn new(
        limits: Arc<Limits>,
        closing: CancellationToken,
        abort: CancellationToken,
    ) -> Doors {
        Doors {
            places: Arc::new(Semaphore::new(limits.connections)),
            by_address: Arc::default(),
            limits,
            closing,
            abort,
        }
    }

    /// A place for one connection, or none when the house is full.
    fn place(&self, from: Option<IpAddr>) -> Option<Place> {
        let permit = self.places.clone().try_acquire_owned().ok()?;
        let address = from.map(runtime::limit::network);
        if let Some(address) = address {
            let mut by_address = self.by_address.lock();
            let count = by_address.entry(address).or_insert(0);
            if *count >= self.limits.connections_per_address {
                return None;
            }
            *count += 1;
        }
        Some(Place {
            address,
            by_address: self.by_address.clone(),
            _permit: permit,
        })
    }
}

/// A place taken by one connection; given back when dropped.
struct Place {
    address: Option<IpAddr>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            let mut by_address = self.by_address.lock();
            if let Some(count) = by_address.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    by_address.remove(&address);
                }
            }
        }
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
    pub(crate) async fn tls(self, listener: TcpListener, config: Arc<ServerConfig>) {
        let tls = TlsAcceptor::from(config);
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
                    let Some(place) = self.doors.place(Some(at.ip())) else {
                        tracing::debug!(peer = %at, "a connection was closed: too many are open");
                        continue;
                    };
                    let (this, tls) = (self.clone(), tls.clone());
                    open.spawn(async move {
                        this.handshake(tls, stream, at).await;
                        drop(place);
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
                    let Some(place) = self.doors.place(None) else {
                        continue;
                    };
                    let this = self.clone();
                    open.spawn(async move {
                        this.local(stream).await;
                        drop(place);
                    });
                }
                Err(error) => pause(&error).await,
            }
        }
        drop(listener);
        while open.join_next().await.is_some() {}
    }

    async fn local(self, stream: UnixStream) {
        match stream.peer_cred() {
            Ok(who) => {
                self.serve(stream, Peer::Local { uid: who.uid() }, Http::Both)
                    .await
            }
            Err(error) => tracing::warn!(%error, "the kernel does not say who a local peer is"),
        }
    }

    async fn handshake(self, tls: TlsAcceptor, stream: TcpStream, at: std::net::SocketAddr) {
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
        self.serve(stream, Peer::Remote { at, leaf }, http).await;
    }

    async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Peer,
        http: Http,
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
        let asked = Arc::new(AtomicBool::new(false));
        let asked_in = asked.clone();
        let head = limits.head;
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            asked_in.store(true, Ordering::Relaxed);
            let answered = answer(peer.clone(), request.map(Body::new));
            async move { Ok::<_, Infallible>(answered.await) }
        });
        // hyper times heads only once it knows the version; this covers a peer that never gets so far.
        let begun = asked.clone();
        let silent = async move {
            tokio::time::sleep(head).await;
            if begun.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::pin!(silent);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut told = false;
        loop {
            tokio::select! {
                () = self.doors.abort.cancelled() => return,
                () = &mut silent => return,
                () = self.doors.closing.cancelled(), if !told => {
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
