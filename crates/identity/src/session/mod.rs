//! A session: that somebody is logged in.
//!
//! ```text
//! (login) -> [pending] -> open -> (logout | revoked | idle | too old | an old token was used again | user disabled) gone
//! ```
//!
//! **Invariants.** It is there as long as it lets in: whoever deletes it ends it, at the next request. Of its tokens only
//! hashes are kept, sealed. A token for the next pair works once; one that comes again ends the session, since two have it.

mod controller;
pub mod tokens;
mod types;

pub(crate) use types::Material;
pub use types::{Risk, SessionSpec, SessionStatus};

use crate::user::User;
use model::{
    Column, Error, Kind, ObjectRef, Resource, Result, Scope, Timestamp, Unit, Verb, schema,
};
use runtime::{Cx, Obj, Op, Place, Seat, Subsystem, normal, nothing_to_admit};
use serde_json::{Value, json};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokens::Use;

const HOUR: Duration = Duration::from_secs(3600);
/// How long a token for requests is good.
pub const ACCESS: Duration = HOUR;
/// For how long nobody may use it.
const IDLE: Duration = Duration::from_secs(8 * 3600);
/// How long it lasts at most.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long it lasts, used or not, for who asked to be remembered.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);
/// For how long the token before the last is still good, for requests that are under way.
const GRACE: Duration = Duration::from_secs(60);
/// How many tokens are used up in a session's life, and known again: with one an hour it is fewer. Then it is over.
const SPENT: usize = 256;

/// Ties the kind to its types.
pub struct Session;

impl Resource for Session {
    const KIND: &'static Kind = &KIND;
    type Spec = SessionSpec;
    type Status = SessionStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "session",
    plural: "sessions",
    title: "Login session",
    scope: Scope::Cluster,
    doc: "That somebody is logged in, from where and with what. Deleting it logs him out: open consoles and watches end within seconds.",
    verbs: &[Verb::Read, Verb::Delete],
    spec: schema::of::<SessionSpec>,
    status: schema::of::<SessionStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("user", "spec.user"),
        Column::new("address", "spec.address"),
        Column::new("factors", "spec.factors"),
        Column::new("last-used", "status.last_used").unit(Unit::Age),
        Column::new("age", "metadata.created").unit(Unit::Age),
        Column::new("expires", "spec.expires").wide(),
        Column::new("risk", "spec.risk.score").wide(),
        Column::new("agent", "spec.agent").wide(),
    ],
    actions: &[],
    streams: &[],
    examples: &[
        "dvctl session list",
        "dvctl session delete s-9f86d081884c7d65 --yes",
    ],
};

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Session>,
    admit: nothing_to_admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: |_| vec![Arc::new(controller::SessionController)],
};

/// How somebody has come in.
#[derive(Clone, Debug, Default)]
pub struct Begin {
    /// From which address.
    pub from: Option<IpAddr>,
    /// With which program.
    pub agent: Option<String>,
    /// How he proved that it is him.
    pub factors: Vec<&'static str>,
    /// Whether a second factor was among them.
    pub mfa: bool,
    /// Whether he must enrol one first.
    pub pending: bool,
    /// Whether it is to last a week.
    pub remember: bool,
    /// How unlike earlier logins of his it is.
    pub risk: Option<Risk>,
    /// Whether a browser gets a cookie, and not a pair of tokens.
    pub browser: bool,
    /// By which realm, when not by `local`.
    pub realm: Option<String>,
    /// The provider's session that it goes with, hashed.
    pub provider_session: Option<String>,
}

/// What he gets, once.
#[derive(Debug)]
pub struct Given {
    /// Name of the session.
    pub session: String,
    /// For requests, and until when; absent for a browser.
    pub access: Option<(String, Timestamp)>,
    /// For the next pair.
    pub refresh: Option<String>,
    /// For a browser.
    pub cookie: Option<String>,
    /// The session ends then.
    pub expires: Timestamp,
}

