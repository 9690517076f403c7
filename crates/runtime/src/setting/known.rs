//! The settings of this version: name, meaning, type, default and range; and how they are read.

use super::{Setting, SettingSpec, SettingStatus, login, project};
use crate::{Cx, limit};
use model::{Error, Result};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

/// Of which type a setting is.
#[derive(Clone, Copy, Debug)]
pub enum Sort {
    /// A whole number in a range.
    Number {
        /// While none is set.
        default: u64,
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
        /// Unit, such as `s`.
        unit: &'static str,
    },
    /// A text.
    Text {
        /// While none is set.
        default: &'static str,
        /// Says what is wrong with a text.
        check: fn(&str) -> Result<(), String>,
    },
}

/// One known setting.
#[derive(Debug)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Its type, with default and range.
    pub sort: Sort,
    /// Whether a change is in force only after a restart.
    pub restart_needed: bool,
}

/// How much is logged.
pub static LOG_LEVEL: Known = Known {
    name: "log-level",
    doc: "How much is logged, in all or per component: a filter such as `info` or `info,compute=debug`. Empty: what `log.level` of the configuration file says.",
    sort: Sort::Text {
        default: "",
        check: |text| match text.parse::<tracing_subscriber::EnvFilter>() {
            Ok(_) => Ok(()),
            Err(e) => Err(format!("is not a filter: {e}")),
        },
    },
    restart_needed: false,
};

/// How long ended tasks stay.
pub static TASK_HISTORY: Known = Known {
    name: "task-history",
    doc: "How long an ended task stays in lists.",
    sort: Sort::Number {
        default: 3600,
        min: 60,
        max: 2_592_000,
        unit: "s",
    },
    restart_needed: false,
};

/// When a silent node counts as offline.
pub static NODE_TIMEOUT: Known = Known {
    name: "node-timeout",
    doc: "How long an agent may be silent before its node counts as offline. It renews its lease three times in this time.",
    sort: Sort::Number {
        default: 30,
        min: 3,
        max: 600,
        unit: "s",
    },
    restart_needed: false,
};

/// From when on a read of the store is slow.
pub static SLOW_READ: Known = Known {
    name: "slow-read",
    doc: "A read of the store that takes this long is logged with its query plan.",
    sort: Sort::Number {
        default: 1000,
        min: 1,
        max: 60_000,
        unit: "ms",
    },
    restart_needed: false,
};

/// How many people may look at one guest.
pub static CONSOLES_PER_VM: Known = Known {
    name: "consoles-per-vm",
    doc: "How many consoles of one VM (serial line, screen) may be open at once.",
    sort: Sort::Number {
        default: 10,
        min: 1,
        max: 100,
        unit: "",
    },
    restart_needed: false,
};

/// Where heads of the audit trail are kept besides this machine.
pub static AUDIT_ANCHOR_FILE: Known = Known {
    name: "audit-anchor-file",
    doc: "A file, or a folder, on other storage to which each head of the audit trail is added. Empty: none.",
    sort: Sort::Text {
        default: "",
        check: |text| match text.is_empty() || text.starts_with('/') {
            true => Ok(()),
            false => Err("is not a whole path".into()),
        },
    },
    restart_needed: false,
};

/// Which log server gets heads of the audit trail.
pub static AUDIT_ANCHOR_SYSLOG: Known = Known {
    name: "audit-anchor-syslog",
    doc: "A log server that gets each head of the audit trail, as `host` or `host:port`: syslog over TLS (RFC 5425). Empty: none.",
    sort: Sort::Text {
        default: "",
        check: |text| match text.is_empty() {
            true => Ok(()),
            false => crate::audit::address(text).map(|_| ()),
        },
    },
    restart_needed: false,
};

/// How that log server is known.
pub static AUDIT_ANCHOR_CA: Known = Known {
    name: "audit-anchor-ca",
    doc: "The file of the certificate authority (PEM) that the log server of `audit-anchor-syslog` is known by.",
    sort: Sort::Text {
        default: "",
        check: |text| match text.is_empty() || text.starts_with('/') {
            true => Ok(()),
            false => Err("is not a whole path".into()),
        },
    },
    restart_needed: false,
};

