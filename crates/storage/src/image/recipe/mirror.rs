//! Finds the Debian archive that this machine itself uses. No address of a mirror stands in our files: where the
//! machine's administrator points apt, there our images come from. It never writes the machine's apt configuration.

use super::Release;
use anyhow::{Context, Result, bail};
use std::path::Path;

/// Where apt's sources are described.
const SOURCES: &str = "/etc/apt";

/// Names of suites that mark an entry as Debian's own archive (and not some other project's repository).
const SUITES: [&str; 12] = [
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "unstable",
    "testing",
    "stable",
    "oldstable",
    "oldoldstable",
];

/// The addresses of the Debian archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    /// The main archive.
    pub(super) main: String,
    /// The archive of security updates, when the machine has one.
    pub(super) security: Option<String>,
}

/// One archive line: its address and one of its suites.
struct Line {
    uri: String,
    suite: String,
}

impl Mirror {
    /// Reads the machine's apt sources.
    pub(super) fn of_this_machine() -> Result<Self> {
        Self::read(Path::new(SOURCES))
    }

    fn read(apt: &Path) -> Result<Self> {
        let mut files = vec![apt.join("sources.list")];
        if let Ok(parts) = std::fs::read_dir(apt.join("sources.list.d")) {
            let mut parts: Vec<_> = parts.filter_map(|e| Some(e.ok()?.path())).collect();
            parts.sort();
            files.extend(parts);
        }
        let mut lines = Vec::new();
        for file in files {
            let extension = file
                .extension()
                .and_then(|e| e.to_str())
                .unwrap_or_default();
            if !matches!(extension, "list" | "sources") {
                continue;
            }
            let text = match std::fs::read_to_string(&file) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    return Err(error)
                        .with_context(|| format!("reading the apt sources {}", file.display()));
                }
            };
            if extension == "list" {
                one_line(&text, &mut lines)
            } else {
                deb822(&text, &mut lines)
            }
        }
        let main = lines.iter().find(|l| SUITES.contains(&l.suite.as_str()));
        let Some(main) = main else {
            bail!(
                "no Debian archive found in the apt sources under {}: add a `deb` entry for Debian's main archive, then try again",
                apt.display()
            );
        };
        let security = lines.iter().find(|l| {
            l.suite
                .split_once("-security")
                .is_some_and(|(suite, _)| SUITES.contains(&suite))
        });
        Ok(Self {
            main: main.uri.clone(),
            security: security.map(|l| l.uri.clone()),
        })
    }

    /// The archive as lines of a `sources.list` for `release`. `keyring` is the file with the archive's keys.
    pub(super) fn lines(&self, release: Release, keyring: Option<&str>) -> Vec<String> {
        let suite = release.suite();
        let option = keyring
            .map(|k| format!("[signed-by={k}] "))
            .unwrap_or_default();
        let mut lines = vec![
            format!("deb {option}{} {suite} main", self.main),
            format!("deb {option}{} {suite}-updates main", self.main),
        ];
        if let Some(security) = &self.security {
            lines.push(format!("deb {option}{security} {suite}-security main"));
        }
        lines
    }
}

/// Reads the classic format: `deb [options] URI SUITE COMPONENT...`.
fn one_line(text: &str, lines: &mut Vec<Line>) {
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let Some(rest) = line.trim().strip_prefix("deb ") else {
            continue;
        };
        let rest = match rest.trim_start().strip_prefix('[') {
            Some(options) => options.split_once(']').map_or("", |(_, after)| after),
            None => rest,
        };
        let mut words = rest.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next())
            && words.any(|component| component == "main")
        {
            lines.push(Line {
                uri: uri.to_owned(),
                suite: suite.to_owned(),
            });
        }
    }
}

/// Reads the stanzas of a `.sources` file.
fn deb822(text: &str, lines: &mut Vec<Line>) {
    let text: Vec<_> = text.lines().filter(|l| !l.starts_with('#')).collect();
    for stanza in text.split(|l| l.trim().is_empty()) {
        let field = |name: &str| -> Vec<&str> {
            let mut values = Vec::new();
            let mut inside = false;
            for line in stanza {
                if line.starts_with([' ', '\t']) {
                    if inside {
                        values.extend(line.split_whitespace());
                    }
                    continue;
                }
                inside = line
                    .split_once(':')
                    .is_some_and(|(key, _)| key.eq_ignore_ascii_case(name));
                if inside {
                    values.extend(
                        line.split_once(':')
                            .map(|(_, v)| v.split_whitespace())
                            .into_iter()
                            .flatten(),
                    );
                }
            }
            values
        };
        let off = field("Enabled")
            .first()
            .is_some_and(|v| v.eq_ignore_ascii_case("no"));
        if off || !field("Types").contains(&"deb") || !field("Components").contains(&"main") {
            continue;
        }
        for uri in field("URIs") {
            for suite in field("Suites") {
                lines.push(Line {
                    uri: uri.to_owned(),
                    suite: suite.to_owned(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apt(list: &str, sources: &str) -> Result<Mirror> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        std::fs::write(folder.path().join("sources.list"), list).unwrap();
        std::fs::write(folder.path().join("sources.list.d/debian.sources"), sources).unwrap();
        Mirror::read(folder.path())
    }

    #[test]
    fn other_repositories_and_disabled_entries_are_not_the_archive() {
        let other = "deb https://a.example/tool stable-tool main\ndeb [arch=amd64] https://b.example/x nodistro main\n# deb http://c.example bookworm main\n";
        let sources = "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n\n\
            # a comment\nTypes: deb deb-src\nURIs: http://m.example/debian\nSuites:\n bookworm-backports\n bookworm\nComponents: main contrib\n\n\
            Types: deb\nURIs: http://s.example/debian-security\nSuites: bookworm-security\nComponents: main\n";
        let mirror = apt(other, sources).unwrap();
        assert_eq!(
            mirror,
            Mirror {
                main: "http://m.example/debian".into(),
                security: Some("http://s.example/debian-security".into())
            }
        );
        assert_eq!(
            mirror.lines(Release::Trixie, None),
            [
                "deb http://m.example/debian trixie main",
                "deb http://m.example/debian trixie-updates main",
                "deb http://s.example/debian-security trixie-security main"
            ]
        );
    }

    #[test]
    fn the_classic_format_is_read() {
        let mirror = apt(
            "deb [signed-by=/k.gpg arch=amd64] http://m.example/debian trixie main # ours\n",
            "",
        )
        .unwrap();
        assert_eq!(
            mirror,
            Mirror {
                main: "http://m.example/debian".into(),
                security: None
            }
        );
    }

    #[test]
    fn without_an_archive_the_remedy_is_named() {
        let error = apt("deb http://x.example/apt nodistro main\n", "")
            .unwrap_err()
            .to_string();
        assert!(error.contains("add a `deb` entry"), "{error}");
    }
}
