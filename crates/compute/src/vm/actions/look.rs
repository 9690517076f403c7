//! `check`, `cloud-init-render`, `cloud-init-validate`: what would happen, said before it does. They change nothing.

use super::super::hypervisor::Guests;
use super::super::rules::difference;
use super::super::seed::{self, Facts};
use super::super::types::CloudInit;
use super::super::{disks, nics};
use super::target;
use model::{Action, Danger, Error, Result, WorkStyle, schema};
use runtime::Proc;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Largest rendered seed that a task's result holds, in bytes.
const LARGEST: usize = 200_000;

pub(super) const CHECK: Action = Action {
    verb: "check",
    doc: "Says whether the VM could start now, and what it lacks: QEMU, a network, a disk, huge pages; and which fields of a \
          running one wait for the next cold start. Changes nothing.",
    danger: Danger::None,
    style: WorkStyle::Procedure,
    input: schema::empty,
    claims: &[],
    deadline: 60,
    event: "checked",
    examples: &["dvctl vm check web1"],
};

pub(super) const RENDER: Action = Action {
    verb: "cloud-init-render",
    doc: "Shows the documents of the seed that cloud-init in the guest would get at a start now. Secrets are shown as `***`.",
    danger: Danger::None,
    style: WorkStyle::Procedure,
    input: schema::empty,
    claims: &[],
    deadline: 60,
    event: "cloud-init-rendered",
    examples: &["dvctl vm cloud-init-render web1"],
};

pub(super) const VALIDATE: Action = Action {
    verb: "cloud-init-validate",
    doc: "Checks cloud-init documents as they would be checked in this VM, without changing it: those given, and for the \
          rest its own. The result has `valid` and all `violations`.",
    danger: Danger::None,
    style: WorkStyle::Procedure,
    input: schema::of::<Documents>,
    claims: &[],
    deadline: 60,
    event: "cloud-init-validated",
    examples: &[
        "dvctl vm cloud-init-validate web1",
        "dvctl vm cloud-init-validate web1 --user-data user-data.yaml",
    ],
};

/// Documents to check.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Documents {
    /// User-data. Absent: the VM's own.
    #[serde(default)]
    #[schemars(length(max = 200_000), extend("x-cli" = {"flag": "user-data", "from_file": true}))]
    user_data: Option<String>,
    /// Vendor-data. Absent: the VM's own.
    #[serde(default)]
    #[schemars(length(max = 200_000), extend("x-cli" = {"flag": "vendor-data", "from_file": true}))]
    vendor_data: Option<String>,
    /// Network configuration. Absent: the VM's own.
    #[serde(default)]
    #[schemars(length(max = 100_000), extend("x-cli" = {"flag": "network-config", "from_file": true}))]
    network_config: Option<String>,
}

fn facts(proc: &Proc) -> Result<Facts> {
    let (id, vm) = target(proc)?;
    Ok(Facts {
        instance_id: id.uid.to_string(),
        name: vm.metadata.name.to_string(),
        nics: nics::facts(proc.cx(), &vm),
    })
}

pub(super) async fn check(proc: Proc) -> Result<Value> {
    proc.step("check", || async {
        let (cx, (id, vm)) = (proc.cx(), target(&proc)?);
        let guests = Guests::of(cx)?;
        let view = guests.look(cx, &id).await?;
        let mut lacks: Vec<String> = guests.lacks(&vm.spec).into_iter().collect();
        lacks.extend(disks::wait(cx, &vm));
        lacks.extend(nics::wait(cx, &vm));
        if let Some(cloud_init) = &vm.spec.cloud_init {
            let made = seed::documents(cloud_init, &facts(&proc)?).and_then(|it| seed::iso(&it));
            lacks.extend(made.err().map(|e| e.to_string()));
        }
        let runs = view.runs.as_deref();
        let waits = runs.map(|runs| difference(runs, &vm.spec.masked()).cold);
        Ok(json!({ "ready": lacks.is_empty(), "lacks": lacks, "next_start": waits.unwrap_or_default() }))
    })
    .await
}

pub(super) async fn render(proc: Proc) -> Result<Value> {
    proc.step("render", || async {
        let (_, vm) = target(&proc)?;
        let mut cloud_init = vm.spec.cloud_init.clone().ok_or_else(|| {
            Error::refused(format!("VM `{}` has no `cloud_init`", vm.metadata.name))
                .hint("it then gets no seed; set for example `cloud_init.hostname`")
        })?;
        cloud_init.password = cloud_init.password.map(|_| "***".into());
        // A document that is shown as a comment: it would be laid over the first one.
        let secret = cloud_init.secret_user_data.take().is_some();
        let made = seed::documents(&cloud_init, &facts(&proc)?)?;
        let mut out = json!({
            "meta_data": made.meta_data,
            "user_data": made.user_data,
            "network_config": made.network_config,
        });
        if let Some(vendor) = made.vendor_data {
            out["vendor_data"] = json!(vendor);
        }
        if secret {
            out["secret_user_data"] = json!("***");
        }
        match out.to_string().len() > LARGEST {
            true => Err(Error::refused(
                "the documents are larger than a task's result may be, 200 kB",
            )),
            false => Ok(out),
        }
    })
    .await
}

pub(super) async fn validate(proc: Proc) -> Result<Value> {
    let given: Documents = proc.params()?;
    proc.step("validate", || async {
        let (_, vm) = target(&proc)?;
        let own = vm.spec.cloud_init.clone().unwrap_or_default();
        let it = CloudInit {
            user_data: given.user_data.or(own.user_data.clone()),
            vendor_data: given.vendor_data.or(own.vendor_data.clone()),
            network_config: given.network_config.or(own.network_config.clone()),
            ..own
        };
        let mut violations = Vec::new();
        seed::check(&it, &mut violations);
        if violations.is_empty() {
            let made = seed::documents(&it, &facts(&proc)?).and_then(|it| seed::iso(&it));
            if let Err(error) = made {
                return Ok(json!({ "valid": false, "violations": [error.to_string()] }));
            }
        }
        Ok(json!({ "valid": violations.is_empty(), "violations": violations }))
    })
    .await
}
