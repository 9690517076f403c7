//! The internal certificate authority: made at first start, kept in the pki folder.
//!
//! | file | mode | is |
//! |---|---|---|
//! | `ca.pem`, `ca.key` | 0644, 0600 | the CA, ECDSA P-384, ten years; the key sealed with the store's key |
//! | `ca-2.pem`, `ca-2.key`, ... | 0644, 0600 | the CA that took its place, and so on |
//! | `ca-2.cross.pem` | 0644 | it, signed by the one before |
//! | `ca.crl` | 0644 | the last revocation list of one that is retired |
//! | `federated.json` | 0600 | CAs of other regions that ours has signed, and for which names |
//! | `authorities.json` | 0600 | which of them signs, which are still trusted |
//! | `server.pem`, `server.key` | 0644, 0600 | what the listeners show, 90 days, replaced with 30 days left |
//! | `revoked` | 0600 | fingerprints that are refused although their time has not come |
//! | `issued.log` | 0600 | what was signed and revoked, chained by hashes |
//! | `codes.json` | 0600 | hashes of open login codes |
//!
//! It never hands out a private key but the server's to its own listener, and never makes a new CA over a broken one:
//! a half-lost CA is an error that says what to do.

mod der;
mod federate;
#[cfg(test)]
mod federate_tests;
mod generation;
mod issue;
pub mod kind;
pub mod log;
mod ocsp;
mod publish;
mod revoked;
mod rotate;
#[cfg(test)]
mod rotate_tests;
#[cfg(test)]
mod tests;

use crate::files;
use crate::login::Codes;
use crate::{ADMINISTRATOR, Now};
use generation::{FIRST, Generations, One, Standing};
pub use issue::Ask;
use issue::At;
use log::{Line, Log, What};
use model::{Error, Result, Timestamp};
use parking_lot::{Mutex, RwLock};
use rcgen::KeyPair;
use revoked::Revoked;
pub(crate) use revoked::plain;
pub use revoked::{Reason, Revocation};
use runtime::{Authority, CaCertificate, Document, Holder, Issued, LoginCode, Seal, TlsIdentity};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a CA is opened with.
pub struct CaConfig {
    /// The pki folder; made when missing.
    pub folder: PathBuf,
    /// Goes into the CA's name.
    pub cluster: String,
    /// DNS names and IP addresses the server is reached by.
    pub names: Vec<String>,
    /// Where the time comes from.
    pub now: Now,
}

/// What a CA may be given besides.
#[derive(Clone, Default)]
pub struct Surroundings {
    /// Seals private keys before they are written. Keys that lie there open are sealed at the next start.
    pub seal: Option<Arc<dyn Seal>>,
    /// The URL of `/pki` on this server, for the certificates that are signed: where to ask for revocations.
    pub published_at: Option<String>,
}

/// The opened CA.
pub struct Ca {
    config: CaConfig,
    around: Surroundings,
    standing: RwLock<Arc<Standing>>,
    generations: Mutex<Generations>,
    trusted: watch::Sender<Arc<Vec<CaCertificate>>>,
    shown: watch::Sender<Arc<TlsIdentity>>,
    panel: watch::Sender<Option<Arc<TlsIdentity>>>,
    revoked: Revoked,
    log: Mutex<Log>,
    codes: Mutex<Codes>,
}

/// How a sealed key begins in its file.
const SEALED: &str = "sealed:";

