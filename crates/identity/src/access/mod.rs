//! Who may do what: the one model behind every surface. Roles say which privileges, grants say whose and where and when;
//! the gate asks here for each request.
//!
//! **Invariants.** Deny unless a grant allows. Nobody can give what he does not have, change a role or a grant that holds
//! more, limit or manage somebody who may more than he. Somebody always holds `superadmin` on everything once anybody does.

mod ask;
#[cfg(test)]
mod batch_tests;
mod pattern;
mod reach;
mod rights;
mod state;
mod talk;
#[cfg(test)]
pub(crate) mod tests;
mod up;
#[cfg(test)]
mod up_tests;
mod when;

pub use ask::{Explained, Question, Reason, explain, matrix, who_can};
pub use pattern::{Pattern, privileges};
pub use reach::Reach;
pub use state::Subject;
pub use talk::talk;
pub use up::{manages, may_grant, may_join, may_leave, may_relabel, may_write_role};

use crate::api_key::ApiKey;
use crate::factor::Factor;
use crate::grant::{Grant, GrantSpec};
use crate::member::{self, Member};
use crate::role::{Mfa, SUPERADMIN};
use crate::session::Session;
use crate::{grant, role};
use model::{Error, Labels, ObjectRef, Result};
use parking_lot::Mutex;
use rights::Rights;
use runtime::{Access, AccessRules, Actor, ActorKind, Cx, Row, View, Wish};
use state::State;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::watch;
use when::Scene;

/// The rules of this process. One for each, as the part [`AccessRules`] and as a part of its own.
pub struct Rules {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

impl Rules {
    /// Knows nothing until it is first asked.
    #[allow(
        clippy::new_without_default,
        reason = "one is made, on purpose, at start"
    )]
    pub fn new() -> Rules {
        Rules {
            state: Mutex::default(),
            changes: watch::channel(0).0,
        }
    }

    /// Tells those who wait for changes of rights also while nobody asks for anything. Runs until the process ends.
    pub async fn follow(self: Arc<Self>, cx: Cx) {
        let stop = cx.shutdown();
        let mut changes = cx.cache().subscribe();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                // What was missed is taken in by the sync as well.
                _ = changes.recv() => self.sync(&cx, |_| ()),
            }
        }
    }

    fn sync<T>(&self, cx: &Cx, with: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock();
        if state.sync(cx) {
            self.changes.send_modify(|count| *count += 1);
        }
        with(&mut state)
    }

    /// The rights of whoever an actor acts for, and what his key limits them to. None for one who is gone or disabled.
    fn rights(&self, cx: &Cx, actor: &Actor) -> Option<(Arc<Rights>, Option<Arc<Rights>>)> {
        let user = actor.user.as_deref()?;
        self.sync(cx, |state| {
            if !state.is_active(user) {
                return None;
            }
            let own = state.rights(&Subject::User(user.into()));
            let limit = match actor.kind {
                ActorKind::Key => {
                    let key = actor.credential.as_deref()?.strip_prefix("api-key/")?;
                    let key = key.split('/').next()?;
                    Some(state.rights(&Subject::Key(key.into())))
                }
                _ => None,
            };
            Some((own, limit))
        })
    }

    /// What the roles of a user ask of his login.
    pub fn mfa(&self, cx: &Cx, user: &str) -> Mfa {
        self.sync(cx, |state| state.mfa(user))
    }
}

/// The rules of a process that has them.
pub fn of(cx: &Cx) -> Option<Arc<Rules>> {
    cx.try_part::<Rules>()
}

/// Both parts that a process needs.
pub fn parts() -> (Arc<Rules>, Arc<AccessRules>) {
    let rules = Arc::new(Rules::new());
    (rules.clone(), Arc::new(AccessRules(rules)))
}

fn scene<'a>(actor: &'a Actor, wish: &Wish<'a>) -> Scene<'a> {
    Scene {
        kind: actor.kind,
        user: actor.user.as_deref().unwrap_or_default(),
        mfa: actor.mfa,
        from: wish.from,
        now: wish.now,
        labels: wish.labels,
    }
}

/// What every known caller may: read how to ask.
fn is_free(wish: &Wish<'_>) -> bool {
    (wish.kind, wish.verb) == ("registry", "read")
}

