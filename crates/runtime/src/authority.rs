//! The border between the surfaces and the internal certificate authority.
//!
//! A surface needs a certificate to show, the name behind a certificate it is shown, and the trade of a one-time code
//! for a client certificate. This trait says that and no more, so that `server` names neither the CA nor its files.
//! Certificates cross it as DER bytes or PEM text; no TLS library is seen here.

use model::{Result, Timestamp};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What a TLS listener shows: a chain, leaf first, and its private key.
pub struct TlsIdentity {
    /// DER certificates, leaf first, the CA last.
    pub chain: Vec<Vec<u8>>,
    /// The private key, DER: PKCS#8, or SEC1 or PKCS#1 when it came from outside.
    pub key: Vec<u8>,
    /// When the leaf ends.
    pub not_after: Timestamp,
    /// DNS names (also `*.example.org`) and IP addresses that it is for.
    pub names: Vec<String>,
}

/// Something that everybody may fetch: a certificate, a revocation list, an answer of OCSP.
pub struct Document {
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// How long it may be kept by others; zero: not at all.
    pub max_age: Duration,
}

/// The public half of the CA.
#[derive(Clone, Debug)]
pub struct CaCertificate {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// The certificate, PEM.
    pub pem: String,
    /// SHA-256 of the DER, as lower-case hex: what people compare.
    pub fingerprint: String,
}

/// A one-time login code. It is shown once and stored only as a hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LoginCode {
    /// The code, in groups: type it as it stands.
    pub code: String,
    /// It is worth nothing after this.
    pub expires: Timestamp,
    /// Fingerprint of the CA that the client should find.
    pub ca_fingerprint: String,
}

/// What a code was traded for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Issued {
    /// The client certificate, PEM.
    pub certificate: String,
    /// The CA certificate, PEM.
    pub ca: String,
    /// Who the certificate is for.
    pub account: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Who a client certificate stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Account name; `None` when it proves which machine this is and no more: it lets nobody in by itself.
    pub account: Option<String>,
    /// SHA-256 of the certificate, as lower-case hex.
    pub fingerprint: String,
}

/// The internal CA and the login, as the surfaces see them. Calls may read and write small files.
pub trait Authority: Send + Sync {
    /// The certificate to show; the value changes when it is renewed.
    fn shown(&self) -> watch::Receiver<Arc<TlsIdentity>>;
    /// The certificate to show to those who ask for one of its names, when there is one: a publicly trusted one, as a
    /// rule. The value changes when it is renewed.
    fn panel(&self) -> watch::Receiver<Option<Arc<TlsIdentity>>>;
    /// The public document at a path below `/pki/`; a body was sent when it is asked by POST. `None`: there is nothing.
    fn document(&self, path: &str, body: Option<&[u8]>) -> Option<Result<Document>>;
    /// The CA's own certificate.
    fn ca(&self) -> CaCertificate;
    /// The CAs whose certificates of clients are taken, the present one first; one more while it is rotated. The value
    /// changes when it is.
    fn trusted(&self) -> watch::Receiver<Arc<Vec<CaCertificate>>>;
    /// Who holds a certificate whose chain TLS has verified already. Refuses an ended or revoked one. Cheap: called
    /// for each request.
    fn holder(&self, leaf: &[u8]) -> Result<Holder>;
    /// The account that a new code is for: one administrator, until there are users.
    fn account(&self) -> String;
    /// Makes a one-time code for an account.
    fn make_code(&self, account: &str) -> Result<LoginCode>;
    /// Trades a code and a PEM signing request for a certificate. Attempts are limited by address.
    fn login(&self, code: &str, csr: &str, from: Option<IpAddr>) -> Result<Issued>;
}
