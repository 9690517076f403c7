//! Makes certificates: the CA's own, the server's, a client's. Pure but for the randomness of keys and serials.

use super::der::{element, nest, oid, tag};
use model::{Error, Result, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CidrSubnet,
    CrlDistributionPoint, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SerialNumber,
    SubjectPublicKeyInfo,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// How long the CA is good for: ten years.
pub(crate) const CA_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// How long a server certificate is good for.
pub(crate) const SERVER_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// How long a client certificate is good for: the most that a leaf may be.
pub(crate) const CLIENT_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// The organisation in the certificates of accounts and of the server itself.
pub(crate) const ORGANISATION: &str = "DebVisor";
/// The organisation in the certificates of machines: they let nobody in.
pub(crate) const MACHINES: &str = "DebVisor machines";
/// The organisation in the certificates of services.
const SERVICES: &str = "DebVisor services";
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

/// Where what a leaf carries is published: the URL of `/pki`, and the generation of the CA.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub base: &'a str,
    pub id: &'a str,
}

/// A new self-signed CA; the first generation is number 1. Each has a name of its own.
pub(crate) fn authority(cluster: &str, number: usize, now: Timestamp) -> Result<Pair> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)
        .map_err(failed("make a key for the CA"))?;
    let name = match number {
        1 => format!("DebVisor Internal CA ({cluster})"),
        _ => format!("DebVisor Internal CA ({cluster}) {number}"),
    };
    let mut params = blank(&name, now, CA_LIFE);
    // One below it: the CA that takes its place, or that of another region.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
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

/// A certificate and its DER.
pub(crate) struct Signed {
    pub certificate: String,
    pub der: Vec<u8>,
}

/// A CA that another one signs.
pub(crate) struct Below<'a> {
    /// Its common name.
    pub name: &'a str,
    /// Its public key: a whole SubjectPublicKeyInfo, DER.
    pub key: &'a [u8],
    /// The DNS names, with all below them, that it may speak for, and no address; `None`: for all.
    pub names: Option<&'a [String]>,
}

/// The certificate of another CA, signed by ours until then. None may be below it.
pub(crate) fn cross(
    issuer: &Issuer<'_, KeyPair>,
    below: &Below<'_>,
    now: Timestamp,
    until: Timestamp,
) -> Result<Signed> {
    let life = Duration::from_millis((until.millis() - now.millis()).max(0) as u64);
    let mut params = blank(below.name, now, life.min(CA_LIFE));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    if let Some(names) = below.names {
        let all = |ip: IpAddr| GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, 0));
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: names.iter().cloned().map(GeneralSubtree::DnsName).collect(),
            excluded_subtrees: vec![
                all(Ipv4Addr::UNSPECIFIED.into()),
                all(Ipv6Addr::UNSPECIFIED.into()),
            ],
        });
    }
    let key = SubjectPublicKeyInfo::from_der(below.key).map_err(failed("read the key of a CA"))?;
    let certificate = params
        .signed_by(&key, issuer)
        .map_err(failed("sign another CA"))?;
    Ok(Signed {
        certificate: certificate.pem(),
        der: certificate.der().to_vec(),
    })
}

/// A server certificate for these DNS names and IP addresses.
pub(crate) fn server(
    issuer: &Issuer<'_, KeyPair>,
    names: &[String],
    now: Timestamp,
    published_at: Option<At<'_>>,
) -> Result<Pair> {
    let key = KeyPair::generate().map_err(failed("make a key for the server"))?;
    let mut params = blank("DebVisor", now, SERVER_LIFE);
    params.subject_alt_names = alternatives(names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf(&mut params, published_at);
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
    published_at: Option<At<'_>>,
) -> Result<(String, Timestamp)> {
    let mut request = CertificateSigningRequestParams::from_pem(csr).map_err(|e| {
        Error::field(
            "csr",
            format!("is not a certificate signing request that can be signed: {e}"),
        )
        .hint("send PKCS#10 in PEM for an ECDSA P-256 key, signed by that key")
    })?;
    let mut params = blank(account, now, CLIENT_LIFE);
    leaf(&mut params, published_at);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    request.params = params;
    let certificate = request
        .signed_by(issuer)
        .map_err(failed("sign the client certificate"))?;
    Ok((certificate.pem(), now.plus(CLIENT_LIFE)))
}

/// What a certificate of the kind `certificate` is for.
pub struct Ask<'a> {
    /// DNS names and IP addresses.
    pub names: &'a [String],
    /// Shown by a server.
    pub server: bool,
    /// Shown by a client.
    pub client: bool,
    /// How long it is good.
    pub life: Duration,
}

