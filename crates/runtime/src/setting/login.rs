//! The settings of logins: security keys, passwords that others have lost, places, mail.

use super::known::{Known, Sort, is_origin};

/// The name that browsers know the panel by.
pub static PANEL_HOST: Known = Known {
    name: "panel-host",
    doc: "The host name by which browsers reach the panel, such as `panel.example.org`. Security keys are bound to it: after a change all must be enrolled anew. Empty: no security key can be used.",
    sort: Sort::Text {
        default: "",
        check: |text| match text.is_empty() || is_host(text) {
            true => Ok(()),
            false => Err("is not a host name in lower case; an address cannot be used".into()),
        },
    },
    restart_needed: false,
};

/// The origins of the panel.
pub static PANEL_ORIGINS: Known = Known {
    name: "panel-origins",
    doc: "The origins of the panel, such as `https://panel.example.org`, with blanks between: from these security keys are taken, and the first is where links in mails lead. Empty: `https://` and `panel-host`, with port 8443 and without.",
    sort: Sort::Text {
        default: "",
        check: |text| match text.split_whitespace().find(|one| !is_origin(one)) {
            Some(wrong) => Err(format!(
                "holds `{wrong}`, which is not an origin: write `https://` and a host name in lower case, with a port when it is not 443"
            )),
            None => Ok(()),
        },
    },
    restart_needed: false,
};

/// What is asked of where security keys come from.
pub static WEBAUTHN_ATTESTATION: Known = Known {
    name: "webauthn-attestation",
    doc: "Which security keys may be enrolled: `none` any; `direct` those whose maker vouches for them by a certificate below `webauthn-roots`; `enterprise` the same, and the browser is asked to say which device it is.",
    sort: Sort::Text {
        default: "none",
        check: |text| match text {
            "none" | "direct" | "enterprise" => Ok(()),
            _ => Err("is not `none`, `direct` or `enterprise`".into()),
        },
    },
    restart_needed: false,
};

/// Which makers of security keys are trusted.
pub static WEBAUTHN_ROOTS: Known = Known {
    name: "webauthn-roots",
    doc: "The file of certificates (PEM) of the makers of security keys that are trusted. Without it `direct` and `enterprise` let nobody enrol.",
    sort: Sort::Text {
        default: "",
        check: path,
    },
    restart_needed: false,
};

/// Which passwords nobody may choose.
pub static BREACHED_PASSWORDS: Known = Known {
    name: "breached-passwords",
    doc: "The file of SHA-1 hashes of passwords that others have lost, sorted, one `HASH:COUNT` in a line, as Have I Been Pwned ships it: nobody may choose one of them. Empty: they are not looked for.",
    sort: Sort::Text {
        default: "",
        check: path,
    },
    restart_needed: false,
};

/// Where addresses are.
pub static GEOIP_FILE: Known = Known {
    name: "geoip-file",
    doc: "A database of places by address (MaxMind's format, with latitude and longitude, such as GeoLite2-City.mmdb): logins from places that do not fit a user are riskier. Empty: places are not looked at.",
    sort: Sort::Text {
        default: "",
        check: path,
    },
    restart_needed: false,
};

/// Which server takes our mail.
pub static SMTP_SERVER: Known = Known {
    name: "smtp-server",
    doc: "The mail server that takes our letters, as `host` or `host:port` (587 when none is said): SMTP with STARTTLS, which it must offer. Empty: no mail is sent.",
    sort: Sort::Text {
        default: "",
        check: server,
    },
    restart_needed: false,
};

/// Whom our mail is from.
pub static SMTP_FROM: Known = Known {
    name: "smtp-from",
    doc: "Whom letters are from, such as `DebVisor <debvisor@example.org>`. Empty: no mail is sent.",
    sort: Sort::Text {
        default: "",
        check: sender,
    },
    restart_needed: false,
};

/// Who we are to the mail server.
pub static SMTP_USER: Known = Known {
    name: "smtp-user",
    doc: "The name that the mail server knows us by. Empty: it asks for none.",
    sort: Sort::Text {
        default: "",
        check: |_| Ok(()),
    },
    restart_needed: false,
};

/// Where our password for the mail server is.
pub static SMTP_SECRET: Known = Known {
    name: "smtp-secret",
    doc: "The secret that holds the password for `smtp-user`, as `PROJECT/NAME`.",
    sort: Sort::Text {
        default: "",
        check: secret,
    },
    restart_needed: false,
};

/// How the mail server is known.
pub static SMTP_CA: Known = Known {
    name: "smtp-ca",
    doc: "The file of the certificate authority (PEM) that the mail server is known by. Empty: those that this machine trusts.",
    sort: Sort::Text {
        default: "",
        check: path,
    },
    restart_needed: false,
};

/// Says what is wrong with `host` or `host:port`.
fn server(text: &str) -> Result<(), String> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "587"));
    let port = port.parse::<u16>().is_ok_and(|port| port != 0);
    match text.is_empty() || (port && is_host(host)) {
        true => Ok(()),
        false => Err("is not a host name, with `:PORT` or without".into()),
    }
}

/// Says what is wrong with `name <address>` or an address.
fn sender(text: &str) -> Result<(), String> {
    let address = match text.split_once('<') {
        Some((_, rest)) => rest.strip_suffix('>').unwrap_or_default(),
        None => text,
    };
    let plain = !text.chars().any(char::is_control);
    let parts = address.split_once('@');
    let good = parts.is_some_and(|(who, host)| !who.is_empty() && !host.is_empty());
    match text.is_empty() || (plain && good && !address.contains(char::is_whitespace)) {
        true => Ok(()),
        false => Err("is not `NAME <ADDRESS>` or an address".into()),
    }
}

/// Says what is wrong with `project/name`.
fn secret(text: &str) -> Result<(), String> {
    let name = |text: &str| text.parse::<model::Name>().is_ok();
    let good = text
        .split_once('/')
        .is_some_and(|(project, secret)| name(project) && name(secret));
    match text.is_empty() || good {
        true => Ok(()),
        false => Err("is not PROJECT/NAME".into()),
    }
}

/// Says what is wrong with a path; an empty one is none.
pub(super) fn path(text: &str) -> Result<(), String> {
    match text.is_empty() || text.starts_with('/') {
        true => Ok(()),
        false => Err("is not a whole path".into()),
    }
}

fn is_host(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(letter)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label) && text.parse::<std::net::Ipv4Addr>().is_err()
}
