//! From a path to what it means. Pure: the registry and a text in, a route out.
//!
//! ```text
//! {plural}                                  all objects of a kind (of a project kind: over all projects)
//! {plural}/{name}                           one object of a cluster kind
//! projects/{project}/{plural}               the objects of a project
//! projects/{project}/{plural}/{name}        one of them
//! .../{name}/actions/{verb}
//! .../{plural}/actions/{verb}               one verb over many of them (a declared action, or `delete`)
//! .../{name}/streams/{stream}[/ticket]
//! registry  surfaces  whoami  login  login/code  auth/{step}  watch  events  explain/{kind}/{project or -}/{name}
//! ```

use http::Method;
use model::{Error, Kind, ObjectRef, Result, Scope, StreamKind, Verb, Way, nearest};
use runtime::Registry;

/// Words that no plural may be, because they have their own meaning in a path.
pub(crate) const RESERVED: &[&str] = &[
    "registry", "surfaces", "whoami", "login", "watch", "events", "explain", "actions", "streams",
    "auth",
];
/// The word before a project's name.
const PROJECTS: &str = "projects";
/// Stands where a project would, for cluster-wide kinds.
const CLUSTER: &str = "-";

/// What a path means.
pub(crate) enum Route {
    Registry,
    Surfaces,
    Whoami,
    Login,
    LoginCode,
    Auth {
        step: String,
        /// It is one of those to which a browser may go by `GET`.
        by_get: bool,
    },
    Watch,
    Events,
    Explain {
        target: ObjectRef,
    },
    Objects {
        kind: &'static Kind,
        project: Option<String>,
    },
    Object {
        kind: &'static Kind,
        target: ObjectRef,
    },
    Action {
        target: ObjectRef,
        verb: String,
    },
    Batch {
        kind: &'static Kind,
        project: Option<String>,
        verb: String,
    },
    Stream {
        stream: &'static StreamKind,
        target: ObjectRef,
    },
    Ticket {
        stream: &'static StreamKind,
        target: ObjectRef,
    },
}

impl Route {
    /// The methods that do something here.
    pub(crate) fn methods(&self) -> Vec<Method> {
        match self {
            Route::Registry
            | Route::Surfaces
            | Route::Whoami
            | Route::Watch
            | Route::Events
            | Route::Explain { .. } => {
                vec![Method::GET]
            }
            // What a page of another site may make a browser ask changes nothing: by GET only a browser that comes back
            // from a login elsewhere.
            Route::Auth { by_get: true, .. } => vec![Method::POST, Method::GET],
            Route::Auth { by_get: false, .. }
            | Route::Login
            | Route::LoginCode
            | Route::Action { .. }
            | Route::Batch { .. }
            | Route::Ticket { .. } => {
                vec![Method::POST]
            }
            Route::Objects { kind, .. } => {
                let mut out = vec![Method::GET];
                if kind.allows(Verb::Create) {
                    out.push(Method::POST);
                }
                out
            }
            Route::Object { kind, .. } => {
                let mut out = vec![Method::GET];
                if kind.allows(Verb::Update) {
                    out.extend([Method::PUT, Method::PATCH]);
                }
                if kind.allows(Verb::Delete) {
                    out.push(Method::DELETE);
                }
                out
            }
            Route::Stream { stream, .. } => match stream.way {
                Way::Read => vec![Method::GET],
                // Over a WebSocket too, for clients that want to see how far it got.
                Way::Write => vec![Method::PUT, Method::GET],
                Way::Duplex => vec![Method::GET],
            },
        }
    }

    /// Whether a method does something here. Where GET does, HEAD does.
    pub(crate) fn allows(&self, method: &Method) -> bool {
        // A step answered by HEAD would be taken, and its answer lost.
        let method = if method == Method::HEAD && !matches!(self, Route::Auth { .. }) {
            &Method::GET
        } else {
            method
        };
        // HTTP/2 opens a WebSocket by CONNECT (RFC 8441).
        let method = match (self, method) {
            (Route::Watch | Route::Stream { .. }, &Method::CONNECT) => &Method::GET,
            _ => method,
        };
        self.methods().contains(method)
    }

    /// The name under which a request is counted.
    pub(crate) fn name(&self, method: &Method) -> &'static str {
        match self {
            Route::Registry => "registry",
            Route::Surfaces => "surfaces",
            Route::Whoami => "whoami",
            Route::Login | Route::LoginCode | Route::Auth { .. } => "login",
            Route::Watch => "watch",
            Route::Events => "events",
            Route::Explain { .. } => "explain",
            Route::Objects { .. } if method == Method::POST => "create",
            Route::Objects { .. } => "list",
            Route::Object { .. } => match method.as_str() {
                "PUT" => "update",
                "PATCH" => "patch",
                "DELETE" => "delete",
                _ => "get",
            },
            Route::Action { .. } => "act",
            Route::Batch { .. } => "batch",
            Route::Stream { .. } => "stream",
            Route::Ticket { .. } => "ticket",
        }
    }
}

