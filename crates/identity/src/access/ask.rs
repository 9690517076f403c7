//! Explains decisions: may he, why, and who may.

use super::pattern::privileges;
use super::rights::{Rights, Told};
use super::state::Subject;
use super::when::Scene;
use super::{Reach, Rules};
use model::{Error, Result};
use runtime::{ActorKind, Cx, Row, Wish, object_key};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// A privilege: `vm.start`.
    pub action: String,
    /// On what, as a scope: `/`, `project/NAME`, `KIND/NAME`, `KIND/PROJECT/NAME`.
    #[serde(default = "everything")]
    pub object: String,
    /// As if he came from there.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// As if he had just proved a second factor.
    #[serde(default)]
    pub mfa: bool,
}

fn everything() -> String {
    "/".into()
}

impl Question {
    /// As if this user asked it now.
    fn scene<'a>(&self, user: &'a str, wish: &Wish<'a>) -> Scene<'a> {
        Scene {
            kind: ActorKind::User,
            user,
            mfa: self.mfa.then_some(wish.now),
            from: self.from,
            now: wish.now,
            labels: wish.labels,
        }
    }
}

/// A decision and how it came about.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// Who.
    pub subject: String,
    /// Which privilege.
    pub action: String,
    /// On what.
    pub object: String,
    /// Whether he may.
    pub allowed: bool,
    /// In one sentence.
    pub verdict: String,
    /// Every grant that says something about it there, the one that counts first.
    pub grants: Vec<Reason>,
    /// Under what he may, in words, when it depends: each is one way. Only of who can.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
}

/// One grant in a decision.
#[derive(Clone, Debug, Serialize)]
pub struct Reason {
    /// Its name.
    pub grant: String,
    /// Its role.
    pub role: String,
    /// How far it reaches.
    pub scope: String,
    /// `allow` or `deny`.
    pub says: &'static str,
    /// Whether it is the one, or one of those, that decided.
    pub decides: bool,
    /// Why it does not count: conditions that do not hold, or that it has ended.
    pub failed: Vec<String>,
}

struct Object {
    kind: String,
    verb: String,
    project: Option<String>,
    name: Option<String>,
    row: Option<Arc<Row>>,
}

impl Object {
    /// Reads what a question is about.
    fn of(cx: &Cx, question: &Question) -> Result<Object> {
        let known = privileges(cx);
        let Some((kind, verb)) = question
            .action
            .split_once('.')
            .filter(|pair| known.contains(pair))
        else {
            let all: Vec<String> = known.iter().map(|(k, v)| format!("{k}.{v}")).collect();
            let error = Error::field(
                "action",
                format!("there is no privilege `{}`", question.action),
            );
            return Err(
                match model::nearest(&question.action, all.iter().map(String::as_str)) {
                    Some(near) => error.hint(format!("did you mean `{near}`?")),
                    None => error.hint("a privilege is KIND.VERB, such as vm.start"),
                },
            );
        };
        let (project, name) = match Reach::parse(&question.object)? {
            Reach::Everything => (None, None),
            Reach::Project(name) if kind == "project" => (None, Some(name.to_string())),
            Reach::Project(project) => (Some(project.to_string()), None),
            Reach::Object {
                kind: of,
                project,
                name,
            } => {
                if &*of != kind {
                    let why = format!("a `{of}` has no `{kind}.{verb}`");
                    return Err(Error::field("object", why)
                        .hint(format!("name a {kind}, or ask for `{of}.{verb}`")));
                }
                (project.map(|p| p.to_string()), Some(name.to_string()))
            }
        };
        let row = name.as_deref().and_then(|name| {
            let key = object_key(kind, project.as_deref(), name);
            cx.cache().row(kind, &key)
        });
        Ok(Object {
            kind: kind.into(),
            verb: verb.into(),
            project,
            name,
            row,
        })
    }

    fn wish<'a>(&'a self, cx: &Cx, question: &Question) -> Wish<'a> {
        Wish {
            kind: &self.kind,
            verb: &self.verb,
            project: self.project.as_deref(),
            name: self.name.as_deref(),
            labels: self.row.as_ref().map(|row| &row.labels),
            part_of: self.row.as_ref().and_then(|row| row.part_of.as_ref()),
            from: question.from,
            now: cx.clock().now(),
        }
    }
}

/// May this user, and why?
///
/// # Errors
///
/// `Invalid` when the privilege or the object is not one.
pub fn explain(cx: &Cx, rules: &Rules, user: &str, question: &Question) -> Result<Explained> {
    let object = Object::of(cx, question)?;
    let wish = object.wish(cx, question);
    Ok(decide(cx, rules, user, question, &wish))
}

