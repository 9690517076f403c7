//! Words that must not be in the tree: unfinished work, paths of somebody's machine, hosts of registries and mirrors.

use super::{Faults, Text};

/// Spelt in two halves, so that this file passes its own rule.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[", "ignore]"),
];

const MACHINE_PATHS: &[&str] = &[
    concat!("/", "work/"),
    concat!("/", "root/"),
    concat!("/var/tmp/", "dv/"),
    concat!("/", "home/"),
];

/// Hosts that a URL may name: documentation's own, ourselves, the homes of standards and licences, and the services that a
/// person picks by name (public CAs, a DNS provider).
/// Everything else is a mirror or a registry, which the machine's configuration knows and the project must not.
const HOSTS: &[&str] = &[
    "localhost",
    "json-schema.org",
    "www.debian.org",
    "www.w3.org",
    "www.gnu.org",
    "www.gnupg.org",
    "fsf.org",
    "developercertificate.org",
    "www.rfc-editor.org",
    "spec.openapis.org",
    "debvisor.invalid",
    "acme-v02.api.letsencrypt.org",
    "acme-staging-v02.api.letsencrypt.org",
    "acme.zerossl.com",
    "api.buypass.com",
    "dv.acme-v02.api.pki.goog",
    "api.cloudflare.com",
];
const HOST_ENDS: &[&str] = &[
    ".example",
    ".test",
    ".invalid",
    ".localhost",
    "example.org",
    "example.com",
    "example.net",
    ".internal",
];

pub fn check(texts: &[Text]) -> Faults {
    let mut faults = Faults::new();
    for file in texts {
        if file.path.ends_with("Cargo.lock") || file.path.ends_with("LICENSE") {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            for fault in line_faults(line, file.has_extension("rs")) {
                faults.push(format!("{}:{}: {fault}", file.name(), number + 1));
            }
        }
    }
    faults
}

fn line_faults(line: &str, rust: bool) -> Faults {
    let mut faults = Faults::new();
    for word in UNFINISHED {
        if line.contains(word) {
            faults.push(format!("`{word}`: finish it, or open an issue"));
        }
    }
    for path in MACHINE_PATHS {
        if let Some(at) = line.find(path)
            && !line[..at].ends_with(|c: char| c.is_alphanumeric() || "~._-}*/".contains(c))
        {
            faults.push(format!("`{path}` is a path of one machine"));
        }
    }
    for host in hosts(line) {
        if !allowed(host) {
            faults.push(format!("a URL names the host `{host}`: take it from configuration, or use a name under .example"));
        }
    }
    if rust
        && line.contains("allow(clippy::disallowed")
        && !line.contains("reason")
        && line.trim_end().ends_with(")]")
    {
        faults.push("a ban is lifted without `reason = \"...\"`".to_owned());
    }
    faults
}

/// The hosts of the http, https, ftp, ws and wss URLs in a line.
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    let schemes = ["http", "https", "ftp", "ws", "wss"];
    line.match_indices("://").filter_map(move |(at, mark)| {
        let before = &line[..at];
        let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric()).next()?;
        let rest = &line[at + mark.len()..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || ".-_[]:@".contains(c)))
            .unwrap_or(rest.len());
        schemes.contains(&scheme).then_some(&rest[..end])
    })
}

fn allowed(authority: &str) -> bool {
    let authority = authority.rsplit('@').next().unwrap_or(authority);
    let host = match authority.strip_prefix('[') {
        Some(rest) => return rest.contains(']'),
        None => authority
            .split(':')
            .next()
            .unwrap_or_default()
            .trim_end_matches('.'),
    };
    // A single label, an address, or a placeholder such as `{host}` names nobody's server.
    !host.contains('.')
        || host
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
        || HOSTS.contains(&host)
        || HOST_ENDS.iter().any(|end| host.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_line(line: &str, wanted: &str) {
        let found = line_faults(line, true).join("; ");
        assert!(
            found.contains(wanted) && found.is_empty() == wanted.is_empty(),
            "{line}: {found}"
        );
    }

    #[test]
    fn unfinished_work_is_found() {
        check_line(&format!("// {}: later", UNFINISHED[0]), "finish it");
        check_line("a mastodon", "");
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        check_line(
            &format!("let x = \"{}main\";", MACHINE_PATHS[0]),
            "path of one machine",
        );
        check_line("/var/lib/homework/x", "");
    }

    #[test]
    fn urls_name_documentation_hosts_only() {
        check_line("https://mirror.example/debian", "");
        check_line(
            "https://127.0.0.1:8443/api https://[::1]:8443/ https://{host}:1/",
            "",
        );
        check_line(
            concat!("see https:", "//registry.some-host.io/x"),
            "registry.some-host.io",
        );
        check_line("unix:///run/x file:///x debvisor://a.b.c", "");
    }

    #[test]
    fn a_lifted_ban_has_a_reason() {
        check_line(concat!("#[allow(clippy::", "disallowed_types)]"), "without");
        check_line("#[allow(clippy::disallowed_types, reason = \"x\")]", "");
    }
}
