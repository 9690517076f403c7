//! A login by a provider of OpenID Connect: `oidc/begin` sends a browser away, `oidc/callback` takes it back, `oidc/finish`
//! trades a ticket for a session, `oidc/backchannel-logout` hears that somebody has left there.
//!
//! ```text
//! browser -> begin (cookie, state kept for 10 min) -> provider -> callback -> session, for a page, when nothing more is asked for
//!                                                                 callback -> ticket (5 min) -> finish -> session
//! ```
//!
//! **Invariants.** A state works once, and only in the browser that has its cookie; the nonce and the PKCE verifier are made
//! from both, so that what is stored is of no use. A ticket works once, and only for who knows the text that its challenge
//! was made from, or for the same browser.

use super::{enter, given, optional, row, text};
use crate::factor::codes;
use crate::realm::oidc::{self, Going, Proved};
use crate::realm::{self, Realm, RealmType};
use crate::session::Begin;
use crate::user::User;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{Error, Result, Timestamp};
use runtime::audit::{LOGIN_FAILED, SESSION_REVOKED, note};
use runtime::tally::{self, Becomes};
use runtime::{Cx, Obj, Said, Talk};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// How long somebody may take at the provider.
const AWAY: Duration = Duration::from_secs(600);
/// How long a ticket is good.
const TICKET: Duration = Duration::from_secs(300);
/// 28 letters of 5 bits each: somebody may have to type it.
const LETTERS: usize = 28;

const FLOWS: &str = "oidc-flow";
const TICKETS: &str = "oidc-ticket";

/// Where it goes on after the provider.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Back {
    /// At a page of ours.
    Page(String),
    /// At a program on the machine of the browser, which knows the text that the challenge was made from.
    Program { to: String, challenge: String },
    /// At whoever reads the ticket in the browser and types it in.
    Typed { challenge: String },
}

/// A login whose browser is away.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flow {
    realm: String,
    binding: String,
    redirect_uri: String,
    back: Back,
    remember: bool,
    made: Timestamp,
}

/// Somebody whom a provider has proved, and who is not in yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ticket {
    user: model::Uid,
    realm: String,
    mfa: bool,
    provider_session: Option<String>,
    remember: bool,
    /// The challenge, or the hash of the browser's cookie.
    challenge: Option<String>,
    binding: String,
    made: Timestamp,
}

/// `realms`: by which realms somebody may log in, and which is offered first.
pub(super) fn realms(cx: &Cx) -> Said {
    let realms: Vec<Value> = cx
        .list::<Realm>(None)
        .iter()
        .filter(|realm| realm.spec.enabled)
        .map(|realm| {
            let meta = &realm.metadata;
            json!({ "name": meta.name, "title": meta.display_name, "type": realm.spec.sort })
        })
        .collect();
    Said {
        body: json!({ "default": realm::first(cx), "realms": realms }),
        ..Said::default()
    }
}

/// The provider that somebody wants to log in by: the one he names, the default, or the only one.
fn wanted(cx: &Cx, named: Option<&str>) -> Result<Arc<Obj<Realm>>> {
    let usable = |realm: &Arc<Obj<Realm>>| realm.spec.enabled && realm.spec.sort == RealmType::Oidc;
    let mut all = cx.list::<Realm>(None);
    all.retain(usable);
    let first = realm::first(cx);
    let found = match named {
        Some(name) => all
            .iter()
            .find(|realm| realm.metadata.name.as_str() == name),
        None if all.len() == 1 => all.first(),
        None => all
            .iter()
            .find(|realm| realm.metadata.name.as_str() == first),
    };
    found.cloned().ok_or_else(|| {
        let what = match named {
            Some(name) => format!(
                "there is no realm `{}` whose provider lets anybody in",
                name.chars().take(63).collect::<String>().escape_debug()
            ),
            None => "it is not said by which provider".to_owned(),
        };
        Error::not_found(what).hint("name one with `realm`; `realms` lists them")
    })
}