/// Who stamps heads of the audit trail with the time.
pub static AUDIT_ANCHOR_TSA: Known = Known {
    name: "audit-anchor-tsa",
    doc: "A time stamp authority (RFC 3161) that stamps each head of the audit trail, as its URL. A stamp proves when a head was there. Empty: none.",
    sort: Sort::Text {
        default: "",
        check: |text| match text.is_empty() {
            true => Ok(()),
            false => crate::audit::stamper(text).map(|_| ()),
        },
    },
    restart_needed: false,
};

/// Where http-01 of ACME is answered.
pub static ACME_HTTP_ADDRESS: Known = Known {
    name: "acme-http-address",
    doc: "Address and port on which http-01 challenges of ACME are answered, only while an order is validated. The provider asks port 80 of each name: another port needs a forwarding.",
    sort: Sort::Text {
        default: "[::]:80",
        check: |text| match text.parse::<std::net::SocketAddr>() {
            Ok(_) => Ok(()),
            Err(_) => Err("is not an address and a port, such as [::]:80".into()),
        },
    },
    restart_needed: false,
};

/// Where tls-alpn-01 of ACME is answered.
pub static ACME_TLS_ADDRESS: Known = Known {
    name: "acme-tls-address",
    doc: "Address and port on which tls-alpn-01 challenges of ACME are answered, only while an order is validated. The provider asks port 443 of each name: another port needs a forwarding.",
    sort: Sort::Text {
        default: "[::]:443",
        check: |text| match text.parse::<std::net::SocketAddr>() {
            Ok(_) => Ok(()),
            Err(_) => Err("is not an address and a port, such as [::]:443".into()),
        },
    },
    restart_needed: false,
};

/// Which certificate the panel and the API show.
pub static TLS_CERTIFICATE: Known = Known {
    name: "tls-certificate",
    doc: "The certificate that the panel and the API show to who asks for one of its names. Empty: the one of the internal CA, which everybody else is shown in any case.",
    sort: Sort::Text {
        default: "",
        check: |text| match text.is_empty() || text.parse::<model::Name>().is_ok() {
            true => Ok(()),
            false => Err("is not the name of a certificate".into()),
        },
    },
    restart_needed: false,
};

/// Which sites may use the API from a browser.
pub static CORS_ORIGINS: Known = Known {
    name: "cors-origins",
    doc: "Sites whose pages may use the API from a browser, with a bearer token: origins such as `https://portal.example:8443`, with blanks between. Empty: none.",
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

/// Whether it is an origin as a browser writes it, of a site that nobody on the way can change.
pub(super) fn is_origin(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://") else {
        return false;
    };
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "8443"));
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    let port =
        port.parse::<u16>().is_ok_and(|p| p != 443 && p != 0) && !port.starts_with(['0', '+']);
    !host.is_empty() && host.bytes().all(letter) && port
}

/// All settings of this version.
pub static KNOWN: &[&Known] = &[
    &ACME_HTTP_ADDRESS,
    &ACME_TLS_ADDRESS,
    &AUDIT_ANCHOR_CA,
    &AUDIT_ANCHOR_FILE,
    &AUDIT_ANCHOR_SYSLOG,
    &AUDIT_ANCHOR_TSA,
    &login::BREACHED_PASSWORDS,
    &CONSOLES_PER_VM,
    &CORS_ORIGINS,
    &login::GEOIP_FILE,
    &limit::ANONYMOUS,
    &limit::GRAPHQL_MUTATION,
    &limit::GRAPHQL_QUERY,
    &limit::GRPC,
    &limit::GRPC_CHANGE,
    &limit::MODE,
    &limit::PRINCIPAL,
    &limit::PRINCIPAL_BURST,
    &LOG_LEVEL,
    &NODE_TIMEOUT,
    &login::PANEL_HOST,
    &login::PANEL_ORIGINS,
    &project::PROJECT_DISK,
    &project::PROJECT_MEMORY,
    &project::PROJECT_NETWORKS,
    &project::PROJECT_SNAPSHOTS,
    &project::PROJECT_VCPUS,
    &project::PROJECT_VMS,
    &SLOW_READ,
    &login::SMTP_CA,
    &login::SMTP_FROM,
    &login::SMTP_SECRET,
    &login::SMTP_SERVER,
    &login::SMTP_USER,
    &TASK_HISTORY,
    &TLS_CERTIFICATE,
    &login::WEBAUTHN_ATTESTATION,
    &login::WEBAUTHN_ROOTS,
];

