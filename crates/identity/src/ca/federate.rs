//! Trust between regions: a region offers its CA in a token that the CA signs; another region signs that CA below its own,
//! for the names that it grants and no others. Who trusts the one region's CA then believes the other's servers, for
//! their names only. A login is never among what it may sign: only a CA of ours lets anybody in.

use super::issue::Below;
use super::kind::{self, CaKind, INTERNAL};
use super::{Ca, Reason, common_name, der_of, fingerprint, issue, revoked};
use crate::files;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{Error, Result, Timestamp};
use rcgen::SigningKey;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, UnparsedPublicKey};
use runtime::Proc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// Longest token that is read.
const LONGEST: usize = 16 * 1024;
/// Regions that one may be federated with.
const MOST: usize = 100;
const FILE: &str = "federated.json";

/// What a region offers.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfferParams {
    /// DNS names that this region speaks for, with all below them, such as `eu.example.org`.
    #[schemars(length(min = 1, max = 20))]
    pub names: Vec<String>,
    /// For how many hours the token is good.
    #[serde(default = "a_day")]
    #[schemars(range(min = 1, max = 720))]
    pub hours: u32,
}

fn a_day() -> u32 {
    24
}

/// Which region is trusted, for which names.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FederateParams {
    /// The token that `ca offer` gave there.
    #[schemars(length(min = 1, max = 16_384))]
    pub token: String,
    /// SHA-256 of that region's CA, as its administrators say it on another way.
    #[schemars(length(min = 64, max = 95))]
    pub fingerprint: String,
    /// The names that it may speak for: among those that it offers, or below them.
    #[schemars(length(min = 1, max = 20))]
    pub names: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Offer {
    version: u8,
    region: String,
    ca: String,
    names: Vec<String>,
    expires: Timestamp,
}

/// A region whose CA is below ours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Federated {
    /// What it calls itself.
    pub region: String,
    /// SHA-256 of its CA, hex.
    pub fingerprint: String,
    /// The names that it may speak for, with all below them.
    pub names: Vec<String>,
    /// SHA-256 of its CA as ours has signed it, hex: revoke this one to end it.
    pub signed: String,
    /// The same of all that was signed for it before: it goes with this one.
    #[serde(default)]
    pub earlier: Vec<String>,
    /// Its CA as ours has signed it, PEM.
    pub certificate: String,
    /// Its CA, PEM.
    pub ca: String,
}

impl Federated {
    /// All that was ever signed for it.
    fn signed_so_far(self) -> Vec<String> {
        let mut all = self.earlier;
        all.push(self.signed);
        all
    }
}

pub(super) async fn offer(proc: &Proc) -> Result<Value> {
    let params: OfferParams = proc.params()?;
    let ca = kind::of(proc.cx())?;
    kind::off(move || {
        let hours = Duration::from_secs(u64::from(params.hours) * 3600);
        let expires = (ca.config.now)().plus(hours);
        let token = ca.offer(&params.names, expires)?;
        Ok(json!({ "token": token, "expires": expires, "fingerprint": ca.current().public.fingerprint }))
    })
    .await
}

pub(super) async fn federate(proc: &Proc) -> Result<Value> {
    let params: FederateParams = proc.params()?;
    let ca = kind::of(proc.cx())?;
    let made = kind::off(move || ca.federate(&params)).await?;
    proc.cx().wake(&proc.cx().key::<CaKind>(None, INTERNAL));
    Ok(json!({ "region": made.region, "names": made.names, "signed": made.signed }))
}

/// Names as they are compared; refuses what is none, and what is a whole top-level domain.
fn plain(names: &[String]) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let name = name.trim_matches('.').to_ascii_lowercase();
        let good = crate::certificate::is_name(&name)
            && name.parse::<std::net::IpAddr>().is_err()
            && name.contains('.')
            && !name.starts_with('*');
        if !good {
            return Err(Error::field(
                format!("names[{n}]"),
                format!("`{name}` is not a DNS name with at least two labels"),
            ));
        }
        out.push(name);
    }
    Ok(out)
}

/// Whether a name is this one or below it.
fn is_below(name: &str, above: &str) -> bool {
    name == above
        || name
            .strip_suffix(above)
            .is_some_and(|rest| rest.ends_with('.'))
}

