//! One network card of a guest, on tap descriptors made by the network part.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What the guest sees the card as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NicModel {
    /// `virtio-net`.
    Virtio,
    /// An Intel card of 2008, for guests without virtio.
    E1000e,
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nic {
    /// Its name: `[a-z0-9-]`, at most 16 characters, unique among the guest's cards. The device is `nic-ID`.
    pub id: String,
    /// Names of the tap's descriptors, one per queue (up to 8; one for [`NicModel::E1000e`]).
    pub tap_fds: Vec<String>,
    /// Names of as many `/dev/vhost-net` descriptors, or none for no vhost.
    pub vhost_fds: Vec<String>,
    /// Its hardware address, `52:54:00:...` or another unicast one.
    pub mac: String,
    /// What the guest sees it as.
    pub model: NicModel,
    /// Its PCIe port.
    pub slot: u8,
    /// The largest packet, in bytes, told to the guest; `None` leaves 1500.
    pub mtu: Option<u16>,
    /// Its place in the boot order (network boot); `None` is never booted from, and saves the option ROM.
    pub boot_index: Option<u8>,
}

impl Nic {
    /// The id of its device, as in `device_del` and `set_link`.
    pub fn device_id(&self) -> String {
        format!("nic-{}", self.id)
    }

    /// The id of its host side, as in `netdev_del`.
    pub fn netdev_id(&self) -> String {
        format!("net-{}", self.id)
    }

    /// Joins what `name_of` calls the descriptors: numbers on the command line, names in QMP.
    fn joined(names: &[String], name_of: &dyn Fn(&str) -> String) -> String {
        let names: Vec<String> = names.iter().map(|name| name_of(name)).collect();
        names.join(":")
    }

    /// The host side for `netdev_add`, on descriptors handed over under names.
    pub(super) fn netdev(&self, name_of: &dyn Fn(&str) -> String) -> Value {
        let mut netdev = Map::new();
        let mut set = |key: &str, value: Value| {
            netdev.insert(key.to_owned(), value);
        };
        set("type", json!("tap"));
        set("id", json!(self.netdev_id()));
        let plural = self.tap_fds.len() > 1;
        let fds = Self::joined(&self.tap_fds, name_of);
        set(if plural { "fds" } else { "fd" }, json!(fds));
        if !self.vhost_fds.is_empty() {
            set("vhost", json!(true));
            let fds = Self::joined(&self.vhost_fds, name_of);
            set(if plural { "vhostfds" } else { "vhostfd" }, json!(fds));
        }
        Value::Object(netdev)
    }

    /// The host side for `-netdev`.
    pub(super) fn netdev_arg(&self, name_of: &dyn Fn(&str) -> String) -> String {
        // Only numbers and our own ids stand in it, so nothing needs escaping.
        let mut arg = String::new();
        if let Value::Object(netdev) = self.netdev(name_of) {
            for (key, value) in netdev {
                let value = match value {
                    Value::Bool(true) => "on".to_owned(),
                    Value::String(text) => text,
                    other => other.to_string(),
                };
                match key.as_str() {
                    "type" => arg.push_str(&value),
                    key => arg.push_str(&format!(",{key}={value}")),
                }
            }
        }
        arg
    }

    /// The device to add, for `-device` and `device_add`; `express`: whether the machine has PCI Express.
    pub(super) fn device(&self, express: bool) -> Value {
        let mut device = Map::new();
        let mut set = |key: &str, value: Value| {
            device.insert(key.to_owned(), value);
        };
        let queues = self.tap_fds.len();
        match self.model {
            NicModel::Virtio => {
                set("driver", json!("virtio-net-pci"));
                if queues > 1 {
                    set("mq", json!(true));
                    // Two per queue pair, one for control, one for configuration.
                    set("vectors", json!(2 * queues + 2));
                }
                if let Some(mtu) = self.mtu {
                    set("host_mtu", json!(mtu));
                }
            }
            NicModel::E1000e => set("driver", json!("e1000e")),
        }
        set("id", json!(self.device_id()));
        set("netdev", json!(self.netdev_id()));
        set("mac", json!(self.mac));
        for (key, value) in super::args::place(express, self.slot) {
            set(key, value);
        }
        match self.boot_index {
            Some(index) => set("bootindex", json!(index)),
            None => set("romfile", json!("")),
        }
        Value::Object(device)
    }
}
