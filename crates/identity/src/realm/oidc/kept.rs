//! What this process knows of each provider: the connection, what it says of itself, and its keys. Asked through a named
//! dependency, so that one that is down is not asked by everybody again and again.

use super::super::Realm;
use super::client::{Facts, Provider};
use super::keys::Keys;
use super::spec;
use super::token::{self, Token, Wrong};
use model::{Error, Result, Timestamp, Uid};
use parking_lot::Mutex;
use runtime::resilience::Dependency;
use runtime::{Cx, Obj};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// For how long what a provider says of itself, and its keys, are used without asking again.
const FRESH: Duration = Duration::from_secs(3600);
/// A key that is not known makes us ask again, but not more often than this.
const REFETCH: Duration = Duration::from_secs(30);

/// What is known of one provider.
pub(super) struct Known {
    pub provider: Provider,
    pub facts: Facts,
    pub keys: Keys,
    generation: u64,
    asked: Timestamp,
}

/// All providers of this process; a part of it.
#[derive(Default)]
pub struct Providers {
    all: Mutex<HashMap<Uid, Arc<Known>>>,
    /// When a program's token last made us ask for keys.
    woken: Mutex<Option<Timestamp>>,
}

impl Providers {
    pub(super) fn of(cx: &Cx) -> Result<Arc<Providers>> {
        cx.try_part::<Providers>()
            .ok_or_else(|| Error::refused("this process asks no provider"))
    }

    /// What is known without asking; nothing when the realm was declared anew since.
    pub(super) fn known(&self, realm: &Obj<Realm>) -> Option<Arc<Known>> {
        let known = self.all.lock().get(&realm.metadata.uid).cloned();
        known.filter(|known| known.generation == realm.metadata.generation)
    }

    /// Whether a program's token may make us ask now; once in [`REFETCH`].
    pub(super) fn may_wake(&self, cx: &Cx) -> bool {
        let now = cx.clock().now();
        let mut woken = self.woken.lock();
        let may = woken.is_none_or(|last| now < last || now.since(last) >= REFETCH);
        if may {
            *woken = Some(now);
        }
        may
    }

    /// Asks it, and remembers.
    pub(super) async fn ask(&self, cx: &Cx, realm: &Obj<Realm>) -> Result<Arc<Known>> {
        let provider = Provider::new(cx, &realm.metadata.name, spec(realm)?)?;
        let asked = cx.clock().now();
        let (facts, keys) = dependency(cx, realm)
            .call(|| async {
                let facts = provider.discover().await?;
                let keys = provider.keys(&facts).await?;
                Ok((facts, keys))
            })
            .await?;
        let keys = Keys::read(&keys);
        if keys.len() == 0 {
            return Err(provider.wrong("has no key of RS256, ES256 or EdDSA"));
        }
        let known = Arc::new(Known {
            provider,
            facts,
            keys,
            generation: realm.metadata.generation,
            asked,
        });
        let mut all = self.all.lock();
        // Realms that are gone are forgotten.
        all.retain(|uid, _| cx.cache().key_of(*uid).is_some());
        all.insert(realm.metadata.uid, known.clone());
        Ok(known)
    }

    /// What is known, asked for when that is too old.
    pub(super) async fn get(&self, cx: &Cx, realm: &Obj<Realm>) -> Result<Arc<Known>> {
        let now = cx.clock().now();
        match self.known(realm) {
            Some(known) if now.since(known.asked) < FRESH => Ok(known),
            _ => self.ask(cx, realm).await,
        }
    }

    /// Takes a token apart whose signature is the provider's. A key that is not known may be new: then it is asked for
    /// its keys, at most every 30 s.
    pub(super) async fn signed<'a>(
        &self,
        cx: &Cx,
        realm: &Obj<Realm>,
        text: &'a str,
    ) -> Result<Result<Token<'a>, Wrong>> {
        let token = match token::parse(text) {
            Ok(token) => token,
            Err(wrong) => return Ok(Err(wrong)),
        };
        let mut known = self.get(cx, realm).await?;
        if known.keys.check(&token) == Err(Wrong::UnknownKey) && may_ask(cx, &known) {
            known = self.ask(cx, realm).await?;
        }
        Ok(known.keys.check(&token).map(|()| token))
    }
}

/// Whether it is long enough ago that it was asked.
pub(super) fn may_ask(cx: &Cx, known: &Known) -> bool {
    let now = cx.clock().now();
    now < known.asked || now.since(known.asked) >= REFETCH
}

/// Its breaker and retries.
pub(super) fn dependency(cx: &Cx, realm: &Obj<Realm>) -> Arc<Dependency> {
    cx.dependencies()
        .named(&format!("realm {}", realm.metadata.name))
}
