//! Chains and keys as PEM: reading and checking what comes from outside. Every error names the field and the remedy.

use crate::ca::{der_of, names_of, serial_of};
use model::{Error, Result, Timestamp};
use runtime::TlsIdentity;
use rustls::crypto::ring::sign::any_supported_type;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;

/// Longest chain.
const LONGEST: usize = 10;

/// What a chain says of its leaf.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// DNS names and IP addresses, sorted.
    pub names: Vec<String>,
    /// When it begins.
    pub not_before: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
    /// SHA-256, hex.
    pub fingerprint: String,
    /// Serial number, hex.
    pub serial: String,
    /// Name of who signed it.
    pub issued_by: String,
    /// The public key, DER.
    pub public_key: Vec<u8>,
    /// What public logs have promised of it, or why that cannot be read. The signatures are not looked at.
    pub promises: std::result::Result<Vec<super::Promise>, String>,
}

/// A chain, leaf first, and what its leaf says. Signatures are not looked at.
pub fn read(chain: &str) -> Result<(Vec<Vec<u8>>, Facts)> {
    let wrong = |why: String| Error::field("spec.chain", why);
    if chain.contains("PRIVATE KEY-----") {
        return Err(wrong("holds a private key, and everybody may read this field".into())
            .hint("put the key into `private_key`, and treat one that was sent here as known to others"));
    }
    let ders: Vec<Vec<u8>> = der_of(chain).collect();
    if ders.is_empty() {
        return Err(wrong("holds no certificate".into()).hint(
            "PEM: `-----BEGIN CERTIFICATE-----`, the leaf first, then those that lead to its CA",
        ));
    }
    if ders.len() > LONGEST {
        return Err(wrong(format!(
            "holds {} certificates; at most {LONGEST}",
            ders.len()
        )));
    }
    let leaf = parse(&ders[0], 1)?;
    let at = |seconds: i64| Timestamp::from_millis(seconds.saturating_mul(1000));
    let facts = Facts {
        names: names_of(&leaf),
        not_before: at(leaf.validity().not_before.timestamp()),
        not_after: at(leaf.validity().not_after.timestamp()),
        fingerprint: crate::ca::fingerprint(&ders[0]),
        serial: hex::encode(serial_of(&leaf)),
        issued_by: leaf.issuer().to_string(),
        public_key: leaf.public_key().raw.to_vec(),
        promises: super::sct::embedded(&leaf),
    };
    Ok((ders, facts))
}

fn parse(der: &[u8], number: usize) -> Result<X509Certificate<'_>> {
    match x509_parser::parse_x509_certificate(der) {
        Ok(([], parsed)) => Ok(parsed),
        _ => Err(Error::field(
            "spec.chain",
            format!("certificate {number} is not one"),
        )),
    }
}

/// Checks a chain and key from outside: each certificate signed by the next, a leaf with names that is good now, its
/// key.
pub fn check(chain: &str, key: &str, now: Timestamp) -> Result<Facts> {
    let (ders, facts) = read(chain)?;
    let wrong = |why: String| Error::field("spec.chain", why);
    let leaf = parse(&ders[0], 1)?;
    if leaf.is_ca() {
        return Err(
            wrong("begins with the certificate of a CA".into()).hint("the leaf comes first")
        );
    }
    if facts.names.is_empty() {
        return Err(wrong("its leaf has no names (subjectAltName)".into()));
    }
    for (n, pair) in ders.windows(2).enumerate() {
        let (lower, upper) = (parse(&pair[0], n + 1)?, parse(&pair[1], n + 2)?);
        let fits = lower.issuer() == upper.subject()
            && lower.verify_signature(Some(upper.public_key())).is_ok();
        if !fits {
            return Err(wrong(format!(
                "certificate {} is not signed by certificate {}, `{}`",
                n + 1,
                n + 2,
                upper.subject()
            ))
            .hint(format!("`{}` must come after it", lower.issuer())));
        }
    }
    if facts.not_after <= now {
        return Err(wrong(format!("expired at {}", facts.not_after)));
    }
    if facts.not_before > now {
        return Err(wrong(format!("is good only from {} on", facts.not_before))
            .hint("check the clock of this machine"));
    }
    identity(chain, key)?;
    Ok(facts)
}

/// Chain and key as a listener shows them; refuses a key that is not the leaf's.
pub fn identity(chain: &str, key: &str) -> Result<TlsIdentity> {
    let (chain, facts) = read(chain)?;
    let wrong = |why: &str| {
        Error::field("spec.private_key", why)
            .hint("PEM without a passphrase: PKCS#8, SEC1 or PKCS#1; RSA of 2048 bits or more, P-256, P-384 or Ed25519")
    };
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| wrong("holds no private key that can be read"))?;
    let signing =
        any_supported_type(&key).map_err(|_| wrong("is of a sort that is not supported"))?;
    if signing.public_key().as_deref() != Some(&*facts.public_key) {
        return Err(wrong("is not the key of the first certificate in `chain`"));
    }
    Ok(TlsIdentity {
        chain,
        key: key.secret_der().to_vec(),
        not_after: facts.not_after,
        names: facts.names,
    })
}
