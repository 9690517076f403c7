//! A kind whose objects are as large as those of virtual machines: about 1 KB.

use model::{Column, Condition, Kind, Resource, Scope, Verb, schema};
use runtime::{Place, Seat, Subsystem, no_controllers, normal, nothing_to_admit};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Where its objects are.
pub const PATH: &str = "/api/v1/projects/default/machines";

struct Machine;
impl Resource for Machine {
    const KIND: &'static Kind = &KIND;
    type Spec = MachineSpec;
    type Status = MachineStatus;
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MachineSpec {
    state: String,
    vcpus: u32,
    memory: model::Bytes,
    disks: Vec<Value>,
    nics: Vec<Value>,
    user_data: String,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct MachineStatus {
    observed_generation: u64,
    conditions: Vec<Condition>,
}

static KIND: Kind = Kind {
    name: "machine",
    plural: "machines",
    title: "Machine",
    scope: Scope::Project,
    doc: "As large as a virtual machine, for measuring.",
    verbs: Verb::ALL,
    spec: schema::of::<MachineSpec>,
    status: schema::of::<MachineStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("state", "spec.state"),
        Column::new("vcpus", "spec.vcpus"),
    ],
    actions: &[],
    streams: &[],
    examples: &[],
};

static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<Machine>,
    admit: nothing_to_admit,
    runs: &[],
    undos: &[],
    streams: &[],
    finalizes: false,
    controllers: no_controllers,
};

/// What the bench declares.
pub static SUBSYSTEMS: &[&Subsystem] = &[&SUBSYSTEM];

/// The body of the n-th object.
pub fn body(n: usize) -> Value {
    json!({
        "metadata": { "name": format!("m{n:05}"), "labels": { "env": "prod", "rack": format!("r{}", n % 40) } },
        "spec": {
            "state": if n.is_multiple_of(3) { "stopped" } else { "running" },
            "vcpus": 2,
            "memory": "2GiB",
            "disks": [{ "name": "root", "volume": format!("m{n:05}-root"), "size": 10_737_418_240u64, "bus": "virtio", "cache": "none" }],
            "nics": [{ "network": "default", "mac": format!("52:54:00:00:{:02x}:{:02x}", n / 256 % 256, n % 256), "address": "10.0.0.7" }],
            "user_data": "#cloud-config\nusers: [default]\npackages: [nginx]\n".repeat(4),
        }
    })
}