/// SHA-256 of a DER certificate (or a key), as lower-case hex.
pub fn fingerprint(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

impl Ca {
    /// Opens the CA in its folder, or makes it when the folder holds none; likewise the server certificate.
    pub fn open(config: CaConfig) -> Result<Arc<Ca>> {
        Ca::open_in(config, Surroundings::default())
    }

    /// Like [`Ca::open`], with a seal for its keys and the address that it is published at.
    pub fn open_in(config: CaConfig, around: Surroundings) -> Result<Arc<Ca>> {
        files::folder(&config.folder)?;
        let now = (config.now)();
        let generations = Generations::read(&config.folder)?;
        let standing = Standing::open(&config, &around, &generations)?;
        let mut log = Log::open(&config.folder)?;
        let shown = match load_server(&config, &around, &standing, now)? {
            Some(shown) => shown,
            None => make_server(&config, &around, &standing, &mut log, now)?,
        };
        Ok(Arc::new(Ca {
            revoked: Revoked::open(&config.folder)?,
            codes: Mutex::new(Codes::open(config.folder.join("codes.json"))?),
            trusted: watch::Sender::new(rotate::trusted(&standing)),
            standing: RwLock::new(Arc::new(standing)),
            generations: Mutex::new(generations),
            shown: watch::Sender::new(Arc::new(shown)),
            panel: watch::Sender::new(None),
            log: Mutex::new(log),
            around,
            config,
        }))
    }

    /// How the generations stand.
    fn standing(&self) -> Arc<Standing> {
        self.standing.read().clone()
    }

    /// The generation that signs.
    fn current(&self) -> Arc<One> {
        self.standing().current.clone()
    }

    /// The name of the CA that signs, as certificates say who issued them.
    pub(crate) fn name(&self) -> String {
        self.current().name.clone()
    }

    fn load(&self, id: &str, retired: bool) -> Result<One> {
        One::open(&self.config.folder, &self.around, id, retired, || {
            Err(broken(&format!("{id}.pem"), "it is missing"))
        })
    }

    /// Where what a generation signs says that it is published.
    fn at<'a>(&'a self, one: &'a One) -> Option<At<'a>> {
        at(&self.around, one)
    }

    /// Replaces the server certificate when less than 30 days are left. Says whether it did.
    pub fn renew(&self) -> Result<bool> {
        let now = (self.config.now)();
        if self.shown.borrow().not_after.since(now) > issue::RENEW_BEFORE {
            return Ok(false);
        }
        let mut log = self.log.lock();
        let standing = self.standing();
        let fresh = make_server(&self.config, &self.around, &standing, &mut log, now)?;
        drop(log);
        tracing::info!(not_after = %fresh.not_after, "the server certificate was renewed");
        self.shown.send_replace(Arc::new(fresh));
        Ok(true)
    }

    /// Renews until told to stop, and sees what somebody has written into the revocation list by hand. A failure is
    /// logged and tried again after an hour.
    pub async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        let hour = Duration::from_secs(3600);
        let mut due = tokio::time::Instant::now() + hour;
        while stop
            .run_until_cancelled(tokio::time::sleep(revoked::LOOK_EVERY))
            .await
            .is_some()
        {
            let ca = self.clone();
            let looked = tokio::task::spawn_blocking(move || ca.revoked.look()).await;
            if let Err(error) = looked {
                tracing::error!(%error, "the look at the revocation list broke off");
            }
            if tokio::time::Instant::now() < due {
                continue;
            }
            due = tokio::time::Instant::now() + hour;
            let ca = self.clone();
            match tokio::task::spawn_blocking(move || ca.renew()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::error!(?error, "the server certificate was not renewed");
                }
                Err(error) => tracing::error!(%error, "the renewal of the certificate broke off"),
            }
        }
    }

    /// Whose an open one-time code is. Does not use it up; wrong tries are limited by address.
    pub(crate) fn check_code(&self, code: &str, from: Option<IpAddr>) -> Result<String> {
        self.codes.lock().check(code, from, (self.config.now)())
    }

    /// Uses a one-time code up. On disk when it returns.
    pub(crate) fn spend_code(&self, code: &str) -> Result<()> {
        self.codes.lock().spend(code, (self.config.now)())
    }

    /// What the cluster is called.
    pub(crate) fn cluster(&self) -> &str {
        &self.config.cluster
    }

    /// Refuses a certificate from now on, by its SHA-256 fingerprint. One that is refused already stays as it is. When
    /// somebody else may have its key, all others with that key are refused too, and none is signed for it again.
    pub fn revoke(&self, fingerprint: &str, reason: Reason, why: &str) -> Result<()> {
        let fingerprint = plain(fingerprint)?;
        self.revoke_one(&fingerprint, reason, why)?;
        // A region that is ended is so under each CA of ours that has signed it.
        for other in self.of_same_region(&fingerprint)? {
            self.revoke_one(&other, reason, why)?;
        }
        if reason != Reason::KeyCompromise {
            return Ok(());
        }
        // Looked for only now: what was signed until then is among them, and from now on nothing is.
        let others = self.log.lock().of_same_key(&fingerprint).to_vec();
        for other in others.iter().filter(|other| **other != fingerprint) {
            self.revoke_one(other, reason, why)?;
        }
        Ok(())
    }

    fn revoke_one(&self, fingerprint: &str, reason: Reason, why: &str) -> Result<()> {
        let now = (self.config.now)();
        let fingerprint = plain(fingerprint)?;
        let new = self.revoked.add(&fingerprint, reason, why, now)?;
        let mut log = self.log.lock();
        // A crash between the list and the log leaves it to the next try to write the line.
        if !new && log::is_revoked(&self.config.folder, &fingerprint)? {
            return Ok(());
        }
        let serial = log.serial(&fingerprint).map(hex::encode);
        log.append(Line {
            seq: 0,
            time: now,
            what: What::Revoked,
            serial: serial.unwrap_or_default(),
            ca: String::new(),
            fingerprint,
            subject: String::new(),
            names: Vec::new(),
            not_after: None,
            reason: reason.word().into(),
            key: String::new(),
        })
    }

    /// Whether two certificates have one key, as far as the issuance log knows.
    pub(crate) fn share_key(&self, one: &str, other: &str) -> bool {
        let log = self.log.lock();
        log.of_same_key(one).iter().any(|found| found == other)
    }

    /// Whether a public key (SubjectPublicKeyInfo, DER) was in a certificate that was revoked because somebody else may
    /// have the private one.
    pub(crate) fn is_compromised(&self, key: &[u8]) -> bool {
        self.refuses(&self.log.lock(), key)
    }

    fn refuses(&self, log: &Log, key: &[u8]) -> bool {
        let list = self.revoked.list();
        let lost = |one: &String| list.get(one).map(|r| r.reason) == Some(Reason::KeyCompromise);
        log.with_key(&fingerprint(key)).iter().any(lost)
    }

    /// Writes a certificate that was just signed into the log, unless its key is in other hands. It must not leave before.
    fn keep(&self, der: &[u8], now: Timestamp, id: &str) -> Result<()> {
        let (_, parsed) = x509_parser::parse_x509_certificate(der)
            .map_err(|e| Error::internal("cannot read back what was signed").because(e))?;
        let mut log = self.log.lock();
        if self.refuses(&log, parsed.public_key().raw) {
            return Err(Error::refused(
                "this key was in a certificate that was revoked because somebody else may have it: none is signed for it any more",
            )
            .hint("make a new key and ask with that"));
        }
        note(&mut log, der, now, id)
    }

    /// The names of a certificate for a service that we have signed, as the issuance log has them; of a login none.
    pub(crate) fn names_of(&self, fingerprint: &str) -> Result<Option<Vec<String>>> {
        let line = log::find(&self.config.folder, fingerprint)?;
        Ok(line
            .map(|line| line.names)
            .filter(|names| !names.is_empty()))
    }

    /// When and why a certificate was revoked.
    pub fn revocation(&self, fingerprint: &str) -> Option<Revocation> {
        self.revoked.find(fingerprint)
    }

    /// Signs a certificate for a service; answers leaf and CA, PEM.
    pub fn issue(&self, ask: &Ask<'_>, key: &KeyPair) -> Result<String> {
        let now = (self.config.now)();
        let standing = self.standing();
        let one = &standing.current;
        let (pem, der) = issue::service(one.signer()?, ask, key, now, self.at(one))?;
        self.keep(&der, now, &one.id)?;
        let cross = standing.cross().map(|der| pem_of(der)).unwrap_or_default();
        Ok(format!("{pem}{cross}{}", one.public.pem))
    }

    /// Signs a certificate for the key in a machine's TPM, which has proven itself; answers leaf and CA, PEM, and the
    /// fingerprint of the leaf.
    pub(crate) fn issue_machine(
        &self,
        name: &str,
        key: &[u8],
        life: Duration,
    ) -> Result<(String, String)> {
        let now = (self.config.now)();
        let standing = self.standing();
        let one = &standing.current;
        let signed = issue::machine(one.signer()?, name, key, (now, life), self.at(one))?;
        self.keep(&signed.der, now, &one.id)?;
        let cross = standing.cross().map(|der| pem_of(der)).unwrap_or_default();
        let chain = format!("{}{cross}{}", signed.certificate, one.public.pem);
        Ok((chain, fingerprint(&signed.der)))
    }

    /// What the listeners show to those who ask for one of its names; everybody else is shown the server certificate of
    /// this CA. `None`: nobody is shown another.
    pub fn show(&self, identity: Option<Arc<TlsIdentity>>) {
        self.panel.send_replace(identity);
    }

    /// What [`Ca::show`] was told last.
    pub fn panel(&self) -> Option<Arc<TlsIdentity>> {
        self.panel.borrow().clone()
    }

    /// How many lines the issuance log has, the hash of the last one, and the first line that did not fit at start.
    pub fn log_standing(&self) -> (u64, String, Option<u64>) {
        let log = self.log.lock();
        let (count, head, broken) = log.standing();
        (count, head.to_owned(), broken)
    }

    /// Reads the issuance log again: how many lines it has, and the first that does not fit.
    pub fn verify_log(&self) -> Result<(u64, Option<u64>)> {
        // Held, so that no line is half there.
        let _log = self.log.lock();
        log::verify(&self.config.folder)
    }

    /// How many certificates are refused before their time.
    pub fn revoked_count(&self) -> usize {
        self.revoked.list().len()
    }
}

