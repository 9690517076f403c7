//! The one error that surfaces show. It names the operation and the object; the cause stays in `source`.
//!
//! What the user may read is in `message`, `hint` and [`What`]; the log gets the whole chain.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One thing wrong with a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// Path of the field, such as `spec.disks[0].size`.
    pub field: String,
    /// What is wrong, with the value.
    pub message: String,
    /// What to write instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Violation {
    /// A violation of one field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Violation {
            field: field.into(),
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what to write instead.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Which sort of error, with what belongs to it. See the table in the reference, section 0.3.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// No such object, kind or action.
    NotFound,
    /// The name is taken.
    Exists,
    /// The object moved on; carries its current revision.
    Conflict(Option<String>),
    /// If-Match did not match; carries the current revision.
    PreconditionFailed(Option<String>),
    /// The body is wrong: all violations at once.
    Invalid(Vec<Violation>),
    /// The text cannot be parsed at all.
    Unparseable,
    /// A rule of the object's state forbids it.
    Refused,
    /// The actor lacks a privilege.
    Denied,
    /// Nobody is logged in.
    Unauthenticated,
    /// A limit is reached; when it is a rate, with the time to wait.
    Quota(Option<Duration>),
    /// A task holds the claim; carries its name.
    Busy(String),
    /// Not now; perhaps after this time.
    Unavailable(Duration),
    /// Asked for something that is no longer kept.
    Gone,
    /// Our fault; the cause is in the log.
    Internal,
}

/// An error of DebVisor.
#[derive(Clone)]
pub struct Error {
    /// Which sort.
    pub what: What,
    /// What the user reads: operation, object, value.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

macro_rules! makers {
    ($($(#[$doc:meta])* $name:ident => $what:expr;)*) => {
        $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Error::new($what, message) })*
    };
}

impl Error {
    /// An error of any sort.
    pub fn new(what: What, message: impl Into<String>) -> Self {
        Error {
            what,
            message: message.into(),
            hint: None,
            source: None,
        }
    }

    makers! {
        /// No such object.
        not_found => What::NotFound;
        /// The name is taken.
        exists => What::Exists;
        /// The object moved on under the writer.
        conflict => What::Conflict(None);
        /// A rule forbids it; add what would allow it as a hint.
        refused => What::Refused;
        /// The actor lacks a privilege.
        denied => What::Denied;
        /// Nobody is logged in.
        unauthenticated => What::Unauthenticated;
        /// A quota is used up.
        quota => What::Quota(None);
        /// Not kept any more.
        gone => What::Gone;
        /// Cannot be parsed.
        unparseable => What::Unparseable;
        /// Not now; worth another try in a second.
        unavailable => What::Unavailable(Duration::from_secs(1));
        /// Our fault.
        internal => What::Internal;
    }

    /// The body is wrong.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let message = violations
            .iter()
            .map(|v| match &v.hint {
                Some(hint) => format!("{}: {} ({hint})", v.field, v.message),
                None => format!("{}: {}", v.field, v.message),
            })
            .collect::<Vec<_>>()
            .join("; ");
        Error::new(What::Invalid(violations), message)
    }

