//! What went wrong, as `dvctl` says it: one `error:` line, the violations, a hint, an exit code.

use model::{Problem, Violation};
use std::fmt::Write as _;

/// Exit code for "interrupted".
pub const INTERRUPTED: u8 = 130;

/// Why `dvctl` ends without having done what it was asked.
#[derive(Debug)]
pub struct Failure {
    /// Exit code (reference 0.3).
    pub exit: u8,
    /// The sentence after `error:`; empty when there is nothing more to say.
    pub message: String,
    /// What to do now.
    pub hint: Option<String>,
    /// What is wrong with which field.
    pub violations: Vec<Violation>,
    /// The server's stable word for it; empty when it is not the server's.
    pub code: Box<str>,
    /// A text that is shown as it is (the help, or a usage error), on standard output when `exit` is 0.
    pub verbatim: Option<Box<str>>,
}

/// Result with [`Failure`].
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure with an exit code and a sentence.
    pub fn new(exit: u8, message: impl Into<String>) -> Self {
        Failure {
            exit,
            message: message.into(),
            hint: None,
            violations: Vec::new(),
            code: "".into(),
            verbatim: None,
        }
    }

    /// The command line is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(2, message)
    }

    /// A file or the terminal could not be used; `what` names the operation and the object.
    pub fn io(what: impl std::fmt::Display, error: impl std::fmt::Display) -> Self {
        Failure::new(1, format!("{what}: {error}"))
    }

    /// The server cannot be reached, or went away.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Failure::new(6, message)
    }

    /// Ends with this code and says nothing.
    pub fn silent(exit: u8) -> Self {
        Failure::new(exit, "")
    }

    /// Adds what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a nearest-word hint, when there is a near word.
    pub fn nearest(self, word: &str, known: &[&str]) -> Self {
        match model::nearest(word, known.iter().copied()) {
            Some(near) => self.hint(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// The lines that go to standard error.
    pub fn lines(&self, color: bool) -> String {
        if let Some(text) = &self.verbatim {
            return text.to_string();
        }
        if self.message.is_empty() {
            return String::new();
        }
        let (red, cyan, off) = if color {
            ("\x1b[1;31m", "\x1b[36m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let mut out = format!("{red}error:{off} {}\n", self.message);
        for v in &self.violations {
            _ = write!(out, "  {}: {}", v.field, v.message);
            if let Some(hint) = &v.hint {
                _ = write!(out, " ({hint})");
            }
            out.push('\n');
        }
        if let Some(hint) = &self.hint {
            _ = writeln!(out, "{cyan}hint:{off} {hint}");
        }
        out
    }
}

impl From<Problem> for Failure {
    fn from(p: Problem) -> Self {
        let violations: Vec<Violation> = p
            .more
            .get("violations")
            .and_then(|v| serde_json::from_value(v.clone()).ok())
            .unwrap_or_default();
        let mut message = match (violations.is_empty(), p.detail.is_empty()) {
            (false, _) => format!(
                "{} (violations: {})",
                p.title.to_lowercase(),
                violations.len()
            ),
            (true, false) => p.detail.clone(),
            (true, true) => p.title.clone(),
        };
        if p.code == "INTERNAL" && !p.request_id.is_empty() && !message.contains(&p.request_id) {
            message = format!("{message} (request {})", p.request_id);
        }
        let hint = match (p.hint.clone(), p.more.get("task").and_then(|t| t.as_str())) {
            (Some(hint), _) => Some(hint),
            (None, Some(task)) => Some(format!(
                "wait for it with `dvctl task wait {task}`, or end it with `dvctl task cancel {task}`"
            )),
            (None, None) => None,
        };
        Failure {
            exit: p.exit_code(),
            message,
            hint,
            violations,
            code: p.code.into(),
            verbatim: None,
        }
    }
}

impl From<model::Error> for Failure {
    fn from(e: model::Error) -> Self {
        Failure::from(e.problem(""))
    }
}

impl From<clap::Error> for Failure {
    fn from(e: clap::Error) -> Self {
        let exit = if e.use_stderr() { 2 } else { 0 };
        Failure {
            verbatim: Some(e.render().to_string().into()),
            ..Failure::new(exit, "")
        }
    }
}
