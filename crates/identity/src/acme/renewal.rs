//! When a provider wants a certificate to be renewed (ACME renewal information, RFC 9773).

use super::{client, order};
use crate::certificate::CertificateSpec;
use crate::certificate::material::Facts;
use instant_acme::CertificateIdentifier;
use model::{Error, Result, Timestamp};
use runtime::Cx;
use rustls_pki_types::Der;
use std::time::Duration;
use x509_parser::extensions::ParsedExtension;

/// Longest address of an explanation that is kept.
const LONGEST: usize = 512;

/// What a provider suggests, and when it wants to be asked again.
pub(crate) struct Suggestion {
    /// When to renew; `None`: it says nothing of use.
    pub at: Option<Timestamp>,
    /// Where it explains that.
    pub explained: Option<String>,
    /// After how long it is asked again.
    pub again: Duration,
}

/// What the provider calls a certificate (RFC 9773, 4.1); `None` when it does not say whose key signed it.
pub(super) fn identifier(chain: &str) -> Option<CertificateIdentifier<'static>> {
    let der = crate::ca::der_of(chain).next()?;
    let (_, leaf) = x509_parser::parse_x509_certificate(&der).ok()?;
    let key = leaf
        .iter_extensions()
        .find_map(|e| match e.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref(),
            _ => None,
        })?;
    let (key, serial) = (Der::from_slice(key.0), Der::from_slice(leaf.raw_serial()));
    Some(CertificateIdentifier::new(key, serial).into_owned())
}

/// Asks the provider when to renew the present certificate.
pub(crate) async fn suggestion(
    cx: &Cx,
    spec: &CertificateSpec,
    facts: &Facts,
) -> Result<Suggestion> {
    let owner = order::account(cx, spec.account.as_deref().unwrap_or_default())?;
    let known = client::open(cx, &owner.spec).await?;
    let id = identifier(spec.chain.as_deref().unwrap_or_default())
        .ok_or_else(|| Error::refused("the certificate does not say whose key signed it"))?;
    let (told, again) = match known.renewal_info(&id).await {
        Ok(told) => told,
        // It does not speak of it at all.
        Err(instant_acme::Error::Unsupported(_)) => {
            return Ok(Suggestion {
                at: None,
                explained: None,
                again: Duration::MAX,
            });
        }
        Err(error) => return Err(client::said(&owner.spec)(error)),
    };
    let millis = |t: i64| t.saturating_mul(1000);
    let window = &told.suggested_window;
    let (from, to) = (
        millis(window.start.unix_timestamp()),
        millis(window.end.unix_timestamp()),
    );
    let explained = told.explanation_url.filter(|url| {
        url.starts_with("https://") && url.len() <= LONGEST && !url.contains(char::is_control)
    });
    Ok(Suggestion {
        at: moment(from, to, facts),
        explained,
        again,
    })
}

/// One moment in the window, always the same for one certificate, so that not all come at once. A window that makes no
/// sense, or begins after the end, is none.
fn moment(from: i64, to: i64, facts: &Facts) -> Option<Timestamp> {
    if to <= from || from > facts.not_after.millis() {
        return None;
    }
    let bytes = facts.fingerprint.bytes();
    let share = bytes.fold(0_i64, |n, b| (n * 31 + i64::from(b)) % 1000);
    Some(Timestamp::from_millis(from + (to - from) / 1000 * share))
}
