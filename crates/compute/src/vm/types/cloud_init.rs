//! What cloud-init in the guest is told.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What cloud-init does in the guest at its first boot, by the data source NoCloud. The seed that carries it is at most
/// 10 MiB. A change takes effect at the next cold start, as far as the guest's cloud-init runs again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudInit {
    /// Host name of the guest, an RFC 1123 name. Absent: the name of the VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hostname: Option<String>,
    /// User that the keys and the password are for. Absent: the default user of the image (`debian` on Debian).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub user: Option<String>,
    /// Public SSH keys that may log in as the user, in the form of an `authorized_keys` line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-cli" = {"flag": "ssh-key", "from_file": true}))]
    pub ssh_keys: Vec<String>,
    /// Password of the user, in plain text or hashed as in `/etc/shadow`; also allows logging in by it on the console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), extend("x-secret" = true))]
    pub password: Option<String>,
    /// User-data: a document that begins with `#cloud-config`, a script that begins with `#!`, or a MIME multipart. Its
    /// own words win over the fields above; keys are added to its keys. It is readable by everyone who may read the
    /// VM, so passwords are refused in it: they belong into `password` or `secret_user_data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200_000), extend("x-cli" = {"flag": "user-data", "from_file": true}))]
    pub user_data: Option<String>,
    /// A second `#cloud-config` document, laid over the first one, that is encrypted and never shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200_000), extend("x-secret" = true, "x-cli" = {"flag": "secret-user-data", "from_file": true}))]
    pub secret_user_data: Option<String>,
    /// Vendor-data: like user-data, from who provides the image; user-data wins over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 200_000), extend("x-cli" = {"flag": "vendor-data", "from_file": true}))]
    pub vendor_data: Option<String>,
    /// Network configuration of cloud-init, version 1 or 2, used instead of the one made from `nics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100_000), extend("x-cli" = {"flag": "network-config", "from_file": true}))]
    pub network_config: Option<String>,
}
