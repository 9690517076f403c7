//! Keeps pools usable and their space known.

use super::types::{DriverKind, KIND, Pool, PoolState};
use super::{Content, Dir, Driver, rules};
use crate::Local;
use futures::future::BoxFuture;
use model::{Bytes, Error, Kind, Result};
use runtime::Key;
use runtime::{Controller, Cx, Next, Obj};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How often the space of a pool is read: never more often.
const LOOK: Duration = Duration::from_secs(60);

/// Sole writer of the status of pools.
pub(super) struct Pools;

fn path_of(cx: &Cx, pool: &Obj<Pool>) -> PathBuf {
    match &pool.spec.path {
        Some(path) => PathBuf::from(path),
        None => cx.part::<Local>().pools.join(pool.metadata.name.as_str()),
    }
}

fn driver_of(cx: &Cx, pool: &Obj<Pool>) -> Arc<dyn Driver> {
    match pool.spec.driver {
        DriverKind::Dir => Arc::new(Dir::new(path_of(cx, pool), pool.metadata.uid)),
    }
}

/// A pool and what keeps its disks.
pub type Usable = (Arc<Obj<Pool>>, Arc<dyn Driver>);

/// The pool called `name`, with its driver, when it can be used here and now.
///
/// # Errors
/// `NotFound` when there is none, `Unavailable` when it is not online on this node.
pub fn usable(cx: &Cx, name: &str) -> Result<Usable> {
    let pool = cx
        .get::<Pool>(None, name)
        .ok_or_else(|| Error::not_found(format!("there is no pool `{name}`")))?;
    let status = pool.status.clone().unwrap_or_default();
    if !matches!(status.state, PoolState::Online | PoolState::Degraded) {
        let why = if status.message.is_empty() {
            "it is being prepared"
        } else {
            &status.message
        };
        return Err(Error::unavailable(format!(
            "pool `{name}` is not online: {why}"
        )));
    }
    if status.node != cx.node() {
        return Err(Error::unavailable(format!(
            "pool `{name}` is on node `{}`",
            status.node
        )));
    }
    let driver = driver_of(cx, &pool);
    Ok((pool, driver))
}

/// Why nothing new may be put into `pool`, if so.
pub(crate) fn refuses(pool: &Obj<Pool>, what: Content) -> Option<String> {
    let status = pool.status.clone().unwrap_or_default();
    rules::refuses(
        pool.metadata.name.as_str(),
        &pool.spec,
        status.used.0,
        status.total.0,
        what,
    )
}

impl Controller for Pools {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn owns(&self) -> &'static Kind {
        &KIND
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(pool) = cx.get_key::<Pool>(key) else {
                return Ok(Next::Settled);
            };
            let driver = driver_of(cx, &pool);
            if pool.metadata.deletion_requested.is_some() {
                driver.abandon().await?;
                cx.release(key).await?;
                return Ok(Next::Settled);
            }
            let before = pool.status.clone().unwrap_or_default();
            let path = path_of(cx, &pool).display().to_string();
            let looked = async {
                driver.prepare(before.prepared.is_none()).await?;
                driver.usage().await
            };
            let (state, message, usage) = match looked.await {
                Ok(usage) => {
                    let (state, message) = rules::state(&pool.spec, usage);
                    (state, message, Some(usage))
                }
                Err(error) => (PoolState::Offline, error.to_string(), None),
            };
            let now = cx.clock().now();
            let node = cx.node().to_owned();
            let written = message.clone();
            cx.set_status::<Pool>(key, move |status| {
                status.state = state;
                status.node.clone_from(&node);
                status.path.clone_from(&path);
                status.message.clone_from(&written);
                if let Some(usage) = usage {
                    // Whole MiB: what changes by less is nobody's news.
                    let whole = |bytes: u64| Bytes(bytes >> 20 << 20);
                    status.used = whole(usage.used);
                    status.free = whole(usage.free);
                    status.total = whole(usage.used + usage.free);
                    status.prepared.get_or_insert(now);
                }
            })
            .await?;
            match usage {
                Some(_) => Ok(Next::Again(LOOK)),
                None => Ok(Next::WaitingFor(message)),
            }
        })
    }
}
