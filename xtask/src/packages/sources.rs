//! Reads the machine's apt sources, both the one-line and the deb822 form, to derive the source of another suite from them.

use std::{fs, path::Path};

use anyhow::Result;

/// One apt source.
#[derive(Debug, PartialEq, Eq, Clone, Default)]
pub struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// The value as written: a path, or a key block over several lines.
    signed_by: Option<String>,
}

impl Source {
    pub fn has_suite(&self, suite: &str) -> bool {
        self.suites.iter().any(|has| has == suite)
    }
}

/// Every binary source of the machine.
pub fn read() -> Result<Vec<Source>> {
    let mut found = Vec::new();
    if let Ok(text) = fs::read_to_string("/etc/apt/sources.list") {
        found.extend(one_line_form(&text));
    }
    let folder = Path::new("/etc/apt/sources.list.d");
    let mut files: Vec<_> = match fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect(),
        Err(_) => Vec::new(),
    };
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).unwrap_or_default();
        match file.extension().and_then(|ext| ext.to_str()) {
            Some("list") => found.extend(one_line_form(&text)),
            Some("sources") => found.extend(deb822_form(&text)),
            _ => {}
        }
    }
    Ok(found)
}

/// The deb822 text of `suite`, on the mirror and with the key of the source that serves `codename`.
pub fn for_suite(found: &[Source], codename: &str, suite: &str) -> Option<String> {
    let base = base(found, codename)?;
    let mut text = format!(
        "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n",
        base.uris.first()?
    );
    if let Some(key) = &base.signed_by {
        text.push_str(&format!("Signed-By: {key}\n"));
    }
    Some(text)
}

/// The archive line of another suite on the machine's own Debian mirror.
pub fn line_for_suite(found: &[Source], codename: &str, suite: &str) -> Option<String> {
    let base = base(found, codename)?;
    Some(format!("deb {} {suite} main", base.uris.first()?))
}

fn base<'a>(found: &'a [Source], codename: &str) -> Option<&'a Source> {
    let is_base = |source: &&Source| {
        source.has_suite(codename) && source.components.iter().any(|name| name == "main")
    };
    found.iter().find(is_base)
}

fn one_line_form(text: &str) -> Vec<Source> {
    let lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("deb "));
    lines.filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let (options, rest) = match line.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", line),
    };
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="))
        .map(str::to_owned);
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    })
}

fn deb822_form(text: &str) -> Vec<Source> {
    let kept: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let kept = kept.join("\n");
    kept.split("\n\n").filter_map(stanza).collect()
}

fn stanza(text: &str) -> Option<Source> {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            let (_, value) = fields.last_mut()?;
            value.push('\n');
            value.push_str(line);
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let field = |name: &str| {
        fields
            .iter()
            .find(|(has, _)| has == name)
            .map(|(_, value)| value)
    };
    let words = |name: &str| -> Vec<String> {
        let value = field(name).map(String::as_str).unwrap_or_default();
        value.split_whitespace().map(str::to_owned).collect()
    };
    let off = field("enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    if off || !words("types").iter().any(|kind| kind == "deb") {
        return None;
    }
    Some(Source {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backports_take_mirror_and_key_of_the_base_suite() {
        let text = "# a comment\nTypes: deb\n# another\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By: /usr/share/keyrings/key.gpg\n\nTypes: deb\nURIs: http://mirror.example/security\nSuites: bookworm-security\nComponents: main\n";
        let found = deb822_form(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            for_suite(&found, "bookworm", "bookworm-backports").unwrap(),
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main\nSigned-By: /usr/share/keyrings/key.gpg\n"
        );
        assert_eq!(for_suite(&found, "trixie", "trixie-backports"), None);
    }

    #[test]
    fn the_one_line_form_is_read_too() {
        let text = "deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian trixie main # all\ndeb-src http://mirror.example/debian trixie main\n#deb http://off.example x main\n";
        let found = one_line_form(text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].signed_by.as_deref(), Some("/k.gpg"));
        assert!(found[0].has_suite("trixie"));
    }

    #[test]
    fn a_key_block_is_kept_whole_and_disabled_sources_are_not_read() {
        let text = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n -----BEGIN-----\n .\n abc\n";
        let out = for_suite(&deb822_form(text), "bookworm", "b").unwrap();
        assert!(
            out.ends_with("Signed-By: \n -----BEGIN-----\n .\n abc\n"),
            "{out}"
        );
        assert!(
            deb822_form("Enabled: no\nTypes: deb\nURIs: http://m.example\nSuites: s\n").is_empty()
        );
    }
}