    /// One wrong field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Error::invalid(vec![Violation::new(field, message)])
    }

    /// A task holds the claim.
    pub fn busy(task: impl Into<String>, message: impl Into<String>) -> Self {
        Error::new(What::Busy(task.into()), message)
    }

    /// Adds what the user can do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause, for the log.
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The error that a problem document tells of: what [`Error::problem`] made, without its cause.
    pub fn from_problem(problem: Problem) -> Self {
        let after = problem.more.get("retry_after").and_then(Value::as_u64);
        let after = Duration::from_secs(after.unwrap_or(1));
        let word = |name: &str| {
            let value = problem.more.get(name).and_then(Value::as_str);
            value.map(ToOwned::to_owned)
        };
        let what = match problem.code.as_str() {
            "NOT_FOUND" => What::NotFound,
            "ALREADY_EXISTS" => What::Exists,
            "CONFLICT" => What::Conflict(word("revision")),
            "PRECONDITION_FAILED" => What::PreconditionFailed(word("revision")),
            "INVALID" => What::Invalid(
                problem
                    .more
                    .get("violations")
                    .and_then(|v| serde_json::from_value(v.clone()).ok())
                    .unwrap_or_default(),
            ),
            "UNPARSEABLE" => What::Unparseable,
            "REFUSED" => What::Refused,
            "PERMISSION_DENIED" => What::Denied,
            "UNAUTHENTICATED" => What::Unauthenticated,
            "QUOTA_EXCEEDED" => What::Quota(None),
            "RATE_LIMITED" => What::Quota(Some(after)),
            "BUSY" => What::Busy(word("task").unwrap_or_default()),
            "UNAVAILABLE" => What::Unavailable(after),
            "GONE" => What::Gone,
            _ => What::Internal,
        };
        Error {
            what,
            message: problem.detail,
            hint: problem.hint,
            source: None,
        }
    }

    /// HTTP status (RFC 9110).
    pub fn status(&self) -> u16 {
        match &self.what {
            What::Unparseable => 400,
            What::Unauthenticated => 401,
            What::Denied | What::Quota(None) => 403,
            What::NotFound => 404,
            What::Exists | What::Conflict(_) | What::Refused | What::Busy(_) => 409,
            What::Gone => 410,
            What::PreconditionFailed(_) => 412,
            What::Invalid(_) => 422,
            What::Quota(Some(_)) => 429,
            What::Internal => 500,
            What::Unavailable(_) => 503,
        }
    }

    /// Exit code of `dvctl`.
    pub fn exit_code(&self) -> u8 {
        exit_code(self.code())
    }

    /// gRPC status code, by number.
    pub fn grpc(&self) -> i32 {
        match &self.what {
            What::Unparseable | What::Invalid(_) => 3,
            What::NotFound => 5,
            What::Exists => 6,
            What::Denied => 7,
            What::Quota(_) => 8,
            What::Refused | What::Busy(_) => 9,
            What::Conflict(_) | What::PreconditionFailed(_) => 10,
            What::Gone => 11,
            What::Internal => 13,
            What::Unavailable(_) => 14,
            What::Unauthenticated => 16,
        }
    }

    /// A stable word for programs.
    pub fn code(&self) -> &'static str {
        match &self.what {
            What::NotFound => "NOT_FOUND",
            What::Exists => "ALREADY_EXISTS",
            What::Conflict(_) => "CONFLICT",
            What::PreconditionFailed(_) => "PRECONDITION_FAILED",
            What::Invalid(_) => "INVALID",
            What::Unparseable => "UNPARSEABLE",
            What::Refused => "REFUSED",
            What::Denied => "PERMISSION_DENIED",
            What::Unauthenticated => "UNAUTHENTICATED",
            What::Quota(None) => "QUOTA_EXCEEDED",
            What::Quota(Some(_)) => "RATE_LIMITED",
            What::Busy(_) => "BUSY",
            What::Unavailable(_) => "UNAVAILABLE",
            What::Gone => "GONE",
            What::Internal => "INTERNAL",
        }
    }

    /// Whether the same request may succeed later without a change.
    pub fn retryable(&self) -> bool {
        matches!(
            self.what,
            What::Conflict(_) | What::Busy(_) | What::Unavailable(_) | What::Quota(Some(_))
        )
    }

    /// The problem document (RFC 9457) for this error.
    pub fn problem(&self, request_id: &str) -> Problem {
        let mut more = serde_json::Map::new();
        match &self.what {
            What::Invalid(violations) => {
                more.insert("violations".into(), json!(violations));
            }
            What::Busy(task) => {
                more.insert("task".into(), json!(task));
            }
            What::Conflict(Some(revision)) | What::PreconditionFailed(Some(revision)) => {
                more.insert("revision".into(), json!(revision));
            }
            What::Unavailable(after) | What::Quota(Some(after)) => {
                more.insert("retry_after".into(), json!(after.as_secs().max(1)));
            }
            _ => {}
        }
        let internal = self.what == What::Internal;
        Problem {
            kind: "about:blank".into(),
            title: title(self.code()).into(),
            status: self.status(),
            detail: if internal {
                format!("the cause is in the log under request {request_id}")
            } else {
                self.message.clone()
            },
            code: self.code().into(),
            hint: self.hint.clone(),
            retryable: self.retryable(),
            request_id: request_id.into(),
            more,
        }
    }
}

/// Exit code of `dvctl` for a stable code.
fn exit_code(code: &str) -> u8 {
    match code {
        "INVALID" | "UNPARSEABLE" => 2,
        "UNAUTHENTICATED" | "PERMISSION_DENIED" => 5,
        "NOT_FOUND" => 4,
        "UNAVAILABLE" | "GONE" => 6,
        "INTERNAL" => 1,
        _ => 3,
    }
}

