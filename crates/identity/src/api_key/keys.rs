//! Whose key a token is, from memory, at each request.

use super::types::ApiKeySpec;
use super::{ApiKey, KIND, rules, token};
use crate::login::{Used, is_active, refused};
use crate::machine;
use ipnet::IpNet;
use model::{Error, Result, Timestamp, What};
use parking_lot::Mutex;
use runtime::{Actor, Cx, Revision, Row, Whence};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

const REMEMBERED: usize = 20_000;
const MINUTE: Duration = Duration::from_secs(60);

/// The keys that were shown lately.
#[derive(Default)]
pub(crate) struct Keys {
    seen: Mutex<HashMap<Box<str>, Arc<Seen>>>,
}

struct Seen {
    modified: Revision,
    spec: ApiKeySpec,
    counts: Arc<Counts>,
}

/// What outlives a change of the object.
#[derive(Default)]
struct Counts {
    /// Uses that are not noted yet, and when some were noted last.
    uses: AtomicU64,
    noted: AtomicI64,
    /// The minute that requests are counted in, and how many.
    minute: Mutex<(i64, u32)>,
}

impl Keys {
    pub(crate) fn who(
        &self,
        cx: &Cx,
        shown: &str,
        whence: Whence<'_>,
        uses: &mpsc::Sender<Used>,
    ) -> Result<Actor> {
        let from = whence.ip;
        let id = token::id(shown).ok_or_else(refused)?;
        let key = cx.cache().unique(&rules::id_key(id)).ok_or_else(refused)?;
        let row = cx.cache().row(KIND.name, &key).ok_or_else(refused)?;
        let seen = self.seen(cx, &row).ok_or_else(refused)?;
        let (spec, now) = (&seen.spec, cx.clock().now());
        let at = spec.secrets.iter().position(|secret| secret.id == id);
        let at = at.ok_or_else(refused)?;
        let material = spec.secrets[at].material.as_deref().unwrap_or_default();
        if !token::fits(material, shown) {
            return Err(refused());
        }
        let why = match () {
            () if spec.revoked.is_some() => Some("REVOKED"),
            () if !rules::lives(spec, now) => Some("EXPIRED"),
            () if rules::ends(spec, at).is_none_or(|end| now >= end) => Some("ROTATED"),
            () if !is_active(cx, &spec.owner, &row) => Some("OWNER_DISABLED"),
            () if !inside(&spec.networks, from) => Some("OUTSIDE_ITS_NETWORKS"),
            () if !on_its_machine(cx, spec, whence) => Some("ON_ANOTHER_MACHINE"),
            () => None,
        };
        if let Some(why) = why {
            // It is the right secret: somebody who looks at the trail wants to know who still uses it.
            let _ = uses.try_send(Used::Refused(row.name.to_string(), from, why));
            return Err(refused());
        }
        seen.counts.within(spec.rate, now)?;
        seen.counts.note(&row.name, from, now, uses);
        Ok(Actor::key(&row.name, id, &spec.owner))
    }

    /// Whether somebody who came in with one of its secrets may stay: `NAME/SECRET`.
    pub(crate) fn stands(&self, cx: &Cx, shown: &str, from: Whence<'_>) -> bool {
        let Some((name, id)) = shown.split_once('/') else {
            return false;
        };
        let key = cx.key::<ApiKey>(None, name);
        let Some(row) = cx.cache().row(KIND.name, &key) else {
            return false;
        };
        let now = cx.clock().now();
        self.seen(cx, &row).is_some_and(|seen| {
            let at = seen.spec.secrets.iter().position(|s| s.id == id);
            let end = at.and_then(|at| rules::ends(&seen.spec, at));
            rules::lives(&seen.spec, now)
                && end.is_some_and(|end| now < end)
                && inside(&seen.spec.networks, from.ip)
                && on_its_machine(cx, &seen.spec, from)
                && is_active(cx, &seen.spec.owner, &row)
        })
    }

    fn seen(&self, cx: &Cx, row: &Row) -> Option<Arc<Seen>> {
        if row.deleting {
            return None;
        }
        let remembered = self.seen.lock().get(&*row.name).cloned();
        if let Some(seen) = remembered
            .as_ref()
            .filter(|seen| seen.modified == row.modified)
        {
            return Some(seen.clone());
        }
        let object = cx.get_key::<ApiKey>(&row.key)?;
        let seen = Arc::new(Seen {
            modified: row.modified,
            spec: object.spec.clone(),
            counts: remembered.map_or_else(Arc::default, |old| old.counts.clone()),
        });
        let mut all = self.seen.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(row.name.clone(), seen.clone());
        Some(seen)
    }
}

impl Counts {
    fn within(&self, rate: Option<u32>, now: Timestamp) -> Result<()> {
        let Some(rate) = rate else { return Ok(()) };
        let minute = now.millis() / 60_000;
        let mut counted = self.minute.lock();
        if counted.0 != minute {
            *counted = (minute, 0);
        }
        counted.1 += 1;
        if counted.1 <= rate {
            return Ok(());
        }
        let wait = Duration::from_millis((60_000 - now.millis().rem_euclid(60_000)) as u64);
        Err(Error::new(
            What::Quota(Some(wait)),
            format!("this API key may make {rate} requests in a minute"),
        ))
    }

    fn note(&self, name: &str, from: Option<IpAddr>, now: Timestamp, uses: &mpsc::Sender<Used>) {
        self.uses.fetch_add(1, Ordering::Relaxed);
        let noted = self.noted.load(Ordering::Relaxed);
        if now.since(Timestamp::from_millis(noted)) < MINUTE {
            return;
        }
        let ours =
            self.noted
                .compare_exchange(noted, now.millis(), Ordering::Relaxed, Ordering::Relaxed);
        if ours.is_ok() {
            let count = self.uses.swap(0, Ordering::Relaxed);
            if uses.try_send(Used::Key(name.into(), from, count)).is_err() {
                self.uses.fetch_add(count, Ordering::Relaxed);
            }
        }
    }
}

/// Whether somebody is at the machine that a key is bound to.
fn on_its_machine(cx: &Cx, spec: &ApiKeySpec, from: Whence<'_>) -> bool {
    match &spec.machine {
        None => true,
        Some(machine) => machine::is_at(cx, machine, from),
    }
}

fn inside(networks: &[IpNet], from: Option<IpAddr>) -> bool {
    networks.is_empty()
        || from.is_some_and(|from| {
            let from = from.to_canonical();
            networks.iter().any(|network| network.contains(&from))
        })
}
