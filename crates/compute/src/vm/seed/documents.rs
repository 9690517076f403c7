//! Makes the documents of a seed from the first-class fields, the allocated addresses and the user's own documents.

use super::super::types::CloudInit;
use super::check::{Kind, kind, yaml};
use model::{Error, Result};
use serde_json::{Value, json};
use std::net::IpAddr;

/// What a seed says beside what the user wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Identity of this instance; cloud-init runs its first-boot part again when it changes.
    pub instance_id: String,
    /// Name of the VM, the host name when none is given.
    pub name: String,
    /// Network interfaces, in order.
    pub nics: Vec<NicFacts>,
}

/// What a seed says about one network interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NicFacts {
    /// Its name in the VM.
    pub name: String,
    /// By which the guest finds it.
    pub mac: String,
    /// Its addresses with prefix length; empty: by DHCP and router advertisement.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Routers.
    pub gateways: Vec<IpAddr>,
    /// Name servers.
    pub dns: Vec<IpAddr>,
    /// Domain to search in.
    pub search: Option<String>,
    /// Largest packet, when it is not 1500.
    pub mtu: Option<u32>,
}

/// The documents of a seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Seed {
    /// `meta-data`.
    pub meta_data: String,
    /// `user-data`.
    pub user_data: String,
    /// `vendor-data`.
    pub vendor_data: Option<String>,
    /// `network-config`.
    pub network_config: String,
}

/// Makes the documents.
pub fn documents(it: &CloudInit, facts: &Facts) -> Result<Seed> {
    let hostname = it.hostname.as_deref().unwrap_or(&facts.name);
    let meta = json!({ "instance-id": facts.instance_id, "local-hostname": hostname });
    Ok(Seed {
        meta_data: to_yaml(&meta)?,
        user_data: user_data(it, hostname)?,
        vendor_data: it.vendor_data.clone().filter(|t| !t.is_empty()),
        network_config: match it.network_config.as_deref().filter(|t| !t.is_empty()) {
            Some(own) => own.to_owned(),
            None => to_yaml(&network(&facts.nics))?,
        },
    })
}

fn to_yaml(value: &Value) -> Result<String> {
    serde_yaml_ng::to_string(value)
        .map_err(|e| Error::internal("cannot write a document of a cloud-init seed").because(e))
}

/// What the first-class fields amount to as a cloud-config.
fn base(it: &CloudInit, hostname: &str) -> Value {
    let mut base = json!({ "hostname": hostname.split('.').next().unwrap_or(hostname) });
    if hostname.contains('.') {
        base["fqdn"] = json!(hostname);
    }
    match &it.user {
        None => {
            if !it.ssh_keys.is_empty() {
                base["ssh_authorized_keys"] = json!(it.ssh_keys);
            }
        }
        Some(user) => {
            let mut entry = json!({ "name": user, "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL", "lock_passwd": it.password.is_none() });
            if !it.ssh_keys.is_empty() {
                entry["ssh_authorized_keys"] = json!(it.ssh_keys);
            }
            base["users"] = json!([entry]);
        }
    }
    if let Some(password) = &it.password {
        let hashed = password.starts_with('$') && password.matches('$').count() >= 3;
        match (&it.user, hashed) {
            (Some(_), true) => base["users"][0]["hashed_passwd"] = json!(password),
            (Some(_), false) => base["users"][0]["plain_text_passwd"] = json!(password),
            // cloud-init takes both forms here, for the default user of the image.
            (None, _) => base["password"] = json!(password),
        }
        base["chpasswd"] = json!({ "expire": false });
    }
    base
}

fn user_data(it: &CloudInit, hostname: &str) -> Result<String> {
    let mut config = base(it, hostname);
    let mut beside = None;
    if let Some(text) = it.user_data.as_deref().filter(|t| !t.is_empty()) {
        match kind(text) {
            Some(Kind::CloudConfig) => lay_over(&mut config, parsed("user_data", text)?),
            _ => beside = Some(text),
        }
    }
    if let Some(text) = it.secret_user_data.as_deref().filter(|t| !t.is_empty()) {
        lay_over(&mut config, parsed("secret_user_data", text)?);
    }
    let config = format!("#cloud-config\n{}", to_yaml(&config)?);
    Ok(match beside {
        None => config,
        Some(other) => multipart(&config, other),
    })
}

