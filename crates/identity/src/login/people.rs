//! Who is who, from memory: what a token stands for, and whether it still does.
//!
//! A token names its session or key, so that finding it is one look into the watch cache; what must be opened and parsed
//! for comparing it is remembered until the object changes. There is nothing to invalidate: an object that is gone or
//! has changed is seen at the very next request.

use super::{administrators, talk};
use crate::ca::Ca;
use crate::realm::{Realm, oidc};
use crate::session::{self, Session, SessionStatus, tokens};
use crate::user::{self, LOCAL, User, UserStatus};
use crate::{ADMINISTRATOR, api_key};
use futures::future::BoxFuture;
use model::{Error, Kind, Resource, Result, Timestamp};
use parking_lot::Mutex;
use runtime::audit::{LOGIN_FAILED, Note, note};
use runtime::limit::{Caller, Limiter, Rate};
use runtime::{
    Actor, ActorKind, Authority as _, Cx, Identities, Known, LoginCode, Proof, Revision, Row, Said,
    Talk, Whence,
};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokens::Use;
use tokio::sync::mpsc;

/// How many sessions are remembered; beyond that all are looked up again.
const REMEMBERED: usize = 20_000;
/// How many uses wait to be noted. What comes beyond is noted with the next use.
const WAITING: usize = 1024;
/// How often a use is noted.
const MINUTE: Duration = Duration::from_secs(60);
/// How often the last activity of a user is noted.
const ACTIVITY: Duration = Duration::from_secs(600);

/// Knows users, their sessions and their keys.
pub struct People {
    keys: api_key::Keys,
    ca: OnceLock<Arc<Ca>>,
    seen: Mutex<HashMap<Box<str>, Arc<Seen>>>,
    uses: mpsc::Sender<Used>,
    to_note: Mutex<Option<mpsc::Receiver<Used>>>,
    /// Letters that were asked for, by address. A restart forgives; what one person gets is counted in the store.
    letters: Limiter,
    /// One at a time makes the first administrator.
    pub(super) first: tokio::sync::Mutex<()>,
}

/// What must be known of a session at each request.
struct Seen {
    modified: Revision,
    user: Box<str>,
    access: Vec<(String, Timestamp)>,
    cookie: Option<String>,
    mfa: Option<Timestamp>,
    pending: bool,
    expires: Timestamp,
    idle: Duration,
    /// Milliseconds since 1970; what a use since the last note adds.
    used: AtomicI64,
    noted: AtomicI64,
}

