//! What this process keeps in memory of each key server: the connection, the token, and values for 300 s.

use super::client::{Client, Token};
use super::{Backend, BackendSpec};
use crate::pin;
use crate::secret::{self, Secret};
use model::{Error, ObjectRef, Result, Timestamp, Uid, What};
use parking_lot::Mutex;
use runtime::resilience::Dependency;
use runtime::{Cx, Obj};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// For how long a value is used without asking again.
pub(super) const FRESH: Duration = Duration::from_secs(300);
/// How many values are kept of one server.
const MOST: usize = 1000;

/// A token and when we got it.
#[derive(Clone)]
pub(super) struct Held {
    pub token: Token,
    pub since: Timestamp,
}

impl Held {
    /// When half of its life is over; `None` when it never ends.
    pub(super) fn half(&self) -> Option<Timestamp> {
        self.token.life.map(|life| self.since.plus(life / 2))
    }

    pub(super) fn end(&self) -> Option<Timestamp> {
        self.token.life.map(|life| self.since.plus(life))
    }
}

struct Kept {
    generation: u64,
    /// What was pinned when the connection was made.
    pins: Vec<(Uid, u64)>,
    client: Client,
    held: Option<Held>,
    values: HashMap<(String, String), (String, Timestamp)>,
}

/// All key servers of this process; a part of it.
#[derive(Default)]
pub struct Backends(Mutex<HashMap<Uid, Kept>>);

impl Backends {
    pub(super) fn of(cx: &Cx) -> Result<Arc<Backends>> {
        cx.try_part::<Backends>()
            .ok_or_else(|| Error::refused("this process asks no key server"))
    }

    /// The connection; made anew when the server was declared anew, or what a peer must show. Then nothing of the one
    /// before is used.
    pub(super) fn client(&self, cx: &Cx, backend: &Obj<Backend>) -> Result<Client> {
        let meta = &backend.metadata;
        let pins = pin::standing(cx);
        let mut all = self.0.lock();
        if let Some(kept) = all.get(&meta.uid)
            && kept.generation == meta.generation
            && kept.pins == pins
        {
            return Ok(kept.client.clone());
        }
        let client = Client::new(cx, &meta.name, &backend.spec)?;
        let kept = Kept {
            generation: meta.generation,
            pins,
            client: client.clone(),
            held: None,
            values: HashMap::new(),
        };
        all.insert(meta.uid, kept);
        Ok(client)
    }

    /// Forgets a server that was deleted.
    pub(super) fn keep_only(&self, uids: &[Uid]) {
        self.0.lock().retain(|uid, _| uids.contains(uid));
    }

    pub(super) fn held(&self, uid: Uid) -> Option<Held> {
        self.0.lock().get(&uid).and_then(|kept| kept.held.clone())
    }

    /// Keeps a token for the server that gave it: not for one that was declared in its place meanwhile.
    pub(super) fn hold(&self, backend: &Obj<Backend>, held: Held) {
        let meta = &backend.metadata;
        if let Some(kept) = self.0.lock().get_mut(&meta.uid)
            && kept.generation == meta.generation
        {
            kept.held = Some(held);
        }
    }

    /// Logs in anew and keeps the token.
    pub(super) async fn log_in(&self, cx: &Cx, backend: &Obj<Backend>) -> Result<Token> {
        let client = self.client(cx, backend)?;
        let proof = proof(cx, backend).await?;
        // Before asking: a life that is counted too long would end before its renewal.
        let since = cx.clock().now();
        let token = client.log_in(&proof).await?;
        let held = Held {
            token: token.clone(),
            since,
        };
        self.hold(backend, held);
        Ok(token)
    }

    /// A token that is good now.
    async fn token(&self, cx: &Cx, backend: &Obj<Backend>) -> Result<String> {
        let now = cx.clock().now();
        let good = |held: &Held| held.end().is_none_or(|end| now < end);
        match self.held(backend.metadata.uid).filter(good) {
            Some(held) => Ok(held.token.text),
            None => Ok(self.log_in(cx, backend).await?.text),
        }
    }

    /// A value, from memory when it was read less than 300 s ago.
    pub(super) async fn value(
        &self,
        cx: &Cx,
        backend: &Obj<Backend>,
        path: &str,
        field: &str,
    ) -> Result<String> {
        let client = self.client(cx, backend)?;
        let (uid, at) = (backend.metadata.uid, (path.to_owned(), field.to_owned()));
        let now = cx.clock().now();
        let is_fresh = |read: Timestamp| read <= now && now.since(read) < FRESH;
        if let Some(kept) = self.0.lock().get_mut(&uid) {
            kept.values.retain(|_, (_, read)| is_fresh(*read));
            if let Some((value, _)) = kept.values.get(&at) {
                return Ok(value.clone());
            }
        }
        let read = || async {
            let token = self.token(cx, backend).await?;
            match client.read(&token, path, field).await {
                // The token may have been revoked: once more with a new one.
                Err(error) if error.what == What::Refused => {
                    let token = self.log_in(cx, backend).await?.text;
                    client.read(&token, path, field).await
                }
                other => other,
            }
        };
        let value = dependency(cx, backend).call(read).await.map_err(|error| {
            let hint =
                "what was read of it before is too old to be used; see `dvctl secret-backend show`";
            match error.what {
                What::Unavailable(_) => error.hint(hint),
                _ => error,
            }
        })?;
        if let Some(kept) = self.0.lock().get_mut(&uid)
            && kept.values.len() < MOST
            && kept.generation == backend.metadata.generation
        {
            kept.values.insert(at, (value.clone(), now));
        }
        Ok(value)
    }
}

/// Its breaker and retries.
pub(super) fn dependency(cx: &Cx, backend: &Obj<Backend>) -> Arc<Dependency> {
    cx.dependencies()
        .named(&format!("secret backend {}", backend.metadata.name))
}

/// What proves who we are, as it is kept here. It is on record before it is sent.
async fn proof(cx: &Cx, backend: &Obj<Backend>) -> Result<String> {
    let secret = secret_ref(&backend.spec)?;
    let project = secret.project.as_deref();
    let object = cx
        .get::<Secret>(project, &secret.name)
        .ok_or_else(|| Error::not_found(format!("there is no {secret}")))?;
    let by = ObjectRef {
        kind: super::KIND.name.into(),
        project: None,
        name: backend.metadata.name.to_string(),
    };
    secret::stored_for(cx, &object, object.spec.version, &by).await
}

fn secret_ref(spec: &BackendSpec) -> Result<ObjectRef> {
    let (project, name) = spec.auth.secret.split_once('/').ok_or_else(|| {
        Error::field(
            "spec.auth.secret",
            "names a secret with its project: `project/name`",
        )
    })?;
    Ok(ObjectRef {
        kind: secret::KIND.name.into(),
        project: Some(project.into()),
        name: name.into(),
    })
}
