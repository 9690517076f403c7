//! What everybody may fetch from the CA: its certificate, the list of what it revoked (RFC 5280), and OCSP answers.

use super::{Ca, ocsp};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Error, Result, Timestamp};
use rcgen::{
    CertificateRevocationListParams, KeyIdMethod, PublicKeyData, RevocationReason,
    RevokedCertParams, SerialNumber, SigningKey,
};
use runtime::Document;
use std::sync::Arc;
use std::time::Duration;

/// How long a list is good; a new one is made each hour and after each revocation.
const LIST_LIFE: Duration = Duration::from_secs(7 * 86_400);
const LIST_FRESH: Duration = Duration::from_secs(3600);

/// The list that was made last.
pub(super) struct Made {
    /// The revocations it holds: the same pointer means the same list.
    of: usize,
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
            ("ca.pem", None) => public(
                "application/x-pem-file",
                self.public.pem.clone().into(),
                3600,
            ),
            ("ca.crt", None) => public("application/pkix-cert", self.public.der.clone(), 3600),
            ("ca.crl", None) => Some(self.list().map(|der| Document {
                content_type: "application/pkix-crl",
                bytes: der.to_vec(),
                max_age: Duration::from_secs(60),
            })),
            ("ocsp", Some(request)) => public("application/ocsp-response", self.ocsp(request), 0),
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

    /// The list of revoked certificates, DER.
    pub(super) fn list(&self) -> Result<Arc<[u8]>> {
        let now = (self.config.now)();
        let revoked = self.revoked.list();
        let of = Arc::as_ptr(&revoked) as usize;
        let mut made = self.made.lock();
        if let Some(made) = &*made
            && made.of == of
            && made.at <= now
            && now.since(made.at) < LIST_FRESH
        {
            return Ok(made.der.clone());
        }
        let time = |at: Timestamp| {
            let epoch = rcgen::date_time_ymd(1970, 1, 1);
            epoch + Duration::from_millis(at.millis().max(0) as u64)
        };
        let log = self.log.lock();
        let revoked_certs = revoked
            .iter()
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
        let seconds = now.millis().max(0) as u64 / 1000;
        let number = made.as_ref().map_or(0, |m| m.number + 1).max(seconds);
        let params = CertificateRevocationListParams {
            this_update: time(now),
            next_update: time(now.plus(LIST_LIFE)),
            crl_number: SerialNumber::from_slice(&number.to_be_bytes()[2..]),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let der: Arc<[u8]> = params
            .signed_by(&self.issuer)
            .map_err(|e| Error::internal("cannot sign the revocation list").because(e))?
            .der()
            .as_ref()
            .into();
        *made = Some(Made {
            of,
            at: now,
            number,
            der: der.clone(),
        });
        Ok(der)
    }

    /// The answer to an OCSP request; also a bad one is answered.
    fn ocsp(&self, request: &[u8]) -> Vec<u8> {
        let Some(request) = ocsp::read(request) else {
            return ocsp::refusal(1);
        };
        let revoked = self.revoked.list();
        let log = self.log.lock();
        let now = (self.config.now)();
        let body = ocsp::body(&request, &self.responder, now, |serial| {
            match log.fingerprint(serial) {
                None => ocsp::Known::Unknown,
                Some(fingerprint) => match revoked.get(fingerprint) {
                    Some(revocation) => ocsp::Known::Revoked(*revocation),
                    None => ocsp::Known::Good,
                },
            }
        });
        drop(log);
        let key = self.issuer.key();
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

/// The responder of a CA.
pub(super) fn responder(der: &[u8], key: &rcgen::KeyPair) -> Result<ocsp::Responder> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der)
        .map_err(|e| Error::internal("the CA certificate cannot be read").because(e))?;
    Ok(ocsp::Responder::new(
        parsed.subject().as_raw(),
        key.der_bytes(),
    ))
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
