//! Looks up again everybody whom a directory has brought: who is gone from it or disabled there is let in no more, and
//! groups follow.
//!
//! **Invariant.** Everything is read before anything is written. When the directory does not answer to the end, nobody is
//! changed; when it says that most of many are gone at once, nobody is either, for then rather its declaration is wrong.

use super::directory::Directories;
use super::person::{self, Person};
use super::{groups, login};
use crate::realm::{Realm, RealmStatus, RealmType, incoming};
use crate::user::{self, User};
use model::{Error, ObjectRef, Result, Timestamp, What};
use runtime::{Cx, Obj, Op, Proc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How many changes are told in full.
const TOLD: usize = 200;
/// For how long one that was begun is left alone before the next is thought of.
const BEGUN: Duration = Duration::from_secs(300);
/// Of so many known people, more than half do not go at once.
const MANY: usize = 10;

/// How the last look at everybody ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncResult {
    /// Everybody is as the directory says.
    #[default]
    Success,
    /// Some could not be changed.
    Partial,
    /// The directory was not read to its end, and nobody was changed.
    Failed,
    /// It was not asked: nobody here is of this realm, another look is under way, or the realm is switched off.
    Skipped,
}

/// A look at everybody, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SyncStatus {
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// How.
    pub result: SyncResult,
    /// Why it was not a success.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Users of the realm who were looked up.
    pub people: u32,
    /// How many of them are as before.
    pub unchanged: u32,
    /// How many have other groups, or another name or address.
    pub updated: u32,
    /// How many are let in no more: gone from the directory, or disabled there.
    pub suspended: u32,
    /// How many are let in again.
    pub resumed: u32,
    /// How many could not be changed.
    pub failed: u32,
    /// Users of the realm who have never logged in and cannot be looked up by who they are.
    pub unlinked: u32,
}

/// What a look at everybody is asked.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::realm) struct SyncInput {
    /// Only says what would be changed.
    #[serde(default)]
    pub dry_run: bool,
}

/// What becomes of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Updated,
    Suspended,
    Resumed,
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Fate::Updated => "updated",
            Fate::Suspended => "suspended",
            Fate::Resumed => "resumed",
        }
    }
}

/// One change of one user.
struct Change {
    user: Arc<Obj<User>>,
    fate: Fate,
    spec: Map<String, Value>,
}

/// Whether the directory lets him in no more, and why.
fn gone(seen: Option<&(Person, Vec<String>)>) -> Option<&'static str> {
    match seen {
        None => Some("is not in the directory any more, or not found by its user filter"),
        Some((person, _)) if !person.may_enter() => Some("is disabled in the directory"),
        Some(_) => None,
    }
}

/// What a directory's word makes of what is said of a user here: why he is let in no more, and whether he may be let in.
/// Who was disabled by a person stays so.
fn stand(active: bool, suspended: Option<&str>, why: Option<&str>) -> Option<(Fate, Value)> {
    match (why, suspended) {
        (Some(why), _) if active => Some((
            Fate::Suspended,
            json!({ "active": false, "suspended": why }),
        )),
        (None, Some(_)) => Some((Fate::Resumed, json!({ "active": true, "suspended": null }))),
        _ => None,
    }
}

fn plan(
    cx: &Cx,
    realm: &Obj<Realm>,
    users: &[Arc<Obj<User>>],
    seen: &HashMap<String, (Person, Vec<String>)>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    for user in users {
        let found = user.spec.subject.as_ref().and_then(|who| seen.get(who));
        let stand = stand(
            user.spec.active,
            user.spec.suspended.as_deref(),
            gone(found),
        );
        let mut spec = match found {
            Some((person, groups)) if person.may_enter() => {
                let incoming = login::incoming(person, &user.spec.username, groups.clone());
                incoming::differences(cx, realm, user, &incoming)
            }
            _ => Map::new(),
        };
        let fate = match stand {
            Some((fate, Value::Object(more))) => {
                spec.extend(more);
                fate
            }
            _ => Fate::Updated,
        };
        if !spec.is_empty() {
            changes.push(Change {
                user: user.clone(),
                fate,
                spec,
            });
        }
    }
    changes
}