/// A use that is to be noted.
pub(crate) enum Used {
    /// Of a session.
    Session(String),
    /// Of an API key, from this address, so many times.
    Key(String, Option<IpAddr>, u64),
    /// Of an API key that was refused although its secret is right, and why.
    Refused(String, Option<IpAddr>, &'static str),
}

/// Letters that may be asked for from one address.
const LETTERS: Rate = Rate::per_minute(10);

/// What somebody is told whose proof is worth nothing: never which part.
pub(crate) fn refused() -> Error {
    Error::unauthenticated("this login is not accepted, or has ended")
        .hint("log in again: dvctl login URL")
}

impl People {
    /// Knows nobody until it is asked.
    #[allow(
        clippy::new_without_default,
        reason = "one is made, on purpose, at start"
    )]
    pub fn new() -> Arc<People> {
        let (uses, to_note) = mpsc::channel(WAITING);
        Arc::new(People {
            keys: api_key::Keys::default(),
            ca: OnceLock::new(),
            seen: Mutex::default(),
            uses,
            to_note: Mutex::new(Some(to_note)),
            letters: Limiter::default(),
            first: tokio::sync::Mutex::default(),
        })
    }

    /// As the part that surfaces ask for.
    pub fn part(self: &Arc<Self>) -> Arc<Known> {
        Arc::new(Known(self.clone()))
    }

    /// Begins to take one-time codes, which the CA keeps, to note uses, and to forget what is of no use any more. Once,
    /// after the process's context is there.
    pub fn start(self: &Arc<Self>, cx: &Cx, ca: Arc<Ca>) {
        let _ = self.ca.set(ca);
        let Some(to_note) = self.to_note.lock().take() else {
            return;
        };
        cx.life()
            .spawn("uses of logins", note_uses(cx.clone(), to_note));
        cx.life()
            .spawn("old login delays", super::sweep(cx.clone()));
    }

    /// Counts a letter that somebody who is not known asks for.
    pub(super) fn may_ask(&self, cx: &Cx, from: Option<IpAddr>) -> Result<()> {
        let Some(from) = from.map(Caller::Address) else {
            return Ok(());
        };
        let at = Duration::from_millis(cx.clock().now().millis().max(0).cast_unsigned());
        let standing = self.letters.take(LETTERS, from, at);
        standing
            .map(drop)
            .map_err(|standing| standing.refusal("letters asked for from this address"))
    }

    /// Whether somebody can log in who administers everything.
    pub fn administered(&self, cx: &Cx) -> bool {
        administrators::exist(cx)
    }

    /// A new one-time code that makes the first administrator. Writes a small file.
    ///
    /// # Errors
    /// Before [`People::start`], and when the file cannot be written.
    pub fn first_code(&self) -> Result<LoginCode> {
        self.ca()?.make_code(ADMINISTRATOR)
    }

    /// What keeps one-time codes.
    pub(super) fn ca(&self) -> Result<&Arc<Ca>> {
        let ca = self.ca.get();
        ca.ok_or_else(|| Error::unavailable("this process is still starting"))
    }

    fn session(&self, cx: &Cx, what: Use, token: &str) -> Result<Actor> {
        let name = tokens::session(what, token).ok_or_else(refused)?;
        let hash = tokens::hash(token);
        let seen = self.seen(cx, &name).ok_or_else(refused)?;
        let now = cx.clock().now();
        let same = |known: &str| crate::factor::totp::same(known.as_bytes(), hash.as_bytes());
        let known = match what {
            Use::Access => seen
                .access
                .iter()
                .any(|(known, end)| same(known) && now < *end),
            Use::Cookie => seen.cookie.as_deref().is_some_and(same),
            Use::Refresh => false,
        };
        if !known || !seen.is_open(now) {
            return Err(refused());
        }
        if seen.pending {
            return Err(
                Error::unauthenticated("a second factor must be enrolled first")
                    .hint("log in again and enrol one: dvctl login URL"),
            );
        }
        self.touch(&seen, &name, now);
        let credential = format!("{}/{name}", Session::KIND.name);
        Ok(Actor::user(&seen.user, Some(credential), seen.mfa))
    }

    /// What is known of a session, when its user may log in.
    fn seen(&self, cx: &Cx, name: &str) -> Option<Arc<Seen>> {
        let key = cx.key::<Session>(None, name);
        let row = cx.cache().row(Session::KIND.name, &key);
        let Some(row) = row.filter(|row| !row.deleting) else {
            self.seen.lock().remove(name);
            return None;
        };
        let remembered = self.seen.lock().get(name).cloned();
        let seen = match remembered.filter(|seen| seen.modified == row.modified) {
            Some(seen) => seen,
            None => self.remember(cx, name, &row)?,
        };
        is_active(cx, &seen.user, &row).then_some(seen)
    }

    fn remember(&self, cx: &Cx, name: &str, row: &Row) -> Option<Arc<Seen>> {
        let session = cx.get_key::<Session>(&row.key)?;
        let material = session::material(&session);
        let noted = session.status.as_ref().and_then(|s| s.last_used);
        let noted = noted.unwrap_or(session.metadata.created).millis();
        let mut all = self.seen.lock();
        let used = all
            .get(name)
            .map_or(noted, |old| old.used.load(Ordering::Relaxed).max(noted));
        let seen = Arc::new(Seen {
            modified: row.modified,
            user: session.spec.user.as_str().into(),
            access: material.access,
            cookie: material.cookie,
            mfa: session.spec.mfa,
            pending: session.spec.pending,
            expires: session.spec.expires,
            idle: session::idle(&session),
            used: AtomicI64::new(used),
            noted: AtomicI64::new(noted),
        });
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(name.into(), seen.clone());
        Some(seen)
    }

    fn touch(&self, seen: &Seen, name: &str, now: Timestamp) {
        seen.used.fetch_max(now.millis(), Ordering::Relaxed);
        let noted = seen.noted.load(Ordering::Relaxed);
        if now.since(Timestamp::from_millis(noted)) < MINUTE {
            return;
        }
        let ours =
            seen.noted
                .compare_exchange(noted, now.millis(), Ordering::Relaxed, Ordering::Relaxed);
        if ours.is_ok() {
            // A full queue loses a note, and the next minute makes another.
            let _ = self.uses.try_send(Used::Session(name.into()));
        }
    }

    fn by_certificate(&self, cx: &Cx, account: &str) -> Result<Actor> {
        if account == ADMINISTRATOR {
            return Ok(Actor::administrator(account));
        }
        let key = cx.key::<User>(None, account);
        match cx.cache().row(User::KIND.name, &key) {
            Some(row) if may_enter(&row) => Ok(Actor::user(account, None, None)),
            _ => Err(refused()),
        }
    }
}

impl Seen {
    fn is_open(&self, now: Timestamp) -> bool {
        let used = Timestamp::from_millis(self.used.load(Ordering::Relaxed));
        now < self.expires && now < used.plus(self.idle)
    }
}

