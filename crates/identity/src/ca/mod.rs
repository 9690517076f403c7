//! The internal certificate authority: made at first start, kept in the pki folder.
//!
//! | file | mode | is |
//! |---|---|---|
//! | `ca.pem`, `ca.key` | 0644, 0600 | the CA, ECDSA P-256, ten years |
//! | `server.pem`, `server.key` | 0644, 0600 | what the listeners show, 90 days, replaced with 30 days left |
//! | `revoked` | 0600 | fingerprints that are refused although their time has not come |
//! | `codes.json` | 0600 | hashes of open login codes |
//!
//! It never hands out a private key but the server's to its own listener, and never makes a new CA over a broken one:
//! a half-lost CA is an error that says what to do.

mod issue;
mod revoked;
#[cfg(test)]
mod tests;

use crate::files;
use crate::login::Codes;
use crate::{ADMINISTRATOR, Now};
use model::{Error, Result, Timestamp};
use parking_lot::Mutex;
use rcgen::{Issuer, KeyPair};
use revoked::Revoked;
use runtime::{Authority, CaCertificate, Holder, Issued, LoginCode, TlsIdentity};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::path::PathBuf;
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

/// The opened CA.
pub struct Ca {
    config: CaConfig,
    public: CaCertificate,
    issuer: Issuer<'static, KeyPair>,
    shown: watch::Sender<Arc<TlsIdentity>>,
    revoked: Revoked,
    codes: Mutex<Codes>,
}

/// SHA-256 of a DER certificate, as lower-case hex.
pub fn fingerprint(der: &[u8]) -> String {
    hex::encode(Sha256::digest(der))
}

impl Ca {
    /// Opens the CA in its folder, or makes it when the folder holds none; likewise the server certificate.
    pub fn open(config: CaConfig) -> Result<Arc<Ca>> {
        files::folder(&config.folder)?;
        let now = (config.now)();
        let (pem_at, key_at) = (config.folder.join("ca.pem"), config.folder.join("ca.key"));
        let (pem, key) = match (files::read(&pem_at)?, files::read_secret(&key_at)?) {
            (Some(pem), Some(key)) => (pem, key),
            // The key is written first: a key without a certificate is a first start that was cut short.
            (None, _) => {
                let made = issue::authority(&config.cluster, now)?;
                let key = made.key.serialize_pem();
                files::write(&key_at, &key, 0o600)?;
                files::write(&pem_at, &made.certificate, 0o644)?;
                tracing::info!(
                    fingerprint = fingerprint(&made.der),
                    "the internal CA was made"
                );
                (made.certificate, key)
            }
            (Some(_), None) => {
                return Err(Error::refused(format!(
                    "{} is missing beside {}",
                    key_at.display(),
                    pem_at.display()
                ))
                .hint("restore ca.key from a backup; or move the pki folder away to start with a new CA, and let every client log in anew"));
            }
        };
        let der = der_of(&pem)
            .next()
            .ok_or_else(|| broken("ca.pem", "it holds no certificate"))?;
        let key = KeyPair::from_pem(&key).map_err(|e| broken("ca.key", e))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|e| broken("ca.pem", e))?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(broken("ca.key", "it is not the key of ca.pem"));
        }
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|e| broken("ca.pem", e))?;
        let public = CaCertificate {
            fingerprint: fingerprint(&der),
            der,
            pem,
        };
        let shown = match load_server(&config, &public, now)? {
            Some(shown) => shown,
            None => make_server(&config, &issuer, &public, now)?,
        };
        Ok(Arc::new(Ca {
            revoked: Revoked::open(&config.folder)?,
            codes: Mutex::new(Codes::open(config.folder.join("codes.json"))?),
            public,
            issuer,
            shown: watch::Sender::new(Arc::new(shown)),
            config,
        }))
    }

    /// Replaces the server certificate when less than 30 days are left. Says whether it did.
    pub fn renew(&self) -> Result<bool> {
        let now = (self.config.now)();
        if self.shown.borrow().not_after.since(now) > issue::RENEW_BEFORE {
            return Ok(false);
        }
        let fresh = make_server(&self.config, &self.issuer, &self.public, now)?;
        tracing::info!(not_after = %fresh.not_after, "the server certificate was renewed");
        self.shown.send_replace(Arc::new(fresh));
        Ok(true)
    }

    /// Renews until told to stop. A failure is logged and tried again after an hour.
    pub async fn keep_fresh(self: Arc<Self>, stop: CancellationToken) {
        while stop
            .run_until_cancelled(tokio::time::sleep(Duration::from_secs(3600)))
            .await
            .is_some()
        {
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

    /// Refuses a client certificate from now on, by its SHA-256 fingerprint.
    pub fn revoke(&self, fingerprint: &str, why: &str) -> Result<()> {
        self.revoked.add(fingerprint, why, (self.config.now)())
    }
}

impl Authority for Ca {
    fn shown(&self) -> watch::Receiver<Arc<TlsIdentity>> {
        self.shown.subscribe()
    }

    fn ca(&self) -> CaCertificate {
        self.public.clone()
    }

    fn holder(&self, leaf: &[u8]) -> Result<Holder> {
        let unknown = || {
            Error::unauthenticated("the client certificate is not accepted")
                .hint("log in again: `dvctl login URL --code CODE`")
        };
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|_| unknown())?;
        let now = (self.config.now)().millis() / 1000;
        let validity = parsed.validity();
        if now >= validity.not_after.timestamp() || now < validity.not_before.timestamp() {
            return Err(unknown());
        }
        let fingerprint = fingerprint(leaf);
        if self.revoked.contains(&fingerprint) {
            tracing::warn!(fingerprint, "a revoked certificate was shown");
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
            account: account.to_owned(),
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
            ca_fingerprint: self.public.fingerprint.clone(),
        })
    }

    fn login(&self, code: &str, csr: &str, from: Option<IpAddr>) -> Result<Issued> {
        let now = (self.config.now)();
        let mut codes = self.codes.lock();
        let account = codes.check(code, from, now)?;
        // A request that cannot be signed leaves the code good, so that a client's mistake does not cost a new one.
        let (certificate, expires) = issue::client(&self.issuer, csr, &account, now)?;
        codes.spend(code, now)?;
        drop(codes);
        tracing::info!(
            account,
            fingerprint = der_of(&certificate).next().map(|der| fingerprint(&der)),
            "a client certificate was issued"
        );
        Ok(Issued {
            certificate,
            ca: self.public.pem.clone(),
            account,
            expires,
        })
    }
}

