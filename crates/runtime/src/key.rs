//! How objects and unique values become keys of the store.

use model::ObjectRef;
use store::Key;

/// Stands where a project would, for cluster-wide objects; no project can have this name.
pub(crate) const CLUSTER: &str = "-";

/// The kind whose objects are the projects that others lie in, where it is declared.
pub(crate) const PROJECT: &str = "project";

/// The kind whose objects are persons, where it is declared.
pub(crate) const PERSON: &str = "user";

/// Prefix of all objects.
pub(crate) const OBJECTS: &str = "o/";
/// Prefix of all unique values.
pub(crate) const UNIQUE: &str = "u/";

/// The key of an object.
pub fn object_key(kind: &str, project: Option<&str>, name: &str) -> Key {
    Key::from_parts(&["o", kind, project.unwrap_or(CLUSTER), name])
}

/// The key that makes a value unique in a space, such as `mac` or `ip/<network uid>`.
pub fn unique_key(space: &str, value: &str) -> Key {
    Key::from_parts(&["u", space, value])
}

/// Which object a key belongs to; `None` for keys that are no objects.
pub fn object_ref(key: &Key) -> Option<ObjectRef> {
    let mut parts = key.as_str().strip_prefix(OBJECTS)?.splitn(3, '/');
    let (kind, project, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some(ObjectRef {
        kind: kind.into(),
        project: (project != CLUSTER).then(|| project.into()),
        name: name.into(),
    })
}
