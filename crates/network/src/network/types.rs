//! Spec and status of a network.

use model::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Rust side of kind `network`.
pub struct Network;

/// What a network should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-counts" = "networks"))]
pub struct NetworkSpec {
    /// How guests meet the world: `nat` (they reach out under the host's address, nothing reaches in), `routed` (reached under
    /// their own addresses, for which the world must know the way), `isolated` (only each other).
    #[serde(default)]
    pub mode: Mode,
    /// Which addresses guests get: `dual` (IPv4 and IPv6), `ipv4` or `ipv6`.
    #[serde(default)]
    #[schemars(extend("x-immutable" = true))]
    pub family: Family,
    /// IPv4 subnet, such as `10.20.0.0/24` (/8 to /29). A free one is chosen when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 18), extend("x-allocated" = true, "x-immutable" = true))]
    pub subnet: Option<String>,
    /// The host's own IPv4 address in the subnet, by which guests route and ask names. The first one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15), extend("x-allocated" = true, "x-immutable" = true))]
    pub gateway: Option<String>,
    /// First and last IPv4 address given to guests, such as `10.20.0.11-10.20.0.254`. When absent: all but the first ten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 31), extend("x-allocated" = true))]
    pub range: Option<String>,
    /// IPv6 subnet, a /64. When absent, a random one of the unique local range (RFC 4193) is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 43), extend("x-allocated" = true, "x-immutable" = true))]
    pub ipv6_subnet: Option<String>,
    /// The zone of guests' names: guest `web1` of project `default` is `web1.default.internal`, and `web1` for its neighbours.
    #[serde(default = "internal")]
    #[schemars(length(min = 1, max = 120))]
    pub domain: String,
    /// Largest packet in bytes, told to guests by DHCP and router advertisement.
    #[serde(default = "ethernet")]
    #[schemars(range(min = 1280, max = 9216), extend("x-unit" = "bytes"))]
    pub mtu: u32,
}

/// How guests meet the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// They reach out under the host's address; nothing reaches in.
    #[default]
    Nat,
    /// They are reached under their own addresses.
    Routed,
    /// They reach each other, DHCP and DNS, nothing else.
    Isolated,
}

/// Which addresses guests get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// IPv4 and IPv6.
    #[default]
    Dual,
    /// Only IPv4.
    Ipv4,
    /// Only IPv6.
    Ipv6,
}

fn internal() -> String {
    "internal".into()
}

fn ethernet() -> u32 {
    1500
}

impl Default for NetworkSpec {
    fn default() -> Self {
        NetworkSpec {
            mode: Mode::default(),
            family: Family::default(),
            subnet: None,
            gateway: None,
            range: None,
            ipv6_subnet: None,
            domain: internal(),
            mtu: ethernet(),
        }
    }
}

impl Family {
    /// Whether guests get IPv4 addresses.
    pub fn ipv4(self) -> bool {
        self != Family::Ipv6
    }

    /// Whether guests get IPv6 addresses.
    pub fn ipv6(self) -> bool {
        self != Family::Ipv4
    }
}

/// What a network is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NetworkStatus {
    /// `pending`, `ready` or `failed`; the conditions say why.
    #[serde(default)]
    pub state: State,
    /// Its bridge on the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub bridge: String,
    /// How many addresses guests hold by DHCP. Up to date to the minute.
    #[serde(default)]
    pub leases: u32,
    /// Which generation of the spec the controller has seen.
    #[serde(default)]
    pub observed_generation: u64,
    /// What else is to be said.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// State of a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not made yet.
    #[default]
    Pending,
    /// Guests can be plugged in.
    Ready,
    /// It cannot be made; the conditions say why.
    Failed,
}
