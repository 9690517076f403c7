//! One generation of the CA: its certificate, its key while it signs, and which generations there are.
//!
//! ```text
//! next --switch--> current --switch of the one after--> old --its time is over--> retired
//!   \--abandon--> gone      (trusted beside the present)     (key erased, last list stays)
//! ```
//!
//! `authorities.json` says which is which and is replaced in one step; a missing one says that there is only `ca`.

use super::{
    CaConfig, Surroundings, broken, der_of, fingerprint, issue, ocsp, publish, read_key, write_key,
};
use crate::files;
use model::{Error, Result, Timestamp};
use parking_lot::Mutex;
use rcgen::{Issuer, KeyPair};
use runtime::CaCertificate;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// The first generation.
pub(super) const FIRST: &str = "ca";
const FILE: &str = "authorities.json";

/// Which generations there are.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Generations {
    /// The one that signs.
    pub current: String,
    /// The task that made it sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_by: Option<String>,
    /// The one that is being made, and for which task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Next>,
    /// Those before it, oldest first.
    #[serde(default)]
    pub old: Vec<Old>,
}

/// A generation that does not sign yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Next {
    pub id: String,
    /// The task that makes it.
    pub by: String,
}

/// A generation that signs no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Old {
    pub id: String,
    /// Until when it is trusted.
    pub until: Timestamp,
    /// It is not trusted any more, and its key is erased.
    #[serde(default)]
    pub retired: bool,
}

impl Generations {
    pub fn read(folder: &Path) -> Result<Generations> {
        match files::read(&folder.join(FILE))? {
            Some(text) => serde_json::from_str(&text).map_err(|e| broken(FILE, e)),
            None => Ok(Generations {
                current: FIRST.into(),
                current_by: None,
                next: None,
                old: Vec::new(),
            }),
        }
    }

    /// Changes them, on disk first.
    pub fn set(&mut self, folder: &Path, change: impl FnOnce(&mut Generations)) -> Result<()> {
        let mut new = self.clone();
        change(&mut new);
        let text = serde_json::to_string_pretty(&new)
            .map_err(|e| Error::internal("the generations of the CA as JSON").because(e))?;
        files::write(&folder.join(FILE), &format!("{text}\n"), 0o600)?;
        *self = new;
        Ok(())
    }

    /// The number of the generation that comes after the present one, from 2.
    pub fn after(&self) -> usize {
        self.old.len() + 2
    }
}

/// One generation.
pub(super) struct One {
    /// Its name: what its files and documents are called.
    pub id: String,
    pub public: CaCertificate,
    /// Its subject, DER and as people read it.
    pub subject: Vec<u8>,
    pub name: String,
    /// When it ends.
    pub not_after: Timestamp,
    /// Signs; `None`: it is retired.
    pub signer: Option<Issuer<'static, KeyPair>>,
    pub responder: ocsp::Responder,
    /// The list that was made last.
    pub made: Mutex<Option<publish::Made>>,
    /// Its certificate as the generation before signed it: who trusts that one is led to this one.
    pub cross: Option<Vec<u8>>,
}

/// Whether a CA of this folder has signed anything.
fn has_signed(folder: &Path) -> bool {
    let signed = ["server.pem", "issued.log"];
    signed.iter().any(|name| folder.join(name).exists())
}

