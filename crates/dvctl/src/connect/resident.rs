//! A client certificate whose key is in this machine's TPM: the handshake is signed there.

use crate::failure::{Failure, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::client::ResolvesClientCert;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;
use std::sync::Arc;
use tpm::{Blob, Tpm};

/// A key that only this machine can use, as a saved login keeps it. To another machine it is worth nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resident {
    /// The machine that it stands for.
    pub machine: String,
    /// The TPM.
    pub device: PathBuf,
    /// What the TPM says of the key, base64.
    pub public: String,
    /// The rest of it, encrypted by the TPM, base64.
    pub private: String,
}

impl Resident {
    /// For a key of the TPM.
    pub fn new(machine: &str, device: PathBuf, key: &Blob) -> Resident {
        Resident {
            machine: machine.to_owned(),
            device,
            public: STANDARD.encode(&key.public),
            private: STANDARD.encode(&key.private),
        }
    }

    /// The key, to be given to the TPM.
    pub fn key(&self) -> Result<Blob> {
        let bytes = |text: &str| {
            STANDARD.decode(text).map_err(|e| {
                Failure::io("reading the key of a machine in a saved login", e)
                    .hint(format!("make it anew: dvctl tpm enrol {}", self.machine))
            })
        };
        Ok(Blob {
            public: bytes(&self.public)?,
            private: bytes(&self.private)?,
        })
    }

    /// Answers a server that asks for a certificate.
    pub fn resolver(&self, chain: Vec<CertificateDer<'static>>) -> Result<Arc<Always>> {
        let key = Arc::new(InTpm {
            device: self.device.clone(),
            key: self.key()?,
        });
        Ok(Arc::new(Always(Arc::new(CertifiedKey::new(chain, key)))))
    }
}

/// Shows one certificate to whoever asks for any.
#[derive(Debug)]
pub struct Always(Arc<CertifiedKey>);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Clone, Debug)]
struct InTpm {
    device: PathBuf,
    key: Blob,
}

impl SigningKey for InTpm {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let ours = offered.contains(&SignatureScheme::ECDSA_NISTP256_SHA256);
        ours.then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for InTpm {
    /// Takes as long as the TPM needs, a tenth of a second as a rule: the handshake has nothing else to do meanwhile.
    fn sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, rustls::Error> {
        let digest: [u8; 32] = Sha256::digest(message).into();
        let signed = Tpm::open(&self.device).and_then(|mut tpm| tpm.sign(&self.key, &digest));
        let signed = signed.map_err(|e| rustls::Error::General(e.to_string()))?;
        Ok(sequence(&signed))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

/// The two numbers of a signature as DER: `SEQUENCE { INTEGER, INTEGER }`.
fn sequence(signed: &[u8; 64]) -> Vec<u8> {
    let mut inside = Vec::with_capacity(72);
    for number in signed.chunks(32) {
        let zeros = number.iter().take_while(|b| **b == 0).count().min(31);
        let number = &number[zeros..];
        // A number whose first bit is set would be a negative one.
        let pad = usize::from(number[0] >> 7);
        inside.extend([2, (number.len() + pad) as u8]);
        inside.extend(std::iter::repeat_n(0, pad));
        inside.extend(number);
    }
    let mut out = vec![0x30, inside.len() as u8];
    out.extend(inside);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_der() {
        let mut signed = [0; 64];
        signed[31] = 5;
        signed[32] = 0x80;
        let der = sequence(&signed);
        assert_eq!(der[..5], [0x30, 38, 2, 1, 5]);
        assert_eq!(der[5..9], [2, 33, 0, 0x80]);
        assert_eq!(sequence(&[0; 64]), [0x30, 6, 2, 1, 0, 2, 1, 0]);
    }
}
