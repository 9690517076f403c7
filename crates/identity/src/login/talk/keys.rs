//! Security keys in conversations: what a browser is asked, and what it answers.
//!
//! A challenge is 32 random bytes that the store keeps until it is answered, for five minutes and for one purpose of one
//! user: whoever takes it out answers it, so an answer that comes a second time is worth nothing.

use super::{letters, me, optional, row, second};
use crate::factor::webauthn::{self, Demand, Kept, Party, Policy, Wrong};
use crate::factor::{self, Factor, Sort};
use crate::mail;
use crate::user::User;
use model::{Error, ObjectRef, Resource, Result, Timestamp};
use runtime::audit::{FACTOR_CLONED, FACTOR_ENROLLED, FACTOR_FAILED, note};
use runtime::event::Severity;
use runtime::setting::{PANEL_HOST, PANEL_ORIGINS, WEBAUTHN_ATTESTATION, WEBAUTHN_ROOTS};
use runtime::tally::{self, Becomes};
use runtime::{Cx, Obj, Said, Talk};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const CHALLENGE: &str = "webauthn-challenge";
const LIFE: Duration = Duration::from_millis(webauthn::PATIENCE);
/// Most keys of a user.
const MOST: usize = 10;
/// Longest label, in characters.
const LABEL: usize = 80;

/// For what a challenge was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Purpose {
    Enrol,
    Prove,
}

/// A challenge that waits for its answer.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    user: String,
    purpose: Purpose,
    made: Timestamp,
}

impl Asked {
    fn is_open(&self, now: Timestamp) -> bool {
        self.made <= now && now.since(self.made) < LIFE
    }
}

/// Forgets challenges that nobody has answered.
pub(in crate::login) async fn sweep(cx: &Cx) -> Result<()> {
    let now = cx.clock().now();
    tally::sweep::<Asked>(cx, CHALLENGE, |asked| asked.is_open(now))
        .await
        .map(drop)
}

/// The panel, when it has a name that keys can be bound to.
fn party(cx: &Cx) -> Result<Party> {
    let id = PANEL_HOST.text(cx);
    if id.is_empty() {
        return Err(Error::refused(
            "security keys need the host name of the panel, which is not set",
        )
        .hint("an administrator sets it: dvctl setting set panel-host --value NAME"));
    }
    let origins = PANEL_ORIGINS.text(cx);
    let mut origins: Vec<String> = origins.split_whitespace().map(str::to_owned).collect();
    if origins.is_empty() {
        origins = vec![format!("https://{id}:8443"), format!("https://{id}")];
    }
    Ok(Party {
        name: format!("DebVisor {id}"),
        id,
        origins,
    })
}

async fn ask(cx: &Cx, user: &Obj<User>, purpose: Purpose) -> Result<[u8; 32]> {
    let mut challenge = [0; 32];
    cx.clock().fill(&mut challenge);
    let asked = || Asked {
        user: user.metadata.name.to_string(),
        purpose,
        made: cx.clock().now(),
    };
    let subject = webauthn::written(&challenge);
    tally::edit::<Asked, ()>(cx, CHALLENGE, &subject, |_| (Becomes::New(asked()), ())).await?;
    Ok(challenge)
}

/// Takes the challenge out that an answer is for.
async fn answered(
    cx: &Cx,
    user: &Obj<User>,
    purpose: Purpose,
    answer: &Value,
) -> Result<Result<Vec<u8>, Wrong>> {
    let Some(challenge) = webauthn::challenge(answer) else {
        return Ok(Err(Wrong("CLIENT_DATA")));
    };
    let now = cx.clock().now();
    let subject = webauthn::written(&challenge);
    let ours = tally::edit::<Asked, bool>(cx, CHALLENGE, &subject, |asked| match asked {
        Some(asked) if asked.user == user.metadata.name.as_str() && asked.purpose == purpose => {
            (Becomes::Forgotten, asked.is_open(now))
        }
        _ => (Becomes::Same, false),
    })
    .await?;
    Ok(if ours {
        Ok(challenge)
    } else {
        Err(Wrong("CHALLENGE"))
    })
}

/// The keys of a user, with what is kept of them.
fn of(cx: &Cx, user: &Obj<User>) -> Vec<(Arc<Obj<Factor>>, Kept)> {
    let kept = |factor: Arc<Obj<Factor>>| {
        let kept = serde_json::from_str(factor.spec.material.as_deref()?).ok()?;
        Some((factor, kept))
    };
    let all = factor::of_sort(cx, user, Sort::Webauthn);
    all.into_iter().filter_map(kept).collect()
}