fn parsed(field: &str, text: &str) -> Result<Value> {
    let wrong = |why: String| Error::field(format!("spec.cloud_init.{field}"), why);
    let value = yaml(text).map_err(wrong)?;
    // Through JSON: a cloud-config has texts as keys.
    serde_json::to_value(value).map_err(|e| wrong(e.to_string()))
}

/// Lays a document over another: its values win, mappings are merged, keys are added to keys.
fn lay_over(below: &mut Value, above: Value) {
    let (Value::Object(below), Value::Object(above)) = (below, above) else {
        return;
    };
    for (name, value) in above {
        match (below.get_mut(&name), value) {
            (Some(was @ Value::Object(_)), value @ Value::Object(_)) => lay_over(was, value),
            (Some(Value::Array(was)), Value::Array(more))
                if name == "ssh_authorized_keys" || name == "users" =>
            {
                for entry in more {
                    if !was.contains(&entry) {
                        was.push(entry);
                    }
                }
            }
            (_, value) => {
                below.insert(name, value);
            }
        }
    }
}

/// A cloud-config and a script (or what else cloud-init knows) in one.
fn multipart(config: &str, other: &str) -> String {
    let boundary = "==debvisor-part==";
    let type_of_other = match kind(other) {
        Some(Kind::Script) => "text/x-shellscript",
        _ => "text/plain",
    };
    let part = |kind: &str, text: &str| {
        format!(
            "--{boundary}\nContent-Type: {kind}; charset=\"utf-8\"\nMIME-Version: 1.0\nContent-Transfer-Encoding: 8bit\n\n{text}\n"
        )
    };
    // A multipart within a multipart keeps its own headers.
    let second = match other.to_ascii_lowercase().starts_with("content-type:")
        || other.to_ascii_lowercase().starts_with("mime-version:")
    {
        true => format!("--{boundary}\n{other}\n"),
        false => part(type_of_other, other),
    };
    format!(
        "Content-Type: multipart/mixed; boundary=\"{boundary}\"\nMIME-Version: 1.0\n\n{}{second}--{boundary}--\n",
        part("text/cloud-config", config)
    )
}

/// The network configuration, version 2, made from the interfaces.
fn network(nics: &[NicFacts]) -> Value {
    let mut ethernets = serde_json::Map::new();
    for nic in nics {
        let mut it = json!({ "match": { "macaddress": nic.mac } });
        if nic.addresses.is_empty() {
            it["dhcp4"] = json!(true);
            it["dhcp6"] = json!(true);
        } else {
            let four = nic.addresses.iter().any(|(a, _)| a.is_ipv4());
            it["addresses"] = nic
                .addresses
                .iter()
                .map(|(a, p)| format!("{a}/{p}"))
                .collect();
            it["dhcp4"] = json!(false);
            it["dhcp6"] = json!(false);
            let routes: Vec<Value> = nic
                .gateways
                .iter()
                .filter(|g| g.is_ipv6() || four)
                .map(|g| {
                    let to = if g.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                    json!({ "to": to, "via": g.to_string() })
                })
                .collect();
            if !routes.is_empty() {
                it["routes"] = json!(routes);
            }
        }
        if !nic.dns.is_empty() || nic.search.is_some() {
            let servers: Vec<String> = nic.dns.iter().map(ToString::to_string).collect();
            let search: Vec<&String> = nic.search.iter().collect();
            it["nameservers"] = json!({ "addresses": servers, "search": search });
        }
        if let Some(mtu) = nic.mtu {
            it["mtu"] = json!(mtu);
        }
        ethernets.insert(nic.name.clone(), it);
    }
    json!({ "version": 2, "ethernets": ethernets })
}