impl Authority for Ca {
    fn shown(&self) -> watch::Receiver<Arc<TlsIdentity>> {
        self.shown.subscribe()
    }

    fn panel(&self) -> watch::Receiver<Option<Arc<TlsIdentity>>> {
        self.panel.subscribe()
    }

    fn document(&self, path: &str, body: Option<&[u8]>) -> Option<Result<Document>> {
        self.published(path, body)
    }

    fn ca(&self) -> CaCertificate {
        self.current().public.clone()
    }

    fn trusted(&self) -> watch::Receiver<Arc<Vec<CaCertificate>>> {
        self.trusted.subscribe()
    }

    fn holder(&self, leaf: &[u8]) -> Result<Holder> {
        let unknown = || {
            Error::unauthenticated("the client certificate is not accepted")
                .hint("log in again: `dvctl login URL --code CODE`")
        };
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| unknown())?;
        let at = (self.config.now)();
        let now = at.millis() / 1000;
        let validity = parsed.validity();
        if now >= validity.not_after.timestamp() || now < validity.not_before.timestamp() {
            return Err(unknown());
        }
        let fingerprint = fingerprint(leaf);
        if self.revoked.find(&fingerprint).is_some() {
            tracing::warn!(fingerprint, "a revoked certificate was shown");
            return Err(unknown());
        }
        // Signed by us and nobody between us and it: a CA of another region is below ours, and speaks for no account. One
        // that is retired is no longer among us, also on connections that were open before.
        let standing = self.standing();
        let signed = standing.trusted_at(at).any(|one| one.signed(&parsed));
        if !signed {
            return Err(unknown());
        }
        let of = |organisation| {
            let mut all = parsed.subject().iter_organization();
            all.any(|o| o.as_str() == Ok(organisation))
        };
        if of(issue::MACHINES) {
            return Ok(Holder {
                account: None,
                fingerprint,
            });
        }
        // The certificate of a service is no login, whatever it is called.
        if !of(issue::ORGANISATION) {
            return Err(unknown());
        }
        let account = parsed
            .subject()
            .iter_common_name()
            .next()
            .and_then(|name| name.as_str().ok())
            .ok_or_else(unknown)?;
        // Only accounts that exist: one, for now.
        if account != ADMINISTRATOR {
            return Err(unknown());
        }
        Ok(Holder {
            account: Some(account.to_owned()),
            fingerprint,
        })
    }

    fn account(&self) -> String {
        ADMINISTRATOR.to_owned()
    }

    fn make_code(&self, account: &str) -> Result<LoginCode> {
        let (code, expires) = self.codes.lock().make(account, (self.config.now)())?;
        Ok(LoginCode {
            code,
            expires,
            ca_fingerprint: self.current().public.fingerprint.clone(),
        })
    }

    fn login(&self, code: &str, csr: &str, from: Option<IpAddr>) -> Result<Issued> {
        let now = (self.config.now)();
        let mut codes = self.codes.lock();
        let account = codes.check(code, from, now)?;
        // A request that cannot be signed leaves the code good, so that a client's mistake does not cost a new one.
        let one = self.current();
        let at = self.at(&one);
        let (certificate, expires) = issue::client(one.signer()?, csr, &account, now, at)?;
        if let Some(der) = der_of(&certificate).next() {
            self.keep(&der, now, &one.id)?;
        }
        codes.spend(code, now)?;
        drop(codes);
        tracing::info!(
            account,
            fingerprint = der_of(&certificate).next().map(|der| fingerprint(&der)),
            "a client certificate was issued"
        );
        Ok(Issued {
            certificate,
            ca: one.public.pem.clone(),
            account,
            expires,
        })
    }
}