fn random<const N: usize>(cx: &Cx) -> [u8; N] {
    let mut out = [0; N];
    cx.clock().fill(&mut out);
    out
}

/// Begins a session of a user.
///
/// # Errors
/// When it cannot be stored.
pub async fn begin(cx: &Cx, user: &Obj<User>, begin: Begin) -> Result<Given> {
    let now = cx.clock().now();
    let name = tokens::name(random(cx));
    let expires = now.plus(if begin.remember { REMEMBERED } else { LIFE });
    let mut given = Given {
        session: name.clone(),
        access: None,
        refresh: None,
        cookie: None,
        expires,
    };
    let mut material = Material::default();
    if begin.browser {
        let token = tokens::make(Use::Cookie, &name, random(cx));
        material.cookie = Some(tokens::hash(&token));
        given.cookie = Some(token);
    }
    if begin.browser && begin.pending {
        // A cookie of a login that waits lets in nowhere: with this token he enrols, and then it is gone.
        pair(cx, &name, now, &mut material, &mut given);
        material.refresh = None;
        given.refresh = None;
    } else if !begin.browser {
        pair(cx, &name, now, &mut material, &mut given);
    }
    let body = json!({
        "metadata": {
            "name": name,
            "owner": { "kind": User::KIND.name, "name": user.metadata.name, "uid": user.metadata.uid },
        },
        "spec": {
            "user": user.metadata.name, "address": begin.from.map(|ip| ip.to_string()), "agent": begin.agent,
            "factors": begin.factors, "mfa": begin.mfa.then_some(now), "pending": begin.pending,
            "risk": begin.risk, "realm": begin.realm, "provider_session": begin.provider_session,
            "remember": begin.remember, "expires": expires, "material": written(&material)?,
        },
    });
    let op = Op::Create {
        kind: KIND.name.into(),
        project: None,
        body,
    };
    cx.submit(op, "login").await?;
    Ok(given)
}

/// A new pair of tokens.
fn pair(cx: &Cx, name: &str, now: Timestamp, material: &mut Material, given: &mut Given) {
    let access = tokens::make(Use::Access, name, random(cx));
    let refresh = tokens::make(Use::Refresh, name, random(cx));
    let until = now.plus(ACCESS).min(given.expires);
    let grace = now.plus(GRACE);
    material.access.retain(|(_, end)| *end > now);
    for (_, end) in &mut material.access {
        *end = (*end).min(grace);
    }
    material.access.push((tokens::hash(&access), until));
    if let Some(old) = material.refresh.replace(tokens::hash(&refresh)) {
        material.spent.push(old);
    }
    given.access = Some((access, until));
    given.refresh = Some(refresh);
}

fn written(material: &Material) -> Result<String> {
    serde_json::to_string(material).map_err(|e| Error::internal("a session as JSON").because(e))
}

/// What is kept of a session's tokens; nothing when it cannot be read.
pub(crate) fn material(session: &Obj<Session>) -> Material {
    let text = session.spec.material.as_deref().unwrap_or_default();
    serde_json::from_str(text).unwrap_or_default()
}

/// Whether it lets in at this time.
pub(crate) fn is_open(session: &Obj<Session>, now: Timestamp) -> bool {
    let used = session.status.as_ref().and_then(|s| s.last_used);
    let used = used.unwrap_or(session.metadata.created);
    session.metadata.deletion_requested.is_none()
        && now < session.spec.expires
        && now < used.plus(idle(session))
}

/// For how long nobody may use it.
pub(crate) fn idle(session: &Obj<Session>) -> Duration {
    match session.spec.remember {
        true => REMEMBERED,
        false => IDLE,
    }
}

/// How a token was received.
pub(crate) enum Refreshed {
    /// It was good: the next pair.
    Given(Given, Arc<Obj<Session>>),
    /// It had been used before: the session of this user has been ended.
    Reused(String),
    /// It is worth nothing.
    Unknown,
}

