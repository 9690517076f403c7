//! Follows a CA that took the place of the one that is pinned: when the pinned one has signed it, it is pinned instead, and
//! people are told.

use super::tls::{SeenCa, fingerprint, is_ca, pem};
use super::{Login, Logins};
use crate::output::Screen;
use nix::fcntl::{Flock, FlockArg};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::certificate::X509Certificate;

fn parse(der: &[u8]) -> Option<X509Certificate<'_>> {
    x509_parser::parse_x509_certificate(der)
        .ok()
        .map(|(_, parsed)| parsed)
}

/// The CA among what is shown that is not pinned and that a pinned one vouches for. The chain itself was verified before.
pub(super) fn find(pinned: &str, shown: &[CertificateDer<'_>]) -> Option<SeenCa> {
    let pinned: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(pinned.as_bytes())
        .flatten()
        .collect();
    let root = shown.iter().rev().find(|der| is_ca(der))?;
    if pinned.contains(root) {
        return None;
    }
    let new = parse(root)?;
    let vouches = |cross: &X509Certificate<'_>| {
        let same = cross.subject().as_raw() == new.subject().as_raw()
            && cross.public_key().raw == new.public_key().raw;
        // One that speaks for some names only is another region's, and takes nobody's place.
        let whole = cross.is_ca() && matches!(cross.name_constraints(), Ok(None));
        let signed = |by: &X509Certificate<'_>| {
            by.subject().as_raw() == cross.issuer().as_raw()
                && cross.verify_signature(Some(by.public_key())).is_ok()
        };
        same && whole
            && cross.validity().is_valid()
            && pinned
                .iter()
                .filter_map(|der| parse(der))
                .any(|by| signed(&by))
    };
    let vouched = shown
        .iter()
        .filter_map(|der| parse(der))
        .any(|cross| vouches(&cross));
    (vouched && new.verify_signature(None).is_ok()).then(|| SeenCa {
        pem: pem(root),
        fingerprint: fingerprint(root),
    })
}

/// Pins the new one in the saved login. A failure costs nothing: the next command tries again.
pub(super) fn follow(login: &Login, new: &SeenCa) {
    let logins = Logins::of_user();
    let Some(lock) = logins.lock_file(&login.name).ok() else {
        return;
    };
    // Another dvctl that changes the login just now will have seen the same.
    let Ok(_lock) = Flock::lock(lock, FlockArg::LockExclusiveNonblock) else {
        return;
    };
    let Ok(mut saved) = logins.get(&login.name) else {
        return;
    };
    if saved.ca != login.ca || saved.url != login.url {
        return;
    }
    saved.ca.clone_from(&new.pem);
    if logins.keep(&saved).is_err() {
        return;
    }
    let screen = Screen::look(None);
    screen.say(&format!(
        "The CA of {} was replaced. The one that was pinned vouches for the new one, which is pinned now:\n  SHA-256 {}",
        login.url, new.fingerprint
    ));
    if !saved.certificate.is_empty() {
        screen.say("The certificate of this login was signed by the one before: log in again before that is retired (`dvctl ca show internal`).");
    }
}
