//! Tokens that are not what they say, each refused by the reason for which it is; and bytes of any sort.

use super::keys::Keys;
use super::token::{Wrong, is_token, issuer, parse};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use proptest::prelude::*;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::{Value, json};

const ISSUER: &str = "https://id.example.org";
const CLIENT: &str = "debvisor";
const NOW: i64 = 1_800_000_000;

struct Signer {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new() -> Signer {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random);
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Signer {
            ec: ec.unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            random,
        }
    }

    fn set(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "alg": "ES256",
              "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..]) },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": B64.encode(self.ed.public_key()) },
            { "kty": "oct", "kid": "oct", "k": B64.encode("a secret of 32 bytes, or so it is") },
            { "kty": "RSA", "kid": "enc", "use": "enc", "n": "AQAB", "e": "AQAB" },
        ] })
    }

    fn keys(&self) -> Keys {
        Keys::read(&self.set())
    }

    fn sign(&self, header: &Value, claims: &str) -> String {
        let text = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims));
        let signature = match header["alg"].as_str() {
            Some("EdDSA") => self.ed.sign(text.as_bytes()).as_ref().to_vec(),
            Some("HS256") => {
                // The confusion: a public key, taken for a secret of both.
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.ec.public_key().as_ref());
                hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
            }
            Some("none") => Vec::new(),
            _ => {
                let signed = self.ec.sign(&self.random, text.as_bytes());
                signed.unwrap().as_ref().to_vec()
            }
        };
        format!("{text}.{}", B64.encode(signature))
    }
}

fn header(alg: &str, kid: &str) -> Value {
    json!({ "alg": alg, "kid": kid, "typ": "JWT" })
}

