//! The certificate of a TPM's endorsement key: who has made it, and what its key is.

use model::{Error, Result, Timestamp};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use sha2::{Digest as _, Sha256};
use std::time::Duration;
use tpm::credential::Endorser;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;

/// What such a certificate is for (`tcg-kp-EKCertificate`, 2.23.133.8.1).
const FOR_ENDORSEMENT: &[u8] = &[0x67, 0x81, 0x05, 0x08, 0x01];
const ENDORSES: &str = "2.23.133.8.1";
/// Certificates between it and its maker.
const MOST_BETWEEN: usize = 8;
/// secp384r1 and prime256v1.
const P384: &str = "1.3.132.0.34";
const P256: &str = "1.2.840.10045.3.1.7";

/// An endorsement key that a trusted maker vouches for.
#[derive(Debug)]
pub(super) struct Endorsed {
    /// The key.
    pub key: Endorser,
    /// SHA-256 of its whole SubjectPublicKeyInfo, hex.
    pub hash: String,
}

/// The CA certificates of makers, as an administrator gives them.
pub(super) fn makers(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    let wrong = |why: String| {
        Error::field("spec.makers", why)
            .hint("give the CA certificates of the maker of the TPM, in PEM, as he publishes them")
    };
    let mut all = Vec::new();
    for one in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let one = one.map_err(|e| wrong(format!("is not PEM: {e}")))?;
        let anchor = webpki::anchor_from_trusted_cert(&one);
        anchor.map_err(|e| wrong(format!("certificate {} cannot be used: {e}", all.len() + 1)))?;
        all.push(one);
    }
    match all.is_empty() {
        true => Err(wrong("has no certificate".into())),
        false => Ok(all),
    }
}

/// Reads one and checks that it leads to one of the makers.
pub(super) fn check(
    certificate: &[u8],
    between: &[u8],
    makers: &[CertificateDer<'_>],
    now: Timestamp,
) -> Result<Endorsed> {
    let unreadable = || {
        Error::field(
            "certificate",
            "is not the certificate of an endorsement key that can be read",
        )
        .hint("`dvctl tpm enrol` sends the one that the TPM keeps")
    };
    let mut chain = Vec::new();
    let mut rest = between;
    while !rest.is_empty() && chain.len() < MOST_BETWEEN {
        // Some fill the rest of the place up.
        let Ok((after, _)) = X509Certificate::from_der(rest) else {
            break;
        };
        chain.push(CertificateDer::from(&rest[..rest.len() - after.len()]));
        rest = after;
    }
    let (after, parsed) = X509Certificate::from_der(certificate).map_err(|_| unreadable())?;
    if !after.is_empty() {
        return Err(unreadable());
    }
    let der = CertificateDer::from(certificate);
    let leaf = EndEntityCert::try_from(&der).map_err(|_| unreadable())?;
    // A maker signs other things as well: only what it calls an endorsement key is one.
    let uses = parsed.extended_key_usage().ok().flatten();
    if !uses.is_some_and(|uses| {
        uses.value
            .other
            .iter()
            .any(|oid| oid.to_id_string() == ENDORSES)
    }) {
        return Err(Error::field(
            "certificate",
            "is not for an endorsement key: its extended key usage does not say so (2.23.133.8.1)",
        )
        .hint("`dvctl tpm enrol` sends the one that the TPM keeps"));
    }
    let anchors: Vec<TrustAnchor<'_>> = makers
        .iter()
        .filter_map(|maker| webpki::anchor_from_trusted_cert(maker).ok())
        .collect();
    let seconds = u64::try_from(now.millis() / 1000).unwrap_or_default();
    leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &chain,
        UnixTime::since_unix_epoch(Duration::from_secs(seconds)),
        KeyUsage::required_if_present(FOR_ENDORSEMENT),
        None,
        None,
    )
    .map_err(|e| {
        Error::refused(format!(
            "the TPM is not by one of the makers that this machine names: its certificate is by `{}` ({e})",
            parsed.issuer()
        ))
        .hint("if you trust that maker, add his CA certificates: dvctl machine set NAME --makers FILE")
    })?;
    Ok(Endorsed {
        key: key(&parsed)?,
        hash: hex::encode(Sha256::digest(parsed.public_key().raw)),
    })
}

fn key(parsed: &X509Certificate<'_>) -> Result<Endorser> {
    let other = || {
        Error::field(
            "certificate",
            "is for a key of a sort that is not taken: RSA with 2048 bits, P-256 and P-384 are",
        )
        .hint("most TPMs have certificates for several sorts; `dvctl tpm enrol` takes the first that fits")
    };
    let spki = parsed.public_key();
    let curve = spki.algorithm.parameters.as_ref();
    let curve = curve
        .and_then(|any| any.as_oid().ok())
        .map(|oid| oid.to_id_string());
    match (spki.parsed().map_err(|_| other())?, curve.as_deref()) {
        (PublicKey::RSA(rsa), _) if rsa.key_size() == 2048 => {
            let zeros = rsa.modulus.iter().take_while(|b| **b == 0).count();
            Ok(Endorser::Rsa2048 {
                modulus: rsa.modulus[zeros..].to_vec(),
                exponent: rsa.exponent.to_vec(),
            })
        }
        (PublicKey::EC(point), Some(P256)) => Ok(Endorser::P256(point.data().to_vec())),
        (PublicKey::EC(point), Some(P384)) => Ok(Endorser::P384(point.data().to_vec())),
        _ => Err(other()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A CA and a certificate below it, for a key of a sort that is taken.
    fn pair() -> (Vec<u8>, Vec<u8>) {
        let (ours, theirs) = (rcgen::KeyPair::generate(), rcgen::KeyPair::generate());
        let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
        let mut maker = rcgen::CertificateParams::default();
        maker.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root = maker.self_signed(&ours).unwrap();
        let issuer = rcgen::Issuer::new(maker, ours);
        let mut below = rcgen::CertificateParams::default();
        let endorses = vec![2, 23, 133, 8, 1];
        below.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::Other(endorses)];
        let below = below.signed_by(&theirs, &issuer).unwrap();
        (root.der().to_vec(), below.der().to_vec())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever comes is an answer: what was changed anywhere is refused.
        #[test]
        fn outside_bytes(junk in prop::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, flip in 1u8..) {
            let (root, good) = pair();
            let makers = [CertificateDer::from(root)];
            let now = Timestamp::from_millis(1_800_000_000_000);
            prop_assert!(check(&good, &junk, &makers, now).is_ok());
            prop_assert!(check(&junk, &good, &makers, now).is_err());
            let mut spoiled = good.clone();
            spoiled[at.index(good.len())] ^= flip;
            prop_assert!(check(&spoiled, &[], &makers, now).is_err());
            prop_assert!(check(&good[..at.index(good.len())], &[], &makers, now).is_err());
        }
    }
}