impl Access for Rules {
    fn may(&self, cx: &Cx, actor: &Actor, wish: &Wish<'_>) -> bool {
        if is_free(wish) {
            return true;
        }
        let Some((own, limit)) = self.rights(cx, actor) else {
            return false;
        };
        let scene = scene(actor, wish);
        own.allow(wish, &scene) && limit.is_none_or(|limit| limit.allow(wish, &scene))
    }

    fn view(&self, cx: &Cx, actor: &Actor, wish: &Wish<'_>) -> View {
        let Some((own, limit)) = self.rights(cx, actor) else {
            return View::Nothing;
        };
        let limited = match &limit {
            None => Some(true),
            Some(limit) => limit.all_or_none(wish),
        };
        match (own.all_or_none(wish), limited) {
            (Some(true), Some(true)) => return View::All,
            (Some(false), _) | (_, Some(false)) => return View::Nothing,
            _ => {}
        }
        let actor = actor.clone();
        let (kind, verb) = (wish.kind.to_owned(), wish.verb.to_owned());
        let (from, now) = (wish.from, wish.now);
        View::Some(Arc::new(move |row: &Row| {
            let wish = Wish {
                kind: &kind,
                verb: &verb,
                project: row.project.as_deref(),
                name: Some(&row.name),
                labels: Some(&row.labels),
                part_of: row.part_of.as_ref(),
                from,
                now,
            };
            let scene = scene(&actor, &wish);
            own.allow(&wish, &scene)
                && limit
                    .as_ref()
                    .is_none_or(|limit| limit.allow(&wish, &scene))
        }))
    }

    fn enters(&self, cx: &Cx, actor: &Actor, from: Option<IpAddr>, project: &str) -> bool {
        let Some((own, limit)) = self.rights(cx, actor) else {
            return false;
        };
        let wish = Wish {
            kind: "project",
            verb: "read",
            project: None,
            name: Some(project),
            labels: None,
            part_of: None,
            from,
            now: cx.clock().now(),
        };
        let scene = scene(actor, &wish);
        own.enter(project, &scene) && limit.is_none_or(|limit| limit.enter(project, &scene))
    }

    fn lets_go(&self, cx: &Cx, actor: &Actor, target: &ObjectRef) -> Result<()> {
        match target.kind.as_str() {
            "role" if role::BUILT_IN.iter().any(|role| role.name == target.name) => Err(
                Error::refused(format!("role `{}` is built in and stays", target.name)),
            ),
            "grant" => {
                let Some(grant) = cx.get::<Grant>(None, &target.name) else {
                    return Ok(());
                };
                may_grant(cx, actor, &target.name, &grant.spec, false)?;
                match grant::is_superadmin(&grant.spec) {
                    true => another_superadmin(cx, |name, _| name != target.name),
                    false => Ok(()),
                }
            }
            "member" => {
                let project = target.project.as_deref();
                match cx.get::<Member>(project, &target.name).zip(project) {
                    Some((member, project)) => {
                        let grant = member.spec.grant(project);
                        may_grant(cx, actor, &target.to_string(), &grant, true)
                    }
                    None => Ok(()),
                }
            }
            // Whoever may take away by what somebody logs in, may keep him out or come in for him.
            "factor" => match cx.get::<Factor>(None, &target.name) {
                Some(factor) => manages(cx, actor, &factor.spec.user),
                None => Ok(()),
            },
            "session" => match cx.get::<Session>(None, &target.name) {
                Some(session) => manages(cx, actor, &session.spec.user),
                None => Ok(()),
            },
            "api-key" => match cx.get::<ApiKey>(None, &target.name) {
                Some(key) => manages(cx, actor, &key.spec.owner),
                None => Ok(()),
            },
            "user" => {
                manages(cx, actor, &target.name)?;
                another_superadmin(cx, |_, user| user != target.name)
            }
            _ => Ok(()),
        }
    }

    fn relabels(
        &self,
        cx: &Cx,
        actor: &Actor,
        from: Option<IpAddr>,
        target: &ObjectRef,
        labels: (&Labels, &Labels),
    ) -> Result<()> {
        may_relabel(cx, actor, from, target, labels)
    }