pub(crate) fn der_of(pem: &str) -> impl Iterator<Item = Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(|one| one.ok().map(|der| der.to_vec()))
}

fn common_name<'a>(parsed: &'a x509_parser::certificate::X509Certificate<'_>) -> &'a str {
    let name = parsed.subject().iter_common_name().next();
    name.and_then(|name| name.as_str().ok()).unwrap_or_default()
}

/// A certificate as text.
pub(crate) fn pem_of(der: &[u8]) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

fn broken(file: &str, why: impl std::fmt::Display) -> Error {
    Error::refused(format!("{file} in the pki folder cannot be used: {why}"))
        .hint("restore the pki folder from a backup; or move it away to start with a new CA, and let every client log in anew")
}

/// The stored server certificate, when it is still good: ours, for these names, with more than the renewal time left.
fn load_server(
    config: &CaConfig,
    around: &Surroundings,
    standing: &Standing,
    now: Timestamp,
) -> Result<Option<TlsIdentity>> {
    let (Some(pem), Some(key)) = (
        files::read(&config.folder.join("server.pem"))?,
        read_key(&config.folder.join("server.key"), around)?,
    ) else {
        return Ok(None);
    };
    let Some(der) = der_of(&pem).next() else {
        return Ok(None);
    };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(&der) else {
        return Ok(None);
    };
    let Ok(pair) = KeyPair::from_pem(&key) else {
        return Ok(None);
    };
    let not_after = Timestamp::from_millis(parsed.validity().not_after.timestamp() * 1000);
    let fits = parsed.public_key().subject_public_key.data.as_ref() == pair.public_key_raw()
        && standing.current.signed(&parsed)
        && not_after.since(now) > issue::RENEW_BEFORE
        // Made while the clock was far ahead, it would be refused until then.
        && parsed.validity().not_before.timestamp() <= now.millis() / 1000
        && names_of(&parsed) == sorted(&config.names);
    Ok(fits.then(|| TlsIdentity {
        chain: chain(der.clone(), standing),
        key: pair.serialize_der(),
        not_after,
        names: config.names.clone(),
    }))
}