/// Lets somebody in again whom his directory had locked out and has now proved.
///
/// # Errors
/// When the store does not answer.
pub(crate) async fn let_in_again(cx: &Cx, realm: &Obj<Realm>, subject: &str) -> Result<()> {
    let Some(user) = crate::realm::known(cx, &realm.metadata.name, subject) else {
        return Ok(());
    };
    let Some((fate, Value::Object(spec))) =
        stand(user.spec.active, user.spec.suspended.as_deref(), None)
    else {
        return Ok(());
    };
    match carry_out(cx, &Change { user, fate, spec }).await {
        // Somebody else has changed him: then that holds.
        Err(Error {
            what: What::PreconditionFailed(_),
            ..
        }) => Ok(()),
        done => done,
    }
}

/// Begins a look at everybody when its time has come; in how long that is. `None` when it never does by itself.
pub(in crate::realm) async fn when_due(cx: &Cx, realm: &Obj<Realm>) -> Result<Option<Duration>> {
    let Some(spec) = realm
        .spec
        .ldap
        .as_ref()
        .filter(|spec| spec.sync_minutes > 0)
    else {
        return Ok(None);
    };
    let every = Duration::from_secs(60 * u64::from(spec.sync_minutes));
    let status = realm
        .status
        .as_ref()
        .and_then(|status| status.sync.as_ref());
    let last = status.and_then(|sync| sync.at);
    let due = last.unwrap_or(realm.metadata.created).plus(every);
    let now = cx.clock().now();
    if now < due {
        return Ok(Some(due.since(now) + Duration::from_secs(1)));
    }
    let op = Op::Act {
        target: ObjectRef {
            kind: crate::realm::KIND.name.into(),
            project: None,
            name: realm.metadata.name.to_string(),
        },
        verb: "sync".into(),
        params: json!({}),
    };
    match cx.submit(op, "realm sync").await {
        Err(error) if !matches!(error.what, What::Busy(_) | What::Conflict(_)) => Err(error),
        _ => Ok(Some(BEGUN)),
    }
}

/// The procedure `sync`.
pub(in crate::realm) async fn run(proc: Proc) -> Result<Value> {
    let input: SyncInput = proc.params()?;
    proc.step("look everybody up", || look(&proc, &input)).await
}

async fn look(proc: &Proc, input: &SyncInput) -> Result<Value> {
    let (cx, name) = (proc.cx(), &proc.target().name);
    let realm = cx
        .get::<Realm>(None, name)
        .ok_or_else(|| Error::not_found(format!("there is no realm `{name}`")))?;
    if !matches!(realm.spec.sort, RealmType::Ldap | RealmType::Ad) {
        let sort = realm.spec.sort.word();
        return Err(Error::refused(format!(
            "realm `{name}` is of type `{sort}`: only directories can be asked for people"
        )));
    }
    let token = proc.token();
    let done = tokio::select! {
        () = token.cancelled() => return Err(Error::refused("the task was cancelled")),
        done = everybody(cx, &realm, input.dry_run) => done,
    };
    let (mut status, told) = match done {
        Ok(done) => done,
        Err(error) => {
            let status = SyncStatus {
                result: SyncResult::Failed,
                message: error.message.clone(),
                ..SyncStatus::default()
            };
            note(cx, &realm, status, input.dry_run).await?;
            return Err(error);
        }
    };
    status.at = Some(cx.clock().now());
    let mut said =
        serde_json::to_value(&status).map_err(|e| Error::internal("a sync as JSON").because(e))?;
    said["dry_run"] = json!(input.dry_run);
    said["changes"] = json!(told);
    note(cx, &realm, status, input.dry_run).await?;
    Ok(said)
}

