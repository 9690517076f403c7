//! Makes certificates: the CA's own, the server's, a client's. Pure but for the randomness of keys and serials.

use model::{Error, Result, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SerialNumber,
};
use std::time::Duration;

/// How long the CA is good for: ten years.
pub(crate) const CA_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// How long a server certificate is good for.
pub(crate) const SERVER_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// How long a client certificate is good for: the most that a leaf may be.
pub(crate) const CLIENT_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// A server certificate with less than this left is replaced.
pub(crate) const RENEW_BEFORE: Duration = Duration::from_secs(30 * 86_400);
/// Certificates begin a day in the past, so that a peer whose clock is behind accepts them, and so that those made while our
/// own clock was ahead by a time zone or two are good when it has been set right.
const SKEW: Duration = Duration::from_secs(86_400);

/// A certificate and its key.
pub(crate) struct Pair {
    pub certificate: String,
    pub der: Vec<u8>,
    pub key: KeyPair,
}

/// A new self-signed CA.
pub(crate) fn authority(cluster: &str, now: Timestamp) -> Result<Pair> {
    let key = KeyPair::generate().map_err(failed("make a key for the CA"))?;
    let mut params = blank(&format!("DebVisor Internal CA ({cluster})"), now, CA_LIFE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params
        .self_signed(&key)
        .map_err(failed("sign the CA certificate"))?;
    Ok(Pair {
        certificate: certificate.pem(),
        der: certificate.der().to_vec(),
        key,
    })
}

/// A server certificate for these DNS names and IP addresses.
pub(crate) fn server(
    issuer: &Issuer<'_, KeyPair>,
    names: &[String],
    now: Timestamp,
) -> Result<Pair> {
    let key = KeyPair::generate().map_err(failed("make a key for the server"))?;
    let mut params = CertificateParams::new(names.to_vec()).map_err(|e| {
        Error::field(
            "names",
            format!(
                "a server certificate for {} cannot be made: {e}",
                names.join(", ")
            ),
        )
        .hint("give DNS names in ASCII (an IDN in its xn-- form) and IP addresses")
    })?;
    let base = blank("DebVisor", now, SERVER_LIFE);
    params.distinguished_name = base.distinguished_name;
    params.not_before = base.not_before;
    params.not_after = base.not_after;
    params.serial_number = base.serial_number;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params
        .signed_by(&key, issuer)
        .map_err(failed("sign the server certificate"))?;
    Ok(Pair {
        certificate: certificate.pem(),
        der: certificate.der().to_vec(),
        key,
    })
}

/// A client certificate for the key of a signing request. Of the request only the public key is taken: names, usages
/// and constraints are ours to say.
pub(crate) fn client(
    issuer: &Issuer<'_, KeyPair>,
    csr: &str,
    account: &str,
    now: Timestamp,
) -> Result<(String, Timestamp)> {
    let mut request = CertificateSigningRequestParams::from_pem(csr).map_err(|e| {
        Error::field(
            "csr",
            format!("is not a certificate signing request that can be signed: {e}"),
        )
        .hint("send PKCS#10 in PEM for an ECDSA P-256 key, signed by that key")
    })?;
    let mut params = blank(account, now, CLIENT_LIFE);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    request.params = params;
    let certificate = request
        .signed_by(issuer)
        .map_err(failed("sign the client certificate"))?;
    Ok((certificate.pem(), now.plus(CLIENT_LIFE)))
}

fn blank(common_name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "DebVisor");
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_millis(now.millis().max(0) as u64);
    params.not_before = epoch + now.saturating_sub(SKEW);
    params.not_after = epoch + now + life;
    // 128 random bits; the top bit is cleared so that the number is positive in 16 bytes.
    let mut serial: [u8; 16] = rand::random();
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn failed(what: &'static str) -> impl Fn(rcgen::Error) -> Error {
    move |e| Error::internal(format!("cannot {what}")).because(e)
}
