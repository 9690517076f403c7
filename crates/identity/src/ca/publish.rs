//! What everybody may fetch from the CA: its certificate, the list of what it revoked (RFC 5280), and OCSP answers.

use super::generation::One;
use super::revoked::List;
use super::{Ca, ocsp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, Result, Timestamp};
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, RevocationReason, RevokedCertParams,
    SerialNumber, SigningKey,
};
use runtime::Document;
use std::sync::Arc;
use std::time::Duration;

/// How long a list is good; a new one is made each hour and after each revocation.
const LIST_LIFE: Duration = Duration::from_secs(7 * 86_400);
const LIST_FRESH: Duration = Duration::from_secs(3600);

/// The list that was made last.
pub(super) struct Made {
    /// The revocations it holds.
    of: Arc<List>,
    at: Timestamp,
    number: u64,
    der: Arc<[u8]>,
}

impl Ca {
    /// The document at a path below `/pki/`.
    pub(super) fn published(&self, path: &str, body: Option<&[u8]>) -> Option<Result<Document>> {
        let public = |content_type, bytes: Vec<u8>, seconds| {
            Some(Ok(Document {
                content_type,
                bytes,
                max_age: Duration::from_secs(seconds),
            }))
        };
        match (path, body) {
            // All that are trusted, the present one first.
            ("ca.pem", None) => {
                let standing = self.standing();
                let pems = standing.trusted().map(|one| one.public.pem.as_str());
                public(
                    "application/x-pem-file",
                    pems.collect::<String>().into(),
                    60,
                )
            }
            // CAs of other regions as ours has signed them.
            ("federation.pem", None) => Some(self.below().map(|pem| Document {
                content_type: "application/x-pem-file",
                bytes: pem.into(),
                max_age: Duration::from_secs(60),
            })),
            ("ocsp", Some(request)) => public("application/ocsp-response", self.ocsp(request), 0),
            _ if let Some((id, sort)) = path.rsplit_once('.') => {
                let standing = self.standing();
                let one = standing.all().find(|one| one.id == id)?;
                match (sort, body) {
                    ("crt", None) => public("application/pkix-cert", one.public.der.clone(), 3600),
                    ("crl", None) => Some(self.list(one).map(|der| Document {
                        content_type: "application/pkix-crl",
                        bytes: der.to_vec(),
                        max_age: Duration::from_secs(60),
                    })),
                    _ => None,
                }
            }
            _ => {
                let coded = path.strip_prefix("ocsp/")?;
                if body.is_some() || coded.len() > 2 * ocsp::LONGEST {
                    return None;
                }
                let coded = coded.replace("%2B", "+").replace("%2b", "+");
                let coded = coded.replace("%2F", "/").replace("%2f", "/");
                let coded = coded.replace("%3D", "=").replace("%3d", "=");
                let request = STANDARD.decode(coded).unwrap_or_default();
                public("application/ocsp-response", self.ocsp(&request), 60)
            }
        }
    }

    /// The list of what was revoked of a generation, DER; of a retired one its last.
    pub(super) fn list(&self, one: &One) -> Result<Arc<[u8]>> {
        if one.signer.is_none() {
            let path = self.config.folder.join(format!("{}.crl", one.id));
            return match std::fs::read(&path) {
                Ok(list) => Ok(list.into()),
                Err(e) => {
                    Err(Error::internal(format!("cannot read {}", path.display())).because(e))
                }
            };
        }
        let now = (self.config.now)();
        let revoked = self.revoked.list();
        let mut made = one.made.lock();
        if let Some(made) = &*made
            && Arc::ptr_eq(&made.of, &revoked)
            && made.at <= now
            && now.since(made.at) < LIST_FRESH
        {
            return Ok(made.der.clone());
        }
        let seconds = now.millis().max(0) as u64 / 1000;
        let number = made.as_ref().map_or(0, |m| m.number + 1).max(seconds);
        let der = self.sign_list(one, number, now.plus(LIST_LIFE))?;
        *made = Some(Made {
            of: revoked,
            at: now,
            number,
            der: der.clone(),
        });
        Ok(der)
    }