/// Reads what follows `/api/v1/`.
pub(crate) fn parse(registry: &Registry, rest: &str) -> Result<Route> {
    let words = rest
        .trim_end_matches('/')
        .split('/')
        .map(decode)
        .collect::<Result<Vec<String>>>()?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["registry"] => Ok(Route::Registry),
        ["surfaces"] => Ok(Route::Surfaces),
        ["whoami"] => Ok(Route::Whoami),
        ["login"] => Ok(Route::Login),
        ["login", "code"] => Ok(Route::LoginCode),
        ["auth", step @ ..] if !step.is_empty() => Ok(Route::Auth {
            step: step.join("/"),
            by_get: false,
        }),
        ["watch"] => Ok(Route::Watch),
        ["events"] => Ok(Route::Events),
        ["explain", kind, project, name] => {
            registry.need(kind)?;
            Ok(Route::Explain {
                target: ObjectRef {
                    kind: (*kind).into(),
                    project: (*project != CLUSTER).then(|| (*project).into()),
                    name: (*name).into(),
                },
            })
        }
        // `projects` may itself be the plural of a kind: then two words, and four with `actions` or `streams`, are
        // about the object, and three with `actions` in the middle about many. No plural may be one of those words, so
        // only a project called `actions` would be in doubt, and a plural after it says that it is meant.
        [PROJECTS, "actions", verb] if registry.by_plural(verb).is_err() => {
            let kind = registry.by_plural(PROJECTS)?.kind();
            objects(kind, None, &["actions", verb])
        }
        [PROJECTS, project, plural, below @ ..] if !RESERVED.contains(plural) => {
            let kind = registry.by_plural(plural)?.kind();
            objects(kind, Some((*project).into()), below)
        }
        [plural, below @ ..] => {
            let kind = registry.by_plural(plural)?.kind();
            if kind.scope == Scope::Project && !below.is_empty() {
                return Err(
                    Error::not_found(format!("{} lie in projects", kind.plural)).hint(format!(
                        "one of them is /api/v1/projects/PROJECT/{}/NAME",
                        kind.plural
                    )),
                );
            }
            objects(kind, None, below)
        }
        [] => Err(Error::not_found("nothing is here")),
    }
}

fn objects(kind: &'static Kind, project: Option<String>, below: &[&str]) -> Result<Route> {
    let target = |name: &str| ObjectRef {
        kind: kind.name.into(),
        project: project.clone(),
        name: name.into(),
    };
    match below {
        [] => Ok(Route::Objects { kind, project }),
        ["actions", verb] => Ok(Route::Batch {
            kind,
            project,
            verb: (*verb).into(),
        }),
        [name] => Ok(Route::Object {
            kind,
            target: target(name),
        }),
        [name, "actions", verb] => Ok(Route::Action {
            target: target(name),
            verb: (*verb).into(),
        }),
        [name, "streams", word] => Ok(Route::Stream {
            stream: stream(kind, word)?,
            target: target(name),
        }),
        [name, "streams", word, "ticket"] => Ok(Route::Ticket {
            stream: stream(kind, word)?,
            target: target(name),
        }),
        [name, word, ..] => Err(
            Error::not_found(format!("a {} has no `{word}`", kind.name)).hint(format!(
                "below {}/{name} there are actions/VERB and streams/STREAM",
                kind.plural
            )),
        ),
    }
}

fn stream(kind: &'static Kind, word: &str) -> Result<&'static StreamKind> {
    kind.streams.iter().find(|s| s.name == word).ok_or_else(|| {
        let known: Vec<&str> = kind.streams.iter().map(|s| s.name).collect();
        let error = Error::not_found(format!("a {} has no stream `{word}`", kind.name));
        match (nearest(word, known.iter().copied()), known.is_empty()) {
            (Some(near), _) => error.hint(format!("did you mean `{near}`?")),
            (None, false) => error.hint(format!("it has: {}", known.join(", "))),
            (None, true) => error,
        }
    })
}

/// Undoes percent-encoding. A part may not hide a slash or be empty.
fn decode(word: &str) -> Result<String> {
    let wrong = || {
        Error::new(
            model::What::Unparseable,
            format!("`{word}` is not a part of a path"),
        )
    };
    let mut out = Vec::with_capacity(word.len());
    let mut bytes = word.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| (b as char).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(wrong());
        };
        out.push((high * 16 + low) as u8);
    }
    let text = String::from_utf8(out).map_err(|_| wrong())?;
    if text.is_empty() || text.contains(['/', '\0']) || text == "." || text == ".." {
        return Err(wrong());
    }
    Ok(text)
}

/// The path of an object.
pub(crate) fn of(kind: &Kind, project: Option<&str>, name: &str) -> String {
    match project {
        Some(project) => format!("/api/v1/{PROJECTS}/{project}/{}/{name}", kind.plural),
        None => format!("/api/v1/{}/{name}", kind.plural),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_decoded_and_checked() {
        assert_eq!(decode("web%31").unwrap(), "web1");
        for bad in ["", "%", "%4", "%zz", "a%2fb", "..", "%00", "%ff"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }
}
