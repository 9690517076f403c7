use super::data::Data;
use super::*;
use ciborium::Value as Cbor;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CustomExtension, DnType, IsCa, Issuer, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::Value;

const CHALLENGE: &[u8] = &[9; 32];
const MAKE: [u8; 16] = *b"a make of ours..";
/// Present and verified.
const HERE: u8 = 0b101;

fn party() -> Party {
    Party {
        id: "panel.example".into(),
        origins: vec![
            "https://panel.example".into(),
            "https://panel.example:8443".into(),
        ],
        name: "DebVisor".into(),
    }
}

/// An authenticator in memory.
struct Token {
    keys: EcdsaKeyPair,
    pkcs8: Vec<u8>,
}

fn cbor(value: &Cbor) -> Vec<u8> {
    let mut out = Vec::new();
    ciborium::ser::into_writer(value, &mut out).unwrap();
    out
}

fn pairs(all: &[(i64, Cbor)]) -> Cbor {
    Cbor::Map(
        all.iter()
            .map(|(k, v)| (Cbor::Integer((*k).into()), v.clone()))
            .collect(),
    )
}

fn fields(all: &[(&str, Cbor)]) -> Cbor {
    Cbor::Map(
        all.iter()
            .map(|(k, v)| (Cbor::Text((*k).into()), v.clone()))
            .collect(),
    )
}

/// What the browser saw.
fn client(what: &str, challenge: &[u8], origin: &str) -> Vec<u8> {
    let client = json!({ "type": what, "challenge": written(challenge), "origin": origin, "crossOrigin": false });
    client.to_string().into_bytes()
}

impl Token {
    fn new() -> Token {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pkcs8 = pkcs8.as_ref().to_vec();
        let keys =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8, &random).unwrap();
        Token { keys, pkcs8 }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.keys
            .sign(&SystemRandom::new(), message)
            .unwrap()
            .as_ref()
            .to_vec()
    }

    fn cose(&self) -> Vec<u8> {
        let point = self.keys.public_key().as_ref();
        cbor(&pairs(&[
            (1, 2.into()),
            (3, (-7).into()),
            (-1, 1.into()),
            (-2, Cbor::Bytes(point[1..33].to_vec())),
            (-3, Cbor::Bytes(point[33..].to_vec())),
        ]))
    }

    fn made(&self, party: &str, flags: u8, counter: u32) -> Vec<u8> {
        let mut auth = Sha256::digest(party).to_vec();
        auth.push(flags | 1 << 6);
        auth.extend(counter.to_be_bytes());
        auth.extend(MAKE);
        auth.extend([0, 4, 1, 2, 3, 4]);
        auth.extend(self.cose());
        auth
    }

    fn answer(&self, auth: &[u8], client: &[u8], form: &str, statement: Cbor) -> Value {
        let object = cbor(&fields(&[
            ("fmt", Cbor::Text(form.into())),
            ("attStmt", statement),
            ("authData", Cbor::Bytes(auth.to_vec())),
        ]));
        json!({ "id": written(&[1, 2, 3, 4]), "type": "public-key", "response": {
            "clientDataJSON": written(client), "attestationObject": written(&object), "transports": ["usb", "x y"],
        } })
    }

    /// An answer to a plain demand for a new key.
    fn plain(&self) -> Value {
        let auth = self.made("panel.example", HERE, 7);
        let client = client("webauthn.create", CHALLENGE, "https://panel.example:8443");
        self.answer(&auth, &client, "none", fields(&[]))
    }

    fn proof(&self, flags: u8, counter: u32, origin: &str) -> Value {
        let mut auth = Sha256::digest("panel.example").to_vec();
        auth.push(flags);
        auth.extend(counter.to_be_bytes());
        let client = client("webauthn.get", CHALLENGE, origin);
        let signed = self.sign(&[auth.as_slice(), &Sha256::digest(&client)].concat());
        json!({ "id": written(&[1, 2, 3, 4]), "type": "public-key", "response": {
            "clientDataJSON": written(&client), "authenticatorData": written(&auth), "signature": written(&signed),
        } })
    }
}

fn lenient() -> Demand<'static> {
    Demand {
        policy: Policy::None,
        roots: &[],
        now: Timestamp::from_millis(1_800_000_000_000),
    }
}

#[test]
fn a_key_is_made_kept_and_proved() {
    let token = Token::new();
    let (kept, counter) = party().made(&token.plain(), CHALLENGE, &lenient()).unwrap();
    assert_eq!((counter, kept.make, kept.may_be_copied), (7, MAKE, false));
    assert_eq!(kept.transports, ["usb"]);
    let kept: Kept = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
    let proof = token.proof(HERE, 8, "https://panel.example");
    assert_eq!(challenge(&proof).as_deref(), Some(CHALLENGE));
    assert_eq!(party().proved(&proof, CHALLENGE, &kept), Ok(8));
    assert_eq!(Token::new().plain()["id"], proof["id"]);
    let other = Token::new().proof(HERE, 8, "https://panel.example");
    assert_eq!(
        party().proved(&other, CHALLENGE, &kept),
        Err(Wrong("SIGNATURE"))
    );
}

