//! Signed tokens (RFC 7515, RFC 7519) as a provider gives them out: taken apart strictly, and what is signed in them.
//!
//! **Invariants.** What is not exactly three parts of canonical base64url over JSON objects is no token. Of the header
//! only `alg`, `kid` and `typ` are read: a key that a token brings along is never used, `crit` is refused. A field that
//! stands twice has two meanings, and is refused.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longer ones are not looked at.
pub(super) const LONGEST: usize = 16 * 1024;
/// How far the provider's clock may be off, in seconds.
pub(super) const SKEW: i64 = 60;

/// How something may be signed. Nothing else is: no `none`, nothing symmetric, no SHA-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alg {
    /// RSA, PKCS#1 1.5, SHA-256.
    Rs256,
    /// ECDSA on P-256, SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// Why a token is refused; the word goes into the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is no token.
    Malformed,
    /// It is signed in a way that is not accepted.
    Algorithm,
    /// No key of the provider has its name.
    UnknownKey,
    /// Its signature is not the provider's.
    Signature,
    /// It is of another issuer.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It was given to somebody else.
    Party,
    /// It has ended, or has no end.
    Expired,
    /// It is not good yet.
    TooEarly,
    /// It belongs to another login.
    Nonce,
    /// It says of nobody who he is.
    Subject,
    /// It is a token of another sort.
    Sort,
    /// It was shown before.
    Replayed,
}

impl Wrong {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Wrong::Malformed => "MALFORMED_TOKEN",
            Wrong::Algorithm => "WRONG_ALGORITHM",
            Wrong::UnknownKey => "UNKNOWN_KEY",
            Wrong::Signature => "WRONG_SIGNATURE",
            Wrong::Issuer => "WRONG_ISSUER",
            Wrong::Audience => "WRONG_AUDIENCE",
            Wrong::Party => "WRONG_PARTY",
            Wrong::Expired => "EXPIRED_TOKEN",
            Wrong::TooEarly => "TOKEN_NOT_YET_GOOD",
            Wrong::Nonce => "WRONG_NONCE",
            Wrong::Subject => "NO_SUBJECT",
            Wrong::Sort => "WRONG_SORT_OF_TOKEN",
            Wrong::Replayed => "REPLAYED",
        }
    }
}

/// The header of a token, as far as it is believed.
#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
}

/// For whom a token is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Audience {
    fn all(&self) -> &[String] {
        match self {
            Audience::One(one) => std::slice::from_ref(one),
            Audience::Many(many) => many,
        }
    }
}

/// What is said in it that decides whether it is good. Times are seconds since 1970.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    pub iss: String,
    #[serde(default)]
    pub sub: Option<String>,
    #[serde(default)]
    pub aud: Option<Audience>,
    #[serde(default)]
    pub azp: Option<String>,
    #[serde(default)]
    pub exp: Option<f64>,
    #[serde(default)]
    pub nbf: Option<f64>,
    #[serde(default)]
    pub iat: Option<f64>,
    #[serde(default)]
    pub nonce: Option<String>,
    #[serde(default)]
    pub sid: Option<String>,
    #[serde(default)]
    pub jti: Option<String>,
}

/// A token that was taken apart. Nothing of it is proved yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    pub alg: Alg,
    pub kid: Option<String>,
    pub typ: Option<String>,
    pub claims: Claims,
    /// All that it says.
    pub all: Map<String, Value>,
    pub signed: &'a [u8],
    pub signature: Vec<u8>,
}

/// Takes a token apart.
pub(super) fn parse(text: &str) -> Result<Token<'_>, Wrong> {
    if text.len() > LONGEST {
        return Err(Wrong::Malformed);
    }
    let mut parts = text.split('.');
    let (Some(head), Some(body), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Wrong::Malformed);
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Wrong::Malformed);
    let header: Header = serde_json::from_slice(&decode(head)?).map_err(|_| Wrong::Malformed)?;
    if header.crit.is_some() {
        return Err(Wrong::Malformed);
    }
    let alg = match header.alg.as_str() {
        "RS256" => Alg::Rs256,
        "ES256" => Alg::Es256,
        "EdDSA" => Alg::EdDsa,
        _ => return Err(Wrong::Algorithm),
    };
    let body = decode(body)?;
    let claims: Claims = serde_json::from_slice(&body).map_err(|_| Wrong::Malformed)?;
    let all = serde_json::from_slice(&body).map_err(|_| Wrong::Malformed)?;
    Ok(Token {
        alg,
        kid: header.kid,
        typ: header.typ,
        claims,
        all,
        signed: &text.as_bytes()[..text.len() - signature.len() - 1],
        signature: decode(signature)?,
    })
}

