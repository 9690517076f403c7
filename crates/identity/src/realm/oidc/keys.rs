//! The public keys of a provider (RFC 7517, RFC 7518, RFC 8037), and whether one of them has signed a token.
//!
//! **Invariant.** A key is good for one algorithm, which its own kind decides, never the token. What is secret, private
//! or for encryption is no key here.

use super::token::{Alg, Token, Wrong};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde_json::Value;

/// More are not read.
const MOST: usize = 100;
/// How many are tried for a token that names none.
const TRIED: usize = 10;

enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

struct Key {
    kid: Option<String>,
    material: Material,
}

/// The keys of one provider.
#[derive(Default)]
pub(super) struct Keys(Vec<Key>);

impl Key {
    fn read(jwk: &Value) -> Option<Key> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|usage| usage != "sig") {
            return None;
        }
        if let Some(ops) = jwk.get("key_ops").and_then(Value::as_array)
            && !ops.iter().any(|op| op == "verify")
        {
            return None;
        }
        let (material, alg) = match (text("kty")?, text("crv")) {
            ("RSA", _) => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                (Material::Rsa { n, e }, "RS256")
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                if (x.len(), y.len()) != (32, 32) {
                    return None;
                }
                (Material::P256([&[4][..], &x, &y].concat()), "ES256")
            }
            ("OKP", Some("Ed25519")) => {
                let x = bytes("x").filter(|x| x.len() == 32)?;
                (Material::Ed25519(x), "EdDSA")
            }
            _ => return None,
        };
        if text("alg").is_some_and(|wanted| wanted != alg && wanted != "Ed25519") {
            return None;
        }
        Some(Key {
            kid: text("kid").map(str::to_owned),
            material,
        })
    }

    fn alg(&self) -> Alg {
        match self.material {
            Material::Rsa { .. } => Alg::Rs256,
            Material::P256(_) => Alg::Es256,
            Material::Ed25519(_) => Alg::EdDsa,
        }
    }

    fn signed(&self, token: &Token<'_>) -> bool {
        let (text, signature) = (token.signed, &token.signature);
        match &self.material {
            Material::Rsa { n, e } => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, text, signature)
                .is_ok(),
            Material::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(text, signature)
                .is_ok(),
            Material::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point)
                .verify(text, signature)
                .is_ok(),
        }
    }
}

impl Keys {
    /// Reads a set; what is no key for us is left out.
    pub(super) fn read(set: &Value) -> Keys {
        let all = set.get("keys").and_then(Value::as_array);
        let all = all.into_iter().flatten().take(MOST);
        Keys(all.filter_map(Key::read).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether one of them has signed it.
    pub(super) fn check(&self, token: &Token<'_>) -> Result<(), Wrong> {
        let named = |key: &&Key| token.kid.is_none() || key.kid == token.kid;
        let named: Vec<&Key> = self.0.iter().filter(named).collect();
        if named.is_empty() {
            return Err(Wrong::UnknownKey);
        }
        let fitting: Vec<&&Key> = named.iter().filter(|key| key.alg() == token.alg).collect();
        if fitting.is_empty() {
            return Err(Wrong::Algorithm);
        }
        match fitting.iter().take(TRIED).any(|key| key.signed(token)) {
            true => Ok(()),
            false => Err(Wrong::Signature),
        }
    }
}