/// The claims of a good ID token with some changed; `null` takes one away.
fn claims(change: Value) -> String {
    let mut claims = json!({
        "iss": ISSUER, "aud": CLIENT, "sub": "1", "exp": NOW + 300, "iat": NOW, "nonce": "n",
    });
    for (name, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

fn login(keys: &Keys, text: &str) -> Result<(), Wrong> {
    let token = parse(text)?;
    keys.check(&token)?;
    token.for_login(ISSUER, CLIENT, "n", NOW)
}

#[test]
fn good_ones_are_taken() {
    let signer = Signer::new();
    let keys = signer.keys();
    assert_eq!(keys.len(), 2);
    for (alg, kid) in [("ES256", "ec"), ("EdDSA", "ed")] {
        let token = signer.sign(&header(alg, kid), &claims(json!({})));
        assert_eq!(login(&keys, &token), Ok(()), "{alg}");
        assert!(is_token(&token));
        assert_eq!(issuer(&token).as_deref(), Some(ISSUER));
    }
    let bare = signer.sign(&json!({ "alg": "ES256" }), &claims(json!({})));
    assert_eq!(login(&keys, &bare), Ok(()));
    for change in [
        json!({ "aud": [CLIENT, "other"], "azp": CLIENT }),
        json!({ "exp": NOW - 59 }),
        json!({ "nbf": NOW + 60, "iat": NOW + 60 }),
    ] {
        let token = signer.sign(&header("ES256", "ec"), &claims(change.clone()));
        assert_eq!(login(&keys, &token), Ok(()), "{change}");
    }
}

#[test]
fn hostile_claims_are_refused_each_for_its_reason() {
    let signer = Signer::new();
    let keys = signer.keys();
    let table = [
        (json!({ "iss": "https://id.example.org/" }), Wrong::Issuer),
        (json!({ "iss": "https://evil.example" }), Wrong::Issuer),
        (json!({ "iss": null }), Wrong::Issuer),
        (json!({ "aud": "other" }), Wrong::Audience),
        (json!({ "aud": [] }), Wrong::Audience),
        (json!({ "aud": null }), Wrong::Audience),
        (json!({ "aud": "debvisor2" }), Wrong::Audience),
        (json!({ "aud": [CLIENT, "other"] }), Wrong::Party),
        (json!({ "azp": "other" }), Wrong::Party),
        (json!({ "exp": NOW - 60 }), Wrong::Expired),
        (json!({ "exp": 0 }), Wrong::Expired),
        (json!({ "exp": -1e300 }), Wrong::Expired),
        (json!({ "exp": null }), Wrong::Expired),
        (json!({ "nbf": NOW + 61 }), Wrong::TooEarly),
        (json!({ "iat": NOW + 61 }), Wrong::TooEarly),
        (json!({ "iat": null }), Wrong::TooEarly),
        (json!({ "nonce": "m" }), Wrong::Nonce),
        (json!({ "nonce": "" }), Wrong::Nonce),
        (json!({ "nonce": null }), Wrong::Nonce),
        (json!({ "sub": null }), Wrong::Subject),
        (json!({ "sub": "" }), Wrong::Subject),
        (json!({ "sub": "a\nb" }), Wrong::Subject),
        (json!({ "sub": "a".repeat(256) }), Wrong::Subject),
        (json!({ "events": {} }), Wrong::Sort),
        (json!({ "exp": "tomorrow" }), Wrong::Malformed),
        (json!({ "aud": { "a": 1 } }), Wrong::Malformed),
        (json!({ "sub": 1 }), Wrong::Malformed),
    ];
    for (change, wrong) in table {
        let token = signer.sign(&header("ES256", "ec"), &claims(change.clone()));
        assert_eq!(login(&keys, &token), Err(wrong), "{change}");
    }
    let twice = claims(json!({})).replacen('{', "{\"aud\":\"other\",", 1);
    let token = signer.sign(&header("ES256", "ec"), &twice);
    assert_eq!(login(&keys, &token), Err(Wrong::Malformed));
}

#[test]
fn hostile_heads_and_signatures_are_refused() {
    let (signer, other) = (Signer::new(), Signer::new());
    let keys = signer.keys();
    let good = signer.sign(&header("ES256", "ec"), &claims(json!({})));
    let mine = other.set()["keys"][0].clone();
    let heads = [
        (header("none", "ec"), Wrong::Algorithm),
        (header("NONE", "ec"), Wrong::Algorithm),
        (header("HS256", "ec"), Wrong::Algorithm),
        (header("HS256", "oct"), Wrong::Algorithm),
        (header("RS512", "ec"), Wrong::Algorithm),
        (header("es256", "ec"), Wrong::Algorithm),
        (header("", "ec"), Wrong::Algorithm),
        // The algorithm of another sort of key than the one that is named.
        (header("RS256", "ec"), Wrong::Algorithm),
        (header("EdDSA", "ec"), Wrong::Algorithm),
        (header("ES256", "ed"), Wrong::Algorithm),
        (header("ES256", "oct"), Wrong::UnknownKey),
        (header("RS256", "enc"), Wrong::UnknownKey),
        (header("ES256", "new"), Wrong::UnknownKey),
        (
            json!({ "alg": "ES256", "kid": "ec", "crit": ["b64"], "b64": false }),
            Wrong::Malformed,
        ),
        (json!({ "kid": "ec" }), Wrong::Malformed),
        (json!({ "alg": 1 }), Wrong::Malformed),
        (json!([]), Wrong::Malformed),
        (
            json!({ "alg": "ES256", "kid": "ec", "typ": "logout+jwt" }),
            Wrong::Sort,
        ),
        (
            json!({ "alg": "ES256", "kid": "ec", "typ": "at+jwt" }),
            Wrong::Sort,
        ),
    ];
    for (head, wrong) in heads {
        let token = signer.sign(&head, &claims(json!({})));
        assert_eq!(login(&keys, &token), Err(wrong), "{head}");
    }
    // A key that it brings along is not used.
    for head in [
        json!({ "alg": "ES256", "kid": "ec", "jwk": mine }),
        json!({ "alg": "ES256", "jwk": mine, "jku": "https://evil.example/keys" }),
    ] {
        let token = other.sign(&head, &claims(json!({})));
        assert_eq!(login(&keys, &token), Err(Wrong::Signature), "{head}");
    }
    let parts: Vec<&str> = good.split('.').collect();
    let rest = format!("{}.{}", parts[0], parts[1]);
    let swapped = B64.encode(claims(json!({ "sub": "2" })));
    for (text, wrong) in [
        (format!("{rest}."), Wrong::Signature),
        (rest.clone(), Wrong::Malformed),
        (
            format!("{}.{swapped}.{}", parts[0], parts[2]),
            Wrong::Signature,
        ),
        (format!("{good}."), Wrong::Malformed),
        (format!("{good}.{}", parts[2]), Wrong::Malformed),
        (format!("{good}="), Wrong::Malformed),
        (format!(" {good}"), Wrong::Malformed),
        (good.replacen('.', "..", 1), Wrong::Malformed),
        (format!("{rest}.{}", &parts[2][..80]), Wrong::Signature),
        (format!("{rest}.{}", "A".repeat(86)), Wrong::Signature),
        (String::new(), Wrong::Malformed),
        ("..".into(), Wrong::Malformed),
        (format!("{rest}.{}", "A".repeat(20_000)), Wrong::Malformed),
    ] {
        assert_eq!(
            login(&keys, &text),
            Err(wrong),
            "{}",
            &text[..text.len().min(200)]
        );
    }
    // Cut off anywhere, it is never good.
    for end in 0..good.len() {
        assert!(login(&keys, &good[..end]).is_err(), "{end}");
    }
}

#[test]
fn tokens_of_programs_and_of_logouts_are_told_apart() {
    let signer = Signer::new();
    let sign = |typ: &str, change: Value| {
        let head = json!({ "alg": "EdDSA", "kid": "ed", "typ": typ });
        signer.sign(&head, &claims(change))
    };
    let machine =
        |text: &str| parse(text)?.for_machine(ISSUER, &["https://dv.example".to_owned()], NOW);
    let aud = "https://dv.example";
    assert_eq!(
        machine(&sign("at+jwt", json!({ "aud": aud, "nonce": null }))),
        Ok(())
    );
    assert_eq!(
        machine(&sign(
            "application/at+jwt",
            json!({ "aud": aud, "nonce": null })
        )),
        Ok(())
    );
    for (typ, change, wrong) in [
        ("at+jwt", json!({ "nonce": null }), Wrong::Audience),
        ("JWT", json!({ "aud": aud }), Wrong::Sort),
        (
            "logout+jwt",
            json!({ "aud": aud, "nonce": null }),
            Wrong::Sort,
        ),
        (
            "at+jwt",
            json!({ "aud": aud, "nonce": null, "exp": null }),
            Wrong::Expired,
        ),
        (
            "at+jwt",
            json!({ "aud": aud, "nonce": null, "exp": NOW - 61 }),
            Wrong::Expired,
        ),
        (
            "at+jwt",
            json!({ "aud": aud, "nonce": null, "sub": null }),
            Wrong::Subject,
        ),
    ] {
        assert_eq!(
            machine(&sign(typ, change.clone())),
            Err(wrong),
            "{typ} {change}"
        );
    }
    let logout = |text: &str| parse(text)?.for_logout(ISSUER, CLIENT, NOW);
    let event = json!({ (super::LOGOUT_EVENT): {} });
    let good = json!({ "nonce": null, "events": event, "jti": "j" });
    assert_eq!(logout(&sign("logout+jwt", good.clone())), Ok(()));
    let with = |name: &str, value: Value| {
        let mut change = good.clone();
        change[name] = value;
        change
    };
    for (change, wrong) in [
        (with("nonce", json!("n")), Wrong::Sort),
        (with("events", json!({})), Wrong::Sort),
        (
            with("events", json!({ (super::LOGOUT_EVENT): 1 })),
            Wrong::Sort,
        ),
        (with("jti", Value::Null), Wrong::Malformed),
        (with("iat", Value::Null), Wrong::TooEarly),
        (with("exp", json!(NOW - 61)), Wrong::Expired),
        (with("sub", Value::Null), Wrong::Subject),
        (with("aud", json!("other")), Wrong::Audience),
        (with("iss", json!("https://evil.example")), Wrong::Issuer),
    ] {
        assert_eq!(
            logout(&sign("logout+jwt", change.clone())),
            Err(wrong),
            "{change}"
        );
    }
    let mut old = with("exp", Value::Null);
    old["iat"] = json!(NOW - 301);
    assert_eq!(logout(&sign("logout+jwt", old)), Err(Wrong::Expired));
    // An ID token is no logout token.
    assert_eq!(logout(&sign("JWT", json!({}))), Err(Wrong::Sort));
}

/// RFC 7515, appendix A.2: an RS256 signature made elsewhere.
#[test]
fn rs256_of_the_standard_is_checked() {
    let n = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    let keys = Keys::read(&json!({ "keys": [{ "kty": "RSA", "n": n, "e": "AQAB" }] }));
    let signed = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    assert_eq!(keys.check(&parse(signed).unwrap()), Ok(()));
    let broken = signed.replace("cC4h", "cC4i");
    assert_eq!(keys.check(&parse(&broken).unwrap()), Err(Wrong::Signature));
}

proptest! {
    #[test]
    fn whatever_comes_is_an_answer(text in "\\PC{0,300}", bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let signer = Keys::read(&json!({ "keys": [{ "kty": "RSA", "n": "AQAB", "e": "AQAB" }, { "kty": text.clone() }, 1, null] }));
        prop_assert!(parse(&text).is_err());
        let head = B64.encode(r#"{"alg":"RS256"}"#);
        let framed = format!("{head}.{}.{}", B64.encode(&bytes), B64.encode(&text));
        if let Ok(token) = parse(&framed) {
            prop_assert!(signer.check(&token).is_err());
        }
        let value = Value::String(text.clone());
        prop_assert_eq!(Keys::read(&value).len(), 0);
        let framed = format!("{}.{head}.{}", B64.encode(&bytes), B64.encode(&text));
        prop_assert!(parse(&framed).is_err());
    }

    #[test]
    fn one_changed_byte_is_never_good(at in 0usize..10_000, to in any::<u8>()) {
        let signer = Signer::new();
        let mut bytes = signer.sign(&header("EdDSA", "ed"), &claims(json!({}))).into_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != to && to.is_ascii());
        bytes[at] = to;
        let text = String::from_utf8(bytes).unwrap();
        prop_assert!(login(&signer.keys(), &text).is_err());
    }
}

/// A provider that shows another certificate than is pinned is asked nothing, however well that is signed.
#[tokio::test]
async fn a_provider_is_held_to_its_pin() {
    use super::client::Provider;
    use sha2::{Digest, Sha256};
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".into()]).unwrap();
    let der = made.cert.der().to_vec();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let crypto = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!(
        "https://127.0.0.1:{}",
        listener.local_addr().unwrap().port()
    );
    let said = json!({ "issuer": issuer, "authorization_endpoint": issuer, "token_endpoint": issuer, "jwks_uri": issuer }).to_string();
    let mut serving = tokio::task::JoinSet::new();
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = tls.accept(stream).await else { continue };
            let mut asked = [0; 4096];
            _ = stream.read(&mut asked).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{said}", said.len());
            _ = stream.write_all(head.as_bytes()).await;
            _ = stream.shutdown().await;
        }
    });
    let cx = super::super::tests::start().await;
    let spec = json!({ "issuer": issuer, "client_id": "dv", "ca": made.cert.pem() });
    let spec = serde_json::from_value(spec).unwrap();
    // Each with a connection of its own.
    let provider = || Provider::new(&cx, "corp", &spec).unwrap();
    assert_eq!(provider().discover().await.unwrap().issuer, issuer);
    let hash = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    let pin = json!({ "peer": "127.0.0.1", "type": "certificate", "primary": hash(b"another") });
    super::super::tests::create(&cx, "pin", "provider", pin)
        .await
        .unwrap();
    let error = provider()
        .discover()
        .await
        .map(|facts| facts.issuer)
        .unwrap_err();
    let told = format!("{error:?}");
    assert!(told.contains("pin `provider` does not expect"), "{told}");
    let right = json!({ "primary": hash(&der) });
    super::super::tests::set(&cx, "pin", "provider", right)
        .await
        .unwrap();
    provider().discover().await.unwrap();
}
