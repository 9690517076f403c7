//! The border between the surfaces and those who know people: what a request shows, who that is, and the conversations by
//! which somebody becomes known.
//!
//! `server` carries proofs and words and understands neither, so that it names no user and no session.

use crate::{Actor, Cx};
use futures::future::BoxFuture;
use model::Result;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a request shows for who sends it.
#[derive(Clone, Copy)]
pub enum Proof<'a> {
    /// `Authorization: Bearer`: an access token or an API key.
    Bearer(&'a str),
    /// The value of the cookie [`COOKIE`], which only browsers have.
    Cookie(&'a str),
    /// The account of a client certificate of our own CA, verified and not revoked.
    Certificate(&'a str),
}

/// The name of the login cookie. `__Host-` keeps it to this host, to HTTPS and to the root path (RFC 6265bis, 4.1.3.2).
pub const COOKIE: &str = "__Host-debvisor";

/// The name of the cookie that ties a login by another site to the browser that has begun it.
pub const FLOW_COOKIE: &str = "__Host-debvisor-flow";

/// One word of a conversation: `POST /api/v1/auth/{step}` (and `GET`, for the steps of [`Identities::by_get`]).
pub struct Talk {
    /// Which step: `login`, `refresh`, `oidc/callback`.
    pub step: String,
    /// What the caller says; for `GET` the query.
    pub body: Value,
    /// Who says it, as far as his proof goes; anonymous for a first word.
    pub actor: Actor,
    /// From which address.
    pub from: Option<IpAddr>,
    /// With which program.
    pub agent: Option<String>,
    /// The host and port under which he reaches us, as he says.
    pub host: Option<String>,
    /// The value of the cookie [`FLOW_COOKIE`].
    pub flow: Option<String>,
    /// Follows it through every log.
    pub request_id: String,
}

/// The answer to it.
#[derive(Default)]
pub struct Said {
    /// The answer, as JSON.
    pub body: Value,
    /// Sets the login cookie to a value for so long; an empty value ends it.
    pub cookie: Option<(String, Duration)>,
    /// Sets the cookie [`FLOW_COOKIE`] to a value for so long; an empty value ends it.
    pub flow: Option<(String, Duration)>,
    /// Sends a browser on to here.
    pub redirect: Option<String>,
}

/// Where somebody comes from, as the transport proves it.
#[derive(Clone, Copy, Default)]
pub struct Whence<'a> {
    /// His address, when he came over the network.
    pub ip: Option<IpAddr>,
    /// The client certificate of our own CA that he holds the key of, verified and not revoked; DER.
    pub certificate: Option<&'a [u8]>,
}

/// Knows who is who.
pub trait Identities: Send + Sync {
    /// Who shows this. `Unauthenticated`, without a word about which part was wrong. Called for each request: answers
    /// from memory.
    fn who(&self, cx: &Cx, proof: Proof<'_>, from: Whence<'_>) -> Result<Actor>;
    /// Whether what an actor was let in by still stands: his session is open, his key not revoked, he himself not
    /// disabled. Asked again and again while a stream is open.
    fn stands(&self, cx: &Cx, actor: &Actor, from: Whence<'_>) -> bool;
    /// The steps to which a browser goes by `GET`, away to another site and back from it: whatever page may send it there,
    /// with its login cookie. None may act for whoever the cookie names, and who comes back must show a state that only
    /// this browser was given.
    fn by_get(&self) -> &'static [&'static str] {
        &[]
    }
    /// Answers one word of a conversation; `NotFound` for a step that does not exist.
    fn talk<'a>(&'a self, cx: &'a Cx, talk: Talk) -> BoxFuture<'a, Result<Said>>;
}

/// Who is who in this process, as a part: `CxBuilder::part(Arc::new(Known(..)))`.
pub struct Known(pub Arc<dyn Identities>);