    fn names(&self, kind: &str, referred: &str) -> bool {
        // Whoever lets people into his project names them, and the roles, without seeing who and what else there is.
        kind == member::KIND.name && ["user", "group", "role"].contains(&referred)
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Refuses to deny anything on everything to all who have everything.
///
/// # Errors
///
/// `Refused` when nobody else would be left.
pub fn keeps_a_superadmin(cx: &Cx, new: &GrantSpec) -> Result<()> {
    let (Some(rules), Some(subject)) = (of(cx), Subject::of(new)) else {
        return Ok(());
    };
    let (words, limited) = rules.sync(cx, |state| {
        (state.words(&new.role), state.people_of(&subject))
    });
    match new.scope == "/" && !words.deny.is_empty() {
        true => another_superadmin(cx, |_, user| !limited.contains(&Subject::User(user.into()))),
        false => Ok(()),
    }
}

/// Refuses to take the last superadmin out of the groups that make him one.
///
/// # Errors
///
/// `Refused` when nobody else would be left.
pub fn leaves_a_superadmin(cx: &Cx, user: &str, left: &[&String]) -> Result<()> {
    if left.is_empty() {
        return Ok(());
    }
    let of_left = |spec: &GrantSpec| {
        spec.group
            .as_ref()
            .is_some_and(|group| left.contains(&group))
    };
    let grants = cx.list::<Grant>(None).into_iter();
    let lost: Vec<String> = grants
        .filter(|grant| grant::is_superadmin(&grant.spec) && of_left(&grant.spec))
        .map(|grant| grant.metadata.name.to_string())
        .collect();
    match lost.is_empty() {
        true => Ok(()),
        false => another_superadmin(cx, |grant, who| {
            who != user || !lost.iter().any(|lost| lost == grant)
        }),
    }
}

/// Whether something is denied to a user on everything.
fn is_limited(cx: &Cx, user: &str) -> bool {
    let Some(rules) = of(cx) else { return false };
    let now = cx.clock().now();
    let rights = rules.sync(cx, |state| state.rights(&Subject::User(user.into())));
    rights.all().any(|rule| {
        rule.reach == Reach::Everything
            && !rule.gives_only
            && !rule.words.deny.is_empty()
            && rule.expires.is_none_or(|end| now < end)
    })
}

/// Whether somebody who can log in holds `superadmin` on everything for good, with nothing on everything denied to him,
/// besides those that `counts` leaves out (asked with the name of the grant and of the user).
///
/// # Errors
///
/// `Refused` when there is none, unless nobody holds it anyway.
pub fn another_superadmin(cx: &Cx, counts: impl Fn(&str, &str) -> bool) -> Result<()> {
    let mut any = false;
    for grant in cx.list::<Grant>(None) {
        if !grant::is_superadmin(&grant.spec) {
            continue;
        }
        let users: Vec<String> = match (&grant.spec.user, &grant.spec.group) {
            (Some(user), _) => vec![user.clone()],
            (_, Some(group)) => members(cx, group),
            _ => Vec::new(),
        };
        let whole = |user: &&String| can_log_in(cx, user) && !is_limited(cx, user);
        for user in users.iter().filter(whole) {
            any = true;
            if counts(grant.metadata.name.as_str(), user) {
                return Ok(());
            }
        }
    }
    match any {
        false => Ok(()),
        true => Err(Error::refused(format!(
            "this would leave nobody with the role `{SUPERADMIN}` on everything"
        ))
        .hint("grant it to somebody else first: dvctl grant create NAME --user USER --role superadmin")),
    }
}

fn members(cx: &Cx, group: &str) -> Vec<String> {
    let rows = cx.cache().rows("user", None);
    let is_in = |row: &&Arc<Row>| {
        let groups = row.value().map(|value| value["spec"]["groups"].clone());
        groups.is_ok_and(|groups| {
            let mut groups = groups.as_array().into_iter().flatten();
            groups.any(|one| one == group)
        })
    };
    rows.iter()
        .filter(is_in)
        .map(|row| row.name.to_string())
        .collect()
}

fn can_log_in(cx: &Cx, user: &str) -> bool {
    let key = runtime::object_key("user", None, user);
    let row = cx.cache().row("user", &key);
    row.filter(|row| !row.deleting)
        .and_then(|row| row.value().ok())
        .is_some_and(|value| value["spec"]["active"] != serde_json::json!(false))
}