impl One {
    /// From its files. The first one is made when it is missing.
    pub fn open(
        folder: &Path,
        around: &Surroundings,
        id: &str,
        retired: bool,
        make: impl FnOnce() -> Result<issue::Pair>,
    ) -> Result<One> {
        let (pem_at, key_at) = (
            folder.join(format!("{id}.pem")),
            folder.join(format!("{id}.key")),
        );
        let (pem_name, key_name) = (format!("{id}.pem"), format!("{id}.key"));
        let key = match retired {
            true => None,
            false => read_key(&key_at, around)?,
        };
        let (pem, key) = match (files::read(&pem_at)?, key) {
            (Some(pem), Some(key)) => (pem, Some(key)),
            (Some(pem), None) if retired => (pem, None),
            // The key is written first: a key without a certificate is a first start that was cut short, when nothing was
            // signed with it yet. Else its certificate was lost, and a new CA would lock everybody out.
            (None, _) if id == FIRST && !retired && !has_signed(folder) => {
                let made = make()?;
                let key = save(folder, around, id, &made)?;
                tracing::info!(
                    fingerprint = fingerprint(&made.der),
                    "the internal CA was made"
                );
                (made.certificate, Some(key))
            }
            (pem, _) => {
                let lost = match pem {
                    Some(_) => &key_at,
                    None => &pem_at,
                };
                return Err(Error::refused(format!(
                    "{} is missing in the pki folder",
                    lost.display()
                ))
                .hint(format!("restore {} from a backup; or move the pki folder away to start with a new CA, and let every client log in anew", if pem.is_some() { &key_name } else { &pem_name })));
            }
        };
        let der = der_of(&pem)
            .next()
            .ok_or_else(|| broken(&pem_name, "it holds no certificate"))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|e| broken(&pem_name, e))?;
        let signer = match key {
            None => None,
            Some(key) => {
                let key = KeyPair::from_pem(&key).map_err(|e| broken(&key_name, e))?;
                if parsed.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
                    return Err(broken(
                        &key_name,
                        format!("it is not the key of {pem_name}"),
                    ));
                }
                Some(Issuer::from_ca_cert_pem(&pem, key).map_err(|e| broken(&pem_name, e))?)
            }
        };
        let cross = files::read(&folder.join(format!("{id}.cross.pem")))?;
        Ok(One {
            id: id.to_owned(),
            subject: parsed.subject().as_raw().to_vec(),
            name: parsed.subject().to_string(),
            not_after: Timestamp::from_millis(
                parsed.validity().not_after.timestamp().saturating_mul(1000),
            ),
            signer,
            responder: ocsp::Responder::new(
                parsed.subject().as_raw(),
                &parsed.public_key().subject_public_key.data,
            ),
            made: Mutex::new(None),
            cross: cross.and_then(|pem| der_of(&pem).next()),
            public: CaCertificate {
                fingerprint: fingerprint(&der),
                der: der.clone(),
                pem,
            },
        })
    }

    /// Its signature, while it has a key.
    pub fn signer(&self) -> Result<&Issuer<'static, KeyPair>> {
        self.signer.as_ref().ok_or_else(|| {
            Error::refused(format!(
                "{} is retired and signs nothing any more",
                self.name
            ))
        })
    }

    /// Whether it has signed this certificate itself, with nobody in between.
    pub fn signed(&self, leaf: &x509_parser::certificate::X509Certificate<'_>) -> bool {
        leaf.issuer().as_raw() == self.subject
            && x509_parser::parse_x509_certificate(&self.public.der)
                .is_ok_and(|(_, own)| leaf.verify_signature(Some(own.public_key())).is_ok())
    }
}

/// Writes a generation's files, the key first; answers the key.
pub(super) fn save(
    folder: &Path,
    around: &Surroundings,
    id: &str,
    made: &issue::Pair,
) -> Result<String> {
    let key = made.key.serialize_pem();
    write_key(&folder.join(format!("{id}.key")), &key, around)?;
    files::write(&folder.join(format!("{id}.pem")), &made.certificate, 0o644)?;
    Ok(key)
}

/// All generations of a CA that are known, as they stand.
pub(super) struct Standing {
    pub current: Arc<One>,
    /// Those before it, newest first.
    pub old: Vec<(Arc<One>, Old)>,
}

impl Standing {
    /// From the files. The first generation is made when there is none.
    pub fn open(
        config: &CaConfig,
        around: &Surroundings,
        generations: &Generations,
    ) -> Result<Standing> {
        let (folder, now) = (&config.folder, (config.now)());
        let load = |id: &str, retired: bool| {
            let made = || issue::authority(&config.cluster, 1, now);
            One::open(folder, around, id, retired, made).map(Arc::new)
        };
        let mut old = Vec::new();
        for one in generations.old.iter().rev() {
            if one.retired {
                let path = folder.join(format!("{}.key", one.id));
                match std::fs::remove_file(&path) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                        let what = format!("cannot erase {}", path.display());
                        return Err(Error::internal(what).because(e));
                    }
                    _ => {}
                }
            }
            old.push((load(&one.id, one.retired)?, one.clone()));
        }
        Ok(Standing {
            current: load(&generations.current, false)?,
            old,
        })
    }

    /// Those that are trusted, the present one first.
    pub fn trusted(&self) -> impl Iterator<Item = &Arc<One>> {
        let old = self.old.iter().filter(|(_, old)| !old.retired);
        std::iter::once(&self.current).chain(old.map(|(one, _)| one))
    }

    /// Those that are trusted at a time: whatever keeps one from being retired, its time is over when it is over.
    pub fn trusted_at(&self, now: Timestamp) -> impl Iterator<Item = &Arc<One>> {
        let old = self.old.iter();
        let old = old.filter(move |(_, old)| !old.retired && now < old.until);
        std::iter::once(&self.current).chain(old.map(|(one, _)| one))
    }

    /// All of them, the present one first.
    pub fn all(&self) -> impl Iterator<Item = &Arc<One>> {
        std::iter::once(&self.current).chain(self.old.iter().map(|(one, _)| one))
    }

    /// What leads those who trust only the generation before to this one, while that is trusted.
    pub fn cross(&self) -> Option<&Vec<u8>> {
        let before = self.old.first().filter(|(_, old)| !old.retired);
        before.and(self.current.cross.as_ref())
    }
}
