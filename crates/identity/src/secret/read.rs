//! Reading a value, for our own use: each reading stands in the audit trail.

use super::Secret;
use crate::secret_backend;
use model::{Error, ObjectRef, Result};
use runtime::audit::{Note, SECRET_READ, note};
use runtime::{Cx, Obj};

/// The value that is valid now, for `by`: from here, or from its key server. It is on record before it is given out.
///
/// # Errors
/// When there is none, its key server does not answer, or the audit trail cannot be written.
pub async fn read(cx: &Cx, secret: &ObjectRef, by: &ObjectRef) -> Result<String> {
    let object = object(cx, secret)?;
    let reading = Note::new(&SECRET_READ, by.to_string()).about(secret);
    note(cx, reading.with("version", object.spec.version)).await?;
    value(cx, &object, None).await
}

pub(super) fn object(cx: &Cx, secret: &ObjectRef) -> Result<std::sync::Arc<Obj<Secret>>> {
    cx.get::<Secret>(secret.project.as_deref(), &secret.name)
        .ok_or_else(|| Error::not_found(format!("there is no {secret}")))
}

/// The value of one version, the valid one when none is named.
pub(super) async fn value(cx: &Cx, object: &Obj<Secret>, version: Option<u32>) -> Result<String> {
    let spec = &object.spec;
    let (Some(backend), Some(path)) = (&spec.backend, &spec.path) else {
        return stored(object, version.unwrap_or(spec.version));
    };
    if version.is_some() {
        return Err(Error::refused(format!(
            "secret `{}` has no versions here: backend `{backend}` keeps it",
            object.metadata.name
        )));
    }
    secret_backend::fetch(cx, backend, path, &spec.field).await
}

/// The value of a version that is kept here, for `by`. It is on record before it is given out.
pub(crate) async fn stored_for(
    cx: &Cx,
    object: &Obj<Secret>,
    version: u32,
    by: &ObjectRef,
) -> Result<String> {
    let value = stored(object, version)?;
    let secret = ObjectRef {
        kind: super::KIND.name.into(),
        project: object.metadata.project.as_ref().map(ToString::to_string),
        name: object.metadata.name.to_string(),
    };
    let reading = Note::new(&SECRET_READ, by.to_string()).about(&secret);
    note(cx, reading.with("version", version)).await?;
    Ok(value)
}

/// The value of a version that is kept here.
pub(super) fn stored(object: &Obj<Secret>, version: u32) -> Result<String> {
    let found = object.spec.versions.get(&version.to_string());
    let value = found.and_then(|version| version.value.clone());
    value.ok_or_else(|| {
        let name = &object.metadata.name;
        Error::not_found(format!("secret `{name}` has no version {version} here"))
            .hint(format!("see `dvctl secret versions {name}`"))
    })
}