fn decide(cx: &Cx, rules: &Rules, user: &str, question: &Question, wish: &Wish<'_>) -> Explained {
    let rights = rules.sync(cx, |state| state.rights(&Subject::User(user.into())));
    let scene = question.scene(user, wish);
    let mut told: Vec<Told<'_>> = rights.told(wish).collect();
    // The deepest that holds first; at the same depth a denial.
    told.sort_by_key(|t| {
        (
            !t.rule.holds(&scene),
            std::cmp::Reverse(t.depth),
            t.says,
            t.rule.grant.clone(),
        )
    });
    let allowed = rights.allow(wish, &scene);
    let decisive = told
        .first()
        .filter(|t| t.rule.holds(&scene))
        .map(|t| (t.depth, t.says));
    let reasons: Vec<Reason> = told
        .iter()
        .map(|t| {
            let mut failed: Vec<String> = t
                .rule
                .when
                .iter()
                .filter(|when| !when.holds(&scene))
                .map(|when| when.words())
                .collect();
            if t.rule.expires.is_some_and(|end| wish.now >= end) {
                failed.push("it has ended".into());
            }
            Reason {
                grant: t.rule.grant.to_string(),
                role: t.rule.role.to_string(),
                scope: t.rule.reach.to_string(),
                says: if t.says { "allow" } else { "deny" },
                decides: failed.is_empty() && decisive == Some((t.depth, t.says)),
                failed,
            }
        })
        .collect();
    let verdict = match (reasons.first(), decisive) {
        (None, _) => {
            "no grant says anything about it, and what is not allowed is denied".to_owned()
        }
        (Some(_), None) => "no grant that would allow it is in force".to_owned(),
        (Some(first), Some((_, says))) => format!(
            "grant `{}` (role `{}` on {}) {}",
            first.grant,
            first.role,
            first.scope,
            if says { "allows it" } else { "denies it" }
        ),
    };
    Explained {
        subject: user.to_owned(),
        action: question.action.clone(),
        object: question.object.clone(),
        allowed,
        verdict,
        grants: reasons,
        conditions: Vec::new(),
    }
}

/// In which ways somebody may, now or at another time: what must hold for each, in words. Empty words stand for a way
/// without conditions, no way for never.
fn ways(rights: &Rights, wish: &Wish<'_>, scene: &Scene<'_>) -> Vec<String> {
    let told: Vec<Told<'_>> = rights
        .told(wish)
        .filter(|t| t.rule.expires.is_none_or(|end| wish.now < end))
        .filter(|t| t.rule.when.iter().all(|when| when.may_hold(scene)))
        .collect();
    let mut ways = Vec::new();
    for way in told.iter().filter(|t| t.says) {
        let against = || told.iter().filter(|t| !t.says && t.depth >= way.depth);
        if against().any(|denial| denial.rule.when.is_empty()) {
            continue;
        }
        let mut words: Vec<String> = way.rule.when.iter().map(|when| when.words()).collect();
        words.extend(against().map(|denial| {
            let when: Vec<String> = denial.rule.when.iter().map(|when| when.words()).collect();
            format!(
                "unless grant `{}` denies it ({})",
                denial.rule.grant,
                when.join(", ")
            )
        }));
        let words = words.join(", ");
        if !ways.contains(&words) {
            ways.push(words);
        }
    }
    ways
}

/// Which users may: those who may now, and those who may under conditions that do not hold now.
///
/// # Errors
///
/// `Invalid` when the privilege or the object is not one.
pub fn who_can(cx: &Cx, rules: &Rules, question: &Question) -> Result<Vec<Explained>> {
    let object = Object::of(cx, question)?;
    let wish = object.wish(cx, question);
    let subjects = rules.sync(cx, |state| state.subjects());
    let users = subjects.iter().filter_map(|subject| match subject {
        Subject::User(user) => Some(user),
        Subject::Group(_) | Subject::Key(_) => None,
    });
    let mut out = Vec::new();
    for user in users {
        let rights = rules.sync(cx, |state| state.rights(&Subject::User(user.clone())));
        let scene = question.scene(user, &wish);
        let mut ways = ways(&rights, &wish, &scene);
        if ways.is_empty() {
            continue;
        }
        let mut explained = decide(cx, rules, user, question, &wish);
        // A way without conditions makes the others idle.
        if ways.iter().any(String::is_empty) {
            ways.clear();
        }
        explained.conditions = ways;
        out.push(explained);
    }
    Ok(out)
}

/// Everything that a user may on one object or scope: each privilege with whether he has it.
///
/// # Errors
///
/// `Invalid` when the object is not one.
pub fn matrix(cx: &Cx, rules: &Rules, user: &str, object: &str) -> Result<Vec<(String, bool)>> {
    let reach = Reach::parse(object)?;
    reach.check(cx)?;
    let mut out = Vec::new();
    for (kind, verb) in privileges(cx) {
        if let Reach::Object { kind: of, .. } = &reach
            && &**of != kind
        {
            continue;
        }
        let question = Question {
            action: format!("{kind}.{verb}"),
            object: object.to_owned(),
            from: None,
            mfa: true,
        };
        let allowed = explain(cx, rules, user, &question)?.allowed;
        out.push((question.action, allowed));
    }
    Ok(out)
}