/// Whether the user that an object belongs to is there, is the same one, and may log in.
pub(crate) fn is_active(cx: &Cx, user: &str, owned: &Row) -> bool {
    let key = cx.key::<User>(None, user);
    let row = cx.cache().row(User::KIND.name, &key);
    row.is_some_and(|row| {
        owned.owner_uid == Some(row.uid) && may_enter(&row) && is_vouched_for(cx, &row)
    })
}

/// Whether a user may log in, told by the column that says so.
fn may_enter(user: &Row) -> bool {
    !user.deleting && column(&user::KIND, user, "spec.active") == Some("true")
}

/// Whether who says that a user is him is asked: his realm is there and switched on. Local users need none.
fn is_vouched_for(cx: &Cx, user: &Row) -> bool {
    let realm = column(&user::KIND, user, "spec.realm").unwrap_or_default();
    let realm = realm.trim_matches('"');
    if realm.is_empty() || realm == LOCAL {
        return true;
    }
    let key = cx.key::<Realm>(None, realm);
    let row = cx.cache().row(Realm::KIND.name, &key);
    row.is_some_and(|row| {
        !row.deleting && column(Realm::KIND, &row, "spec.enabled") == Some("true")
    })
}

/// What a column of an object says, as JSON.
fn column<'r>(kind: &Kind, row: &'r Row, path: &str) -> Option<&'r str> {
    let at = kind.columns.iter().position(|c| c.path == path)?;
    row.columns.get(at).map(|text| &**text)
}

impl Identities for People {
    fn who(&self, cx: &Cx, proof: Proof<'_>, from: Whence<'_>) -> Result<Actor> {
        match proof {
            Proof::Bearer(token) if api_key::token::is_token(token) => {
                self.keys.who(cx, token, from, &self.uses)
            }
            Proof::Bearer(token) if oidc::is_token(token) => oidc::machine(cx, token),
            Proof::Bearer(token) => self.session(cx, Use::Access, token),
            Proof::Cookie(token) => self.session(cx, Use::Cookie, token),
            Proof::Certificate(account) => self.by_certificate(cx, account),
        }
    }

    fn stands(&self, cx: &Cx, actor: &Actor, from: Whence<'_>) -> bool {
        let Some(user) = actor.user.as_deref() else {
            return true;
        };
        let Some(credential) = actor.credential.as_deref() else {
            // A certificate of a user; whether it is revoked is asked elsewhere.
            return actor.kind != ActorKind::User || self.by_certificate(cx, user).is_ok();
        };
        let now = cx.clock().now();
        match credential.split_once('/') {
            Some(("session", name)) => self
                .seen(cx, name)
                .is_some_and(|seen| *seen.user == *user && !seen.pending && seen.is_open(now)),
            Some(("api-key", name)) => self.keys.stands(cx, name, from),
            Some(("token", rest)) => oidc::stands(cx, user, rest),
            _ => false,
        }
    }

    fn by_get(&self) -> &'static [&'static str] {
        &["oidc/begin", "oidc/callback"]
    }

    fn talk<'a>(&'a self, cx: &'a Cx, talk: Talk) -> BoxFuture<'a, Result<Said>> {
        Box::pin(talk::answer(self, cx, talk))
    }
}

/// Writes down uses, one after the other.
async fn note_uses(cx: Cx, mut uses: mpsc::Receiver<Used>) {
    let stop = cx.shutdown();
    while let Some(Some(used)) = stop.run_until_cancelled(uses.recv()).await {
        let noted = match &used {
            Used::Session(name) => note_session(&cx, name).await,
            Used::Key(name, from, count) => api_key::note_use(&cx, name, *from, *count).await,
            Used::Refused(name, from, why) => {
                let row = Note::new(&LOGIN_FAILED, format!("key:{name}"));
                note(&cx, row.from(*from).failed(why)).await
            }
        };
        if let Err(error) = noted {
            tracing::warn!(?error, "the use of a login could not be noted");
        }
    }
}

async fn note_session(cx: &Cx, name: &str) -> Result<()> {
    let Some(session) = cx.get::<Session>(None, name) else {
        return Ok(());
    };
    let now = cx.clock().now();
    let key = cx.key::<Session>(None, name);
    cx.set_status::<Session>(&key, |status: &mut SessionStatus| {
        status.last_used = Some(now)
    })
    .await?;
    let user = cx.key::<User>(None, &session.spec.user);
    cx.set_status::<User>(&user, |status: &mut UserStatus| {
        if status
            .last_activity
            .is_none_or(|last| now.since(last) >= ACTIVITY)
        {
            status.last_activity = Some(now);
        }
    })
    .await
    .map(drop)
}