impl Back {
    fn read(talk: &Talk) -> Result<Back> {
        let challenge = optional(talk, "challenge");
        let good = |text: &str| {
            let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            text.len() == 43 && text.bytes().all(letter)
        };
        if challenge.is_some_and(|text| !good(text)) {
            return Err(Error::field("challenge", "is no S256 challenge (RFC 7636)"));
        }
        match (optional(talk, "return").unwrap_or("/"), challenge) {
            ("typed", Some(challenge)) => Ok(Back::Typed {
                challenge: challenge.into(),
            }),
            (page, None) if is_page(page) => Ok(Back::Page(page.into())),
            (to, Some(challenge)) if is_program(to) => Ok(Back::Program {
                to: to.into(),
                challenge: challenge.into(),
            }),
            _ => Err(Error::field(
                "return",
                "is neither a page here, such as `/`, nor, with a challenge, `http://127.0.0.1:PORT/...` or `typed`",
            )),
        }
    }
}

/// A path of ours and nothing that a browser takes for another site.
fn is_page(text: &str) -> bool {
    let plain = text
        .bytes()
        .all(|b| (0x21..0x7f).contains(&b) && b != b'\\');
    plain && text.len() <= 512 && text.starts_with('/') && !text.starts_with("//")
}

/// A port of the browser's own machine (RFC 8252, 7.3). A name could lead elsewhere.
fn is_program(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://127.0.0.1:")
        .or_else(|| text.strip_prefix("http://[::1]:"));
    let Some((port, path)) = rest.and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let path = path
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/'));
    text.len() <= 200 && path && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

fn random(cx: &Cx) -> String {
    let mut random = [0; 32];
    cx.clock().fill(&mut random);
    hex::encode(random)
}

/// `oidc/begin`: sends a browser to its provider.
pub(super) async fn begin(cx: &Cx, talk: &Talk) -> Result<Said> {
    let back = Back::read(talk)?;
    match (leave(cx, talk, &back).await, &back) {
        (Err(error), Back::Program { to, .. }) => refused_to(to, &error),
        (said, _) => said,
    }
}

/// Tells a program that waits for the browser why nobody comes: the browser brings it.
fn refused_to(to: &str, error: &Error) -> Result<Said> {
    let mut url = reqwest::Url::parse(to)
        .map_err(|e| Error::internal("an address that was looked at is none").because(e))?;
    let hint = error.hint.as_deref().unwrap_or_default();
    url.query_pairs_mut()
        .append_pair("error", &error.message)
        .append_pair("hint", hint);
    Ok(Said {
        body: json!({ "state": "refused" }),
        redirect: Some(url.into()),
        ..Said::default()
    })
}

async fn leave(cx: &Cx, talk: &Talk, back: &Back) -> Result<Said> {
    let realm = wanted(cx, optional(talk, "realm"))?;
    let set = realm
        .spec
        .oidc
        .as_ref()
        .and_then(|spec| spec.redirect_uri.clone());
    let redirect_uri = match (set, &talk.host) {
        (Some(set), _) => set,
        (None, Some(host)) => format!("https://{host}/api/v1/auth/oidc/callback"),
        (None, None) => {
            return Err(Error::refused(
                "the request does not say which host it asks",
            ));
        }
    };
    // Of two windows of one browser the second must not spoil the first.
    let kept = talk.flow.as_deref().filter(|flow| is_binding(flow));
    let binding = kept.map_or_else(|| random(cx), str::to_owned);
    let state = random(cx);
    let going = Going {
        state: &state,
        binding: &binding,
        redirect_uri: &redirect_uri,
    };
    let url = oidc::away(cx, &realm, &going).await?;
    let flow = Flow {
        realm: realm.metadata.name.to_string(),
        binding: hash(&binding),
        redirect_uri: redirect_uri.clone(),
        back: back.clone(),
        remember: optional(talk, "remember") == Some("true") || given(talk, "remember"),
        made: cx.clock().now(),
    };
    tally::edit::<Flow, _>(cx, FLOWS, &state, |_| (Becomes::New(flow.clone()), ())).await?;
    Ok(Said {
        body: json!({ "state": "away", "url": url }),
        flow: Some((binding.clone(), AWAY)),
        redirect: Some(url),
        ..Said::default()
    })
}

fn is_binding(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `oidc/callback`: a browser comes back.
pub(super) async fn callback(cx: &Cx, talk: &Talk) -> Result<Said> {
    let state = text(talk, "state")?;
    let binding = talk.flow.as_deref().unwrap_or_default();
    let (bound, now) = (hash(binding), cx.clock().now());
    let taken = tally::edit::<Flow, _>(cx, FLOWS, state, |flow| match flow {
        // Who does not have the cookie cannot even use it up.
        Some(flow) if flow.binding == bound => (Becomes::Forgotten, Some(flow)),
        _ => (Becomes::Same, None),
    });
    let flow = taken.await?.filter(|flow| now < flow.made.plus(AWAY));
    let Some(flow) = flow else {
        note(cx, row(&LOGIN_FAILED, "oidc", talk).failed("UNKNOWN_STATE")).await?;
        return Err(Error::unauthenticated(
            "this browser has begun no such login, or too long ago, or has ended it already",
        )
        .hint("begin again"));
    };
    let going = Going {
        state,
        binding,
        redirect_uri: &flow.redirect_uri,
    };
    match (arrived(cx, talk, &flow, &going).await, &flow.back) {
        (Err(error), Back::Program { to, .. }) => refused_to(to, &error),
        (said, _) => said,
    }
}

/// Who came back, and how it goes on.
async fn arrived(cx: &Cx, talk: &Talk, flow: &Flow, going: &Going<'_>) -> Result<Said> {
    let realm = wanted(cx, Some(&flow.realm))?;
    let who = format!("realm:{}", flow.realm);
    let proved = match oidc::back(cx, &realm, going, &talk.body).await {
        Ok(Ok(proved)) => proved,
        Ok(Err(why)) => {
            note(cx, row(&LOGIN_FAILED, &who, talk).failed(why)).await?;
            return Err(Error::unauthenticated(format!(
                "what the provider of realm `{}` says is not accepted: {why}",
                flow.realm
            ))
            .hint("log in again; an administrator sees more with dvctl audit list"));
        }
        Err(error) => {
            note(cx, row(&LOGIN_FAILED, &who, talk).failed(error.code())).await?;
            return Err(error);
        }
    };
    let user = match realm::arrive(cx, &realm, &proved.who).await {
        Ok(user) => user,
        Err(error) => {
            note(cx, row(&LOGIN_FAILED, &who, talk).failed("NO_USER")).await?;
            return Err(error);
        }
    };
    let ticket = ticket(cx, flow, &user, proved);
    if let Back::Page(page) = &flow.back {
        let begin = ticket.begin(talk, true);
        if enter::is_enough(cx, &user, &begin) {
            let mut said = enter::proceed(cx, talk, &user, begin).await?;
            if is_over(&said) {
                said.redirect = Some(page.clone());
                said.flow = Some((String::new(), Duration::ZERO));
                return Ok(said);
            }
            // More is asked of him: the page asks it, with a ticket.
        }
    }
    let mut random = [0; LETTERS];
    cx.clock().fill(&mut random);
    let code = codes::letters(&random);
    tally::edit::<Ticket, _>(cx, TICKETS, &code, |_| (Becomes::New(ticket.clone()), ())).await?;
    let grouped: Vec<&str> = (0..LETTERS)
        .step_by(4)
        .map(|at| &code[at..at + 4])
        .collect();
    let redirect = match &flow.back {
        // After `#`: no server on the way sees it.
        Back::Page(page) => Some(format!("{page}#ticket={code}")),
        Back::Program { to, .. } => Some(format!("{to}?ticket={code}")),
        Back::Typed { .. } => None,
    };
    Ok(Said {
        body: json!({
            "state": "ticket", "ticket": grouped.join("-"),
            "next": "type the ticket where you began this login",
        }),
        redirect,
        ..Said::default()
    })
}

fn ticket(cx: &Cx, flow: &Flow, user: &Obj<User>, proved: Proved) -> Ticket {
    Ticket {
        user: user.metadata.uid,
        realm: flow.realm.clone(),
        mfa: proved.mfa,
        provider_session: proved.session,
        remember: flow.remember,
        challenge: match &flow.back {
            Back::Page(_) => None,
            Back::Program { challenge, .. } | Back::Typed { challenge } => Some(challenge.clone()),
        },
        binding: flow.binding.clone(),
        made: cx.clock().now(),
    }
}

impl Ticket {
    fn begin(&self, talk: &Talk, browser: bool) -> Begin {
        let mut factors = vec!["realm"];
        if self.mfa {
            factors.push("realm-mfa");
        }
        Begin {
            from: talk.from,
            agent: talk.agent.clone(),
            factors,
            mfa: self.mfa,
            remember: self.remember,
            browser,
            realm: Some(self.realm.clone()),
            provider_session: self.provider_session.clone(),
            ..Begin::default()
        }
    }

    /// Whether whoever shows it is who it was made for.
    fn is_for(&self, talk: &Talk) -> bool {
        let same =
            |one: &str, other: &str| crate::factor::totp::same(one.as_bytes(), other.as_bytes());
        match (&self.challenge, optional(talk, "verifier"), &talk.flow) {
            (Some(challenge), Some(verifier), _) => {
                let made = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
                same(challenge, &made)
            }
            (None, _, Some(flow)) => same(&self.binding, &hash(flow)),
            _ => false,
        }
    }
}

/// Whether he is in, or will be when he has enrolled a second factor; else more is asked of him.
fn is_over(said: &Said) -> bool {
    matches!(said.body["state"].as_str(), Some("in" | "enrol"))
}

/// `oidc/finish`: trades a ticket for a session, with a second factor when the user has one.
pub(super) async fn finish(cx: &Cx, talk: &Talk) -> Result<Said> {
    let refused = || {
        Error::unauthenticated("the ticket is not accepted")
            .hint("a ticket works once, for 5 minutes, where the login was begun")
    };
    let code = codes::plain(text(talk, "ticket")?, LETTERS).ok_or_else(refused)?;
    let now = cx.clock().now();
    let taken = tally::edit::<Ticket, _>(cx, TICKETS, &code, |ticket| match ticket {
        Some(ticket) if ticket.is_for(talk) => (Becomes::Forgotten, Some(ticket)),
        _ => (Becomes::Same, None),
    });
    let ticket = taken.await?.filter(|ticket| now < ticket.made.plus(TICKET));
    let Some(ticket) = ticket else {
        note(
            cx,
            row(&LOGIN_FAILED, "oidc", talk).failed("UNKNOWN_TICKET"),
        )
        .await?;
        return Err(refused());
    };
    wanted(cx, Some(&ticket.realm))?;
    let key = cx.cache().key_of(ticket.user);
    let user = key.and_then(|key| cx.get_key::<User>(&key));
    let user = user.filter(|user| user.spec.active);
    let user = user.ok_or_else(refused)?;
    let browser = ticket.challenge.is_none();
    let entered = enter::proceed(cx, talk, &user, ticket.begin(talk, browser)).await;
    let over = entered.as_ref().is_ok_and(is_over);
    if !over {
        // He may try the code of his second factor, or that in the letter, again.
        tally::edit::<Ticket, _>(cx, TICKETS, &code, |_| (Becomes::New(ticket.clone()), ()))
            .await?;
    }
    entered
}

/// `oidc/backchannel-logout`: the provider itself says that somebody is out.
pub(super) async fn backchannel(cx: &Cx, talk: &Talk) -> Result<Said> {
    let token = text(talk, "logout_token")?;
    match oidc::logged_out(cx, token).await? {
        Ok(ended) => {
            for (session, user) in &ended {
                let ended = row(&SESSION_REVOKED, user, talk).with("session", session.as_str());
                note(cx, ended.with("why", "logged out at the provider")).await?;
            }
            Ok(Said {
                body: json!({ "sessions_ended": ended.len() }),
                ..Said::default()
            })
        }
        Err(why) => {
            note(cx, row(&LOGIN_FAILED, "oidc", talk).failed(why)).await?;
            Err(Error::new(
                model::What::Unparseable,
                format!("the logout token is not accepted: {why}"),
            ))
        }
    }
}

/// Forgets logins that nobody has ended.
pub(in crate::login) async fn sweep(cx: &Cx) -> Result<()> {
    let now = cx.clock().now();
    tally::sweep::<Flow>(cx, FLOWS, |flow| now < flow.made.plus(AWAY)).await?;
    tally::sweep::<Ticket>(cx, TICKETS, |ticket| now < ticket.made.plus(TICKET)).await?;
    oidc::sweep(cx).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_sent_nowhere_else() {
        for page in ["/", "/vms/web1", "/x?y=1"] {
            assert!(is_page(page), "{page}");
        }
        for page in [
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "",
            "x",
            "/a\nb",
        ] {
            assert!(!is_page(page), "{page:?}");
        }
        for program in ["http://127.0.0.1:8080/", "http://[::1]:1/a-b/c"] {
            assert!(is_program(program), "{program}");
        }
        for program in [
            "http://127.0.0.1:8080",
            "http://127.0.0.1:0/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1.evil.example:80/",
            "http://127.0.0.1:80@evil.example/",
            "http://127.0.0.1:80/?x",
            "https://127.0.0.1:80/",
            "http://localhost:80/",
            "http://evil.example:80/",
        ] {
            assert!(!is_program(program), "{program}");
        }
    }
}
