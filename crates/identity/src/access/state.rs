//! Roles, grants, groups and key limits as the store has them, in the shape in which decisions need them.
//!
//! Fed by changes, never by scans of everything: before each answer it takes in what has been committed since the last, so
//! a right that was taken away is gone for the very next request. What one subject may do is put together when he is first
//! asked about, and dropped when something of his changes.

use super::pattern::Pattern;
use super::reach::Reach;
use super::rights::{Rights, Rule, Words};
use crate::grant::{self, GrantSpec, When};
use crate::member::{self, MemberSpec};
use crate::role::{self, RoleSpec};
use model::{Scope, Selector};
use runtime::{Cx, Delta, Key, Row};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;

/// Who has a grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A user.
    User(Box<str>),
    /// The members of a group.
    Group(Box<str>),
    /// An API key.
    Key(Box<str>),
}

impl Subject {
    /// Of a grant.
    pub fn of(spec: &GrantSpec) -> Option<Subject> {
        match (&spec.user, &spec.group, &spec.key) {
            (Some(user), None, None) => Some(Subject::User(user.as_str().into())),
            (None, Some(group), None) => Some(Subject::Group(group.as_str().into())),
            (None, None, Some(key)) => Some(Subject::Key(key.as_str().into())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Subject::User(name) => write!(f, "user {name}"),
            Subject::Group(name) => write!(f, "group {name}"),
            Subject::Key(name) => write!(f, "key {name}"),
        }
    }
}

/// Kinds whose changes can change what somebody may do.
const KINDS: [&str; 5] = ["role", "grant", "member", USER, KEY];
const USER: &str = "user";
const KEY: &str = "api-key";

/// A grant, or what is as good as one.
#[derive(Clone)]
struct Held {
    name: Box<str>,
    spec: GrantSpec,
    gives_only: bool,
}

/// What is known.
#[derive(Default)]
pub struct State {
    changes: Option<broadcast::Receiver<Arc<Delta>>>,
    roles: HashMap<Box<str>, RoleSpec>,
    /// grants and members of projects, which are grants that only give
    grants: HashMap<Key, Held>,
    /// those that look at labels
    picky: HashSet<Key>,
    of: HashMap<Subject, HashSet<Key>>,
    /// user -> his groups
    groups: HashMap<Box<str>, Vec<Box<str>>>,
    members: HashMap<Box<str>, HashSet<Box<str>>>,
    /// Users who may log in.
    active: HashSet<Box<str>>,
    /// key -> what it is limited to
    limits: HashMap<Box<str>, Rule>,
    words: HashMap<Box<str>, Arc<Words>>,
    /// The kinds whose objects lie in projects.
    inside: HashSet<&'static str>,
    rights: HashMap<Subject, Arc<Rights>>,
}

impl State {
    /// Takes in what has changed. Says whether anybody's rights may have.
    pub fn sync(&mut self, cx: &Cx) -> bool {
        let mut moved = false;
        loop {
            let received = match &mut self.changes {
                None => Err(TryRecvError::Closed),
                Some(changes) => changes.try_recv(),
            };
            match received {
                Ok(delta) => moved |= self.take(&delta),
                Err(TryRecvError::Empty) => return moved,
                // Never read, or too far behind: from the beginning.
                Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => {
                    let changes = cx.cache().subscribe();
                    *self = State {
                        changes: Some(changes),
                        inside: cx
                            .registry()
                            .iter()
                            .map(|declared| declared.kind())
                            .filter(|kind| kind.scope == Scope::Project)
                            .map(|kind| kind.name)
                            .collect(),
                        ..State::default()
                    };
                    for kind in KINDS {
                        for row in cx.cache().rows(kind, None) {
                            self.put(kind, &row);
                        }
                    }
                    return true;
                }
            }
        }
    }

    fn take(&mut self, delta: &Delta) -> bool {
        if !KINDS.contains(&delta.kind) {
            return false;
        }
        // A status says nothing about rights.
        if let (Some(new), Some(old)) = (&delta.new, &delta.old)
            && new.generation == old.generation
            && new.uid == old.uid
            && new.deleting == old.deleting
        {
            return delta.kind == USER;
        }
        if let Some(old) = &delta.old {
            self.remove(delta.kind, old);
        }
        if let Some(new) = &delta.new {
            self.put(delta.kind, new);
        }
        true
    }

