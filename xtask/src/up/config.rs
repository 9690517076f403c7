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

/// The ports of an instance: HTTPS and gRPC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ports {
    https: u16,
    grpc: u16,
}

/// Ports of the manual, taken when nobody has them.
const USUAL: Ports = Ports {
    https: 8443,
    grpc: 7443,
};

/// Writes the configuration when there is none, or when a port was taken by somebody else. True when it changed.
pub fn write(instance: &Instance) -> Result<bool> {
    let path = instance.config();
    let former = fs::read_to_string(&path).ok();
    let runs = !daemons::pids(instance, Role::Api).is_empty();
    let ports = match former.as_deref().and_then(ports_in) {
        Some(ports) if runs => ports,
        Some(ports) => Ports {
            https: keep(ports.https, instance)?,
            grpc: keep(ports.grpc, instance)?,
        },
        None => Ports {
            https: choose(USUAL.https)?,
            grpc: choose(USUAL.grpc)?,
        },
    };
    let text = text(instance, ports);
    if former.as_deref() == Some(text.as_str()) {
        return Ok(false);
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", short(&path)))?;
    Ok(true)
}

fn keep(port: u16, instance: &Instance) -> Result<u16> {
    if free(port) {
        return Ok(port);
    }
    let other = choose(port)?;
    eprintln!(
        "port {port} of instance `{}` is in use by another program: taking {other}",
        instance.name
    );
    Ok(other)
}

/// Where the instance answers.
pub fn url(instance: &Instance) -> Result<String> {
    let path = instance.config();
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", short(&path)))?;
    let ports = ports_in(&text).with_context(|| format!("{} names no ports", short(&path)))?;
    Ok(format!("https://127.0.0.1:{}", ports.https))
}

fn text(instance: &Instance, ports: Ports) -> String {
    format!(
        "# Written by `cargo xtask up`; gone with `cargo xtask down --guests`.\nstate_dir = \"{}\"\nrun_dir = \"{}\"\nroot_key = \"{}\"\ncache_dir = \"{}\"\n\n[listen]\nhttps = \"127.0.0.1:{}\"\ngrpc = \"127.0.0.1:{}\"\n\n[network]\nnamespace = \"{}\"\n\n[log]\nformat = \"text\"\n",
        instance.dir().display(),
        instance.run_dir().display(),
        instance.secrets_dir().join("root.key").display(),
        tree::cache().display(),
        ports.https,
        ports.grpc,
        instance.netns(),
    )
}

fn ports_in(text: &str) -> Option<Ports> {
    let port = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))?;
        line.trim_matches('"').rsplit(':').next()?.parse().ok()
    };
    Some(Ports {
        https: port("https")?,
        grpc: port("grpc")?,
    })
}

/// The port that is wished for when it is free, else one that the kernel names.
fn choose(wish: u16) -> Result<u16> {
    if free(wish) {
        return Ok(wish);
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
    fn ports_are_kept_from_the_file() {
        let instance = Instance::named("t").unwrap();
        let ports = Ports {
            https: 4711,
            grpc: 4712,
        };
        assert_eq!(ports_in(&text(&instance, ports)), Some(ports));
        assert_eq!(ports_in("x = 1\n"), None);
    }
}
