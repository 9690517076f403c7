//! The rights of one subject, and what they say to a wish. Pure.
//!
//! **The rule.** Of all grants that reach an object and whose conditions hold, those count that say something about the
//! privilege and lie deepest; of those, one that denies beats all that allow. Nothing said means no.

use super::pattern::Pattern;
use super::reach::Reach;
use super::when::Scene;
use crate::grant::When;
use model::{Labels, Selector, Timestamp};
use runtime::{Key, Wish, object_key, object_ref};
use std::collections::HashMap;
use std::sync::Arc;

/// What a role says, with all that its parents say.
#[derive(Debug, Default)]
pub struct Words {
    /// What it gives.
    pub allow: Vec<Pattern>,
    /// What it takes away.
    pub deny: Vec<Pattern>,
    /// Whether it gives anything on what lies in projects.
    pub inside: bool,
}

impl Words {
    /// Yes, no, or nothing.
    pub fn say(&self, kind: &str, verb: &str) -> Option<bool> {
        if self.deny.iter().any(|p| p.matches(kind, verb)) {
            return Some(false);
        }
        self.allow
            .iter()
            .any(|p| p.matches(kind, verb))
            .then_some(true)
    }
}

/// One grant, ready to be asked.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name, for explanations.
    pub grant: Box<str>,
    /// Name of its role, for explanations.
    pub role: Box<str>,
    /// How far it reaches.
    pub reach: Reach,
    /// Which objects there.
    pub selector: Selector,
    /// Whether it holds for what lies there too.
    pub propagate: bool,
    /// It is worth nothing from then on.
    pub expires: Option<Timestamp>,
    /// What must hold.
    pub when: Vec<When>,
    /// What it says.
    pub words: Arc<Words>,
    /// Whether it only gives: what its role takes away is merely not given by it.
    pub gives_only: bool,
}

/// What one rule has to do with a wish.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The rule.
    pub rule: &'a Rule,
    /// How deep it lies.
    pub depth: u8,
    /// Whether it allows or denies.
    pub says: bool,
}

impl Rule {
    /// What it says to a privilege, wherever.
    pub fn says(&self, kind: &str, verb: &str) -> Option<bool> {
        self.words
            .say(kind, verb)
            .filter(|says| *says || !self.gives_only)
    }

    /// How deep it lies at least, for comparing rules without an object.
    pub fn level(&self) -> u8 {
        match &self.reach {
            Reach::Everything => 0,
            Reach::Project(_) => 2,
            Reach::Object { .. } => 4,
        }
    }

    /// Whether the labels of an object are such that it is about it.
    pub fn picks(&self, labels: &Labels) -> bool {
        self.selector.matches(labels)
            && self.when.iter().all(|when| match when {
                When::Tag { key, value, not } => (labels.get(key) == Some(value)) != *not,
                _ => true,
            })
    }

    /// Whether it reaches what a wish is about, and how deep it lies then. Conditions are not looked at.
    pub fn depth(&self, wish: &Wish<'_>, key: Option<&Key>) -> Option<u8> {
        let picked = !self.selector.is_empty();
        if picked
            && !wish
                .labels
                .is_some_and(|labels| self.selector.matches(labels))
        {
            return None;
        }
        let depth = match &self.reach {
            Reach::Everything => {
                let itself = wish.project.is_none() && wish.name.is_none();
                (self.propagate || itself).then_some(0)
            }
            Reach::Project(name) => {
                let itself = wish.kind == "project" && wish.name == Some(&**name);
                let within = self.propagate && wish.project == Some(&**name);
                // What is said about a project, such as its quota, is there for who is in it, and not his to change.
                let about = self.propagate
                    && wish.verb == "read"
                    && wish.part_of == self.reach.key().as_ref();
                (itself || within || about).then_some(2)
            }
            Reach::Object { .. } => {
                let own = self.reach.key();
                if own.as_ref() == key {
                    Some(5)
                } else {
                    (self.propagate && own.as_ref() == wish.part_of).then_some(4)
                }
            }
        };
        depth.map(|depth| depth + u8::from(picked && depth < 4))
    }

    /// Whether it is in force.
    pub fn holds(&self, scene: &Scene<'_>) -> bool {
        self.expires.is_none_or(|end| scene.now < end) && self.when.iter().all(|w| w.holds(scene))
    }

    /// Whether it depends on anything but where it reaches.
    fn is_plain(&self) -> bool {
        self.selector.is_empty() && self.expires.is_none() && self.when.is_empty() && self.propagate
    }
}

/// All rules of one subject, by where they reach: a decision looks only at those that may.
#[derive(Debug, Default)]
pub struct Rights {
    everything: Vec<Rule>,
    projects: HashMap<Box<str>, Vec<Rule>>,
    objects: HashMap<Key, Vec<Rule>>,
    /// Project -> those of its objects that have rules.
    inside: HashMap<Box<str>, Vec<Key>>,
}