fn der_of(pem: &str) -> impl Iterator<Item = Vec<u8>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .filter_map(|one| one.ok().map(|der| der.to_vec()))
}

fn broken(file: &str, why: impl std::fmt::Display) -> Error {
    Error::refused(format!("{file} in the pki folder cannot be used: {why}"))
        .hint("restore the pki folder from a backup; or move it away to start with a new CA, and let every client log in anew")
}

/// The stored server certificate, when it is still good: ours, for these names, with more than the renewal time left.
fn load_server(
    config: &CaConfig,
    ca: &CaCertificate,
    now: Timestamp,
) -> Result<Option<TlsIdentity>> {
    let (Some(pem), Some(key)) = (
        files::read(&config.folder.join("server.pem"))?,
        files::read_secret(&config.folder.join("server.key"))?,
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
    let Ok((_, issuer)) = x509_parser::parse_x509_certificate(&ca.der) else {
        return Ok(None);
    };
    let not_after = Timestamp::from_millis(parsed.validity().not_after.timestamp() * 1000);
    let fits = parsed.public_key().subject_public_key.data.as_ref() == pair.public_key_raw()
        && parsed.verify_signature(Some(issuer.public_key())).is_ok()
        && not_after.since(now) > issue::RENEW_BEFORE
        // Made while the clock was far ahead, it would be refused until then.
        && parsed.validity().not_before.timestamp() <= now.millis() / 1000
        && names_of(&parsed) == sorted(&config.names);
    Ok(fits.then(|| TlsIdentity {
        chain: vec![der.clone(), ca.der.clone()],
        key: pair.serialize_der(),
        not_after,
    }))
}

fn make_server(
    config: &CaConfig,
    issuer: &Issuer<'_, KeyPair>,
    ca: &CaCertificate,
    now: Timestamp,
) -> Result<TlsIdentity> {
    let made = issue::server(issuer, &config.names, now)?;
    let key = made.key.serialize_pem();
    files::write(&config.folder.join("server.key"), &key, 0o600)?;
    files::write(
        &config.folder.join("server.pem"),
        &format!("{}{}", made.certificate, ca.pem),
        0o644,
    )?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|e| Error::internal("cannot read back the server key").because(e))?;
    Ok(TlsIdentity {
        chain: vec![made.der, ca.der.clone()],
        key: key.secret_der().to_vec(),
        not_after: now.plus(issue::SERVER_LIFE),
    })
}

/// The names a certificate is for, sorted.
fn names_of(certificate: &x509_parser::certificate::X509Certificate<'_>) -> Vec<String> {
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

fn sorted(names: &[String]) -> Vec<String> {
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
