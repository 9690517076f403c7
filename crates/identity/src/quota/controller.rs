//! Makes the quota of each project, shows what is used, and looks now and then whether that was counted rightly.

use super::{KIND, Quota, QuotaSpec, QuotaStatus};
use crate::project::{self, Project};
use futures::future::BoxFuture;
use model::{Error, Kind, ObjectRef, Resource, Result, What};
use runtime::{Controller, Cx, Delta, Key, Next, Op, Watch, object_key, object_ref};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

/// The status follows what is used by at most this.
const CALM: Duration = Duration::from_secs(1);
/// How often everything is counted anew.
const RECOUNT: Duration = Duration::from_secs(3600);

/// The only writer of a quota's status.
pub(super) struct QuotaController;

impl Controller for QuotaController {
    fn name(&self) -> &'static str {
        "quotas"
    }

    fn owns(&self) -> &'static Kind {
        Quota::KIND
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::Twin(project::KIND.name)]
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let Some(target) = object_ref(key) else {
                return Ok(Next::Settled);
            };
            let Some(project) = cx.get::<Project>(None, &target.name) else {
                return Ok(Next::Settled);
            };
            if project.metadata.deletion_requested.is_some() {
                return Ok(Next::Settled);
            }
            let Some(quota) = cx.get_key::<Quota>(key) else {
                make(cx, &target, project.metadata.uid).await?;
                return Ok(Next::Settled);
            };
            let used: BTreeMap<String, u64> = cx
                .cache()
                .usage(&target.name)
                .into_iter()
                .map(|(word, amount)| (word.into(), amount))
                .collect();
            let over: Vec<String> = used
                .iter()
                .filter(|(word, used)| quota.spec.limit(word).is_some_and(|limit| **used > limit))
                .map(|(word, _)| word.clone())
                .collect();
            cx.set_status::<Quota>(key, |status: &mut QuotaStatus| {
                status.used.clone_from(&used);
                status.over.clone_from(&over);
            })
            .await?;
            Ok(Next::Settled)
        })
    }
}

/// The quota of a project: its limits are the numbers of a new one.
async fn make(cx: &Cx, target: &ObjectRef, project: model::Uid) -> Result<()> {
    let body = json!({
        "metadata": {
            "name": target.name,
            "owner": { "kind": project::KIND.name, "name": target.name, "uid": project },
        },
        "spec": QuotaSpec::of_new(cx, &target.name),
    });
    let op = Op::Create {
        kind: KIND.name.into(),
        project: None,
        body,
    };
    match cx.submit(op, "quota").await {
        Ok(_)
        | Err(Error {
            what: What::Exists, ..
        }) => Ok(()),
        Err(error) => Err(error),
    }
}

fn key_of(project: &str) -> Key {
    object_key(KIND.name, None, project)
}

/// The project whose sums a change moves.
fn moved(delta: &Delta) -> Option<Box<str>> {
    let (new, old) = (delta.new.as_deref(), delta.old.as_deref());
    let same =
        new.map(|row| (&row.amounts, &row.owner)) == old.map(|row| (&row.amounts, &row.owner));
    let counts = [new, old]
        .into_iter()
        .flatten()
        .any(|row| !row.amounts.is_empty());
    let project = new.or(old).and_then(|row| row.project.clone());
    project.filter(|_| counts && !same)
}

/// Wakes the quotas of projects that use more or less than before, and counts everything anew now and then.
pub(super) async fn follow(cx: Cx) {
    let stop = cx.shutdown();
    let mut changes = cx.cache().subscribe();
    let mut due: BTreeSet<Box<str>> = BTreeSet::new();
    let mut when = Instant::now();
    let mut recount = tokio::time::interval(RECOUNT);
    recount.reset();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = recount.tick() => check(&cx).await,
            () = tokio::time::sleep_until(when), if !due.is_empty() => {
                for project in std::mem::take(&mut due) {
                    cx.wake(&key_of(&project));
                }
            }
            delta = changes.recv() => match delta {
                Ok(delta) => {
                    if let Some(project) = moved(&delta) {
                        if due.is_empty() {
                            when = Instant::now() + CALM;
                        }
                        due.insert(project);
                    }
                }
                Err(RecvError::Lagged(_)) => {
                    when = Instant::now() + CALM;
                    due.extend(cx.cache().rows(KIND.name, None).iter().map(|row| row.name.clone()));
                }
                Err(RecvError::Closed) => return,
            },
        }
    }
}

/// Counts everything anew. That anything was counted wrongly is a mistake of ours, and is said loudly.
pub(super) async fn check(cx: &Cx) {
    for project in cx.cache().recount() {
        tracing::error!(%project, "what the project uses was counted wrongly and is counted anew");
        let about = ObjectRef {
            kind: KIND.name.into(),
            project: None,
            name: project.to_string(),
        };
        cx.event(
            &about,
            "quota.repaired",
            "what the project uses was counted wrongly and has been counted anew",
            runtime::event::Severity::Error,
        )
        .await;
        cx.wake(&key_of(&project));
    }
}