/// A certificate for a service, for a key that is there. Its subject has no common name and another organisation than
/// the certificates of people, so that it never stands for an account.
pub(crate) fn service(
    issuer: &Issuer<'_, KeyPair>,
    ask: &Ask<'_>,
    key: &KeyPair,
    now: Timestamp,
    published_at: Option<At<'_>>,
) -> Result<(String, Vec<u8>)> {
    let mut params = blank("", now, ask.life);
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, SERVICES);
    params.distinguished_name = name;
    params.subject_alt_names = alternatives(ask.names)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if ask.server {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    if ask.client {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ClientAuth);
    }
    leaf(&mut params, published_at);
    let certificate = params
        .signed_by(key, issuer)
        .map_err(failed("sign the certificate"))?;
    Ok((certificate.pem(), certificate.der().to_vec()))
}

/// A certificate for a key that cannot leave its machine: a whole SubjectPublicKeyInfo, DER.
pub(crate) fn machine(
    issuer: &Issuer<'_, KeyPair>,
    name: &str,
    key: &[u8],
    (now, life): (Timestamp, Duration),
    published_at: Option<At<'_>>,
) -> Result<Signed> {
    let mut params = blank(name, now, life);
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, MACHINES);
    subject.push(DnType::CommonName, name);
    params.distinguished_name = subject;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    leaf(&mut params, published_at);
    let key = SubjectPublicKeyInfo::from_der(key).map_err(failed("read the key of a machine"))?;
    let certificate = params
        .signed_by(&key, issuer)
        .map_err(failed("sign the certificate of a machine"))?;
    Ok(Signed {
        certificate: certificate.pem(),
        der: certificate.der().to_vec(),
    })
}

/// Names in their proper types.
fn alternatives(names: &[String]) -> Result<Vec<rcgen::SanType>> {
    let params = CertificateParams::new(names.to_vec()).map_err(|e| {
        let names = names.join(", ");
        Error::field(
            "names",
            format!("no certificate can be made for {names}: {e}"),
        )
        .hint("give DNS names in ASCII (an IDN in its xn-- form) and IP addresses")
    })?;
    Ok(params.subject_alt_names)
}

/// What every leaf carries: who signed it, and where its revocation can be looked up.
fn leaf(params: &mut CertificateParams, published_at: Option<At<'_>>) {
    params.use_authority_key_identifier_extension = true;
    let Some(At { base, id }) = published_at else {
        return;
    };
    params.crl_distribution_points = vec![CrlDistributionPoint {
        uris: vec![format!("{base}/{id}.crl")],
    }];
    let access = |last: u32, file: &str| {
        let uri = format!("{base}/{file}");
        let parts = [
            oid(&[1, 3, 6, 1, 5, 5, 7, 48, last]),
            element(tag::context_primitive(6), uri.as_bytes()),
        ];
        nest(tag::SEQUENCE, &parts)
    };
    // authorityInfoAccess: OCSP, and the CA's certificate.
    let content = nest(
        tag::SEQUENCE,
        &[access(1, "ocsp"), access(2, &format!("{id}.crt"))],
    );
    let oid = [1, 3, 6, 1, 5, 5, 7, 1, 1];
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(&oid, content));
}

fn blank(common_name: &str, now: Timestamp, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANISATION);
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
