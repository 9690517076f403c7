//! Documents: every relative link leads to a file, every `cargo xtask NAME` is a command, and `.ci/run` runs what the README says.

use std::path::Path;

use clap::CommandFactory;

use super::{Faults, Text};
use crate::Cli;

pub fn check(texts: &[Text], root: &Path) -> Faults {
    let mut faults = Faults::new();
    let commands: Vec<_> = Cli::command()
        .get_subcommands()
        .map(|known| known.get_name().to_owned())
        .collect();
    for file in texts.iter().filter(|file| file.has_extension("md")) {
        for link in links(&file.text) {
            let folder = root.join(file.path.parent().unwrap_or(Path::new("")));
            if !folder.join(link).exists() {
                faults.push(format!("{}: the link `{link}` leads nowhere", file.name()));
            }
        }
        for name in named_commands(&file.text) {
            if !commands.iter().any(|known| known == name) {
                faults.push(format!(
                    "{}: `cargo xtask {name}` is not a command",
                    file.name()
                ));
            }
        }
    }
    let ci = texts.iter().find(|file| file.path.ends_with(".ci/run"));
    let readme = texts
        .iter()
        .find(|file| file.path == Path::new("README.md"));
    for (what, file) in [(".ci/run", ci), ("README.md", readme)] {
        if !file.is_some_and(|file| file.text.contains("cargo xtask test\n")) {
            faults.push(format!("{what} must hold the line `cargo xtask test`: CI runs what the README tells a newcomer"));
        }
    }
    faults
}

/// Targets of relative links, without their anchors.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', ' ']).next()?.split('#').next()?;
        let relative =
            !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:");
        relative.then_some(target)
    })
}

fn named_commands(text: &str) -> impl Iterator<Item = &str> {
    text.split("cargo xtask ").skip(1).filter_map(|rest| {
        let name = rest
            .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
            .next()?;
        (!name.is_empty()).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_commands_are_found() {
        let text = "see [a](docs/a.md#part), [b](https://x.example/) and `cargo xtask test --fast`, `cargo xtask NAME`";
        assert_eq!(links(text).collect::<Vec<_>>(), ["docs/a.md"]);
        assert_eq!(named_commands(text).collect::<Vec<_>>(), ["test"]);
    }
}
