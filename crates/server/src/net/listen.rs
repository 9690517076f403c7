//! Binds what the server listens on, or takes it from systemd.

use super::systemd;
use model::{Error, Result};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// What a server listens on. Every socket is already bound, so that a port in use is known before anything starts.
#[derive(Default)]
pub struct Listeners {
    /// HTTPS: panel, REST, GraphQL, watch, streams.
    pub https: Vec<TcpListener>,
    /// gRPC over TLS with a required client certificate.
    pub grpc: Vec<TcpListener>,
    /// The same HTTP without TLS, for local programs; the kernel says who calls.
    pub unix: Vec<UnixListener>,
}

impl Listeners {
    /// Nothing yet.
    pub fn new() -> Listeners {
        Listeners::default()
    }

    /// Sockets that systemd holds for us (`LISTEN_FDS`), told apart by `FileDescriptorName=` `https`, `grpc`, `api`.
    /// Empty when there are none. Call it once, before anything else opens files.
    pub fn systemd() -> Result<Listeners> {
        systemd::take()
    }

    /// Whether nothing is bound.
    pub fn is_empty(&self) -> bool {
        self.https.is_empty() && self.grpc.is_empty() && self.unix.is_empty()
    }

    /// Binds HTTPS. Port 0 lets the kernel choose; the address that was bound comes back.
    pub async fn bind_https(&mut self, at: SocketAddr) -> Result<SocketAddr> {
        let (listener, at) = tcp(at, "https").await?;
        self.https.push(listener);
        Ok(at)
    }

    /// Binds gRPC. Port 0 lets the kernel choose; the address that was bound comes back.
    pub async fn bind_grpc(&mut self, at: SocketAddr) -> Result<SocketAddr> {
        let (listener, at) = tcp(at, "grpc").await?;
        self.grpc.push(listener);
        Ok(at)
    }

    /// Binds the local socket, mode 0660. A socket that nobody listens on is replaced; a live one is refused.
    pub async fn bind_unix(&mut self, at: &Path) -> Result<()> {
        let trouble = |what: &str, e: std::io::Error| {
            Error::refused(format!("cannot {what} the socket {}: {e}", at.display()))
        };
        if let Ok(meta) = std::fs::symlink_metadata(at) {
            if !meta.file_type().is_socket() {
                return Err(
                    Error::refused(format!("{} exists and is not a socket", at.display()))
                        .hint("move the file away or set another run folder"),
                );
            }
            if UnixStream::connect(at).await.is_ok() {
                return Err(
                    Error::refused(format!("another process listens on {}", at.display()))
                        .hint("stop the other daemon, or give this instance another name"),
                );
            }
            std::fs::remove_file(at).map_err(|e| trouble("replace", e))?;
        }
        let listener = UnixListener::bind(at).map_err(|e| trouble("bind", e))?;
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o660))
            .map_err(|e| trouble("protect", e))?;
        self.unix.push(listener);
        Ok(())
    }
}

async fn tcp(at: SocketAddr, what: &str) -> Result<(TcpListener, SocketAddr)> {
    let bound = async {
        let listener = TcpListener::bind(at).await?;
        let at = listener.local_addr()?;
        Ok::<_, std::io::Error>((listener, at))
    };
    bound.await.map_err(|e| {
        let error = Error::refused(format!("cannot listen for {what} on {at}: {e}"));
        match e.kind() {
            std::io::ErrorKind::AddrInUse => error.hint(format!(
                "`ss -ltnp 'sport = :{}'` shows who has the port; stop it, or set another {what} address",
                at.port()
            )),
            std::io::ErrorKind::AddrNotAvailable => {
                error.hint("no interface has this address; use 0.0.0.0 or [::] for all")
            }
            _ => error,
        }
    })
}
