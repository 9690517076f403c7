//! What a login by a provider asks of it: where a browser goes, and who came back (OpenID Connect Core, 3.1, with PKCE of
//! RFC 7636). Who has begun it, and what becomes of it, is told in [`crate::login`].

use super::super::{Incoming, Realm};
use super::client::{Trade, Traded, word};
use super::kept::{Providers, dependency};
use super::token::Wrong;
use super::{OidcSpec, spec};
use crate::secret;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{Error, ObjectRef, Resource, Result};
use reqwest::Url;
use runtime::{Cx, Obj};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// One login on its way: what must be the same when the browser comes back.
pub(crate) struct Going<'a> {
    /// The text that comes back with the browser.
    pub state: &'a str,
    /// What only the browser knows: its cookie.
    pub binding: &'a str,
    /// Where it comes back to.
    pub redirect_uri: &'a str,
}

impl Going<'_> {
    /// A secret of this login, which nothing that is stored can give.
    fn secret(&self, what: &str) -> String {
        let text = format!("{what}\n{}\n{}", self.state, self.binding);
        URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()))
    }

    fn verifier(&self) -> String {
        self.secret("verifier")
    }

    fn nonce(&self) -> String {
        self.secret("nonce")
    }
}

/// Somebody whom the provider has proved.
pub(crate) struct Proved {
    /// Who.
    pub who: Incoming,
    /// Whether the provider has asked for a second factor, and is believed.
    pub mfa: bool,
    /// The provider's session, hashed.
    pub session: Option<String>,
}

/// Where a browser logs in.
///
/// # Errors
/// When the provider does not answer.
pub(crate) async fn away(cx: &Cx, realm: &Obj<Realm>, going: &Going<'_>) -> Result<String> {
    let spec = spec(realm)?;
    let known = Providers::of(cx)?.get(cx, realm).await?;
    let mut url = Url::parse(&known.facts.authorization_endpoint)
        .map_err(|_| known.provider.wrong("names an address that is none"))?;
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(going.verifier().as_bytes()));
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &spec.client_id)
        .append_pair("redirect_uri", going.redirect_uri)
        .append_pair("scope", &spec.scopes.join(" "))
        .append_pair("state", going.state)
        .append_pair("nonce", &going.nonce())
        .append_pair("code_challenge", &challenge)
        .append_pair("code_challenge_method", "S256");
    Ok(url.into())
}

/// Who came back. `Err` of the inner one says why he is refused.
///
/// # Errors
/// When the provider does not answer, or refuses itself.
pub(crate) async fn back(
    cx: &Cx,
    realm: &Obj<Realm>,
    going: &Going<'_>,
    said: &Value,
) -> Result<Result<Proved, &'static str>> {
    let spec = spec(realm)?;
    let text = |name: &str| said.get(name).and_then(Value::as_str);
    // RFC 9207: an answer of another provider is not given to this one.
    if text("iss").is_some_and(|iss| iss != spec.issuer) {
        return Ok(Err(Wrong::Issuer.word()));
    }
    if let Some(error) = text("error") {
        return Err(Error::denied(format!(
            "realm `{}`: the provider has let nobody in: {}",
            realm.metadata.name,
            word(error)
        )));
    }
    let code = text("code").ok_or_else(|| Error::field("code", "is required"))?;
    let providers = Providers::of(cx)?;
    let known = providers.get(cx, realm).await?;
    let secret = secret_of(cx, realm, spec).await?;
    let verifier = going.verifier();
    let trade = Trade {
        client_id: &spec.client_id,
        secret: secret.as_deref(),
        code,
        verifier: &verifier,
        redirect_uri: going.redirect_uri,
    };
    let dependency = dependency(cx, realm);
    let traded = dependency
        .call(|| known.provider.trade(&known.facts, &trade))
        .await?;
    let token = match providers.signed(cx, realm, &traded.id_token).await? {
        Ok(token) => token,
        Err(wrong) => return Ok(Err(wrong.word())),
    };
    let now = cx.clock().now().millis() / 1000;
    if let Err(wrong) = token.for_login(&spec.issuer, &spec.client_id, &going.nonce(), now) {
        return Ok(Err(wrong.word()));
    }
    let sub = token.claims.sub.clone().unwrap_or_default();
    let more = more(cx, realm, &traded, &token.all, &sub).await?;
    let Some(all) = more else {
        return Ok(Err(Wrong::Subject.word()));
    };
    let username = string(&all, &spec.username_claim).ok_or_else(|| {
        known.provider.wrong(&format!("does not say `{}` of anybody", spec.username_claim)).hint(
            "let it put this claim into its ID token or `userinfo`, or name another with `username_claim`",
        )
    })?;
    let mut groups = strings(&all, &spec.group_claim);
    if let Some(role_claim) = &spec.role_claim {
        groups.extend(strings(&all, role_claim));
    }
    let verified = all.get("email_verified") != Some(&json!(false));
    let mut proofs = strings(&token.all, "amr");
    proofs.extend(string(&token.all, "acr"));
    Ok(Ok(Proved {
        who: Incoming {
            subject: subject(&spec.issuer, &sub),
            username,
            email: string(&all, "email").filter(|_| verified),
            full_name: string(&all, "name"),
            groups,
        },
        mfa: spec.trust_mfa && proofs.iter().any(|proof| spec.mfa_values.contains(proof)),
        session: token
            .claims
            .sid
            .as_deref()
            .map(|sid| session(&spec.issuer, sid)),
    }))
}

