//! Sizes and names of files, and what every member's Cargo.toml must say.

use super::{Faults, Text};

/// One file, one subject: longer ones have two.
const MOST_LINES: usize = 900;
/// Tests of one subject may be long.
const MOST_TEST_LINES: usize = 1200;
const MOST_BYTES: usize = 512 * 1024;
const FORBIDDEN: &[&str] = &[
    "utils", "util", "common", "helpers", "helper", "manager", "service", "misc",
];

pub fn check(texts: &[Text]) -> Faults {
    let mut faults = Faults::new();
    for file in texts {
        size(file, &mut faults);
        name(file, &mut faults);
        if file.path.ends_with("Cargo.toml") && file.path.components().count() > 1 {
            manifest(file, &mut faults);
        }
    }
    faults
}

fn size(file: &Text, faults: &mut Faults) {
    let made = file.path.starts_with("api") || file.path.ends_with("Cargo.lock");
    if made || file.path.ends_with("LICENSE") {
        return;
    }
    let lines = file.text.lines().count();
    let tests = file.name().ends_with("tests.rs")
        || file
            .path
            .components()
            .any(|part| part.as_os_str() == "tests");
    let most = if tests { MOST_TEST_LINES } else { MOST_LINES };
    if file.has_extension("rs") && lines > most {
        faults.push(format!(
            "{} has {lines} lines, over {most}: cut it by subject",
            file.name()
        ));
    }
    if file.text.len() > MOST_BYTES {
        faults.push(format!(
            "{} has {} bytes: large files do not belong in git",
            file.name(),
            file.text.len()
        ));
    }
}

fn name(file: &Text, faults: &mut Faults) {
    if !file.has_extension("rs") {
        return;
    }
    let parts = file
        .path
        .components()
        .filter_map(|part| part.as_os_str().to_str());
    for part in parts {
        let stem = part.strip_suffix(".rs").unwrap_or(part);
        if FORBIDDEN.contains(&stem) {
            faults.push(format!(
                "{}: `{stem}` says nothing: name the subject",
                file.name()
            ));
        }
    }
}

/// Versions and features stand in the root only, and lints are the workspace's.
fn manifest(file: &Text, faults: &mut Faults) {
    if !file.text.contains("[lints]\nworkspace = true") {
        faults.push(format!("{} lacks `[lints] workspace = true`", file.name()));
    }
    let mut dependencies = false;
    for line in file.text.lines().map(str::trim) {
        if line.starts_with('[') {
            dependencies = line.contains("dependencies");
        } else if dependencies
            && line.contains('=')
            && !line.starts_with('#')
            && !line.contains("workspace = true")
        {
            faults.push(format!(
                "{}: `{line}`: versions and features stand in the root Cargo.toml, write `NAME.workspace = true`",
                file.name()
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_one(path: &str, text: &str) -> Faults {
        check(&[Text {
            path: path.into(),
            text: text.to_owned(),
        }])
    }

    #[test]
    fn a_long_file_is_a_fault_unless_it_is_made() {
        let long = "x\n".repeat(MOST_LINES + 1);
        assert!(check_one("crates/a/src/lib.rs", &long)[0].contains("901 lines"));
        assert_eq!(check_one("api/registry.json", &long), Faults::new());
    }

    #[test]
    fn names_and_manifests_are_checked() {
        assert!(check_one("crates/a/src/utils.rs", "")[0].contains("says nothing"));
        let good = "[lints]\nworkspace = true\n[dependencies]\nserde.workspace = true\n";
        assert_eq!(check_one("crates/a/Cargo.toml", good), Faults::new());
        let bad = format!("{good}toml = \"1\"\n");
        assert!(check_one("crates/a/Cargo.toml", &bad)[0].contains("toml = \"1\""));
    }
}