    fn put(&mut self, kind: &str, row: &Row) {
        let Ok(value) = row.value() else { return };
        let spec = &value["spec"];
        let name: Box<str> = (*row.name).into();
        if kind == role::KIND.name {
            if let Ok(role) = serde_json::from_value(spec.clone()) {
                self.roles.insert(name, role);
            }
            self.words.clear();
            self.rights.clear();
        } else if kind == grant::KIND.name {
            if let Ok(spec) = serde_json::from_value::<GrantSpec>(spec.clone()) {
                self.grant(
                    row,
                    Held {
                        name,
                        spec,
                        gives_only: false,
                    },
                );
            }
        } else if kind == member::KIND.name {
            let read = serde_json::from_value::<MemberSpec>(spec.clone());
            if let (Ok(member), Some(project)) = (read, &row.project) {
                let name = format!("member {project}/{name}").into();
                let spec = member.grant(project);
                self.grant(
                    row,
                    Held {
                        name,
                        spec,
                        gives_only: true,
                    },
                );
            }
        } else if kind == USER {
            let groups: Vec<Box<str>> = texts(&spec["groups"]).map(Into::into).collect();
            for group in &groups {
                let members = self.members.entry(group.clone()).or_default();
                members.insert(name.clone());
            }
            self.rights.remove(&Subject::User(name.clone()));
            match row.deleting || spec["active"] == Value::Bool(false) {
                true => self.active.remove(&name),
                false => self.active.insert(name.clone()),
            };
            self.groups.insert(name, groups);
        } else if kind == KEY {
            self.rights.remove(&Subject::Key(name.clone()));
            let limit = limit(&name, spec);
            self.limits.insert(name, limit);
        }
    }

    fn remove(&mut self, kind: &str, row: &Row) {
        let name = &*row.name;
        if kind == role::KIND.name {
            self.roles.remove(name);
            self.words.clear();
            self.rights.clear();
        } else if kind == grant::KIND.name || kind == member::KIND.name {
            self.picky.remove(&row.key);
            if let Some(held) = self.grants.remove(&row.key)
                && let Some(subject) = Subject::of(&held.spec)
            {
                if let Some(keys) = self.of.get_mut(&subject) {
                    keys.remove(&row.key);
                }
                self.forget(&subject);
            }
        } else if kind == USER {
            for group in self.groups.remove(name).unwrap_or_default() {
                if let Some(members) = self.members.get_mut(&group) {
                    members.remove(name);
                }
            }
            self.rights.remove(&Subject::User(name.into()));
            self.active.remove(name);
        } else if kind == KEY {
            self.limits.remove(name);
            self.rights.remove(&Subject::Key(name.into()));
        }
    }

    fn grant(&mut self, row: &Row, held: Held) {
        let Some(subject) = Subject::of(&held.spec) else {
            return;
        };
        self.forget(&subject);
        self.of.entry(subject).or_default().insert(row.key.clone());
        let tagged = |when: &When| matches!(when, When::Tag { .. });
        if !held.spec.selector.is_empty() || held.spec.conditions.iter().any(tagged) {
            self.picky.insert(row.key.clone());
        }
        self.grants.insert(row.key.clone(), held);
    }

    /// Every grant that looks at labels.
    pub fn picky(&mut self) -> Vec<Rule> {
        let keys: Vec<Key> = self.picky.iter().cloned().collect();
        keys.iter().filter_map(|key| self.rule(key)).collect()
    }

    /// Whose rights a grant to a subject is about: of a group its members.
    pub fn people_of(&self, subject: &Subject) -> Vec<Subject> {
        match subject {
            Subject::Group(group) => {
                let members = self.members.get(group).into_iter().flatten();
                members.map(|user| Subject::User(user.clone())).collect()
            }
            one => vec![one.clone()],
        }
    }

    fn forget(&mut self, subject: &Subject) {
        self.rights.remove(subject);
        if let Subject::Group(group) = subject {
            for user in self.members.get(group).into_iter().flatten() {
                self.rights.remove(&Subject::User(user.clone()));
            }
        }
    }

    /// Whether a user is there and not disabled. Who is not does nothing any more, also not where he began it before;
    /// what he holds still counts for who may manage him.
    pub fn is_active(&self, user: &str) -> bool {
        self.active.contains(user)
    }

    /// What a subject may do; of a key, what it is limited to.
    pub fn rights(&mut self, subject: &Subject) -> Arc<Rights> {
        if let Some(rights) = self.rights.get(subject) {
            return rights.clone();
        }
        let mut subjects = vec![subject.clone()];
        if let Subject::User(user) = subject {
            let groups = self.groups.get(user).into_iter().flatten();
            subjects.extend(groups.map(|group| Subject::Group(group.clone())));
        }
        let keys: Vec<Key> = subjects
            .iter()
            .filter_map(|subject| self.of.get(subject))
            .flatten()
            .cloned()
            .collect();
        let mut rules: Vec<Rule> = keys.iter().filter_map(|key| self.rule(key)).collect();
        if let Subject::Key(key) = subject
            && let Some(limit) = self.limits.get(key)
        {
            rules.push(limit.clone());
        }
        let rights = Arc::new(Rights::new(rules));
        // People ask about names that nobody has.
        if self.is_known(subject) {
            self.rights.insert(subject.clone(), rights.clone());
        }
        rights
    }

    fn is_known(&self, subject: &Subject) -> bool {
        let is_there = match subject {
            Subject::User(user) => self.groups.contains_key(user),
            Subject::Key(key) => self.limits.contains_key(key),
            Subject::Group(_) => false,
        };
        is_there || self.of.get(subject).is_some_and(|keys| !keys.is_empty())
    }

    /// Who has a grant of a role, or of one that has it among its parents.
    pub fn holders(&self, role: &str) -> HashSet<Subject> {
        let mut holds: HashMap<&str, bool> = HashMap::new();
        let grants = self.grants.values().filter(|held| {
            *holds
                .entry(&held.spec.role)
                .or_insert_with(|| self.descends(&held.spec.role, role))
        });
        grants.filter_map(|held| Subject::of(&held.spec)).collect()
    }

