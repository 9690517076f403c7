//! The numbers that bound what one peer can take from us.

use std::time::Duration;

/// Bounds of the listeners. The defaults are those of the reference; a benchmark prints what it ran with.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections over all listeners of the network. More are closed at once.
    pub connections: usize,
    /// Open connections on the local socket of everybody but root and the owner of the instance, who are not counted.
    pub local_connections: usize,
    /// Of these, from one uid.
    pub connections_per_uid: usize,
    /// Open connections from one address (an IPv6 address counts as its /64).
    pub connections_per_address: usize,
    /// WebSockets that one user may have open, through all his sessions and keys.
    pub sockets_per_user: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for the head of a request, and how long a connection is kept on which nothing is asked and answered.
    pub head: Duration,
    /// Time for a whole JSON body to arrive.
    pub body: Duration,
    /// Bytes of all headers of a request. More is 431.
    pub head_bytes: usize,
    /// Number of headers of a request. More is 431.
    pub headers: usize,
    /// Bytes of a JSON body. More is 413. An object may be 256 KiB; a patch or a file of cloud-init text fits.
    pub body_bytes: usize,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// How often a watch or a socket is pinged.
    pub ping: Duration,
    /// A peer that does not answer a ping for this long is gone.
    pub pong: Duration,
    /// Shutdown: how long `/health/ready` fails while requests are still taken.
    pub drain: Duration,
    /// Shutdown: how long requests in flight may take after that.
    pub complete: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 4096,
            local_connections: 1024,
            connections_per_uid: 64,
            connections_per_address: 512,
            sockets_per_user: 100,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(15),
            body: Duration::from_secs(30),
            head_bytes: 64 * 1024,
            headers: 100,
            body_bytes: 1024 * 1024,
            streams: 128,
            ping: Duration::from_secs(5),
            pong: Duration::from_secs(10),
            drain: Duration::from_secs(5),
            complete: Duration::from_secs(20),
        }
    }
}