/// What a browser is asked for a proof with; nothing for who has no key.
pub(super) async fn request(cx: &Cx, user: &Obj<User>) -> Result<Option<Value>> {
    let have: Vec<Kept> = of(cx, user).into_iter().map(|(_, kept)| kept).collect();
    let Some(party) = party(cx).ok().filter(|_| !have.is_empty()) else {
        return Ok(None);
    };
    let challenge = ask(cx, user, Purpose::Prove).await?;
    Ok(Some(party.request(&challenge, &have)))
}

/// `mfa/begin`: what a second factor may be proved with now.
pub(super) async fn offer(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, _) = me(cx, talk)?;
    Ok(Said {
        body: json!({ "factors": second::of(cx, &user), "webauthn": request(cx, &user).await?,
            "mail": letters::may_stand_in(cx, &user) }),
        ..Said::default()
    })
}

/// Whether a browser's answer proves a key of this user. Its counter goes on by that; one that goes back is a copy.
pub(super) async fn prove(cx: &Cx, talk: &Talk, user: &Obj<User>, answer: &Value) -> Result<bool> {
    let right = match answered(cx, user, Purpose::Prove, answer).await? {
        Ok(challenge) => check(cx, user, answer, &challenge),
        Err(wrong) => Err(wrong),
    };
    let name = user.metadata.name.as_str();
    let (factor, counter) = match right {
        Ok(right) => right,
        Err(Wrong(why)) => {
            note(cx, row(&FACTOR_FAILED, name, talk).failed(why)).await?;
            return Ok(false);
        }
    };
    let ours = factor::claim(cx, &factor, |status| {
        let goes_on = webauthn::goes_on(status.counter.unwrap_or(0), counter);
        if goes_on {
            status.counter = Some(counter);
        }
        goes_on
    })
    .await?;
    if !ours {
        copied(cx, talk, name, &factor).await?;
    }
    Ok(ours)
}

fn check(
    cx: &Cx,
    user: &Obj<User>,
    answer: &Value,
    challenge: &[u8],
) -> Result<(Arc<Obj<Factor>>, u32), Wrong> {
    let party = party(cx).map_err(|_| Wrong("PARTY"))?;
    let id = answer["id"].as_str().unwrap_or_default();
    let mut all = of(cx, user).into_iter();
    let (factor, kept) = all
        .find(|(_, kept)| kept.id == id)
        .ok_or(Wrong("UNKNOWN_KEY"))?;
    let counter = party.proved(answer, challenge, &kept)?;
    Ok((factor, counter))
}

async fn copied(cx: &Cx, talk: &Talk, user: &str, factor: &Obj<Factor>) -> Result<()> {
    let about = ObjectRef {
        kind: Factor::KIND.name.into(),
        project: None,
        name: factor.metadata.name.to_string(),
    };
    let said = row(&FACTOR_CLONED, user, talk).about(&about);
    note(cx, said.failed("COUNTER_WENT_BACK")).await?;
    let message = format!(
        "a security key of `{user}` was refused because its counter went back: there is a copy of it; take it away and enrol another"
    );
    cx.event(&about, "factor.cloned", &message, Severity::Error)
        .await;
    if let Some(user) = cx.get::<User>(None, user) {
        let text = "A security key of yours was refused because its counter went back: there is a copy of it.\n\nTake it away and enrol another: dvctl mfa --list\n";
        mail::warn(
            cx,
            &user,
            "A copy of your security key was refused",
            text.into(),
        );
    }
    Ok(())
}

/// `webauthn/begin`: what a browser makes a key with.
pub(super) async fn begin(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, session) = second::enrolling(cx, talk)?;
    second::fresh(cx, &user, &session)?;
    let party = party(cx)?;
    let have: Vec<Kept> = of(cx, &user).into_iter().map(|(_, kept)| kept).collect();
    if have.len() >= MOST {
        return Err(
            Error::refused(format!("you have {MOST} security keys already"))
                .hint("take one away first: dvctl mfa --remove FACTOR"),
        );
    }
    let policy = Policy::of(&WEBAUTHN_ATTESTATION.text(cx));
    let challenge = ask(cx, &user, Purpose::Enrol).await?;
    let shown = match user.spec.full_name.as_deref() {
        Some(name) if !name.is_empty() => name,
        _ => user.spec.username.as_str(),
    };
    let uid = user.metadata.uid.to_string();
    let who = (uid.as_bytes(), user.spec.username.as_str(), shown);
    Ok(Said {
        body: json!({ "webauthn": party.creation(&challenge, who, &have, policy) }),
        ..Said::default()
    })
}