    fn descends(&self, role: &str, from: &str) -> bool {
        let mut seen: HashSet<&str> = HashSet::new();
        let mut open = vec![role];
        while let Some(name) = open.pop() {
            if name == from {
                return true;
            }
            if let Some(spec) = self.roles.get(name).filter(|_| seen.insert(name)) {
                open.extend(spec.parents.iter().map(String::as_str));
            }
        }
        false
    }

    fn rule(&mut self, key: &Key) -> Option<Rule> {
        let Held {
            name,
            spec: grant,
            gives_only,
        } = self.grants.get(key)?.clone();
        Some(Rule {
            grant: name,
            gives_only,
            role: grant.role.as_str().into(),
            reach: Reach::parse(&grant.scope).ok()?,
            selector: Selector::parse(&grant.selector).ok()?,
            propagate: grant.propagate,
            expires: grant.expires,
            words: self.words(&grant.role),
            when: grant.conditions,
        })
    }

    /// What a role says with its parents.
    pub fn words(&mut self, role: &str) -> Arc<Words> {
        if let Some(words) = self.words.get(role) {
            return words.clone();
        }
        let mut words = Words::default();
        let mut seen: HashSet<&str> = HashSet::new();
        let mut level = vec![role];
        // However far: what was left out could be a denial. Each is looked at once, so it ends.
        while !level.is_empty() {
            let mut next = Vec::new();
            for name in level {
                let Some(spec) = self.roles.get(name).filter(|_| seen.insert(name)) else {
                    continue;
                };
                add(&mut words, spec);
                next.extend(spec.parents.iter().map(String::as_str));
            }
            level = next;
        }
        words.inside = words.allow.iter().any(|p| p.is_about(&self.inside));
        let words = Arc::new(words);
        self.words.insert(role.into(), words.clone());
        words
    }

    /// What a role that is not stored yet would say.
    pub fn words_of(&mut self, spec: &RoleSpec) -> Words {
        let mut words = Words::default();
        add(&mut words, spec);
        for parent in &spec.parents {
            let more = self.words(parent);
            words.allow.extend(more.allow.iter().cloned());
            words.deny.extend(more.deny.iter().cloned());
        }
        words
    }

    /// What is asked of logins: what the strictest of the roles that a user holds says, and of those above them.
    pub fn mfa(&mut self, user: &str) -> role::Mfa {
        let rights = self.rights(&Subject::User(user.into()));
        let roles = rights.all().map(|rule| &*rule.role);
        let all = self.with_parents(roles.collect());
        all.iter().map(|role| role.mfa).max().unwrap_or_default()
    }

    /// Roles and all above them, each once.
    fn with_parents<'s>(&'s self, mut level: Vec<&'s str>) -> Vec<&'s RoleSpec> {
        let (mut seen, mut out): (HashSet<&str>, Vec<_>) = Default::default();
        while let Some(name) = level.pop() {
            let Some(spec) = self.roles.get(name).filter(|_| seen.insert(name)) else {
                continue;
            };
            level.extend(spec.parents.iter().map(String::as_str));
            out.push(spec);
        }
        out
    }

    /// Everybody who has a grant, and every user.
    pub fn subjects(&self) -> Vec<Subject> {
        let users = self.groups.keys().map(|user| Subject::User(user.clone()));
        let mut out: Vec<Subject> = users
            .chain(
                self.of
                    .iter()
                    .filter(|(_, keys)| !keys.is_empty())
                    .map(|(subject, _)| subject.clone()),
            )
            .filter(|subject| !matches!(subject, Subject::Group(_)))
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        out.sort_by_key(ToString::to_string);
        out
    }
}

fn add(words: &mut Words, spec: &RoleSpec) {
    let read = |list: &[String]| -> Vec<Pattern> {
        list.iter()
            .filter_map(|text| Pattern::parse(text))
            .collect()
    };
    words.allow.extend(read(&spec.allow));
    words.deny.extend(read(&spec.deny));
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// What a key may at most: its privileges on its scope. One that cannot be read limits it to nothing.
fn limit(name: &str, spec: &Value) -> Rule {
    let listed: Vec<Pattern> = texts(&spec["privileges"])
        .filter_map(Pattern::parse)
        .collect();
    let reach = match spec["scope"].as_str() {
        None => Ok(Reach::Everything),
        Some(text) => Reach::parse(text),
    };
    let allow = match (&reach, spec["privileges"].is_null()) {
        (Err(_), _) => Vec::new(),
        (Ok(_), true) => Pattern::parse("*").into_iter().collect(),
        (Ok(_), false) => listed,
    };
    Rule {
        grant: name.into(),
        gives_only: false,
        role: "its own privileges".into(),
        reach: reach.unwrap_or(Reach::Everything),
        selector: Selector::default(),
        propagate: true,
        expires: None,
        when: Vec::new(),
        words: Arc::new(Words {
            allow,
            deny: Vec::new(),
            inside: true,
        }),
    }
}
