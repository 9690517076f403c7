//! Decisions: numbered without a gap, listed, and each with its question, its choice and what was given up.

use super::{Faults, Text};

const INDEX: &str = "docs/adr/README.md";
const PARTS: &[&str] = &["## Question", "## Choice", "## Given up"];

pub fn check(texts: &[Text]) -> Faults {
    let mut faults = Faults::new();
    let index = texts.iter().find(|file| file.path.ends_with(INDEX));
    let index = index.map(|file| file.text.as_str()).unwrap_or_default();
    let decisions = texts.iter().filter(|file| {
        file.path.starts_with("docs/adr") && !file.path.ends_with(INDEX) && file.has_extension("md")
    });
    for (next, file) in (1..).zip(decisions) {
        let name = file
            .path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if !name.starts_with(&format!("{next:04}-")) {
            faults.push(format!("{}: the next number is {next:04}", file.name()));
        }
        for part in PARTS {
            if !file.text.lines().any(|line| line == *part) {
                faults.push(format!("{} lacks the part `{part}`", file.name()));
            }
        }
        if !index.contains(&format!("({name})")) {
            faults.push(format!("{} is not listed in {INDEX}", file.name()));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str, text: &str) -> Text {
        Text {
            path: path.into(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_decision_is_numbered_whole_and_listed() {
        let whole = "# 1. X\n\n## Question\n\n## Choice\n\n## Given up\n";
        let index = text(INDEX, "- [X](0001-x.md)\n");
        assert_eq!(
            check(&[text("docs/adr/0001-x.md", whole), index]),
            Faults::new()
        );
        let faults = check(&[text("docs/adr/0002-y.md", "# Y\n")]);
        assert_eq!(faults.len(), 5, "{faults:?}");
    }
}
