//! Settings under `/proc/sys/net`, read and written inside a namespace.
//!
//! Writes only what differs, so that watching tools see no churn.

use super::Netns;
use anyhow::{Context, Result};

/// Reads one setting, for example `net/ipv4/ip_forward`; `None` when this kernel lacks it.
///
/// # Errors
/// When the setting exists but cannot be read.
pub async fn read(netns: &Netns, key: &str) -> Result<Option<String>> {
    let path = path(key);
    netns.run(move || read_here(&path)).await
}

/// Writes settings, in order; those this kernel lacks are left out and returned.
///
/// # Errors
/// When a setting cannot be written.
pub async fn write(netns: &Netns, settings: &[(String, String)]) -> Result<Vec<String>> {
    let settings = settings.to_vec();
    netns
        .run(move || {
            let mut missing = Vec::new();
            for (key, value) in settings {
                if !set_here(&key, &value)? {
                    missing.push(key);
                }
            }
            Ok(missing)
        })
        .await
}

/// Sets one in the namespace of the calling thread; says whether this kernel has it.
pub(super) fn set_here(key: &str, value: &str) -> Result<bool> {
    let path = path(key);
    match read_here(&path)? {
        None => return Ok(false),
        Some(now) if now == value => {}
        Some(_) => {
            std::fs::write(&path, value)
                .with_context(|| format!("cannot set {path} to {value}"))?;
        }
    }
    Ok(true)
}

fn path(key: &str) -> String {
    format!("/proc/sys/{key}")
}

fn read_here(path: &str) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {path}")),
    }
}
