//! One connection to a server of a directory, with TLS and never without. It asks one thing at a time and waits for the
//! answer, so it needs no task of its own.

use super::filter::Filter;
use super::types::LdapTls;
use super::wire::{self, Answer, Entry, Outcome, Search, Where};
use crate::pin::{self, Trust};
use model::{Error, Result};
use runtime::Cx;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Entries of a page.
const PAGE: i32 = 500;
/// More is not taken of one search.
const MOST_ENTRIES: usize = 100_000;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub url: String,
    host: String,
    port: u16,
}

impl Server {
    /// Reads `ldaps://host[:port]`, or `ldap://` where TLS is asked for first.
    ///
    /// # Errors
    /// What is wrong with it, for who wrote it.
    pub(super) fn parse(url: &str, tls: LdapTls) -> Result<Server, String> {
        let (rest, usual) = match (
            url.strip_prefix("ldaps://"),
            url.strip_prefix("ldap://"),
            tls,
        ) {
            (Some(rest), _, LdapTls::Ldaps) => (rest, 636),
            (_, Some(rest), LdapTls::Starttls) => (rest, 389),
            (_, Some(_), LdapTls::Ldaps) => {
                return Err("would send passwords in the clear: write `ldaps://`, or set `tls` to `starttls`".into());
            }
            (Some(_), _, LdapTls::Starttls) => {
                return Err("has TLS from the first byte: write `ldap://` for `starttls`, or set `tls` to `ldaps`".into());
            }
            _ => return Err("is not the address of a directory: `ldaps://dc1.example.org`".into()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or("has a `[` without its `]`")?;
                (host, port.strip_prefix(':'))
            }
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            None => usual,
            Some(text) => match text.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err("has a port that is none".into()),
            },
        };
        match ServerName::try_from(host) {
            Ok(_) => Ok(Server {
                url: url.to_owned(),
                host: host.to_owned(),
                port,
            }),
            Err(_) => {
                Err("names no host: a DNS name or an address, and nothing behind the port".into())
            }
        }
    }

    fn down(&self, why: impl std::fmt::Display) -> Error {
        Error::unavailable(format!("{} {why}", self.url))
    }
}

/// Whom to trust: the authorities of a PEM text and no others, or those of this machine; and what is pinned. TLS 1.2 is
/// spoken too: domain controllers before Windows Server 2022 have nothing newer.
pub(super) fn trust(cx: &Cx, ca: Option<&str>) -> Result<Arc<ClientConfig>> {
    let trust = match ca {
        Some(pem) => Trust::Only(pem.to_owned()),
        None => Trust::System(None),
    };
    let mut config = pin::tls(cx, &trust)?;
    // Those are of HTTP.
    config.alpn_protocols.clear();
    Ok(Arc::new(config))
}

/// The certificates of a PEM text.
pub(super) fn roots(pem: &str) -> Result<RootCertStore> {
    let none = || {
        Error::field(
            "spec.ldap.ca",
            "holds no certificate that can be trusted, as PEM",
        )
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| none())?;
        roots.add(certificate).map_err(|_| none())?;
    }
    match roots.is_empty() {
        true => Err(none()),
        false => Ok(roots),
    }
}

/// As whom a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// As nobody, as it is made.
    Nobody,
    /// As the account that searches.
    Service,
    /// As a person who has proved who he is, or could not.
    Person,
}

/// What a search has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub entries: Vec<Entry>,
    /// How often it was said to look elsewhere, which is not done.
    pub elsewhere: usize,
    /// Whether there is more than was asked for.
    pub more: bool,
}

/// A connection.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    last: i32,
    server: Server,
    patience: Duration,
    /// As whom it speaks.
    pub bound: Bound,
    /// When it was last of use.
    pub used: Instant,
}

impl Connection {
    /// Connects; within this time, which each question has again.
    pub(super) async fn open(
        server: &Server,
        tls: LdapTls,
        trusted: &Arc<ClientConfig>,
        patience: Duration,
    ) -> Result<Connection> {
        let connecting = async {
            let tcp = TcpStream::connect((server.host.as_str(), server.port)).await;
            let mut tcp = tcp.map_err(|e| server.down("does not answer").because(e))?;
            let _ = tcp.set_nodelay(true);
            if tls == LdapTls::Starttls {
                ask_for_tls(&mut tcp, server).await?;
            }
            let name = ServerName::try_from(server.host.clone())
                .map_err(|_| server.down("has a name that no certificate can have"))?;
            TlsConnector::from(trusted.clone())
                .connect(name, tcp)
                .await
                // Why a certificate is not trusted must be read by who set it up.
                .map_err(|e| server.down(format!("cannot be trusted: {e}")))
        };
        let stream = timeout(patience, connecting)
            .await
            .map_err(|_| server.down(slow(patience)))??;
        Ok(Connection {
            stream,
            buffer: Vec::new(),
            last: 0,
            server: server.clone(),
            patience,
            bound: Bound::Nobody,
            used: Instant::now(),
        })
    }

