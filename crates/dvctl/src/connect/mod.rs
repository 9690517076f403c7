//! How `dvctl` reaches a server: a unix socket on this machine, or TLS with a saved login. It never trusts a
//! certificate authority that a person has not pinned, and never goes through a proxy.

mod http;
mod logins;
mod place;
mod resident;
mod socket;
mod successor;
mod tls;
mod tokens;

pub use self::http::{Answer, Client, Request, problem};
pub use logins::{Login, Logins, Tokens};
pub use place::{Place, Wish};
pub use resident::Resident;
pub use socket::{Frame, Socket};
pub use tls::{SeenCa, address, look};

use tokio::io::{AsyncRead, AsyncWrite};

/// A connection of either sort.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Text with everything escaped that may not stand in a path segment or a query value.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

/// A query string with its `?`, empty when there is no pair.
pub fn query(pairs: &[(&str, String)]) -> String {
    let joined = pairs
        .iter()
        .map(|(k, v)| format!("{}={}", escape(k), escape(v)))
        .collect::<Vec<_>>()
        .join("&");
    if joined.is_empty() {
        joined
    } else {
        format!("?{joined}")
    }
}