async fn note(cx: &Cx, realm: &Obj<Realm>, status: SyncStatus, dry_run: bool) -> Result<()> {
    if dry_run {
        return Ok(());
    }
    tracing::info!(
        realm = %realm.metadata.name, result = ?status.result, people = status.people, updated = status.updated,
        suspended = status.suspended, resumed = status.resumed, failed = status.failed,
        "the people of a directory were looked up"
    );
    let now = cx.clock().now();
    let key = cx.key::<Realm>(None, &realm.metadata.name);
    cx.set_status::<Realm>(&key, |of: &mut RealmStatus| {
        of.sync = Some(SyncStatus {
            at: Some(now),
            ..status.clone()
        });
    })
    .await
    .map(drop)
}

async fn everybody(cx: &Cx, realm: &Obj<Realm>, dry_run: bool) -> Result<(SyncStatus, Vec<Value>)> {
    let skipped = |why: &str| {
        let status = SyncStatus {
            result: SyncResult::Skipped,
            message: why.to_owned(),
            ..SyncStatus::default()
        };
        Ok((status, Vec::new()))
    };
    if !realm.spec.enabled {
        return skipped("the realm is switched off");
    }
    let directory = Directories::of(cx, realm)?;
    let Ok(_alone) = directory.syncing.try_lock() else {
        return skipped("another look at everybody is under way");
    };
    let all = cx.list::<User>(None);
    let mine = all.iter().filter(|u| *u.spec.realm == *realm.metadata.name);
    let (users, unlinked): (Vec<_>, Vec<_>) =
        mine.cloned().partition(|user| user.spec.subject.is_some());
    let mut status = SyncStatus {
        people: u32::try_from(users.len()).unwrap_or(u32::MAX),
        unlinked: u32::try_from(unlinked.len()).unwrap_or(u32::MAX),
        ..SyncStatus::default()
    };
    if users.is_empty() {
        status.result = SyncResult::Skipped;
        status.message = "nobody of this realm has logged in yet".into();
        return Ok((status, Vec::new()));
    }
    let seen = read(cx, &directory, &users).await?;
    let is_there = |user: &Arc<Obj<User>>| {
        let subject = user.spec.subject.as_deref();
        subject.is_some_and(|subject| seen.contains_key(subject))
    };
    let active = users.iter().filter(|user| user.spec.active);
    let (stay, go): (Vec<_>, Vec<_>) = active.partition(|&user| is_there(user));
    let mut changes = plan(cx, realm, &users, &seen);
    let refused = (!is_believed(stay.len(), go.len())).then(|| {
        // Who is there and disabled there is so by a word of the directory, not for want of one.
        changes.retain(|change| change.fate == Fate::Suspended && is_there(&change.user));
        Error::refused(format!(
            "{} of {} people are not found in the directory of realm `{}` any more: nobody of them was changed",
            go.len(),
            go.len() + stay.len(),
            realm.metadata.name
        ))
        .hint("are `base_dn`, `user_filter` and the rights of `bind_dn` as they were? Who is really gone can be disabled by hand: dvctl user disable NAME")
    });
    status.unchanged = status
        .people
        .saturating_sub(u32::try_from(changes.len()).unwrap_or(u32::MAX));
    let (mut told, mut why) = (Vec::new(), Vec::new());
    for change in changes {
        let mut entry = json!({
            "user": change.user.metadata.name, "change": change.fate.word(), "fields": change.spec.keys().collect::<Vec<_>>(),
        });
        if let Some(reason) = change.spec.get("suspended").and_then(Value::as_str) {
            entry["why"] = reason.into();
        }
        let count = match change.fate {
            Fate::Updated => &mut status.updated,
            Fate::Suspended => &mut status.suspended,
            Fate::Resumed => &mut status.resumed,
        };
        let done = match dry_run {
            true => Ok(()),
            false => carry_out(cx, &change).await,
        };
        match done {
            Ok(()) => *count += 1,
            Err(error) => {
                status.failed += 1;
                entry["failed"] = json!(error.message);
                why.push(format!("{}: {}", change.user.metadata.name, error.message));
            }
        }
        if told.len() < TOLD {
            told.push(entry);
        }
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    if status.failed > 0 {
        status.result = SyncResult::Partial;
        why.truncate(5);
        status.message = why.join("; ");
    }
    Ok((status, told))
}

/// All that the directory says of these users, by who they are.
async fn read(
    cx: &Cx,
    directory: &super::directory::Directory,
    users: &[Arc<Obj<User>>],
) -> Result<HashMap<String, (Person, Vec<String>)>> {
    let subjects: Vec<&str> = users
        .iter()
        .filter_map(|user| user.spec.subject.as_deref())
        .collect();
    directory.parents.forget();
    let mut seen = HashMap::new();
    let people = person::by_subjects(cx, directory, &subjects).await?;
    let hidden = people.iter().filter(|p| p.disabled.is_none()).count();
    if hidden > 0 {
        return Err(Error::refused(format!(
            "realm `{}`: of {hidden} people it cannot be read whether their account is disabled: nobody was changed",
            directory.realm
        ))
        .hint("let `bind_dn` read userAccountControl of everybody"));
    }
    for mut person in people {
        // Under what was asked for: a directory finds also what is written in another case, or stands beside the first.
        let Some(subject) = subjects.iter().find(|subject| person.is(subject)) else {
            continue;
        };
        person.subject = (*subject).to_owned();
        let groups = match person.may_enter() {
            true => groups::of(cx, directory, &person).await?,
            false => Vec::new(),
        };
        let dn = person.dn.clone();
        if seen
            .insert((*subject).to_owned(), (person, groups))
            .is_some()
        {
            return Err(Error::refused(format!(
                "realm `{}`: `{dn}` and another entry are one person by `{}`: nobody was changed",
                directory.realm, directory.words.id
            ))
            .hint("set `spec.ldap.id_attribute` to an attribute that is different for everybody"));
        }
    }
    Ok(seen)
}

/// Whether so many who were let in may be gone at once. A directory of which we may read no more says the same as one
/// that everybody has left.
fn is_believed(stay: usize, go: usize) -> bool {
    let all = stay + go;
    match all {
        0 | 1 => true,
        _ if stay == 0 => false,
        _ => all < MANY || go * 2 <= all,
    }
}

/// Changes a user as he was read. Somebody who was changed meanwhile is left for the next time.
async fn carry_out(cx: &Cx, change: &Change) -> Result<()> {
    let op = Op::Patch {
        target: ObjectRef {
            kind: user::KIND.name.into(),
            project: None,
            name: change.user.metadata.name.to_string(),
        },
        body: json!({ "metadata": { "revision": change.user.metadata.revision }, "spec": change.spec }),
    };
    match cx.submit(op, "realm sync").await {
        Ok(_) => Ok(()),
        // Who is gone here needs no change.
        Err(Error {
            what: What::NotFound,
            ..
        }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted is who would be put out now, not who has left in all the years.
    #[test]
    fn not_everybody_leaves_at_once() {
        for (stay, go, believed) in [
            (0, 0, true),
            (0, 1, true),
            (0, 2, false),
            (1, 1, true),
            (1, 8, true),
            (0, 9, false),
            (5, 5, true),
            (4, 6, false),
            (100, 1, true),
        ] {
            assert_eq!(is_believed(stay, go), believed, "{stay} {go}");
        }
    }

    #[test]
    fn who_is_let_in() {
        let why = Some("gone");
        let fate = |active, suspended, why| stand(active, suspended, why).map(|(fate, _)| fate);
        assert_eq!(fate(true, None, None), None);
        assert_eq!(fate(true, None, why), Some(Fate::Suspended));
        assert_eq!(fate(false, Some("gone"), why), None);
        assert_eq!(fate(false, Some("gone"), None), Some(Fate::Resumed));
        // A person let him in again, and the directory still says no.
        assert_eq!(fate(true, Some("gone"), why), Some(Fate::Suspended));
        // A person disabled him: the directory does not let him in again.
        assert_eq!(fate(false, None, None), None);
        // Disabled by a person and gone: when he comes back, a person has still disabled him.
        assert_eq!(fate(false, None, why), None);
    }
}