    /// Proves who somebody is.
    pub(super) async fn bind(&mut self, dn: &str, password: &str) -> Result<Outcome> {
        // Without a password a server answers yes to any name (RFC 4513, 5.1.2): that proves nothing.
        if password.is_empty() || dn.is_empty() {
            return Ok(Outcome {
                code: wire::INVALID_CREDENTIALS,
                message: String::new(),
            });
        }
        self.bound = Bound::Person;
        self.say_who(dn, password).await
    }

    /// Speaks as nobody from here on.
    pub(super) async fn become_nobody(&mut self) -> Result<Outcome> {
        let outcome = self.say_who("", "").await?;
        self.bound = Bound::Nobody;
        Ok(outcome)
    }

    async fn say_who(&mut self, dn: &str, password: &str) -> Result<Outcome> {
        let id = self.next();
        self.send(&wire::bind(id, dn, password)).await?;
        match self.answer(id).await? {
            Answer::Bound(outcome) => self.passed(outcome),
            _ => Err(self.confused()),
        }
    }

    /// Searches, for a few entries or, in pages, for all.
    pub(super) async fn search(&mut self, search: &Search) -> Result<Found> {
        let mut found = Found::default();
        let mut cookie = Vec::new();
        let all = search.most == 0;
        let seconds = i32::try_from(self.patience.as_secs()).unwrap_or(i32::MAX);
        loop {
            let id = self.next();
            let page = all.then_some((PAGE, cookie.as_slice()));
            self.send(&wire::search(id, search, page, seconds)).await?;
            let (outcome, next) = loop {
                match self.answer(id).await? {
                    Answer::Found(entry) if found.entries.len() < MOST_ENTRIES => {
                        found.entries.push(entry);
                    }
                    Answer::Found(_) => {
                        return Err(self.refused(format!("gives more than {MOST_ENTRIES} entries")));
                    }
                    Answer::Elsewhere => found.elsewhere += 1,
                    Answer::Searched(outcome, next) => break (self.passed(outcome)?, next),
                    _ => return Err(self.confused()),
                }
            };
            match outcome.code {
                wire::SUCCESS => {}
                wire::SIZE_LIMIT if !all => found.more = true,
                wire::NO_SUCH_OBJECT => {
                    return Err(Error::not_found(format!(
                        "{} has no entry `{}`",
                        self.server.url, search.base
                    )));
                }
                _ => {
                    let why = format!(
                        "did not answer the search {}: {}",
                        search.filter,
                        outcome.told()
                    );
                    return Err(self.refused(why));
                }
            }
            if next.is_empty() || !all {
                return Ok(found);
            }
            if next == cookie {
                return Err(self.confused());
            }
            cookie = next;
        }
    }

