//! The settings of logins: security keys, passwords that others have lost, places.

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
