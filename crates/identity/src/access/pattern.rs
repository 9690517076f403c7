//! Privileges and the patterns that name several of them.

use model::{Kind, Verb, Violation};
use runtime::Cx;

/// `vm.start`, `vm.*`, `*.read` or `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    kind: Box<str>,
    verb: Box<str>,
}

impl Pattern {
    /// Reads one; a text without a dot other than `*` is none.
    pub fn parse(text: &str) -> Option<Pattern> {
        let (kind, verb) = match text {
            "*" => ("*", "*"),
            text => text.split_once('.')?,
        };
        let good = |word: &str| {
            word == "*"
                || (!word.is_empty()
                    && word
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
        };
        (good(kind) && good(verb)).then(|| Pattern {
            kind: kind.into(),
            verb: verb.into(),
        })
    }

    /// Reads one that names something of this version.
    ///
    /// # Errors
    ///
    /// What is wrong, with the nearest known privilege; its field is empty.
    pub fn known(cx: &Cx, text: &str) -> Result<Pattern, Violation> {
        let known = privileges(cx);
        let wrong = |message: String| {
            let all = known.iter().map(|(kind, verb)| format!("{kind}.{verb}"));
            let all: Vec<String> = all.collect();
            let hint = match model::nearest(text, all.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "`vm.start`, `vm.*`, `*.read` or `*`".into(),
            };
            Violation::new("", message).hint(hint)
        };
        let pattern = Pattern::parse(text)
            .ok_or_else(|| wrong(format!("`{text}` is not a privilege: it has no KIND.VERB")))?;
        match known.iter().any(|(kind, verb)| pattern.matches(kind, verb)) {
            true => Ok(pattern),
            false => Err(wrong(format!("there is no privilege `{text}`"))),
        }
    }

    /// Whether it names privileges on objects of one of these kinds.
    pub fn is_about(&self, kinds: &std::collections::HashSet<&'static str>) -> bool {
        &*self.kind == "*" || kinds.contains(&*self.kind)
    }

    /// Whether it names the reading of all there is.
    pub fn is_all_reading(&self) -> bool {
        &*self.kind == "*" && matches!(&*self.verb, "*" | "read")
    }

    /// Whether it names a privilege.
    pub fn matches(&self, kind: &str, verb: &str) -> bool {
        (&*self.kind == "*" || &*self.kind == kind) && (&*self.verb == "*" || &*self.verb == verb)
    }
}

/// The privileges that are about no object.
const OF_NO_KIND: &[(&str, &str)] = &[
    ("registry", "read"),
    ("event", "read"),
    ("metrics", "read"),
    ("health", "read"),
];

/// Every privilege of this version.
pub fn privileges(cx: &Cx) -> Vec<(&'static str, &'static str)> {
    let mut out = OF_NO_KIND.to_vec();
    for declared in cx.registry().iter() {
        out.extend(of_kind(declared.kind()));
    }
    out
}

fn of_kind(kind: &'static Kind) -> impl Iterator<Item = (&'static str, &'static str)> {
    let common = [
        (Verb::Read, "read"),
        (Verb::Create, "create"),
        (Verb::Update, "update"),
        (Verb::Delete, "delete"),
    ];
    let common = common
        .into_iter()
        .filter(|(verb, _)| *verb == Verb::Read || kind.allows(*verb))
        .map(|(_, word)| word);
    let actions = kind.actions.iter().map(|action| action.verb);
    let streams = kind.streams.iter().map(|stream| stream.name);
    common
        .chain(actions)
        .chain(streams)
        .map(|verb| (kind.name, verb))
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn a_pattern_names_what_it_says() {
        let cases = [
            ("*", "vm", "start", true),
            ("vm.*", "vm", "start", true),
            ("vm.*", "volume", "read", false),
            ("*.read", "volume", "read", true),
            ("*.read", "volume", "delete", false),
            ("vm.start", "vm", "start", true),
            ("vm.start", "vm", "stop", false),
        ];
        for (text, kind, verb, wanted) in cases {
            let pattern = Pattern::parse(text).unwrap();
            assert_eq!(pattern.matches(kind, verb), wanted, "{text} {kind}.{verb}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_none() {
        for text in [
            "",
            "vm",
            "vm.",
            ".read",
            "vm.start.now",
            "VM.start",
            "v*.read",
            "vm.st*",
            "* .read",
        ] {
            assert_eq!(Pattern::parse(text), None, "{text}");
        }
    }
}