/// What a token says. Nothing of it is believed: the signature is looked at by who knows whose it must be.
fn read(token: &str) -> Option<(Offer, Vec<u8>, &str)> {
    let token = token.trim();
    if token.len() > LONGEST {
        return None;
    }
    let (said, signature) = token.split_once('.')?;
    let offer = URL_SAFE_NO_PAD.decode(said).ok()?;
    let offer: Offer = serde_json::from_slice(&offer).ok()?;
    (offer.version == 1).then_some(())?;
    Some((offer, URL_SAFE_NO_PAD.decode(signature).ok()?, said))
}

impl Ca {
    /// Our CA with the names that we speak for, signed by it.
    ///
    /// # Errors
    /// When one of the names is none.
    pub fn offer(&self, names: &[String], expires: Timestamp) -> Result<String> {
        let current = self.current();
        let offer = Offer {
            version: 1,
            region: self.config.cluster.clone(),
            ca: current.public.pem.clone(),
            names: plain(names)?,
            expires,
        };
        let json = serde_json::to_vec(&offer)
            .map_err(|e| Error::internal("an offer as JSON").because(e))?;
        let said = URL_SAFE_NO_PAD.encode(json);
        let signature = current
            .signer()?
            .key()
            .sign(said.as_bytes())
            .map_err(|e| Error::internal("cannot sign the offer").because(e))?;
        Ok(format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Signs the CA of another region below ours.
    ///
    /// # Errors
    /// When the token is not what it must be, or grants what it may not.
    pub fn federate(&self, params: &FederateParams) -> Result<Federated> {
        let wrong = |why: &str| Err(Error::field("token", why));
        let Some((offer, signature, said)) = read(&params.token) else {
            return wrong("is not one that `ca offer` gives");
        };
        let Some(der) = der_of(&offer.ca).next() else {
            return wrong("holds no CA");
        };
        let found = fingerprint(&der);
        if found != revoked::plain(&params.fingerprint)? {
            return Err(Error::field(
                "fingerprint",
                format!("the token holds another CA: {found}"),
            )
            .hint("ask the administrators of that region for the fingerprint on another way than the token came"));
        }
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&der) else {
            return wrong("holds no CA");
        };
        let key = parsed.public_key().subject_public_key.data.as_ref();
        let algorithm = match key.len() {
            97 => &ECDSA_P384_SHA384_ASN1,
            _ => &ECDSA_P256_SHA256_ASN1,
        };
        if UnparsedPublicKey::new(algorithm, key)
            .verify(said.as_bytes(), &signature)
            .is_err()
        {
            return wrong("is not signed by the CA in it");
        }
        let now = (self.config.now)();
        if offer.expires <= now {
            return wrong("is too old: ask for a new one");
        }
        if !parsed.is_ca() || parsed.verify_signature(None).is_err() {
            return wrong("holds a certificate that is not a CA of its own");
        }
        if self
            .standing()
            .all()
            .any(|one| one.subject == parsed.subject().as_raw())
        {
            return Err(Error::field("token", "its CA has the name of one of ours")
                .hint("two clusters of one name cannot be federated"));
        }
        let names = plain(&params.names)?;
        for (n, name) in names.iter().enumerate() {
            let field = format!("names[{n}]");
            if !offer.names.iter().any(|above| is_below(name, above)) {
                return Err(Error::field(field, format!("`{name}` is not offered"))
                    .hint(format!("it offers: {}", offer.names.join(", "))));
            }
            if let Some(ours) = self.config.names.iter().find(|ours| is_below(ours, name)) {
                return Err(Error::field(
                    field,
                    format!("`{name}` would let that region speak for `{ours}`, which is ours"),
                ));
            }
        }
        let all = self.federated()?.into_iter();
        let (before, mut all): (Vec<_>, Vec<_>) = all.partition(|one| one.fingerprint == found);
        if all.len() >= MOST {
            return Err(Error::refused(format!(
                "{MOST} regions are federated already"
            )));
        }
        let mut made = self.sign_below(&offer.region, &offer.ca, &der, names)?;
        made.earlier = before
            .into_iter()
            .flat_map(Federated::signed_so_far)
            .collect();
        all.push(made.clone());
        self.keep_federated(&all)?;
        // What was signed for more names, or by the CA before, is no good beside it.
        for old in &made.earlier {
            let why = format!("region {} was federated anew", made.region);
            self.revoke_one(old, Reason::Superseded, &why)?;
        }
        Ok(made)
    }

    fn sign_below(
        &self,
        region: &str,
        pem: &str,
        der: &[u8],
        names: Vec<String>,
    ) -> Result<Federated> {
        let current = self.current();
        let now = (self.config.now)();
        let (_, parsed) = x509_parser::parse_x509_certificate(der)
            .map_err(|e| Error::internal("the CA of another region").because(e))?;
        let theirs =
            Timestamp::from_millis(parsed.validity().not_after.timestamp().saturating_mul(1000));
        let below = Below {
            name: common_name(&parsed),
            key: parsed.public_key().raw,
            names: Some(&names),
        };
        let signed = issue::cross(
            current.signer()?,
            &below,
            now,
            theirs.min(current.not_after),
        )?;
        let same = x509_parser::parse_x509_certificate(&signed.der)
            .is_ok_and(|(_, made)| made.subject().as_raw() == parsed.subject().as_raw());
        if !same {
            return Err(Error::field(
                "token",
                "its CA is not one of a DebVisor cluster",
            ));
        }
        self.keep(&signed.der, now, &current.id)?;
        Ok(Federated {
            region: region
                .chars()
                .filter(|c| !c.is_control())
                .take(63)
                .collect(),
            fingerprint: fingerprint(der),
            names,
            earlier: Vec::new(),
            signed: fingerprint(&signed.der),
            certificate: signed.certificate,
            ca: pem.to_owned(),
        })
    }

    /// Signs those with the CA that signs now that another has signed.
    pub(super) fn sign_federated_anew(&self) -> Result<()> {
        let mut all = self.federated()?;
        let current = self.current();
        let mut changed = false;
        for one in &mut all {
            let ours = der_of(&one.certificate).next();
            let ours = ours.is_some_and(|der| {
                x509_parser::parse_x509_certificate(&der).is_ok_and(|(_, one)| current.signed(&one))
            });
            let der = der_of(&one.ca).next();
            // What was ended stays so.
            if let (false, None, Some(der)) = (ours, self.revocation(&one.signed), der) {
                let (region, ca) = (one.region.clone(), one.ca.clone());
                let anew = self.sign_below(&region, &ca, &der, one.names.clone())?;
                let old = std::mem::replace(one, anew);
                one.earlier = old.signed_so_far();
                changed = true;
            }
        }
        match changed {
            true => self.keep_federated(&all),
            false => Ok(()),
        }
    }

    /// All that was signed for the region of a certificate, itself among them; nothing when it is no region's.
    pub(super) fn of_same_region(&self, fingerprint: &str) -> Result<Vec<String>> {
        let all = self.federated()?.into_iter().map(Federated::signed_so_far);
        let mut all = all.filter(|signed| signed.iter().any(|one| one == fingerprint));
        Ok(all.next().unwrap_or_default())
    }

    /// Regions whose CA is below ours.
    pub(super) fn federated(&self) -> Result<Vec<Federated>> {
        match files::read(&self.config.folder.join(FILE))? {
            Some(text) => serde_json::from_str(&text).map_err(|e| super::broken(FILE, e)),
            None => Ok(Vec::new()),
        }
    }

    fn keep_federated(&self, all: &[Federated]) -> Result<()> {
        let text = serde_json::to_string_pretty(all)
            .map_err(|e| Error::internal("federated regions as JSON").because(e))?;
        files::write(&self.config.folder.join(FILE), &format!("{text}\n"), 0o600)
    }

    /// Their CAs as ours has signed them, PEM, without those that were revoked.
    pub(super) fn below(&self) -> Result<String> {
        let all = self.federated()?.into_iter();
        let good = all.filter(|one| self.revocation(&one.signed).is_none());
        Ok(good.map(|one| one.certificate).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};

    #[test]
    fn below() {
        assert!(is_below("a.b.org", "b.org") && is_below("b.org", "b.org"));
        assert!(!is_below("ab.org", "b.org") && !is_below("org", "b.org"));
        for bad in ["org", "*.b.org", "192.0.2.1", "", "a..b"] {
            assert!(plain(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    /// No text makes it panic.
    #[test]
    fn tokens_from_outside() {
        let mut random = rand::rngs::StdRng::seed_from_u64(5280);
        let offer = json!({ "version": 1, "region": "a", "ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "names": ["a.b"], "expires": "2027-01-01T00:00:00Z" });
        let good = format!("{}.AAAA", URL_SAFE_NO_PAD.encode(offer.to_string()));
        assert!(read(&good).is_some());
        for _ in 0..50_000 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..random.random_range(1..6) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            if let Some((offer, ..)) = read(&String::from_utf8_lossy(&bytes)) {
                der_of(&offer.ca).for_each(drop);
            }
        }
    }
}
