//! The dozen keys that are needed before the store is open. Everything else is the kind `setting`.
//!
//! Order: `--set`, then `DEBVISOR_<KEY>`, then the file, then the default.

use anyhow::{Context, bail};
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use store::seal::RootSource;
use toml::{Table, Value};

/// The configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Name of the instance; `None` on a packaged node.
    pub instance: Option<String>,
    /// What must survive: store, streams, keys, guests' files.
    pub state_dir: PathBuf,
    /// Sockets and files of running things.
    pub run_dir: PathBuf,
    /// The file of the root key, which wraps the keys of secrets; outside the state folder. `root.key` beside the
    /// configuration file when absent. Not read when systemd hands over the credential `debvisor-root-key`.
    pub root_key: Option<PathBuf>,
    /// What can be made again: built images, probes.
    pub cache_dir: PathBuf,
    /// This machine.
    pub node: Node,
    /// Where the api role listens.
    pub listen: Listen,
    /// Where bridges live.
    pub network: Network,
    /// Logs.
    pub log: Log,
    /// Certificates of public CAs.
    pub acme: Acme,
}

/// Certificates of public CAs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Acme {
    /// The program that makes TXT records for accounts whose `dns` says `hook`. It is started as the api, without a shell;
    /// nobody but root may be able to change it. None when absent.
    pub dns_hook: Option<PathBuf>,
}

/// This machine.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Its name; the host name when absent.
    pub name: Option<String>,
}

/// Where the api role listens.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// HTTPS.
    pub https: Option<SocketAddr>,
    /// gRPC with client certificates.
    pub grpc: Option<SocketAddr>,
}

/// Where bridges live.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// A network namespace for bridges, taps, rules and dnsmasq; the machine's own when absent.
    pub namespace: Option<String>,
}

/// Logs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A filter such as `info` or `info,compute=debug`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            instance: None,
            state_dir: "/var/lib/debvisor".into(),
            run_dir: "/run/debvisor".into(),
            root_key: None,
            cache_dir: "/var/cache/debvisor".into(),
            node: Node::default(),
            listen: Listen::default(),
            network: Network::default(),
            log: Log {
                level: "info".into(),
                format: LogFormat::Json,
            },
            acme: Acme::default(),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Listen {
            https: Some(SocketAddr::from(([0; 16], 8443))),
            grpc: Some(SocketAddr::from(([0; 16], 7443))),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Config::default().log
    }
}

/// Keys that an environment variable may set.
const KEYS: &[&str] = &[
    "state_dir",
    "run_dir",
    "root_key",
    "cache_dir",
    "node.name",
    "listen.https",
    "listen.grpc",
    "network.namespace",
    "log.level",
    "log.format",
    "acme.dns_hook",
];