/// `webauthn/confirm`: the key that a browser made. Answers codes on paper when there were none.
pub(super) async fn confirm(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, session) = second::enrolling(cx, talk)?;
    second::fresh(cx, &user, &session)?;
    let name = user.metadata.name.as_str();
    let answer = &talk.body["credential"];
    let policy = Policy::of(&WEBAUTHN_ATTESTATION.text(cx));
    let roots = match policy {
        Policy::None => Vec::new(),
        _ => makers(&WEBAUTHN_ROOTS.text(cx)).await?,
    };
    let demand = Demand {
        policy,
        roots: &roots,
        now: cx.clock().now(),
    };
    let party = party(cx)?;
    let made = match answered(cx, &user, Purpose::Enrol, answer).await? {
        Ok(challenge) => party.made(answer, &challenge, &demand),
        Err(wrong) => Err(wrong),
    };
    let (kept, counter) = match made {
        Ok(made) => made,
        Err(Wrong(why)) => {
            note(cx, row(&FACTOR_FAILED, name, talk).failed(why)).await?;
            return Err(
                Error::refused("the security key was not accepted").hint(match policy {
                    Policy::None => "begin again; the page must be one of the panel's own",
                    _ => "only keys of makers that an administrator trusts may be enrolled here",
                }),
            );
        }
    };
    // A key belongs to one user: its name is made from its own.
    let name_of_key = format!("webauthn-{}", &crate::session::tokens::hash(&kept.id)[..32]);
    let label: String = optional(talk, "label")
        .unwrap_or_default()
        .chars()
        .filter(|c| !c.is_control())
        .take(LABEL)
        .collect();
    let material = serde_json::to_string(&kept)
        .map_err(|e| Error::internal("a security key as JSON").because(e))?;
    let enrolled = row(&FACTOR_ENROLLED, name, talk)
        .with("sort", Sort::Webauthn.word())
        .with("make", hex::encode(kept.make));
    note(cx, enrolled).await?;
    let spec = json!({ "sort": Sort::Webauthn, "material": material, "label": label });
    factor::add(cx, &user, &name_of_key, spec).await?;
    if let Some(factor) = cx.get::<Factor>(None, &name_of_key) {
        factor::claim(cx, &factor, |status| {
            status.counter = Some(counter);
            true
        })
        .await?;
    }
    second::enrolled(cx, &user, &session, Sort::Webauthn).await
}

/// The makers that an administrator trusts.
async fn makers(path: &str) -> Result<Vec<CertificateDer<'static>>> {
    let none = || {
        Error::refused("no maker of security keys is trusted, so none can be enrolled").hint(
            "an administrator names the file of their certificates: dvctl setting set webauthn-roots --value PATH",
        )
    };
    if path.is_empty() {
        return Err(none());
    }
    let text = tokio::fs::read(path).await.map_err(|e| none().because(e))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(none()),
    }
}

/// `factors/remove`: takes one of one's own factors away.
pub(super) async fn remove(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, session) = me(cx, talk)?;
    second::fresh(cx, &user, &session)?;
    let wanted = super::text(talk, "factor")?;
    let all = factor::of(cx, &user);
    let found = all
        .iter()
        .filter(|factor| factor.spec.sort.is_second())
        .find(|factor| factor.metadata.name.as_str() == wanted);
    let found = found.ok_or_else(|| {
        Error::not_found("you have no such second factor").hint("see them: dvctl mfa --list")
    })?;
    let name = user.metadata.name.as_str();
    let removed = row(&runtime::audit::FACTOR_REMOVED, name, talk);
    note(cx, removed.with("sort", found.spec.sort.word())).await?;
    factor::remove(cx, found).await?;
    Ok(Said {
        body: json!({ "state": "in" }),
        ..Said::default()
    })
}

/// `factors`: one's own second factors.
pub(super) fn list(cx: &Cx, talk: &Talk) -> Result<Said> {
    let (user, _) = me(cx, talk)?;
    let all = factor::of(cx, &user);
    let second = all.iter().filter(|factor| factor.spec.sort.is_second());
    let shown: Vec<Value> = second
        .map(|factor| {
            json!({
                "name": factor.metadata.name, "sort": factor.spec.sort, "label": factor.spec.label,
                "created": factor.metadata.created,
                "last_used": factor.status.as_ref().and_then(|status| status.last_used),
            })
        })
        .collect();
    Ok(Said {
        body: json!({ "factors": shown }),
        ..Said::default()
    })
}
