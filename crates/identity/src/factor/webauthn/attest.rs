//! Where a key comes from: the statement of its maker (WebAuthn Level 3, 8), in the forms `packed` and `fido-u2f`, against
//! the makers that an administrator trusts.

use super::{Wrong, cbor, cose::Key, data::Data};
use ciborium::Value;
use model::Timestamp;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

/// `id-fido-gen-ce-aaguid`: the make in a maker's certificate.
const MAKE: &str = "1.3.6.1.4.1.45724.1.1.4";
/// Longest chain of certificates that is looked at.
const CHAIN: usize = 5;

/// What is asked of where a key comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    None,
    /// The statement of a maker that is trusted.
    Direct,
    /// The same, and the browser is asked to say which device it is.
    Enterprise,
}

impl Policy {
    /// As browsers and the setting write it.
    pub fn word(self) -> &'static str {
        match self {
            Policy::None => "none",
            Policy::Direct => "direct",
            Policy::Enterprise => "enterprise",
        }
    }

    /// Of a setting; what is not known asks for most.
    pub fn of(word: &str) -> Policy {
        match word {
            "none" => Policy::None,
            "direct" => Policy::Direct,
            _ => Policy::Enterprise,
        }
    }
}

/// Whether a maker that is trusted vouches for a new key.
pub fn check(
    object: &Value,
    auth: &[u8],
    data: &Data<'_>,
    client: &[u8; 32],
    roots: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<(), Wrong> {
    let form = cbor::field(object, "fmt").and_then(Value::as_text);
    let statement = cbor::field(object, "attStmt").ok_or(Wrong("ATTESTATION"))?;
    let made = data.made.as_ref().ok_or(Wrong("ATTESTATION"))?;
    let signed = cbor::field(statement, "sig").and_then(Value::as_bytes);
    let signed = signed.ok_or(Wrong("ATTESTATION"))?;
    let chain = chain(statement)?;
    let (first, others) = chain.split_first().ok_or(Wrong("ATTESTATION"))?;
    let (_, shown) = X509Certificate::from_der(first).map_err(|_| Wrong("ATTESTATION"))?;
    let (message, algorithm) = match form {
        Some("packed") => {
            maker(&shown, &made.make)?;
            let algorithm = cbor::field(statement, "alg").and_then(Value::as_integer);
            let algorithm = algorithm.and_then(|a| i64::try_from(a).ok());
            (
                [auth, client].concat(),
                algorithm.ok_or(Wrong("ATTESTATION"))?,
            )
        }
        Some("fido-u2f") => {
            let Key::Es256(point) = &made.key else {
                return Err(Wrong("ATTESTATION"));
            };
            if !others.is_empty() || made.make != [0; 16] {
                return Err(Wrong("ATTESTATION"));
            }
            let parts: [&[u8]; 5] = [&[0], data.party, client, made.id, point];
            (parts.concat(), -7)
        }
        _ => return Err(Wrong("ATTESTATION_FORM")),
    };
    let algorithm: &[&dyn rustls_pki_types::SignatureVerificationAlgorithm] = match algorithm {
        -7 => &[webpki::ring::ECDSA_P256_SHA256],
        -8 => &[webpki::ring::ED25519],
        -257 => &[webpki::ring::RSA_PKCS1_2048_8192_SHA256],
        _ => return Err(Wrong("ATTESTATION_ALGORITHM")),
    };
    let first = EndEntityCert::try_from(first).map_err(|_| Wrong("ATTESTATION"))?;
    let right = algorithm
        .iter()
        .any(|a| first.verify_signature(*a, &message, signed).is_ok());
    if !right {
        return Err(Wrong("ATTESTATION_SIGNATURE"));
    }
    let anchors: Vec<TrustAnchor<'_>> = roots
        .iter()
        .filter_map(|root| webpki::anchor_from_trusted_cert(root).ok())
        .collect();
    let seconds = u64::try_from(now.millis() / 1000).unwrap_or_default();
    first
        .verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            others,
            UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
            KeyUsage::client_auth(),
            None,
            None,
        )
        .map(drop)
        .map_err(|_| Wrong("MAKER_NOT_TRUSTED"))
}

fn chain(statement: &Value) -> Result<Vec<CertificateDer<'_>>, Wrong> {
    // Without certificates the key vouches for itself, which says nothing about its maker.
    let chain = cbor::field(statement, "x5c").and_then(Value::as_array);
    let chain = chain.ok_or(Wrong("NO_MAKER"))?;
    let certificate = |value: &'_ Value| value.as_bytes().cloned().map(CertificateDer::from);
    match chain.len() {
        1..=CHAIN => chain.iter().map(certificate).collect::<Option<_>>(),
        _ => None,
    }
    .ok_or(Wrong("ATTESTATION"))
}

/// What a maker's certificate must be (8.2.1).
fn maker(shown: &X509Certificate<'_>, make: &[u8; 16]) -> Result<(), Wrong> {
    let unit = shown.subject().iter_organizational_unit().next();
    let named = unit.and_then(|unit| unit.as_str().ok()) == Some("Authenticator Attestation");
    let authority = shown
        .basic_constraints()
        .ok()
        .flatten()
        .is_some_and(|basic| basic.value.ca);
    let other = shown.extensions().iter().any(|extension| {
        extension.oid.to_id_string() == MAKE
            // An OCTET STRING of 16 bytes.
            && (extension.critical || extension.value.strip_prefix(&[4, 16]) != Some(make.as_slice()))
    });
    match named && !authority && !other && shown.version() == X509Version::V3 {
        true => Ok(()),
        false => Err(Wrong("ATTESTATION")),
    }
}