impl Config {
    /// Reads a file; a missing one is an error unless it is the packaged path.
    pub fn load(path: &Path, instance: Option<&str>, set: &[String]) -> anyhow::Result<Config> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(e)
                if e.kind() == std::io::ErrorKind::NotFound
                    && path == Path::new("/etc/debvisor/debvisord.toml") =>
            {
                String::new()
            }
            Err(e) => {
                return Err(e)
                    .with_context(|| format!("cannot read the configuration {}", path.display()));
            }
        };
        let mut overrides = Vec::new();
        for key in KEYS {
            let name = format!("DEBVISOR_{}", key.replace('.', "_").to_uppercase());
            if let Ok(value) = std::env::var(&name) {
                overrides.push(((*key).to_owned(), value));
            }
        }
        for one in set {
            let (key, value) = one
                .split_once('=')
                .with_context(|| format!("--set {one}: write KEY=VALUE"))?;
            overrides.push((key.to_owned(), value.to_owned()));
        }
        let mut config = Config::parse(&path.display().to_string(), &text, &overrides)?;
        config
            .root_key
            .get_or_insert_with(|| path.with_file_name("root.key"));
        if let Some(instance) = instance {
            config.instance = Some(instance.to_owned());
        }
        Ok(config)
    }

    /// Parses a text with overrides; `source` names it in errors.
    fn parse(source: &str, text: &str, overrides: &[(String, String)]) -> anyhow::Result<Config> {
        // The text alone first: its errors then have lines.
        if let Err(error) = toml::from_str::<Config>(text) {
            bail!("{}", explain(source, text, &error));
        }
        let mut table: Table = toml::from_str(text)?;
        for (key, value) in overrides {
            if !KEYS.contains(&key.as_str()) {
                let near = model::nearest(key, KEYS.iter().copied());
                bail!(
                    "`{key}` is not a key of the configuration{}",
                    near.map(|n| format!("; did you mean `{n}`?"))
                        .unwrap_or_default()
                );
            }
            let mut here = &mut table;
            let (folder, last) = key
                .rsplit_once('.')
                .map_or((None, key.as_str()), |(f, l)| (Some(f), l));
            if let Some(folder) = folder {
                let entry = here
                    .entry(folder)
                    .or_insert_with(|| Value::Table(Table::new()));
                here = entry
                    .as_table_mut()
                    .with_context(|| format!("`{folder}` is not a table"))?;
            }
            here.insert(last.to_owned(), Value::String(value.clone()));
        }
        let merged = Value::Table(table);
        merged.try_into::<Config>().map_err(|e| {
            anyhow::anyhow!(
                "{source}, with what the environment and --set say: {}",
                e.message()
            )
        })
    }

    /// Where the root key comes from.
    pub fn root_source(&self) -> anyhow::Result<RootSource> {
        let file = self.root_key.as_deref();
        let file = file.unwrap_or(Path::new("/etc/debvisor/root.key"));
        let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Ok(RootSource::find(
            credentials.as_deref(),
            file,
            &self.state_dir,
        )?)
    }

    /// The name of this node.
    pub fn node_name(&self) -> anyhow::Result<model::Name> {
        let name = match &self.node.name {
            Some(name) => name.clone(),
            None => {
                let host = nix::sys::utsname::uname().context("the host has no name")?;
                let host = host.nodename().to_string_lossy().into_owned();
                host.split('.').next().unwrap_or_default().to_lowercase()
            }
        };
        Ok(model::Name::parse("node.name", &name)?)
    }
}

/// An error of the file: where, what, and the nearest valid key.
fn explain(source: &str, text: &str, error: &toml::de::Error) -> String {
    let line = error
        .span()
        .map(|s| text[..s.start.min(text.len())].matches('\n').count() + 1);
    let at = line.map_or(source.to_owned(), |n| format!("{source}, line {n}"));
    let message = error.message();
    let mut quoted = message.split('`').skip(1).step_by(2);
    let hint = if message.starts_with("unknown field") {
        let unknown = quoted.next().unwrap_or_default().to_owned();
        model::nearest(&unknown, quoted)
            .map(|near| format!("; did you mean `{near}`?"))
            .unwrap_or_default()
    } else {
        String::new()
    };
    format!("{at}: {message}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(text: &str, overrides: &[(&str, &str)], expect: Expect) {
        let overrides: Vec<_> = overrides
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        expect.assert_eq(&match Config::parse("debvisord.toml", text, &overrides) {
            Ok(c) => format!("{:?} {:?} {}", c.listen.https, c.state_dir, c.log.level),
            Err(e) => format!("{e:#}"),
        });
    }

    #[test]
    fn keys() {
        check(
            "",
            &[],
            expect![[r#"Some([::]:8443) "/var/lib/debvisor" info"#]],
        );
        check(
            "[listen]\nhttps = \"127.0.0.1:1\"\n",
            &[],
            expect![[r#"Some(127.0.0.1:1) "/var/lib/debvisor" info"#]],
        );
        check(
            "[listen]\nhttps = \"127.0.0.1:1\"\n",
            &[("listen.https", "127.0.0.1:2"), ("log.level", "debug")],
            expect![[r#"Some(127.0.0.1:2) "/var/lib/debvisor" debug"#]],
        );
        check(
            "\n[listen]\nhtps = \"127.0.0.1:1\"\n",
            &[],
            expect![
                "debvisord.toml, line 3: unknown field `htps`, expected `https` or `grpc`; did you mean `https`?"
            ],
        );
        check(
            "[listen]\nhttps = \"8443\"\n",
            &[],
            expect!["debvisord.toml, line 2: invalid socket address syntax"],
        );
        check(
            "",
            &[("listen.htps", "x")],
            expect![
                "`listen.htps` is not a key of the configuration; did you mean `listen.https`?"
            ],
        );
    }
}
