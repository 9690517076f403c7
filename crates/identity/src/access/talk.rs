//! The questions about access as words of a conversation: `access/check`, `access/who-can`, `access/matrix`.
//!
//! About himself everybody may ask; about others who may read grants.

use super::{Question, explain, matrix, of, who_can};
use model::{Error, Result};
use runtime::{ActorKind, Cx, Said, Talk};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct All {
    user: Option<String>,
    #[serde(default = "everything")]
    object: String,
}

fn everything() -> String {
    "/".into()
}

/// Answers one, when it is one.
pub fn talk(cx: &Cx, talk: &Talk) -> Option<Result<Said>> {
    let step = talk.step.strip_prefix("access/")?;
    Some(answer(cx, step, talk).map(|body| Said {
        body,
        ..Said::default()
    }))
}

fn answer(cx: &Cx, step: &str, talk: &Talk) -> Result<Value> {
    if talk.actor.kind == ActorKind::Anonymous {
        return Err(Error::unauthenticated(
            "this needs a login: `dvctl login URL`",
        ));
    }
    let rules = of(cx).ok_or_else(|| Error::not_found("this process has no access rules"))?;
    let said = match step {
        "check" => {
            let mut body = talk.body.clone();
            let user = body.as_object_mut().and_then(|body| body.remove("user"));
            let user = user.and_then(|user| user.as_str().map(str::to_owned));
            let question: Question = read(&body)?;
            let user = whom(cx, talk, user)?;
            json!(explain(cx, &rules, &user, &question)?)
        }
        "who-can" => {
            let question: Question = read(&talk.body)?;
            others(cx, talk)?;
            json!({ "users": who_can(cx, &rules, &question)? })
        }
        "matrix" => {
            let all: All = read(&talk.body)?;
            let user = whom(cx, talk, all.user)?;
            let rows = matrix(cx, &rules, &user, &all.object)?;
            let row = |(action, allowed): &(String, bool)| json!({ "action": action, "allowed": allowed });
            json!({ "user": user, "object": all.object, "privileges": rows.iter().map(row).collect::<Vec<_>>() })
        }
        other => {
            let known = ["check", "who-can", "matrix"];
            let error = Error::not_found(format!("there is no question `access/{other}`"));
            return Err(match model::nearest(other, known) {
                Some(near) => error.hint(format!("did you mean `access/{near}`?")),
                None => error.hint("there are: access/check, access/who-can, access/matrix"),
            });
        }
    };
    Ok(said)
}

fn read<T: DeserializeOwned>(body: &Value) -> Result<T> {
    serde_json::from_value(body.clone()).map_err(|e| {
        Error::field("body", e.to_string())
            .hint("give action and object, and user, from, mfa as wanted")
    })
}

/// About whom: himself when nobody is named.
fn whom(cx: &Cx, talk: &Talk, user: Option<String>) -> Result<String> {
    // What its owner may is not what a key may, and none of its business.
    let himself = talk.actor.kind != ActorKind::Key;
    let own = talk.actor.user.as_deref().filter(|_| himself);
    match (user, own) {
        (None, Some(own)) => Ok(own.to_owned()),
        (None, None) => Err(Error::field("user", "is required: you are not a user")),
        (Some(user), Some(own)) if user == own => Ok(user),
        (Some(user), _) => others(cx, talk).map(|()| user),
    }
}

fn others(cx: &Cx, talk: &Talk) -> Result<()> {
    cx.gate().need(&talk.actor, talk.from, "grant", "read")
}