#[test]
fn what_is_not_for_us_now_and_from_a_verified_person_is_refused() {
    let token = Token::new();
    let (kept, _) = party().made(&token.plain(), CHALLENGE, &lenient()).unwrap();
    let here = "https://panel.example";
    for (flags, origin, challenge, why) in [
        (HERE, "https://panel.example:444", CHALLENGE, "ORIGIN"),
        (HERE, "http://panel.example", CHALLENGE, "ORIGIN"),
        (HERE, "https://evil.panel.example", CHALLENGE, "ORIGIN"),
        (HERE, here, &[8; 32][..], "CHALLENGE"),
        (0b100, here, CHALLENGE, "NOBODY_PRESENT"),
        (0b001, here, CHALLENGE, "NOT_VERIFIED"),
        (HERE | 1 << 4, here, CHALLENGE, "AUTHENTICATOR_DATA"),
        (HERE | 1 << 3, here, CHALLENGE, "AUTHENTICATOR_DATA"),
    ] {
        let proof = token.proof(flags, 8, origin);
        assert_eq!(
            party().proved(&proof, challenge, &kept),
            Err(Wrong(why)),
            "{flags} {origin}"
        );
    }
    let elsewhere = Party {
        id: "other.example".into(),
        ..party()
    };
    let proof = token.proof(HERE, 8, here);
    assert_eq!(
        elsewhere.proved(&proof, CHALLENGE, &kept),
        Err(Wrong("PARTY"))
    );
    // A proof is no new key, nor the other way round.
    let auth = token.made("panel.example", HERE, 7);
    let crossed = token.answer(
        &auth,
        &client("webauthn.get", CHALLENGE, here),
        "none",
        fields(&[]),
    );
    assert_eq!(
        party().made(&crossed, CHALLENGE, &lenient()),
        Err(Wrong("PURPOSE"))
    );
    let mut framed = token.plain();
    let shown = json!({ "type": "webauthn.create", "challenge": written(CHALLENGE), "origin": here, "crossOrigin": true });
    framed["response"]["clientDataJSON"] = written(shown.to_string().as_bytes()).into();
    assert_eq!(
        party().made(&framed, CHALLENGE, &lenient()),
        Err(Wrong("ORIGIN"))
    );
    let mut renamed = token.plain();
    renamed["id"] = written(&[1, 2, 3, 5]).into();
    assert_eq!(
        party().made(&renamed, CHALLENGE, &lenient()),
        Err(Wrong("ANSWER"))
    );
}

#[test]
fn a_counter_only_rises() {
    for (before, now, good) in [
        (0, 0, true),
        (0, 1, true),
        (5, 6, true),
        (5, 5, false),
        (5, 4, false),
        (5, 0, false),
    ] {
        assert_eq!(goes_on(before, now), good, "{before} {now}");
    }
}

/// A maker with a root, and a certificate for a make.
fn maker(make: [u8; 16], unit: &str) -> (CertificateDer<'static>, CertificateDer<'static>, Token) {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::new(Vec::<String>::new()).unwrap();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, "A maker");
    let cert = root.self_signed(&root_key).unwrap();
    let token = Token::new();
    let leaf_key = KeyPair::try_from(token.pkcs8.as_slice()).unwrap();
    let mut leaf = CertificateParams::new(Vec::<String>::new()).unwrap();
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.distinguished_name.push(DnType::CommonName, "A batch");
    leaf.distinguished_name
        .push(DnType::OrganizationalUnitName, unit);
    let extension = [&[4, 16], make.as_slice()].concat();
    let oid = [1, 3, 6, 1, 4, 1, 45724, 1, 1, 4];
    leaf.custom_extensions
        .push(CustomExtension::from_oid_content(&oid, extension));
    let leaf = leaf
        .signed_by(&leaf_key, &Issuer::new(root, root_key))
        .unwrap();
    (cert.der().clone(), leaf.der().clone(), token)
}

