//! Spec and status of an address.

use model::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Rust side of kind `address`.
pub struct Address;

/// Which NIC speaks under which addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressSpec {
    /// The network.
    #[schemars(length(max = 127), extend("x-ref" = "network"))]
    pub network: String,
    /// The NIC's Ethernet address.
    #[schemars(length(max = 17))]
    pub mac: String,
    /// Its IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    pub ipv4: Option<String>,
    /// Its IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 39))]
    pub ipv6: Option<String>,
    /// Name of the guest; others find it under this name.
    #[schemars(length(max = 63))]
    pub guest: String,
    /// Name of the NIC in the guest.
    #[schemars(length(max = 63))]
    pub nic: String,
    /// The node where it is plugged in.
    #[schemars(length(max = 63))]
    pub node: String,
    /// The tap on that node.
    #[schemars(length(max = 15))]
    pub tap: String,
}

/// What an address is: nothing beyond what it says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddressStatus {
    /// Which generation of the spec was seen.
    #[serde(default)]
    pub observed_generation: u64,
    /// What else is to be said.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