fn title(code: &str) -> &'static str {
    match code {
        "NOT_FOUND" => "Not found",
        "ALREADY_EXISTS" => "Already exists",
        "CONFLICT" => "Changed meanwhile",
        "PRECONDITION_FAILED" => "Changed since it was read",
        "INVALID" => "Invalid",
        "UNPARSEABLE" => "Cannot be parsed",
        "REFUSED" => "Refused in this state",
        "PERMISSION_DENIED" => "Not allowed",
        "UNAUTHENTICATED" => "Not logged in",
        "QUOTA_EXCEEDED" => "Quota exceeded",
        "RATE_LIMITED" => "Too many requests",
        "BUSY" => "Busy with a task",
        "UNAVAILABLE" => "Not available now",
        "GONE" => "No longer kept",
        _ => "Internal error",
    }
}

/// Problem JSON (RFC 9457) as it goes over the wire; `dvctl` reads it back.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// Always `about:blank`; `code` tells the sort.
    #[serde(rename = "type")]
    pub kind: String,
    /// The sort, for people.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// This case, for people.
    pub detail: String,
    /// The sort, for programs.
    pub code: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether a retry can help.
    pub retryable: bool,
    /// The id to look for in the log.
    pub request_id: String,
    /// `violations`, `task`, `revision`, `retry_after`.
    #[serde(flatten)]
    pub more: serde_json::Map<String, Value>,
}

impl Problem {
    /// Exit code of `dvctl`.
    pub fn exit_code(&self) -> u8 {
        exit_code(&self.code)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, ": {hint}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {self}", self.code())?;
        let mut source: Option<&dyn StdError> = StdError::source(self);
        while let Some(s) = source {
            write!(f, " <- {s}")?;
            source = s.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|s| s as &(dyn StdError + 'static))
    }
}

/// Longer words are nobody's slip of the finger, and to compare them takes long.
const LONGEST_SLIP: usize = 100;

/// The known word nearest to a misspelt one, when one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = |known: &str| 1 + known.len().min(word.len()) / 3;
    known
        .into_iter()
        .filter(|known| known.len().max(word.len()) <= LONGEST_SLIP)
        // A word is at least as far away as it is longer: a character has at most four bytes.
        .filter(|known| known.len().abs_diff(word.len()) <= 4 * allowed(known))
        // Of two that are as near, the one that begins alike is meant: `vcpu` is `vcpus` rather than `cpu`.
        .map(|k| {
            let distance = strsim::damerau_levenshtein(word, k);
            (distance, k.chars().next() != word.chars().next(), k)
        })
        .min()
        .filter(|(distance, _, k)| *distance <= allowed(k))
        .map(|(_, _, k)| k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_hides_its_cause_from_the_user() {
        let e = Error::internal("write failed").because("disk /dev/sda: EIO");
        let shown = serde_json::to_string(&e.problem("r1")).unwrap();
        assert!(!shown.contains("sda") && shown.contains("r1"));
        assert!(format!("{e:?}").contains("EIO"));
    }

    #[test]
    fn a_problem_is_read_back() {
        let all = [
            Error::not_found("a"),
            Error::exists("b").hint("c"),
            Error::new(What::Conflict(Some("7".into())), "d"),
            Error::field("spec.size", "is 3"),
            Error::busy("t1", "e"),
            Error::new(What::Unavailable(Duration::from_secs(9)), "f"),
            Error::quota("g"),
            Error::new(What::Quota(Some(Duration::from_secs(2))), "h"),
            Error::refused("i"),
            Error::denied("j"),
            Error::gone("k"),
        ];
        for error in all {
            let back = Error::from_problem(error.problem("r"));
            assert_eq!(back.what, error.what);
            assert_eq!((back.message, back.hint), (error.message, error.hint));
        }
    }

    #[test]
    fn nearest_word() {
        assert_eq!(nearest("memmory", ["memory", "vcpus"]), Some("memory"));
        assert_eq!(nearest("zzz", ["memory", "vcpus"]), None);
        let long = "a".repeat(LONGEST_SLIP + 1);
        assert_eq!(nearest(&long, [long.as_str()]), None);
        assert_eq!(nearest("vcpu", ["cpu", "vcpus"]), Some("vcpus"));
    }
}