#[test]
fn a_maker_that_is_trusted_vouches_for_a_key() {
    let unit = "Authenticator Attestation";
    let (root, leaf, batch) = maker(MAKE, unit);
    let (stranger, ..) = maker(MAKE, unit);
    let token = Token::new();
    let auth = token.made("panel.example", HERE, 1);
    let client = client("webauthn.create", CHALLENGE, "https://panel.example");
    let message = [auth.as_slice(), &Sha256::digest(&client)].concat();
    let packed = |signed: Vec<u8>, leaf: &CertificateDer<'_>| {
        let chain = Cbor::Array(vec![Cbor::Bytes(leaf.to_vec())]);
        let statement = fields(&[
            ("alg", (-7).into()),
            ("sig", Cbor::Bytes(signed)),
            ("x5c", chain),
        ]);
        token.answer(&auth, &client, "packed", statement)
    };
    let ask = |answer: &Value, root: &CertificateDer<'_>, now: i64| {
        let roots = [root.clone()];
        let demand = Demand {
            policy: Policy::Direct,
            roots: &roots,
            now: Timestamp::from_millis(now),
        };
        party().made(answer, CHALLENGE, &demand).map(drop)
    };
    let now = 1_800_000_000_000;
    let good = packed(batch.sign(&message), &leaf);
    assert_eq!(ask(&good, &root, now), Ok(()));
    assert_eq!(ask(&good, &stranger, now), Err(Wrong("MAKER_NOT_TRUSTED")));
    let long_gone = 253_402_300_799_000;
    assert_eq!(
        ask(&good, &root, long_gone),
        Err(Wrong("MAKER_NOT_TRUSTED"))
    );
    let forged = packed(token.sign(&message), &leaf);
    assert_eq!(
        ask(&forged, &root, now),
        Err(Wrong("ATTESTATION_SIGNATURE"))
    );
    for (make, unit) in [(*b"another make....", unit), (MAKE, "Something else")] {
        let (root, leaf, batch) = maker(make, unit);
        let answer = packed(batch.sign(&message), &leaf);
        assert_eq!(ask(&answer, &root, now), Err(Wrong("ATTESTATION")));
    }
    // Vouching for itself, or for nothing.
    let itself = fields(&[
        ("alg", (-7).into()),
        ("sig", Cbor::Bytes(token.sign(&message))),
    ]);
    let itself = token.answer(&auth, &client, "packed", itself);
    assert_eq!(ask(&itself, &root, now), Err(Wrong("NO_MAKER")));
    assert_eq!(ask(&token.plain(), &root, now), Err(Wrong("ATTESTATION")));
}

#[test]
fn keys_of_each_algorithm_are_read() {
    let ed = pairs(&[
        (1, 1.into()),
        (3, (-8).into()),
        (-1, 6.into()),
        (-2, Cbor::Bytes(vec![1; 32])),
    ]);
    assert_eq!(Key::read(&ed).unwrap().algorithm(), -8);
    let rsa = |long: usize| {
        pairs(&[
            (1, 3.into()),
            (3, (-257).into()),
            (-1, Cbor::Bytes(vec![0xff; long])),
            (-2, Cbor::Bytes(vec![1, 0, 1])),
        ])
    };
    assert_eq!(Key::read(&rsa(256)).unwrap().algorithm(), -257);
    assert_eq!(Key::read(&rsa(128)), Err(Wrong("KEY")));
    let none = pairs(&[(1, 2.into()), (3, (-47).into())]);
    assert_eq!(Key::read(&none), Err(Wrong("ALGORITHM")));
    // A name that comes twice means two things.
    let twice = pairs(&[
        (1, 1.into()),
        (1, 1.into()),
        (3, (-8).into()),
        (-1, 6.into()),
        (-2, Cbor::Bytes(vec![1; 32])),
    ]);
    assert_eq!(Key::read(&twice), Err(Wrong("KEY")));
}

proptest! {
    #[test]
    fn whatever_comes_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300), flags in any::<u8>()) {
        let _ = Data::read(&bytes);
        let _ = cbor::whole(&bytes);
        // With a good beginning, so that it gets further.
        let auth = [Sha256::digest("panel.example").as_slice(), &[flags], &bytes].concat();
        let _ = Data::read(&auth);
        let token = json!({ "id": written(&bytes), "response": {
            "clientDataJSON": written(&client("webauthn.create", CHALLENGE, "https://panel.example")),
            "attestationObject": written(&bytes),
        } });
        prop_assert!(party().made(&token, CHALLENGE, &lenient()).is_err());
    }

    #[test]
    fn a_proof_with_one_bit_changed_proves_nothing(at in any::<prop::sample::Index>(), bit in 0u8..8, part in 0usize..3) {
        let token = Token::new();
        let (kept, _) = party().made(&token.plain(), CHALLENGE, &lenient()).unwrap();
        let mut proof = token.proof(HERE, 8, "https://panel.example");
        let part = &mut proof["response"][["clientDataJSON", "authenticatorData", "signature"][part]];
        let mut bytes = URL_SAFE_NO_PAD.decode(part.as_str().unwrap()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        *part = written(&bytes).into();
        prop_assert!(party().proved(&proof, CHALLENGE, &kept).is_err());
    }

    #[test]
    fn deep_and_endless_cbor_ends(depth in 1usize..5000, first in prop::sample::select(vec![0x81u8, 0xa1, 0x9f, 0xbf, 0xc1, 0x5f])) {
        prop_assert!(cbor::whole(&vec![first; depth]).is_err());
    }
}
