//! The configuration of a development instance, written once and kept, so that its port stays the same.

use std::{fs, net::TcpListener};

use anyhow::{Context, Result};

use super::short;
use crate::{
    instance::{
        Instance,
        daemons::{self, Role},
    },
    tree,
};

/// Writes the configuration when there is none, or when its port was taken by somebody else. True when it changed.
pub fn write(instance: &Instance) -> Result<bool> {
    let path = instance.config();
    let former = fs::read_to_string(&path).ok();
    let port = match former.as_deref().and_then(port_in) {
        Some(port) if daemons::pids(instance, Role::Api).is_empty() && !free(port) => {
            let other = choose()?;
            println!(
                "port {port} of instance `{}` is in use by another program: taking {other}",
                instance.name
            );
            other
        }
        Some(port) => port,
        None => choose()?,
    };
    let text = text(instance, port)?;
    if former.as_deref() == Some(text.as_str()) {
        return Ok(false);
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", short(&path)))?;
    Ok(true)
}

/// Where the instance answers.
pub fn url(instance: &Instance) -> Result<String> {
    let path = instance.config();
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", short(&path)))?;
    let port = port_in(&text).with_context(|| format!("{} names no port", short(&path)))?;
    Ok(format!("https://127.0.0.1:{port}"))
}

fn text(instance: &Instance, port: u16) -> Result<String> {
    let uid = daemons::api_uid()?;
    Ok(format!(
        "# Written by `cargo xtask up`; gone with `cargo xtask down --guests`.\nlisten = \"127.0.0.1:{port}\"\nstate_dir = \"{}\"\nrun_dir = \"{}\"\ncache_dir = \"{}\"\nnetns = \"{}\"\napi_uid = {uid}\n",
        instance.dir().display(),
        instance.run_dir().display(),
        tree::cache().display(),
        instance.netns(),
    ))
}

fn port_in(text: &str) -> Option<u16> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("listen = "))?;
    line.trim_matches('"').rsplit(':').next()?.parse().ok()
}

/// The port of the manual when it is free, else one that the kernel names.
fn choose() -> Result<u16> {
    if free(8443) {
        return Ok(8443);
    }
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port of 127.0.0.1 is free")?;
    Ok(listener.local_addr()?.port())
}

fn free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_kept_from_the_file() {
        let instance = Instance::named("t").unwrap();
        assert_eq!(port_in(&text(&instance, 4711).unwrap()), Some(4711));
        assert_eq!(port_in("x = 1\n"), None);
    }
}
