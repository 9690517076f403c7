//! Which certificate the panel and the API show: the one that the setting `tls-certificate` names.
//!
//! **Invariant.** What is shown stays when there is nothing better: a certificate that is missing, broken or not issued
//! yet never brings the internal one back in its place. Listeners follow without dropping a connection.

use super::{Certificate, material};
use crate::ca::kind;
use model::{Error, Result};
use runtime::{Cx, setting};
use std::sync::Arc;

/// The name of the certificate that the panel is to show.
pub(super) fn named(cx: &Cx) -> Option<String> {
    let name = setting::TLS_CERTIFICATE.text(cx);
    (!name.is_empty()).then_some(name)
}

/// Shows what is to be shown. The api calls it before it listens; afterwards the controller does.
///
/// # Errors
/// When the certificate cannot be shown; then what was shown before stays.
pub fn apply(cx: &Cx) -> Result<()> {
    let ca = kind::of(cx)?;
    let Some(name) = named(cx) else {
        if ca.panel().is_some() {
            tracing::info!("the panel shows the internal certificate again");
            ca.show(None);
        }
        return Ok(());
    };
    let kept = |why: String| {
        Error::refused(format!(
            "the setting tls-certificate names `{name}`, which cannot be shown: {why}"
        ))
        .hint("what was shown before is shown on")
    };
    let certificate = cx
        .get::<Certificate>(None, &name)
        .ok_or_else(|| kept("there is no such certificate".into()))?;
    let (Some(chain), Some(key)) = (&certificate.spec.chain, &certificate.spec.private_key) else {
        return Err(kept("it was not issued yet".into()));
    };
    let identity = material::identity(chain, key).map_err(|e| kept(e.to_string()))?;
    let same = ca
        .panel()
        .is_some_and(|shown| shown.chain == identity.chain && shown.key == identity.key);
    if !same {
        tracing::info!(certificate = name, not_after = %identity.not_after, "the panel shows another certificate");
        ca.show(Some(Arc::new(identity)));
    }
    Ok(())
}

/// SHA-256 of the certificate that is shown.
pub(super) fn shown(cx: &Cx) -> Option<String> {
    let shown = kind::of(cx).ok()?.panel()?;
    shown.chain.first().map(|leaf| crate::ca::fingerprint(leaf))
}