    /// The list that stays when the key is gone: good as long as the CA would have been.
    pub(super) fn last_list(&self, one: &One) -> Result<Arc<[u8]>> {
        let made = one.made.lock();
        let now = (self.config.now)();
        let seconds = now.millis().max(0) as u64 / 1000;
        let number = made.as_ref().map_or(0, |m| m.number + 1).max(seconds);
        self.sign_list(one, number, one.not_after.max(now.plus(LIST_LIFE)))
    }

    fn sign_list(&self, one: &One, number: u64, until: Timestamp) -> Result<Arc<[u8]>> {
        let now = (self.config.now)();
        let revoked = self.revoked.list();
        let time = |at: Timestamp| {
            let epoch = rcgen::date_time_ymd(1970, 1, 1);
            epoch + Duration::from_millis(at.millis().max(0) as u64)
        };
        let log = self.log.lock();
        let revoked_certs = revoked
            .iter()
            .filter(|(fingerprint, _)| log.is_by(fingerprint, &one.id))
            .filter_map(|(fingerprint, revocation)| {
                Some(RevokedCertParams {
                    serial_number: SerialNumber::from_slice(log.serial(fingerprint)?),
                    revocation_time: time(revocation.time),
                    reason_code: Some(reason(revocation.reason)),
                    invalidity_date: None,
                })
            })
            .collect();
        drop(log);
        let params = CertificateRevocationListParams {
            this_update: time(now),
            next_update: time(until),
            crl_number: SerialNumber::from_slice(&number.to_be_bytes()[2..]),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params
            .signed_by(one.signer()?)
            .map_err(|e| Error::internal("cannot sign the revocation list").because(e))?;
        Ok(list.der().as_ref().into())
    }

    /// The answer to an OCSP request; also a bad one is answered.
    fn ocsp(&self, request: &[u8]) -> Vec<u8> {
        let Some(request) = ocsp::read(request) else {
            return ocsp::refusal(1);
        };
        let standing = self.standing();
        let asked = standing.all().find(|one| one.responder.is_asked(&request));
        let one = asked.unwrap_or(&standing.current);
        let Some(signer) = &one.signer else {
            return ocsp::refusal(6);
        };
        let revoked = self.revoked.list();
        let log = self.log.lock();
        let now = (self.config.now)();
        let body = ocsp::body(&request, &one.responder, now, |serial| {
            match log.fingerprint(serial) {
                None => ocsp::Known::Unknown,
                Some(fingerprint) if !log.is_by(fingerprint, &one.id) => ocsp::Known::Unknown,
                Some(fingerprint) => match revoked.get(fingerprint) {
                    Some(revocation) => ocsp::Known::Revoked(*revocation),
                    None => ocsp::Known::Good,
                },
            }
        });
        drop(log);
        let key = signer.key();
        // ecdsa-with-SHA384 or ecdsa-with-SHA256, as the key is.
        let algorithm: &[u32] = match key.algorithm() == &rcgen::PKCS_ECDSA_P384_SHA384 {
            true => &[1, 2, 840, 10045, 4, 3, 3],
            false => &[1, 2, 840, 10045, 4, 3, 2],
        };
        match key.sign(&body) {
            Ok(signature) => ocsp::signed(&body, algorithm, &signature),
            Err(error) => {
                tracing::error!(%error, "an OCSP answer could not be signed");
                ocsp::refusal(2)
            }
        }
    }
}

fn reason(reason: super::Reason) -> RevocationReason {
    use super::Reason;
    match reason {
        Reason::Unspecified => RevocationReason::Unspecified,
        Reason::KeyCompromise => RevocationReason::KeyCompromise,
        Reason::AffiliationChanged => RevocationReason::AffiliationChanged,
        Reason::Superseded => RevocationReason::Superseded,
        Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
        Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
    }
}