impl Known {
    fn default(&self) -> Value {
        match self.sort {
            Sort::Number { default, .. } => json!(default),
            Sort::Text { default, .. } => json!(default),
        }
    }

    /// Refuses a value of another type or outside the range.
    pub(super) fn check(&self, value: &Value) -> Result<()> {
        let wrong = match (self.sort, value) {
            (Sort::Number { min, max, unit, .. }, _) => match value.as_u64() {
                None => Some(format!("{value} is not a whole number")),
                Some(n) if !(min..=max).contains(&n) => {
                    Some(format!("{n} {unit} is not in {min} to {max}"))
                }
                Some(_) => None,
            },
            (Sort::Text { check, .. }, Value::String(text)) => {
                check(text).err().map(|why| format!("`{text}` {why}"))
            }
            (Sort::Text { .. }, _) => Some(format!("{value} is not a text")),
        };
        match wrong {
            None => Ok(()),
            Some(wrong) => Err(Error::field("spec.value", wrong).hint(format!(
                "the default of `{}` is {}",
                self.name,
                self.default()
            ))),
        }
    }

    /// What a spec sets it to.
    pub(super) fn value_of(&self, spec: &SettingSpec) -> Value {
        spec.value.clone().unwrap_or_else(|| self.default())
    }

    /// Writes what is known of it into its status.
    pub(super) fn describe(&self, status: &mut SettingStatus) {
        status.default = self.default();
        status.restart_needed = self.restart_needed;
        status.scope = "cluster".into();
        self.doc.clone_into(&mut status.description);
        (status.min, status.max) = (None, None);
        status.unit.clear();
        match self.sort {
            Sort::Number { min, max, unit, .. } => {
                "number".clone_into(&mut status.sort);
                unit.clone_into(&mut status.unit);
                (status.min, status.max) = (Some(min), Some(max));
            }
            Sort::Text { .. } => "text".clone_into(&mut status.sort),
        }
    }

    /// The value now: what is set and fits, else the default.
    pub fn value(&self, cx: &Cx) -> Value {
        let set = cx.get::<Setting>(None, self.name);
        let set = set.and_then(|s| s.spec.value.clone());
        set.filter(|value| self.check(value).is_ok())
            .unwrap_or_else(|| self.default())
    }

    /// The number now; 0 for a text.
    pub fn number(&self, cx: &Cx) -> u64 {
        self.value(cx).as_u64().unwrap_or_default()
    }

    /// The number now, as seconds.
    pub fn seconds(&self, cx: &Cx) -> Duration {
        Duration::from_secs(self.number(cx))
    }

    /// The text now; empty for a number.
    pub fn text(&self, cx: &Cx) -> String {
        self.value(cx).as_str().unwrap_or_default().to_owned()
    }

    /// Ends at the first change after this call, or when the process ends. Call it before reading the value, so that no
    /// change falls between.
    pub fn changed(&self, cx: &Cx) -> impl Future<Output = ()> + Send + use<> {
        let key = cx.key::<Setting>(None, self.name);
        let mut deltas = cx.cache().subscribe();
        let stop = cx.shutdown();
        async move {
            loop {
                let delta = tokio::select! {
                    () = stop.cancelled() => return,
                    delta = deltas.recv() => delta,
                };
                match delta {
                    Ok(delta) if delta.key != key => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => return stop.cancelled().await,
                }
            }
        }
    }
}
