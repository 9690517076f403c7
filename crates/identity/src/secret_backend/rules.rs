//! Decides, without asking anybody, whether a key server may be declared so.

use super::{AuthMethod, Backend, BackendSpec};
use crate::secret::{Secret, is_path};
use model::{Error, Result, Violation};
use runtime::Draft;
use std::net::IpAddr;

pub(super) fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let spec = draft.spec::<Backend>()?;
    let mut wrong = check(&spec);
    if let Some((project, name)) = spec.auth.secret.split_once('/')
        && let Some(secret) = draft.cx().get::<Secret>(Some(project), name)
        && secret.spec.backend.is_some()
    {
        wrong.push(Violation::new(
            "spec.auth.secret",
            "is kept by a key server itself; name one that DebVisor keeps",
        ));
    }
    if !wrong.is_empty() {
        return Err(Error::invalid(wrong));
    }
    may_send(draft, &spec)
}

/// What proves us is sent to the address that is declared here: who says where may see the value.
fn may_send(draft: &Draft<'_>, spec: &BackendSpec) -> Result<()> {
    let old = draft.old_spec::<Backend>()?;
    let same = |old: &BackendSpec| {
        old.auth == spec.auth && old.address == spec.address && old.ca == spec.ca
    };
    if old.as_ref().is_some_and(same) {
        return Ok(());
    }
    let sent = [
        Some(&spec.auth.secret),
        old.as_ref().map(|old| &old.auth.secret),
    ];
    sent.into_iter()
        .flatten()
        .try_for_each(|secret| may_say_where(draft, secret))
}

/// Whether somebody may say where the value of a secret is sent: he could have it sent to himself.
pub(crate) fn may_say_where(draft: &Draft<'_>, secret: &str) -> Result<()> {
    let (project, name) = secret.split_once('/').unwrap_or(("", secret));
    let (cx, actor) = (draft.cx(), draft.actor());
    let gate = cx.gate();
    match gate.may(actor, None, "secret", "reveal", Some(project), Some(name)) {
        true => Ok(()),
        false => Err(Error::denied(format!(
            "`{}` may not say where secret `{secret}` is sent: he lacks secret.reveal on it",
            actor.name
        ))
        .hint("ask somebody who may see its value")),
    }
}

fn check(spec: &BackendSpec) -> Vec<Violation> {
    let mut wrong = Vec::new();
    if spec.address.starts_with("http://") && !is_here(&spec.address) {
        wrong.push(
            Violation::new("spec.address", "would send secrets in the clear")
                .hint("use `https`; name its certificate authority with `ca`"),
        );
    }
    if !spec.auth.secret.contains('/') {
        wrong.push(Violation::new(
            "spec.auth.secret",
            "names a secret with its project: `project/name`",
        ));
    }
    if spec.auth.method != AuthMethod::Token && spec.auth.name.is_none() {
        wrong.push(Violation::new(
            "spec.auth.name",
            "is required: the role id or the user name",
        ));
    }
    let mounts = [Some(&spec.mount), spec.auth.mount.as_ref()];
    let names = [spec.namespace.as_ref(), spec.auth.name.as_ref()];
    let fields = [
        "spec.mount",
        "spec.auth.mount",
        "spec.namespace",
        "spec.auth.name",
    ];
    for (field, text) in fields.into_iter().zip(mounts.into_iter().chain(names)) {
        if text.is_some_and(|text| !is_path(text)) {
            wrong.push(Violation::new(
                field,
                "may hold letters, digits, `_`, `-`, `.` and single `/` between them",
            ));
        }
    }
    wrong
}

/// Whether an address is this machine's own.
pub(crate) fn is_here(address: &str) -> bool {
    // As the client reads it, so that nothing before an `@` is taken for the host.
    let Ok(url) = reqwest::Url::parse(address) else {
        return false;
    };
    let named = !url.username().is_empty() || url.password().is_some();
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    url.scheme() == "http" && here && !named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_this_machine_alone() {
        for good in [
            "http://127.0.0.1:8200",
            "http://localhost:1",
            "http://[::1]:8200",
            "http://localhost/x",
        ] {
            assert!(is_here(good), "{good}");
        }
        for bad in [
            "http://10.0.0.1:8200",
            "http://localhost.example.org",
            "http://127.0.0.1.example.org:8200",
            "http://[2001:db8::1]:8200",
            "http://localhost:1@example.org",
            "http://127.0.0.1:1@10.0.0.1/",
            "http://localhost@10.0.0.1/",
        ] {
            assert!(!is_here(bad), "{bad}");
        }
    }
}