/// Trades a token for the next pair, once.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn refresh(cx: &Cx, token: &str) -> Result<Refreshed> {
    let Some(name) = tokens::session(Use::Refresh, token) else {
        return Ok(Refreshed::Unknown);
    };
    let hash = tokens::hash(token);
    loop {
        let now = cx.clock().now();
        let Some(session) = cx.get::<Session>(None, &name) else {
            return Ok(Refreshed::Unknown);
        };
        let mut material = material(&session);
        if material.spent.contains(&hash) {
            end(cx, &name).await?;
            return Ok(Refreshed::Reused(session.spec.user.clone()));
        }
        if material.refresh.as_ref() != Some(&hash) || !is_open(&session, now) {
            return Ok(Refreshed::Unknown);
        }
        // None that was used up is ever forgotten, or whoever has copied one could make us forget it.
        if material.spent.len() >= SPENT {
            end(cx, &name).await?;
            return Ok(Refreshed::Unknown);
        }
        let mut given = Given {
            session: name.clone(),
            access: None,
            refresh: None,
            cookie: None,
            expires: session.spec.expires,
        };
        pair(cx, &name, now, &mut material, &mut given);
        let spec = json!({ "material": written(&material)? });
        if edit(cx, &session, spec).await? {
            return Ok(Refreshed::Given(given, session));
        }
    }
}

/// Changes a session as it was read; `false` when somebody changed it meanwhile: read it again.
pub(crate) async fn edit(cx: &Cx, session: &Obj<Session>, spec: Value) -> Result<bool> {
    let op = Op::Patch {
        target: target(&session.metadata.name),
        body: json!({ "metadata": { "revision": session.metadata.revision }, "spec": spec }),
    };
    match cx.submit(op, "login").await {
        Ok(_) => Ok(true),
        Err(Error {
            what: model::What::PreconditionFailed(_) | model::What::NotFound,
            ..
        }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Notes that a second factor was proved in it; also when it had to be enrolled first.
///
/// # Errors
/// When it is gone or cannot be stored.
pub(crate) async fn proved(cx: &Cx, name: &str, factor: &'static str) -> Result<()> {
    loop {
        let Some(session) = cx.get::<Session>(None, name) else {
            return Err(Error::unauthenticated("this login has ended").hint("log in again"));
        };
        let mut factors = session.spec.factors.clone();
        if !factors.iter().any(|f| f == factor) {
            factors.push(factor.into());
        }
        let mut spec = json!({ "factors": factors, "mfa": cx.clock().now(), "pending": false });
        let mut material = material(&session);
        if material.cookie.is_some() && !material.access.is_empty() {
            material.access.clear();
            spec["material"] = written(&material)?.into();
        }
        if edit(cx, &session, spec).await? {
            return Ok(());
        }
    }
}

fn target(name: &str) -> ObjectRef {
    ObjectRef {
        kind: KIND.name.into(),
        project: None,
        name: name.into(),
    }
}

/// Ends a session; one that has ended is no error.
///
/// # Errors
/// When the store does not answer.
pub async fn end(cx: &Cx, name: &str) -> Result<()> {
    let op = Op::Delete {
        target: target(name),
        keep: Vec::new(),
    };
    match cx.submit(op, "login").await {
        Ok(_)
        | Err(Error {
            what: model::What::NotFound,
            ..
        }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Ends all sessions of a user, but for one.
///
/// # Errors
/// When the store does not answer.
pub async fn end_all(cx: &Cx, user: &str, but: Option<&str>) -> Result<usize> {
    let key = cx.key::<User>(None, user);
    let mut ended = 0;
    for owned in cx.cache().owned(&key) {
        let Some(target) = runtime::object_ref(&owned).filter(|t| t.kind == KIND.name) else {
            continue;
        };
        if but != Some(target.name.as_str()) {
            end(cx, &target.name).await?;
            ended += 1;
        }
    }
    Ok(ended)
}
