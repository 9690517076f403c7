//! No way up: what somebody may give, take back or manage is what he holds himself, there, at least as freely.
//!
//! He **covers** a privilege on a place when one of his grants allows it on all of the place, for as long, under no other
//! conditions than those of what he gives, and none of his grants that lies as deep or deeper denies it anywhere there.
//! A denial is held against him whether its conditions hold or not: they may hold for whom he gives it to.

use super::pattern::privileges;
use super::reach::Reach;
use super::rights::{Rights, Rule, Words};
use super::state::Subject;
use super::{Rules, of};
use crate::api_key::ApiKey;
use crate::grant::{GrantSpec, When};
use crate::role::RoleSpec;
use model::{Error, Labels, ObjectRef, Result, Selector, Timestamp};
use runtime::{Actor, ActorKind, Cx, Wish, object_key};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

static ALL: LazyLock<Selector> = LazyLock::new(Selector::default);

/// How freely something is given.
#[derive(Clone, Debug)]
pub(super) struct Given<'a> {
    reach: &'a Reach,
    selector: &'a Selector,
    propagate: bool,
    expires: Option<Timestamp>,
    when: &'a [When],
}

impl<'a> Given<'a> {
    /// On all of a place, for good.
    fn freely(reach: &'a Reach) -> Given<'a> {
        Given {
            reach,
            selector: &ALL,
            propagate: true,
            expires: None,
            when: &[],
        }
    }

    fn by(rule: &'a Rule) -> Given<'a> {
        Given {
            reach: &rule.reach,
            selector: &rule.selector,
            propagate: rule.propagate,
            expires: rule.expires,
            when: &rule.when,
        }
    }
}

/// What an actor holds: his own rights, and what his key limits them to.
struct Holder {
    rights: Vec<Arc<Rights>>,
    now: Timestamp,
}

impl Holder {
    fn covers(&self, kind: &str, verb: &str, given: &Given<'_>) -> bool {
        let all = |rights: &Arc<Rights>| covers(rights, kind, verb, given, self.now);
        !self.rights.is_empty() && self.rights.iter().all(all)
    }

    /// Whether he may do something with one object as it is now, by whatever grant.
    fn may(&self, actor: &Actor, wish: &Wish<'_>) -> bool {
        let scene = super::scene(actor, wish);
        !self.rights.is_empty() && self.rights.iter().all(|rights| rights.allow(wish, &scene))
    }
}

fn covers(rights: &Rights, kind: &str, verb: &str, given: &Given<'_>, now: Timestamp) -> bool {
    let in_force = |rule: &&Rule| rule.expires.is_none_or(|end| now < end);
    let speaking = || {
        rights
            .all()
            .filter(in_force)
            .filter_map(|rule| Some((rule, rule.says(kind, verb)?)))
    };
    let freely_enough = |rule: &Rule| {
        rule.reach.holds(given.reach)
            && (rule.propagate || (rule.reach == *given.reach && !given.propagate))
            && (rule.selector.is_empty() || rule.selector == *given.selector)
            && rule
                .expires
                .is_none_or(|end| given.expires.is_some_and(|until| until <= end))
            && rule.when.iter().all(|when| given.when.contains(when))
    };
    let denied = |allowing: &Rule| {
        speaking().any(|(rule, says)| {
            !says && rule.reach.meets(given.reach) && rule.level() >= allowing.level()
        })
    };
    speaking().any(|(rule, says)| says && freely_enough(rule) && !denied(rule))
}

fn holder(cx: &Cx, rules: &Rules, actor: &Actor) -> Holder {
    let rights = match rules.rights(cx, actor) {
        Some((own, limit)) => std::iter::once(own).chain(limit).collect(),
        None => Vec::new(),
    };
    Holder {
        rights,
        now: cx.clock().now(),
    }
}

fn rules_of(cx: &Cx) -> Result<Arc<Rules>> {
    of(cx).ok_or_else(|| Error::denied("this process has no access rules"))
}

/// Refuses with the names of what somebody lacks.
fn refuse(actor: &Actor, place: &Reach, lacking: Vec<String>) -> Result<()> {
    if lacking.is_empty() {
        return Ok(());
    }
    let shown: Vec<&str> = lacking.iter().take(5).map(String::as_str).collect();
    let more = match lacking.len() - shown.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(Error::denied(format!(
        "`{}` cannot give, take or manage what he does not have, as freely, on {place}: {}{more}",
        actor.name,
        shown.join(", ")
    ))
    .hint("ask somebody who has these privileges himself"))
}

fn lacking(cx: &Cx, holder: &Holder, words: &Words, given: &Given<'_>) -> Vec<String> {
    privileges(cx)
        .into_iter()
        .filter(|(kind, verb)| words.say(kind, verb) == Some(true))
        .filter(|(kind, verb)| !holder.covers(kind, verb, given))
        .map(|(kind, verb)| format!("{kind}.{verb}"))
        .collect()
}

/// Refuses to write a role that gives what the actor does not hold everywhere, or to change what it says about it.
///
/// # Errors
///
/// `Denied`, naming the first such privileges.
pub fn may_write_role(
    cx: &Cx,
    actor: &Actor,
    name: &str,
    old: Option<&RoleSpec>,
    new: &RoleSpec,
) -> Result<()> {
    if actor.is_trusted() {
        return Ok(());
    }
    let rules = rules_of(cx)?;
    let holder = holder(cx, &rules, actor);
    let (old, new) = rules.sync(cx, |state| {
        (old.map(|old| state.words_of(old)), state.words_of(new))
    });
    let everything = Reach::Everything;
    let given = Given::freely(&everything);
    let mut lacks = lacking(cx, &holder, &new, &given);
    if let Some(old) = &old {
        // Whoever holds the role gains or loses this: a denial that is lifted is a gift as well.
        for (kind, verb) in privileges(cx) {
            let word = format!("{kind}.{verb}");
            if old.say(kind, verb) != new.say(kind, verb)
                && !lacks.contains(&word)
                && !holder.covers(kind, verb, &given)
            {
                lacks.push(word);
            }
        }
    }
    refuse(actor, &everything, lacks)?;
    let denies = |words: &Words, kind: &str, verb: &str| words.say(kind, verb) == Some(false);
    let denies_more = |old: &Words| {
        let mut all = privileges(cx).into_iter();
        all.any(|(kind, verb)| denies(&new, kind, verb) && !denies(old, kind, verb))
    };
    if old.as_ref().is_some_and(denies_more) {
        for subject in rules.sync(cx, |state| state.holders(name)) {
            limits(cx, &rules, actor, &subject)?;
        }
    }
    Ok(())
}

/// Refuses to deny anything to somebody who may more than the actor, be it what the actor has himself.
fn limits(cx: &Cx, rules: &Rules, actor: &Actor, subject: &Subject) -> Result<()> {
    for one in rules.sync(cx, |state| state.people_of(subject)) {
        match one {
            Subject::User(user) => manages(cx, actor, &user)?,
            Subject::Key(key) => {
                if let Some(key) = cx.get::<ApiKey>(None, &key) {
                    manages(cx, actor, &key.spec.owner)?;
                }
            }
            Subject::Group(_) => {}
        }
    }
    Ok(())
}

/// Refuses a grant, or taking one back, that gives more than the actor holds there, or that denies somebody what he has
/// and the actor has not: so nobody shuts out who is above him, nor lets go of what he is denied.
///
/// # Errors
///
/// `Denied`, naming the first such privileges; `Invalid` when the grant cannot be read.
pub fn may_grant(
    cx: &Cx,
    actor: &Actor,
    name: &str,
    grant: &GrantSpec,
    gives_only: bool,
) -> Result<()> {
    if actor.is_trusted() {
        return Ok(());
    }
    let rules = rules_of(cx)?;
    let holder = holder(cx, &rules, actor);
    let reach = Reach::parse(&grant.scope)?;
    let words = rules.sync(cx, |state| state.words(&grant.role));
    let selector = Selector::parse(&grant.selector)?;
    let given = Given {
        reach: &reach,
        selector: &selector,
        propagate: grant.propagate,
        expires: grant.expires,
        when: &grant.conditions,
    };
    let mut lacks = lacking(cx, &holder, &words, &given);
    if !gives_only && let Some(subject) = Subject::of(grant) {
        let freely = Given::freely(&reach);
        let subjects = rules.sync(cx, |state| state.people_of(&subject));
        for subject in subjects {
            let rights = rules.sync(cx, |state| state.rights(&subject));
            lacks.extend(denied_to(cx, &holder, &words, &freely, &rights, name));
        }
        lacks.sort();
        lacks.dedup();
        if !words.deny.is_empty() {
            limits(cx, &rules, actor, &subject)?;
        }
    }
    refuse(actor, &reach, lacks)
}

/// What words deny somebody who has it otherwise there, and that the holder does not cover.
fn denied_to(
    cx: &Cx,
    holder: &Holder,
    words: &Words,
    given: &Given<'_>,
    rights: &Rights,
    but: &str,
) -> Vec<String> {
    let has = |kind: &str, verb: &str| {
        rights.all().any(|rule| {
            *rule.grant != *but
                && rule.says(kind, verb) == Some(true)
                && rule.reach.meets(given.reach)
        })
    };
    privileges(cx)
        .into_iter()
        .filter(|(kind, verb)| words.say(kind, verb) == Some(false))
        .filter(|(kind, verb)| !holder.covers(kind, verb, given) && has(kind, verb))
        .map(|(kind, verb)| format!("{kind}.{verb}"))
        .collect()
}

/// Refuses to let an actor manage (change, disable, reset, log out, delete) a user who may more than he. Everybody manages
/// himself, but a key does not manage its owner: it would be rid of its own limits.
///
/// # Errors
///
/// `Denied`, naming the privileges that the user has and the actor has not.
pub fn manages(cx: &Cx, actor: &Actor, user: &str) -> Result<()> {
    let himself = actor.kind != ActorKind::Key && actor.user.as_deref() == Some(user);
    if actor.is_trusted() || himself {
        return Ok(());
    }
    if let Some(held) = held_to(cx, actor) {
        return Err(Error::denied(format!(
            "`{}` lets in from {held} only, and what it made here could be used from elsewhere",
            actor.name
        ))
        .hint("let somebody do it who has logged in himself"));
    }
    above(cx, actor, &Subject::User(user.into()))
}

/// From where alone a key lets in, when it is held to a machine or to networks.
fn held_to(cx: &Cx, actor: &Actor) -> Option<String> {
    let key = actor.credential.as_deref()?.strip_prefix("api-key/")?;
    let spec = cx.get::<ApiKey>(None, key.split('/').next()?)?.spec.clone();
    match (spec.machine, spec.networks.is_empty()) {
        (Some(machine), _) => Some(format!("machine `{machine}`")),
        (None, false) => Some("its networks".into()),
        (None, true) => None,
    }
}

/// Refuses to let an actor put somebody into a group that may more than he: it would be a way up.
///
/// # Errors
///
/// `Denied`, naming the privileges that the group has and the actor has not.
pub fn may_join(cx: &Cx, actor: &Actor, group: &str) -> Result<()> {
    match actor.is_trusted() {
        true => Ok(()),
        false => above(cx, actor, &Subject::Group(group.into())),
    }
}

/// Refuses to let an actor take somebody out of a group that denies him what the actor has not himself: it would be a way
/// out.
///
/// # Errors
///
/// `Denied`, naming those privileges.
pub fn may_leave(cx: &Cx, actor: &Actor, user: &str, group: &str) -> Result<()> {
    if actor.is_trusted() {
        return Ok(());
    }
    let rules = rules_of(cx)?;
    let holder = holder(cx, &rules, actor);
    let (of_user, of_group) = rules.sync(cx, |state| {
        let user = state.rights(&Subject::User(user.into()));
        (user, state.rights(&Subject::Group(group.into())))
    });
    for rule in of_group.all() {
        let given = Given::freely(&rule.reach);
        let lacks = match rule.gives_only {
            true => Vec::new(),
            false => denied_to(cx, &holder, &rule.words, &given, &of_user, &rule.grant),
        };
        refuse(actor, &rule.reach, lacks)?;
    }
    Ok(())
}

fn above(cx: &Cx, actor: &Actor, subject: &Subject) -> Result<()> {
    let rules = rules_of(cx)?;
    let holder = holder(cx, &rules, actor);
    let rights = rules.sync(cx, |state| state.rights(subject));
    for rule in rights.all() {
        if rule.expires.is_some_and(|end| holder.now >= end) {
            continue;
        }
        let lacks = lacking(cx, &holder, &rule.words, &Given::by(rule));
        refuse(actor, &rule.reach, lacks)?;
    }
    Ok(())
}

/// Refuses to change labels so that somebody's rights on the object change by what the actor does not hold on it: labels
/// that grants pick by are a way to give and to take.
///
/// # Errors
///
/// `Denied`, naming those privileges.
pub fn may_relabel(
    cx: &Cx,
    actor: &Actor,
    from: Option<IpAddr>,
    target: &ObjectRef,
    (old, new): (&Labels, &Labels),
) -> Result<()> {
    if actor.is_trusted() || old == new {
        return Ok(());
    }
    let rules = rules_of(cx)?;
    let holder = holder(cx, &rules, actor);
    let picky = rules.sync(cx, |state| state.picky());
    let reach = Reach::Object {
        kind: target.kind.as_str().into(),
        project: target.project.as_deref().map(Into::into),
        name: target.name.as_str().into(),
    };
    let key = object_key(&target.kind, target.project.as_deref(), &target.name);
    for rule in picky {
        let differs = rule.picks(old) != rule.picks(new);
        let project = target.kind == "project" && rule.reach.key().as_ref() == Some(&key);
        if !differs || !(rule.reach.holds(&reach) || project) {
            continue;
        }
        let lacks = privileges(cx)
            .into_iter()
            .filter(|(kind, verb)| *kind == target.kind && rule.says(kind, verb).is_some())
            .filter(|(kind, verb)| {
                let wish = Wish {
                    kind,
                    verb,
                    project: target.project.as_deref(),
                    name: Some(&target.name),
                    labels: Some(old),
                    part_of: None,
                    from,
                    now: holder.now,
                };
                !holder.may(actor, &wish)
            })
            .map(|(kind, verb)| format!("{kind}.{verb}"))
            .collect();
        refuse(actor, &reach, lacks)?;
    }
    Ok(())
}
