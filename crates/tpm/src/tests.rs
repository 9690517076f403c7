//! Against real TPMs in software.

use crate::credential::{Endorser, challenge};
use crate::public::Signer;
use crate::software::{Machine, Maker, is_there};
use crate::{Answered, Ask, Endorsement, Tpm, attest};
use proptest::prelude::*;
use ring::{digest, signature};

const SECRET: [u8; 32] = [0x5a; 32];
const REGISTERS: [u8; 3] = [0, 2, 7];

fn open(machine: &Machine) -> Tpm {
    Tpm::open(&machine.socket).unwrap()
}

/// The key of a certificate, found by its form: enough for what swtpm makes.
fn endorser(endorsement: &Endorsement) -> Endorser {
    let der = &endorsement.certificate;
    let find = |head: &[u8]| {
        der.windows(head.len())
            .position(|w| w == head)
            .map(|at| at + head.len())
    };
    // BIT STRING { SEQUENCE { INTEGER of 257 bytes, INTEGER 65537 } }
    if let Some(at) = find(&[0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00]) {
        return Endorser::Rsa2048 {
            modulus: der[at..at + 256].to_vec(),
            exponent: vec![1, 0, 1],
        };
    }
    // BIT STRING of 97 bytes.
    let at = find(&[0x03, 0x62, 0x00]).unwrap();
    Endorser::P384(der[at..at + 97].to_vec())
}

fn answered(tpm: &mut Tpm, ask: &Ask, by: &Endorsement, secret: &[u8]) -> crate::Result<Answered> {
    let voucher = Signer::read(&ask.voucher.public).unwrap();
    let challenge = challenge(&endorser(by), &voucher.name(), secret).unwrap();
    tpm.answer(ask, by, &challenge, &REGISTERS)
}

#[test]
fn a_tpm_answers_and_another_cannot() {
    if !is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let maker = Maker::new(dir.path());
    let (a, b) = (maker.machine("a"), maker.machine("b"));
    let (mut a, mut b) = (open(&a), open(&b));
    let endorsements = a.endorsements().unwrap();
    assert_eq!(endorsements.len(), 2, "an RSA and an elliptic one");
    assert!(a.chain().unwrap().is_empty());
    let ask = a.ask(None).unwrap();
    let voucher = Signer::read(&ask.voucher.public).unwrap();
    let key = Signer::read(&ask.key.public).unwrap();
    assert!(voucher.vouches() && !voucher.stands());
    assert!(key.stands() && !key.vouches());
    for by in &endorsements {
        let said = answered(&mut a, &ask, by, &SECRET).unwrap();
        let (quote, certified) = (&said.quote, &said.certified);
        attest::check_quote(&voucher, &quote.0, &quote.1, &SECRET, &said.registers).unwrap();
        attest::check_certified(&voucher, &certified.0, &certified.1, &SECRET, &key).unwrap();
        let wrong = |done: crate::Result<()>| done.unwrap_err().to_string();
        let other_nonce =
            attest::check_quote(&voucher, &quote.0, &quote.1, &[1; 32], &said.registers);
        assert!(wrong(other_nonce).contains("another nonce"));
        let mut changed = said.registers.clone();
        changed.insert(7, [9; 32]);
        let changed = attest::check_quote(&voucher, &quote.0, &quote.1, &SECRET, &changed);
        assert!(wrong(changed).contains("other values"));
        let mut fewer = said.registers.clone();
        fewer.remove(&7);
        let fewer = attest::check_quote(&voucher, &quote.0, &quote.1, &SECRET, &fewer);
        assert!(wrong(fewer).contains("other registers"));
        let mut cut = quote.0.clone();
        cut[20] ^= 1;
        let cut = attest::check_quote(&voucher, &cut, &quote.1, &SECRET, &said.registers);
        assert!(wrong(cut).contains("not signed"));
        let swapped = attest::check_certified(&voucher, &quote.0, &quote.1, &SECRET, &key);
        assert!(wrong(swapped).contains("another sort"));
        let other =
            attest::check_certified(&voucher, &certified.0, &certified.1, &SECRET, &voucher);
        assert!(wrong(other).contains("another key"));
        // One that is not restricted signs whatever it is given: also a made up quote.
        let loose = attest::check_quote(&key, &quote.0, &quote.1, &SECRET, &said.registers);
        assert!(wrong(loose).contains("only its TPM"));
    }
    // The challenge is for the TPM of `a`, while it holds this key: another TPM, or another key, learns nothing.
    assert!(answered(&mut b, &ask, &endorsements[0], &SECRET).is_err());
    let theirs = b.ask(None).unwrap();
    assert!(answered(&mut b, &theirs, &endorsements[0], &SECRET).is_err());
    let again = a.ask(Some(ask.key.clone())).unwrap();
    assert_eq!(again.key, ask.key);
    let name = voucher.name();
    let for_old = challenge(&endorser(&endorsements[0]), &name, &SECRET).unwrap();
    assert!(
        a.answer(&again, &endorsements[0], &for_old, &REGISTERS)
            .is_err()
    );
}

#[test]
fn a_key_signs_in_its_own_tpm_only_and_nothing_stays_loaded() {
    if !is_there() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let maker = Maker::new(dir.path());
    let (a, b) = (maker.machine("a"), maker.machine("b"));
    let (mut a, mut b) = (open(&a), open(&b));
    let ask = a.ask(None).unwrap();
    let key = Signer::read(&ask.key.public).unwrap();
    let text = b"what is signed";
    let hash = digest::digest(&digest::SHA256, text);
    let hash: [u8; 32] = hash.as_ref().try_into().unwrap();
    // More often than a TPM has places for keys.
    for _ in 0..8 {
        let signed = a.sign(&ask.key, &hash).unwrap();
        let public = signature::UnparsedPublicKey::new(
            &signature::ECDSA_P256_SHA256_FIXED,
            &key.point()[..],
        );
        public.verify(text, &signed).unwrap();
    }
    let refused = b.sign(&ask.key, &hash).unwrap_err();
    assert!(refused.to_string().contains("load a key"), "{refused}");
    // The voucher signs nothing that the TPM has not made.
    assert!(a.sign(&ask.voucher, &hash).is_err());
    assert_eq!(a.registers(&(0..24).collect::<Vec<_>>()).unwrap().len(), 24);
}

proptest! {
    /// Whatever comes is an answer, and never a panic.
    #[test]
    fn outside_bytes(area in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..120, at in 0usize..120, byte: u8) {
        let _ = Signer::read(&area);
        let mut good = crate::public::Template::Voucher.area();
        good.truncate(good.len() - 4);
        good.extend([0, 32]);
        good.extend([1; 32]);
        good.extend([0, 32]);
        good.extend([2; 32]);
        let signer = Signer::read(&good).unwrap();
        let empty = attest::Registers::new();
        prop_assert!(attest::check_quote(&signer, &area, &area, &[], &empty).is_err());
        prop_assert!(attest::check_certified(&signer, &area, &area, &[], &signer).is_err());
        let mut spoiled = good.clone();
        let place = at % spoiled.len();
        spoiled[place] = byte;
        spoiled.truncate(cut.min(spoiled.len()));
        let _ = Signer::read(&spoiled);
        prop_assert!(challenge(&Endorser::P256(area.clone()), &[], &SECRET).is_err());
        let rsa = Endorser::Rsa2048 { modulus: area, exponent: vec![3] };
        prop_assert!(challenge(&rsa, &[], &SECRET).is_err());
    }
}