impl Rights {
    /// Of these rules.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Rights {
        let mut out = Rights::default();
        for rule in rules {
            match &rule.reach {
                Reach::Everything => out.everything.push(rule),
                Reach::Project(name) => out.projects.entry(name.clone()).or_default().push(rule),
                Reach::Object { project, .. } => {
                    if let Some(key) = rule.reach.key() {
                        if let Some(project) = project {
                            let inside = out.inside.entry(project.clone()).or_default();
                            inside.push(key.clone());
                        }
                        out.objects.entry(key).or_default().push(rule);
                    }
                }
            }
        }
        out
    }

    /// Every rule.
    pub fn all(&self) -> impl Iterator<Item = &Rule> {
        let objects = self.objects.values().flatten();
        let projects = self.projects.values().flatten();
        self.everything.iter().chain(projects).chain(objects)
    }

    /// The rules that reach a wish and say something to it, whether their conditions hold or not.
    pub fn told<'a>(&'a self, wish: &Wish<'_>) -> impl Iterator<Item = Told<'a>> {
        let key = wish
            .name
            .map(|name| object_key(wish.kind, wish.project, name));
        let owner = wish.part_of.and_then(object_ref);
        let project = match (wish.project, wish.kind) {
            (Some(project), _) => Some(project),
            (None, "project") => wish.name,
            _ => owner
                .as_ref()
                .filter(|owner| owner.kind == "project")
                .map(|owner| owner.name.as_str()),
        };
        let of_project = project.and_then(|project| self.projects.get(project));
        let of_object = key.as_ref().and_then(|key| self.objects.get(key));
        let of_owner = wish.part_of.and_then(|key| self.objects.get(key));
        let (kind, verb) = (wish.kind, wish.verb);
        let mut out: Vec<Told<'a>> = Vec::new();
        for rule in self
            .everything
            .iter()
            .chain(of_project.into_iter().flatten())
            .chain(of_object.into_iter().flatten())
            .chain(of_owner.into_iter().flatten())
        {
            if let Some(says) = rule.says(kind, verb)
                && let Some(depth) = rule.depth(wish, key.as_ref())
            {
                out.push(Told { rule, depth, says });
            }
        }
        out.into_iter()
    }

    /// Whether he may.
    pub fn allow(&self, wish: &Wish<'_>, scene: &Scene<'_>) -> bool {
        let mut deepest: Option<(u8, bool)> = None;
        for told in self.told(wish) {
            if !told.rule.holds(scene) {
                continue;
            }
            deepest = Some(match deepest {
                Some((depth, says)) if depth > told.depth => (depth, says),
                Some((depth, says)) if depth == told.depth => (depth, says && told.says),
                _ => (told.depth, told.says),
            });
        }
        deepest.is_some_and(|(_, says)| says)
    }

    /// Whether he may with every object that a wish without a name is about (`Some(true)`), with none (`Some(false)`),
    /// or it must be looked at one by one.
    pub fn all_or_none(&self, wish: &Wish<'_>) -> Option<bool> {
        let speaking = || {
            self.all()
                .filter(|rule| rule.says(wish.kind, wish.verb).is_some())
        };
        let reaches = |rule: &Rule| match (&rule.reach, wish.project) {
            (Reach::Everything, _) | (_, None) => true,
            (Reach::Project(name), Some(project)) => &**name == project,
            (Reach::Object { project: of, .. }, Some(project)) => of.as_deref() == Some(project),
        };
        let says = |rule: &Rule| rule.says(wish.kind, wish.verb) == Some(true);
        let mut allows = false;
        let mut plain = false;
        for rule in speaking().filter(|rule| reaches(rule)) {
            if !says(rule) {
                // Somebody may be denied somewhere: one by one.
                return match self.all().any(|rule| reaches(rule) && says(rule)) {
                    true => None,
                    false => Some(false),
                };
            }
            allows = true;
            plain |= rule.is_plain()
                && match &rule.reach {
                    Reach::Everything => true,
                    Reach::Project(name) => wish.project == Some(&**name),
                    Reach::Object { .. } => false,
                };
        }
        match (allows, plain) {
            (false, _) => Some(false),
            (true, true) => Some(true),
            (true, false) => None,
        }
    }

    /// Whether anything in or of a project is his.
    pub fn enter(&self, project: &str, scene: &Scene<'_>) -> bool {
        let gives = |rule: &&Rule| !rule.words.allow.is_empty() && rule.holds(scene);
        let everywhere = |rule: &&Rule| {
            let projects = rule.words.say("project", "read") == Some(true);
            rule.propagate && (projects || rule.words.inside) && rule.holds(scene)
        };
        let of_project = self.projects.get(project);
        let of_project = || of_project.into_iter().flatten();
        // Who is denied to see anything there is not let in by what he has on all projects.
        let shuts = |rule: &Rule| {
            let all = rule.words.deny.iter().any(Pattern::is_all_reading);
            all && !rule.gives_only && rule.propagate && rule.holds(scene)
        };
        let open = !of_project().any(shuts);
        open && (self.everything.iter().any(|rule| everywhere(&rule))
            || of_project().any(|rule| gives(&rule)))
            || self.inside.get(project).is_some_and(|keys| {
                let rules = keys.iter().filter_map(|key| self.objects.get(key));
                rules.flatten().any(|rule| gives(&rule))
            })
    }
}
