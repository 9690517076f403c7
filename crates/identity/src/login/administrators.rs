//! What logins ask of roles and grants, in one place.

use crate::role::{Mfa, SUPERADMIN};
use crate::{access, grant};
use model::{Error, Result, What};
use runtime::{Cx, Op};
use serde_json::json;

/// Whether there is an administrator of everything who can log in.
pub(crate) fn exist(cx: &Cx) -> bool {
    access::another_superadmin(cx, |_, _| false).is_err()
}

/// Refuses to take the last administrator away.
pub(crate) fn may_lose(cx: &Cx, user: &str) -> Result<()> {
    access::another_superadmin(cx, |_, other| other != user)
}

/// What the grant of the first administrator is called.
const FIRST: &str = "first-administrator";

/// Refuses to make a first administrator where the grant of an earlier one, who cannot log in, is in the way: before
/// anything is written.
pub(crate) fn may_make(cx: &Cx, user: &str) -> Result<()> {
    match cx.get::<grant::Grant>(None, FIRST) {
        Some(there) if there.spec.user.as_deref() != Some(user) => Err(Error::exists(format!(
            "the grant `{FIRST}` is there, for somebody else who cannot log in"
        ))
        .hint(format!("on the machine itself: dvctl grant delete {FIRST}"))),
        _ => Ok(()),
    }
}

/// Makes a user an administrator of everything.
pub(crate) async fn make(cx: &Cx, user: &str) -> Result<()> {
    let op = Op::Create {
        kind: grant::KIND.name.into(),
        project: None,
        body: json!({
            "metadata": { "name": FIRST },
            "spec": { "user": user, "role": SUPERADMIN },
        }),
    };
    match cx.submit(op, "first administrator").await {
        Ok(_) => Ok(()),
        // An earlier try was cut off after this, or named somebody who is gone.
        Err(Error {
            what: What::Exists, ..
        }) if exist(cx) => Ok(()),
        Err(error) => Err(error),
    }
}

/// What the roles of a user ask of his login.
pub(crate) fn mfa(cx: &Cx, user: &str) -> Mfa {
    access::of(cx).map_or(Mfa::Enrolled, |rules| rules.mfa(cx, user))
}
