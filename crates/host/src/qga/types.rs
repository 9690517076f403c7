//! Answers of the guest agent, as far as we read them. The guest wrote them: they may be wrong.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Answer of `guest-info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentInfo {
    /// The agent's version.
    pub version: String,
    /// The commands it has and would carry out.
    pub commands: Vec<String>,
}

/// Answer of `guest-get-osinfo`. All fields may be absent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all(deserialize = "kebab-case"))]
pub struct OsInfo {
    /// `debian`, `mswindows`, ...
    pub id: Option<String>,
    /// Its name for people, with the version.
    pub pretty_name: Option<String>,
    /// Version, such as `12`.
    pub version_id: Option<String>,
    /// Version of the kernel.
    pub kernel_release: Option<String>,
    /// Hardware name, such as `x86_64`.
    pub machine: Option<String>,
}

/// One network interface as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The guest's name for it.
    pub name: String,
    /// Its hardware address, when it has one.
    pub mac: Option<String>,
    /// Its addresses.
    pub addresses: Vec<Address>,
}

/// One address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of the network part, in bits.
    pub prefix: u8,
}

/// A program to run in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exec {
    /// Its path in the guest, or a name the guest looks up.
    pub path: String,
    /// Its arguments, without the program.
    pub args: Vec<String>,
    /// Environment, as `NAME=value`; empty leaves the agent's own.
    pub env: Vec<String>,
    /// Its standard input.
    pub input: Vec<u8>,
}

/// How a program in the guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code, when it ended by itself.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output, up to the agent's 16 MiB.
    pub stdout: Vec<u8>,
    /// Its standard error, likewise.
    pub stderr: Vec<u8>,
    /// Whether the agent has cut one of them.
    pub truncated: bool,
}

/// Whether the guest's file systems are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FreezeState {
    /// Nothing is written to disk until they are thawed.
    Frozen,
    /// They work.
    Thawed,
}

/// How the guest is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShutdownMode {
    /// Power off.
    PowerOff,
    /// Reboot.
    Reboot,
    /// Halt without power off.
    Halt,
}