/// The issuer that a text claims, when it has the form of a token. Proves nothing.
pub(super) fn issuer(text: &str) -> Option<String> {
    parse(text).ok().map(|token| token.claims.iss)
}

/// Whether a text means to be one. Says nothing about its worth.
pub(crate) fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|b| *b == b'.').count() == 2
}

impl Claims {
    /// What every token must say: of this issuer, for this audience, good now.
    fn common(&self, issuer: &str, audience: &[String], now: i64) -> Result<(), Wrong> {
        if self.iss != issuer {
            return Err(Wrong::Issuer);
        }
        let aud = self.aud.as_ref().map_or(&[][..], Audience::all);
        if !aud.iter().any(|one| audience.contains(one)) {
            return Err(Wrong::Audience);
        }
        let (now, skew) = (now as f64, SKEW as f64);
        let early = |at: Option<f64>| at.is_some_and(|at| at > now + skew);
        if early(self.nbf) || early(self.iat) {
            return Err(Wrong::TooEarly);
        }
        match self.exp {
            None => Ok(()),

            Some(exp) if now < exp + skew => Ok(()),
            Some(_) => Err(Wrong::Expired),
        }
    }

    fn ends(&self) -> Result<(), Wrong> {
        self.exp.map(drop).ok_or(Wrong::Expired)
    }

    fn somebody(&self) -> Result<(), Wrong> {
        let sub = self.sub.as_deref().unwrap_or_default();
        let good = (1..=255).contains(&sub.len()) && sub.bytes().all(|b| (0x20..0x7f).contains(&b));
        if good { Ok(()) } else { Err(Wrong::Subject) }
    }
}

impl Token<'_> {
    fn is(&self, sorts: &[&str]) -> bool {
        let typ = self.typ.as_deref().map(str::to_ascii_lowercase);
        let typ = typ
            .as_deref()
            .map(|t| t.strip_prefix("application/").unwrap_or(t));
        typ.is_none_or(|typ| sorts.contains(&typ))
    }

    /// Whether it is the ID token of this login (OpenID Connect Core, 3.1.3.7).
    pub(super) fn for_login(
        &self,
        issuer: &str,
        client: &str,
        nonce: &str,
        now: i64,
    ) -> Result<(), Wrong> {
        if !self.is(&["jwt"]) || self.all.contains_key("events") {
            return Err(Wrong::Sort);
        }
        let claims = &self.claims;
        claims.common(issuer, &[client.to_owned()], now)?;
        claims.ends()?;
        if claims.iat.is_none() {
            return Err(Wrong::TooEarly);
        }
        let several = claims.aud.as_ref().is_some_and(|aud| aud.all().len() > 1);
        match &claims.azp {
            Some(azp) if azp != client => return Err(Wrong::Party),
            None if several => return Err(Wrong::Party),
            _ => {}
        }
        if claims.nonce.as_deref() != Some(nonce) {
            return Err(Wrong::Nonce);
        }
        claims.somebody()
    }

    /// Whether it is a program's access token for us (RFC 9068).
    pub(super) fn for_machine(
        &self,
        issuer: &str,
        audiences: &[String],
        now: i64,
    ) -> Result<(), Wrong> {
        // What has a nonce is the ID token of a person; what has events logs out.
        let other = ["nonce", "events"]
            .iter()
            .any(|f| self.all.contains_key(*f));
        if !self.is(&["at+jwt", "jwt"]) || other {
            return Err(Wrong::Sort);
        }
        self.claims.common(issuer, audiences, now)?;
        self.claims.ends()?;
        self.claims.somebody()
    }

    /// Whether it says that somebody is logged out at the provider (Back-Channel Logout 1.0, 2.6).
    pub(super) fn for_logout(&self, issuer: &str, client: &str, now: i64) -> Result<(), Wrong> {
        const EVENT: &str = super::LOGOUT_EVENT;
        let event = self.all.get("events").and_then(|events| events.get(EVENT));
        let sort = event.is_some_and(Value::is_object) && !self.all.contains_key("nonce");
        if !self.is(&["logout+jwt", "jwt"]) || !sort {
            return Err(Wrong::Sort);
        }
        let claims = &self.claims;
        claims.common(issuer, &[client.to_owned()], now)?;
        // Older providers give it no end: then it is as good as it is fresh.
        let Some(iat) = claims.iat else {
            return Err(Wrong::TooEarly);
        };
        if claims.exp.is_none() && now as f64 - iat > 300.0 {
            return Err(Wrong::Expired);
        }
        if claims.jti.as_deref().unwrap_or_default().is_empty() {
            return Err(Wrong::Malformed);
        }
        match claims.sub.is_some() || claims.sid.is_some() {
            true => Ok(()),
            false => Err(Wrong::Subject),
        }
    }
}