    /// Whether an entry is there.
    pub(super) async fn has(&mut self, dn: &str) -> Result<bool> {
        let search = Search {
            base: dn.to_owned(),
            within: Where::Base,
            filter: Filter::Present("objectClass".into()),
            attributes: vec!["1.1".into()],
            most: 1,
        };
        match self.search(&search).await {
            Ok(found) => Ok(!found.entries.is_empty()),
            Err(error) if error.what == model::What::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says goodbye; nobody waits for whether it was heard.
    pub(super) async fn close(mut self) {
        let goodbye = wire::unbind(self.last.wrapping_add(1));
        let _ = timeout(Duration::from_secs(1), async {
            self.stream.write_all(&goodbye).await?;
            self.stream.shutdown().await
        })
        .await;
    }

    /// Where it goes.
    pub(super) fn url(&self) -> &str {
        &self.server.url
    }

    fn next(&mut self) -> i32 {
        self.last = self.last.checked_add(1).unwrap_or(1);
        self.last
    }

    async fn send(&mut self, message: &[u8]) -> Result<()> {
        let sending = async {
            self.stream.write_all(message).await?;
            self.stream.flush().await
        };
        match timeout(self.patience, sending).await {
            Ok(sent) => sent.map_err(|e| self.server.down("has closed the connection").because(e)),
            Err(_) => Err(self.server.down(slow(self.patience))),
        }
    }

    async fn answer(&mut self, id: i32) -> Result<Answer> {
        let reading = receive(&mut self.stream, &mut self.buffer, &self.server);
        let (of, answer) = timeout(self.patience, reading)
            .await
            .map_err(|_| self.server.down(slow(self.patience)))??;
        self.used = Instant::now();
        match (of, &answer) {
            (0, Answer::Extended(outcome)) => {
                Err(self.server.down(format!("has hung up: {}", outcome.told())))
            }
            (of, _) if of == id => Ok(answer),
            _ => Err(self.confused()),
        }
    }

    /// An outcome, unless it is that the server cannot answer now.
    fn passed(&self, outcome: Outcome) -> Result<Outcome> {
        match outcome.is_passing() {
            true => Err(self.server.down(outcome.told())),
            false => Ok(outcome),
        }
    }

    fn confused(&self) -> Error {
        self.server.down("answers something that LDAP has not")
    }

    fn refused(&self, why: String) -> Error {
        Error::refused(format!("{} {why}", self.server.url))
    }
}

fn slow(patience: Duration) -> String {
    format!("does not answer within {} s", patience.as_secs())
}

/// Asks, still without TLS, for TLS. Nothing else is ever said before it.
async fn ask_for_tls(tcp: &mut TcpStream, server: &Server) -> Result<()> {
    let gone = |e: std::io::Error| server.down("has closed the connection").because(e);
    tcp.write_all(&wire::start_tls(1)).await.map_err(gone)?;
    let mut buffer = Vec::new();
    match receive(tcp, &mut buffer, server).await? {
        (1, Answer::Extended(outcome)) if outcome.code == wire::SUCCESS => {}
        (_, Answer::Extended(outcome)) => {
            return Err(server.down(format!("does not begin TLS: {}", outcome.told())));
        }
        _ => return Err(server.down("answers something that LDAP has not")),
    }
    // What came in the clear behind the answer would be taken for what came through TLS.
    match buffer.is_empty() {
        true => Ok(()),
        false => Err(server.down("says more before TLS than it may")),
    }
}

/// Reads one message.
async fn receive<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    buffer: &mut Vec<u8>,
    server: &Server,
) -> Result<(i32, Answer)> {
    let malformed = |_| server.down("answers something that LDAP has not");
    loop {
        if let Some(length) = wire::length(buffer).map_err(malformed)?
            && buffer.len() >= length
        {
            let read = wire::read(&buffer[..length]).map_err(malformed)?;
            buffer.drain(..length);
            return Ok(read);
        }
        match stream.read_buf(buffer).await {
            Ok(0) => return Err(server.down("has closed the connection")),
            Ok(_) => {}
            Err(e) => return Err(server.down("has closed the connection").because(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (url, tls, host, port) in [
            (
                "ldaps://dc1.example.org",
                LdapTls::Ldaps,
                "dc1.example.org",
                636,
            ),
            ("ldaps://dc1:1636/", LdapTls::Ldaps, "dc1", 1636),
            ("ldap://10.0.0.1", LdapTls::Starttls, "10.0.0.1", 389),
            (
                "ldaps://[2001:db8::1]:636",
                LdapTls::Ldaps,
                "2001:db8::1",
                636,
            ),
        ] {
            let server = Server::parse(url, tls).unwrap();
            assert_eq!((server.host.as_str(), server.port), (host, port));
        }
    }

    #[test]
    fn nothing_goes_in_the_clear() {
        let wrong = Server::parse("ldap://dc1", LdapTls::Ldaps).unwrap_err();
        assert!(wrong.contains("in the clear"), "{wrong}");
        for (bad, tls) in [
            ("ldaps://dc1", LdapTls::Starttls),
            ("ldapi://%2frun%2fldapi", LdapTls::Ldaps),
            ("http://dc1", LdapTls::Ldaps),
            ("ldaps://", LdapTls::Ldaps),
            ("ldaps://dc1:0", LdapTls::Ldaps),
            ("ldaps://dc1:99999", LdapTls::Ldaps),
            ("ldaps://dc1/dc=x??sub", LdapTls::Ldaps),
            ("ldaps://anna@dc1", LdapTls::Ldaps),
            ("ldaps://[::1", LdapTls::Ldaps),
        ] {
            assert!(Server::parse(bad, tls).is_err(), "{bad}");
        }
    }
}