/// Who somebody is at a provider.
pub(super) fn subject(issuer: &str, sub: &str) -> String {
    format!("{issuer} {sub}")
}

/// What is kept of a session of a provider.
pub(super) fn session(issuer: &str, sid: &str) -> String {
    hex::encode(Sha256::digest(format!("{issuer}\n{sid}").as_bytes()))
}

/// All that is said of somebody: his token, and what of `userinfo` the token lacks. Nothing when that is of another one.
async fn more(
    cx: &Cx,
    realm: &Obj<Realm>,
    traded: &Traded,
    said: &Map<String, Value>,
    sub: &str,
) -> Result<Option<Map<String, Value>>> {
    let spec = spec(realm)?;
    let mut all = said.clone();
    let enough = at(said, &spec.username_claim).is_some()
        && at(said, &spec.group_claim).is_some()
        && said.contains_key("email");
    let Some(access_token) = traded.access_token.as_ref().filter(|_| !enough) else {
        return Ok(Some(all));
    };
    let known = Providers::of(cx)?.get(cx, realm).await?;
    let info = dependency(cx, realm)
        .call(|| known.provider.userinfo(&known.facts, access_token))
        .await?;
    let Value::Object(info) = info else {
        return Ok(Some(all));
    };
    // OpenID Connect Core, 5.3.2.
    if info.get("sub").and_then(Value::as_str) != Some(sub) {
        return Ok(None);
    }
    for (name, value) in info {
        all.entry(name).or_insert(value);
    }
    Ok(Some(all))
}

/// The secret that proves who we are there.
async fn secret_of(cx: &Cx, realm: &Obj<Realm>, spec: &OidcSpec) -> Result<Option<String>> {
    let Some((project, name)) = spec
        .client_secret
        .as_deref()
        .and_then(|s| s.split_once('/'))
    else {
        return Ok(None);
    };
    let of = |kind: &str, project: Option<&str>, name: &str| ObjectRef {
        kind: kind.into(),
        project: project.map(str::to_owned),
        name: name.into(),
    };
    let asked = of(secret::KIND.name, Some(project), name);
    let by = of(Realm::KIND.name, None, &realm.metadata.name);
    secret::read(cx, &asked, &by).await.map(Some)
}

/// Where a browser logs out of the provider too, when that is known (RP-Initiated Logout 1.0).
pub(crate) fn leaving(cx: &Cx, realm: &str) -> Option<String> {
    let realm = cx.get::<Realm>(None, realm)?;
    let known = Providers::of(cx).ok()?.known(&realm)?;
    let mut url = Url::parse(known.facts.end_session_endpoint.as_ref()?).ok()?;
    let client_id = &realm.spec.oidc.as_ref()?.client_id;
    url.query_pairs_mut().append_pair("client_id", client_id);
    Some(url.into())
}

/// A claim: by its name, else with dots as a way into objects.
fn at<'a>(all: &'a Map<String, Value>, claim: &str) -> Option<&'a Value> {
    if let Some(found) = all.get(claim) {
        return Some(found);
    }
    let mut words = claim.split('.');
    let first = all.get(words.next()?)?;
    words.try_fold(first, |value, word| value.get(word))
}

fn string(all: &Map<String, Value>, claim: &str) -> Option<String> {
    let text = at(all, claim)?.as_str()?;
    (!text.is_empty() && text.len() <= 512).then(|| text.to_owned())
}

/// A claim that is a list of texts, or one.
fn strings(all: &Map<String, Value>, claim: &str) -> Vec<String> {
    let texts: Vec<&str> = match at(all, claim) {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let good = |text: &&str| !text.is_empty() && text.len() <= 512;
    texts
        .into_iter()
        .filter(good)
        .take(1000)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_found_by_name_first() {
        let all = json!({
            "groups": ["a", 1, "", "b"], "one": "c", "realm_access": { "roles": ["d"] },
            "https://x.example/groups": ["e"], "a.b": "f", "a": { "b": "g" },
        });
        let all = all.as_object().unwrap();
        assert_eq!(strings(all, "groups"), ["a", "b"]);
        assert_eq!(strings(all, "one"), ["c"]);
        assert_eq!(strings(all, "realm_access.roles"), ["d"]);
        assert_eq!(strings(all, "https://x.example/groups"), ["e"]);
        assert_eq!(strings(all, "a.b"), ["f"]);
        for none in ["realm_access", "realm_access.roles.x", "missing", ""] {
            assert!(strings(all, none).is_empty(), "{none}");
        }
    }

    #[test]
    fn each_login_has_its_own_secrets() {
        let going = |state, binding| Going {
            state,
            binding,
            redirect_uri: "",
        };
        let one = going("s", "b");
        assert_eq!(one.verifier().len(), 43);
        assert_ne!(one.verifier(), one.nonce());
        assert_ne!(one.nonce(), going("s", "c").nonce());
        assert_ne!(one.nonce(), going("t", "b").nonce());
    }
}
