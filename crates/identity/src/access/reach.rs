//! How far a grant reaches.

use model::{Error, Result, Violation};
use runtime::{Cx, Key, object_key};

/// The place of a grant, from `/` down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// `/`
    Everything,
    /// `project/NAME`
    Project(Box<str>),
    /// `KIND/NAME` or `KIND/PROJECT/NAME`
    Object {
        /// Kind.
        kind: Box<str>,
        /// Project, for what lies in one.
        project: Option<Box<str>>,
        /// Name.
        name: Box<str>,
    },
}

impl Reach {
    /// Reads a scope.
    ///
    /// # Errors
    ///
    /// `Invalid` on the field `spec.scope`, saying which forms there are.
    pub fn parse(text: &str) -> Result<Reach> {
        let wrong = |why: String| {
            Error::invalid(vec![
                Violation::new("spec.scope", why)
                    .hint("`/`, `project/NAME`, `KIND/NAME` or `KIND/PROJECT/NAME`"),
            ])
        };
        if text == "/" {
            return Ok(Reach::Everything);
        }
        let words: Vec<&str> = text.split('/').collect();
        for word in &words {
            if model::Name::parse("scope", word).is_err() {
                return Err(wrong(format!(
                    "`{text}` is not a scope: `{word}` is not a name"
                )));
            }
        }
        match words.as_slice() {
            ["project", name] => Ok(Reach::Project((*name).into())),
            [kind, name] => Ok(Reach::Object {
                kind: (*kind).into(),
                project: None,
                name: (*name).into(),
            }),
            [kind, project, name] => Ok(Reach::Object {
                kind: (*kind).into(),
                project: Some((*project).into()),
                name: (*name).into(),
            }),
            _ => Err(wrong(format!("`{text}` is not a scope"))),
        }
    }

    /// Whether the kind that it names is one, and lies where the scope says.
    ///
    /// # Errors
    ///
    /// `Invalid` on the field `spec.scope`.
    pub fn check(&self, cx: &Cx) -> Result<()> {
        let Reach::Object { kind, project, .. } = self else {
            return Ok(());
        };
        let wrong = |why: String| Error::invalid(vec![Violation::new("spec.scope", why)]);
        let declared = cx
            .registry()
            .need(kind)
            .map_err(|error| wrong(error.to_string()))?;
        match (declared.kind().scope, project) {
            (model::Scope::Project, None) => Err(wrong(format!(
                "a {kind} lies in a project: write `{kind}/PROJECT/NAME`"
            ))),
            (model::Scope::Cluster, Some(_)) => Err(wrong(format!(
                "a {kind} lies in no project: write `{kind}/NAME`"
            ))),
            _ => Ok(()),
        }
    }

    /// Whether all of another place lies in it.
    pub fn holds(&self, other: &Reach) -> bool {
        match (self, other) {
            (Reach::Everything, _) => true,
            (Reach::Project(name), Reach::Object { project, .. }) => project.as_ref() == Some(name),
            (mine, other) => mine == other,
        }
    }

    /// Whether the two may have anything in common. Two objects of one project may: one can belong to the other.
    pub fn meets(&self, other: &Reach) -> bool {
        let within = |reach: &Reach| match reach {
            Reach::Object { project, .. } => project.clone(),
            _ => None,
        };
        self.holds(other)
            || other.holds(self)
            || within(self).is_some_and(|project| Some(project) == within(other))
    }

    /// The key of the object it ends at; of a project that of the project.
    pub fn key(&self) -> Option<Key> {
        match self {
            Reach::Everything => None,
            Reach::Project(name) => Some(object_key("project", None, name)),
            Reach::Object {
                kind,
                project,
                name,
            } => Some(object_key(kind, project.as_deref(), name)),
        }
    }
}

impl std::fmt::Display for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Reach::Everything => f.write_str("/"),
            Reach::Project(name) => write!(f, "project/{name}"),
            Reach::Object {
                kind,
                project: Some(project),
                name,
            } => write!(f, "{kind}/{project}/{name}"),
            Reach::Object { kind, name, .. } => write!(f, "{kind}/{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Reach;

    #[test]
    fn a_scope_is_read_as_it_is_written() {
        for text in ["/", "project/shop", "node/n1", "vm/shop/web1"] {
            assert_eq!(Reach::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "//",
            "/shop",
            "shop",
            "vm/shop/",
            "vm/a/b/c",
            "vm/Shop/web1",
            "vm/../x",
        ] {
            let error = Reach::parse(text).unwrap_err();
            assert_eq!(error.status(), 422, "{text}");
        }
    }
}