/// What is shown with a leaf: what leads to the generation before while that is trusted, and the present one.
fn chain(leaf: Vec<u8>, standing: &Standing) -> Vec<Vec<u8>> {
    let mut chain = vec![leaf];
    chain.extend(standing.cross().cloned());
    chain.push(standing.current.public.der.clone());
    chain
}

fn at<'a>(around: &'a Surroundings, one: &'a One) -> Option<At<'a>> {
    let base = around.published_at.as_deref()?;
    Some(At { base, id: &one.id })
}

fn make_server(
    config: &CaConfig,
    around: &Surroundings,
    standing: &Standing,
    log: &mut Log,
    now: Timestamp,
) -> Result<TlsIdentity> {
    let one = &standing.current;
    let made = issue::server(one.signer()?, &config.names, now, at(around, one))?;
    note(log, &made.der, now, &one.id)?;
    let key = made.key.serialize_pem();
    write_key(&config.folder.join("server.key"), &key, around)?;
    files::write(
        &config.folder.join("server.pem"),
        &format!("{}{}", made.certificate, one.public.pem),
        0o644,
    )?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|e| Error::internal("cannot read back the server key").because(e))?;
    Ok(TlsIdentity {
        chain: chain(made.der, standing),
        key: key.secret_der().to_vec(),
        not_after: now.plus(issue::SERVER_LIFE),
        names: config.names.clone(),
    })
}

