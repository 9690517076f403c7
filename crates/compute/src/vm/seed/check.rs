//! Finds what is wrong in what cloud-init is told, before a guest boots with it: YAML errors with line and column,
//! passwords in documents that everyone may read, keys that are none.

use super::super::types::CloudInit;
use model::Violation;
use serde_yaml_ng::Value;

/// Keys of a cloud-config that carry a password.
const PASSWORDS: &[&str] = &[
    "password",
    "passwd",
    "plain_text_passwd",
    "hashed_passwd",
    "chpasswd",
];

/// A secret that is stored sealed was checked when it came in.
const SEALED: &str = "$sealed:";

/// Everything that is wrong.
pub fn check(it: &CloudInit, out: &mut Vec<Violation>) {
    let at = |field: &str| format!("spec.cloud_init.{field}");
    if let Some(hostname) = &it.hostname
        && !is_host_name(hostname)
    {
        out.push(
            Violation::new(at("hostname"), format!("`{hostname}` is not a host name"))
                .hint("labels of a-z, 0-9 and -, joined by dots"),
        );
    }
    if let Some(user) = &it.user
        && !is_user_name(user)
    {
        out.push(
            Violation::new(at("user"), format!("`{user}` is not a user name"))
                .hint("1 to 32 of a-z, 0-9, _ and -, beginning with a letter or _"),
        );
    }
    for (i, key) in it.ssh_keys.iter().enumerate() {
        if let Err(why) = ssh_key(key) {
            out.push(
                Violation::new(at(&format!("ssh_keys[{i}]")), why)
                    .hint("one line as in authorized_keys: `ssh-ed25519 AAAA... name`"),
            );
        }
    }
    if it
        .password
        .as_ref()
        .is_some_and(|p| p.is_empty() || p.contains(['\n', '\r', '\0']))
    {
        out.push(Violation::new(
            at("password"),
            "is empty or has several lines",
        ));
    }
    document(&at("user_data"), it.user_data.as_deref(), true, out);
    document(&at("vendor_data"), it.vendor_data.as_deref(), true, out);
    if let Some(secret) = it
        .secret_user_data
        .as_deref()
        .filter(|s| !s.starts_with(SEALED))
    {
        match kind(secret) {
            Some(Kind::CloudConfig) => document(&at("secret_user_data"), Some(secret), false, out),
            _ => out.push(
                Violation::new(
                    at("secret_user_data"),
                    "does not begin with `#cloud-config`",
                )
                .hint("it is laid over user_data, so it must be such a document"),
            ),
        }
    }
    network_config(&at("network_config"), it.network_config.as_deref(), out);
}

/// What sort of user-data a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// `#cloud-config`.
    CloudConfig,
    /// A script.
    Script,
    /// A MIME multipart, an include list, a boothook, a template: cloud-init reads it as it is.
    Other,
}

pub(super) fn kind(text: &str) -> Option<Kind> {
    let first = text.lines().next().unwrap_or_default().trim_end();
    if first == "#cloud-config" {
        return Some(Kind::CloudConfig);
    }
    if first.starts_with("#!") {
        return Some(Kind::Script);
    }
    let other = [
        "Content-Type: multipart/",
        "MIME-Version:",
        "From nobody",
        "#include",
        "#cloud-boothook",
        "#cloud-config-archive",
        "#cloud-config-jsonp",
        "## template:",
    ];
    other
        .iter()
        .any(|p| {
            first
                .to_ascii_lowercase()
                .starts_with(&p.to_ascii_lowercase())
        })
        .then_some(Kind::Other)
}

fn document(field: &str, text: Option<&str>, public: bool, out: &mut Vec<Violation>) {
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return;
    };
    match kind(text) {
        None => out.push(
            Violation::new(field, "begins with nothing that cloud-init knows")
                .hint("the first line must be `#cloud-config`, begin with `#!`, or begin a MIME multipart"),
        ),
        Some(Kind::Script | Kind::Other) => {}
        Some(Kind::CloudConfig) => match yaml(text) {
            Err(violation) => out.push(Violation::new(field, violation)),
            Ok(Value::Null) => {}
            Ok(Value::Mapping(map)) => {
                if public {
                    passwords(field, &Value::Mapping(map), "", out);
                }
            }
            Ok(_) => out.push(
                Violation::new(field, "is not a mapping").hint("a cloud-config is `key: value` lines"),
            ),
        },
    }
}

/// Parses YAML; an error says where.
pub(super) fn yaml(text: &str) -> Result<Value, String> {
    let parsed: Result<Value, _> = serde_yaml_ng::from_str(text);
    parsed.map_err(|error| {
        // The parser repeats the place at the end of its message.
        let message = error.to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        match error.location() {
            Some(at) => format!(
                "is not YAML: line {}, column {}: {what}",
                at.line(),
                at.column()
            ),
            None => format!("is not YAML: {what}"),
        }
    })
}

fn passwords(field: &str, value: &Value, path: &str, out: &mut Vec<Violation>) {
    match value {
        Value::Mapping(map) => {
            for (key, value) in map {
                let Some(key) = key.as_str() else { continue };
                let here = if path.is_empty() {
                    key.to_owned()
                } else {
                    format!("{path}.{key}")
                };
                if PASSWORDS.contains(&key) && (path.is_empty() || path.starts_with("users")) {
                    out.push(
                        Violation::new(field, format!("`{here}` would be readable by everyone who may read the VM"))
                            .hint("put it into cloud_init.password or cloud_init.secret_user_data, which are encrypted"),
                    );
                } else {
                    passwords(field, value, &here, out);
                }
            }
        }
        Value::Sequence(list) => {
            for (i, value) in list.iter().enumerate() {
                passwords(field, value, &format!("{path}[{i}]"), out);
            }
        }
        _ => {}
    }
}

fn network_config(field: &str, text: Option<&str>, out: &mut Vec<Violation>) {
    let Some(text) = text.filter(|t| !t.is_empty()) else {
        return;
    };
    match yaml(text) {
        Err(violation) => out.push(Violation::new(field, violation)),
        Ok(value) => {
            let root = value.get("network").unwrap_or(&value);
            if !matches!(root.get("version").and_then(Value::as_u64), Some(1 | 2)) {
                out.push(
                    Violation::new(field, "has no `version: 1` or `version: 2`")
                        .hint("see cloud-init's network configuration"),
                );
            }
        }
    }
}

/// Whether a text is an RFC 1123 host name.
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn is_user_name(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c))
}

/// Checks that a line holds a public key.
fn ssh_key(line: &str) -> Result<(), String> {
    use base64::Engine as _;
    let line = line.trim();
    if line.contains("PRIVATE KEY") {
        return Err("is a private key: never give that away, give its `.pub` file".into());
    }
    if line.contains(['\n', '\r']) {
        return Err("has several lines: one key each".into());
    }
    // Options may stand before the type; the type is repeated at the start of the blob.
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_type =
        |w: &&str| w.starts_with("ssh-") || w.starts_with("ecdsa-") || w.starts_with("sk-");
    let Some(at) = words.iter().position(is_type) else {
        return Err(format!(
            "`{}` is not a public SSH key",
            line.chars().take(40).collect::<String>()
        ));
    };
    let blob = words.get(at + 1).copied().unwrap_or_default();
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(blob)
        .map_err(|_| "is cut off or damaged: its key is not base64".to_owned())?;
    let name = words[at].as_bytes();
    let head = decoded.get(4..4 + name.len());
    if head == Some(name) {
        Ok(())
    } else {
        Err(format!(
            "is damaged: it does not hold a key of type {}",
            words[at]
        ))
    }
}