/// A key file, unsealed. It is sealed anew each time, so that one that lay there open is sealed from now on, and one that
/// was sealed with an older data key no longer needs it.
fn read_key(path: &Path, around: &Surroundings) -> Result<Option<String>> {
    let Some(text) = files::read_secret(path)? else {
        return Ok(None);
    };
    let key = match (text.trim_end().strip_prefix(SEALED), &around.seal) {
        (Some(sealed), Some(seal)) => seal
            .open(&context(path), sealed)
            .map_err(|e| broken(&context(path), "it was sealed with another key").because(e))?,
        (Some(_), None) => {
            let why = "it is sealed and there is no key to open it";
            return Err(broken(&context(path), why));
        }
        (None, _) => text,
    };
    if around.seal.is_some() {
        write_key(path, &key, around)?;
    }
    Ok(Some(key))
}

fn write_key(path: &Path, key: &str, around: &Surroundings) -> Result<()> {
    match &around.seal {
        Some(seal) => {
            let sealed = seal.seal(&context(path), key)?;
            files::write(path, &format!("{SEALED}{sealed}\n"), 0o600)
        }
        None => files::write(path, key, 0o600),
    }
}

/// What a sealed key is bound to: its file.
fn context(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("pki/{name}")
}

/// Writes a certificate that was just signed into the log. It must not leave before.
fn note(log: &mut Log, der: &[u8], now: Timestamp, id: &str) -> Result<()> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der)
        .map_err(|e| Error::internal("cannot read back what was signed").because(e))?;
    log.append(Line {
        seq: 0,
        time: now,
        what: What::Issued,
        fingerprint: fingerprint(der),
        serial: hex::encode(serial_of(&parsed)),
        ca: match id {
            FIRST => String::new(),
            id => id.to_owned(),
        },
        subject: parsed.subject().to_string(),
        names: names_of(&parsed),
        not_after: Some(Timestamp::from_millis(
            parsed.validity().not_after.timestamp() * 1000,
        )),
        reason: String::new(),
        key: fingerprint(parsed.public_key().raw),
    })
}

/// The serial number without the zero that keeps it positive.
pub(crate) fn serial_of<'a>(parsed: &'a x509_parser::certificate::X509Certificate<'_>) -> &'a [u8] {
    match parsed.raw_serial() {
        [0, rest @ ..] if !rest.is_empty() => rest,
        serial => serial,
    }
}

/// The names a certificate is for, sorted.
pub(crate) fn names_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Vec<String> {
    use x509_parser::extensions::GeneralName;
    let mut out: Vec<String> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| {
            names
                .value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => match bytes.len() {
                        4 => <[u8; 4]>::try_from(*bytes)
                            .ok()
                            .map(|b| IpAddr::from(b).to_string()),
                        _ => <[u8; 16]>::try_from(*bytes)
                            .ok()
                            .map(|b| IpAddr::from(b).to_string()),
                    },
                    _ => None,
                })
                .collect()
        })
        .unwrap_or_default();
    out.sort();
    out.dedup();
    out
}

pub(crate) fn sorted(names: &[String]) -> Vec<String> {
    let mut out: Vec<String> = names
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(ip) => ip.to_string(),
            Err(_) => name.clone(),
        })
        .collect();
    out.sort();
    out.dedup();
    out
}
