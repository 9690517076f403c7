//! The roles that are there from the start.

use super::{KIND, Mfa, Role};
use model::{Error, ObjectRef, Result, What};
use runtime::{Cx, Op};
use serde_json::{Value, json};

/// One of them.
#[derive(Debug)]
pub struct BuiltIn {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// What it gives. Kinds that this version does not have yet may be named.
    pub allow: &'static [&'static str],
    /// What it takes away.
    pub deny: &'static [&'static str],
    /// What it asks of logins.
    pub mfa: Mfa,
}

/// The role that may do everything; somebody always has it on everything.
pub const SUPERADMIN: &str = "superadmin";

/// The role of who runs a project.
pub const PROJECT_ADMIN: &str = "project-admin";

/// What nobody but the superadmin and the auditor does with the record of who did what.
const AUDIT: &[&str] = &[
    "audit-chain.update",
    "audit-chain.verify",
    "audit-chain.export",
    "audit-chain.erase",
    "audit-chain.restrict",
    "audit-chain.rotate-keys",
];

/// All of them: those that the reference has (2.5), and who runs a project, so that a tenant needs nobody of the cluster.
pub static BUILT_IN: &[BuiltIn] = &[
    BuiltIn {
        name: SUPERADMIN,
        doc: "Everything, everywhere.",
        allow: &["*"],
        deny: &[],
        mfa: Mfa::Required,
    },
    BuiltIn {
        name: "admin",
        doc: "Everything but what only a superadmin may: he cannot touch superadmins, and of the audit trail he only reads.",
        allow: &["*"],
        deny: AUDIT,
        mfa: Mfa::Required,
    },
    BuiltIn {
        name: "operator",
        doc: "Runs guests and their disks, drains nodes, makes and restores backups. No users, no system settings.",
        allow: &[
            "node.read",
            "node.update",
            "node.drain",
            "node.uncordon",
            "node.maintenance",
            "snapshot.*",
            "backup.*",
            "vm.*",
            "template.*",
            "volume.*",
            "image.*",
            "assignment.read",
            "network.read",
            "address.read",
            "pool.read",
            "project.read",
            "quota.read",
            "store.read",
            "task.*",
            "event.read",
            "audit-chain.read",
            "audit-chain.rows",
            "passthrough.read",
            "passthrough.bind",
            "passthrough.release",
        ],
        deny: &[],
        mfa: Mfa::Enrolled,
    },
    BuiltIn {
        name: "developer",
        doc: "Makes, changes and uses guests, disks and networks where it is granted, as a rule in a project.",
        allow: &[
            "node.read",
            "snapshot.read",
            "snapshot.create",
            "snapshot.delete",
            "backup.read",
            "backup.create",
            "backup.delete",
            "vm.*",
            "template.*",
            "volume.*",
            "network.*",
            "image.*",
            "address.read",
            "pool.read",
            "project.read",
            "quota.read",
            "task.*",
            "event.read",
        ],
        deny: &[],
        mfa: Mfa::Enrolled,
    },
    BuiltIn {
        name: PROJECT_ADMIN,
        doc: "Runs a project, where it is granted: makes, changes and uses what lies in it, and lets others in with what he has himself. Not how much the project may use.",
        allow: &[
            "node.read",
            "snapshot.*",
            "backup.*",
            "vm.*",
            "template.*",
            "volume.*",
            "network.*",
            "image.*",
            "address.*",
            "assignment.read",
            "pool.read",
            "secret.*",
            "member.*",
            "project.read",
            "quota.read",
            "task.*",
            "event.read",
            "audit-chain.read",
            "audit-chain.rows",
        ],
        deny: &[],
        mfa: Mfa::Enrolled,
    },
    BuiltIn {
        name: "viewer",
        doc: "Sees nodes, guests, disks, networks, backups, and what was done.",
        allow: &[
            "node.read",
            "snapshot.read",
            "backup.read",
            "vm.read",
            "template.read",
            "volume.read",
            "image.read",
            "network.read",
            "address.read",
            "assignment.read",
            "pool.read",
            "project.read",
            "quota.read",
            "task.read",
            "task.log",
            "event.read",
            "audit-chain.read",
            "audit-chain.rows",
        ],
        deny: &[],
        mfa: Mfa::Enrolled,
    },
    BuiltIn {
        name: "monitor",
        doc: "For programs that watch: states, metrics and health.",
        allow: &[
            "node.read",
            "node.heartbeat",
            "snapshot.read",
            "backup.read",
            "vm.read",
            "volume.read",
            "network.read",
            "pool.read",
            "project.read",
            "metrics.read",
            "health.read",
        ],
        deny: &[],
        mfa: Mfa::Enrolled,
    },
    BuiltIn {
        name: "auditor",
        doc: "Reads everything, changes nothing, and proves the audit trail.",
        allow: &[
            "*.read",
            "*.history",
            "task.log",
            "audit-chain.rows",
            "audit-chain.verify",
            "audit-chain.export",
        ],
        deny: &["secret.reveal"],
        mfa: Mfa::Enrolled,
    },
    BuiltIn {
        name: "application",
        doc: "For programs: nothing by itself. Give the program a role of its own with this as parent.",
        allow: &[],
        deny: &[],
        mfa: Mfa::Enrolled,
    },
];

impl BuiltIn {
    fn spec(&self) -> Value {
        json!({
            "description": self.doc, "allow": self.allow, "deny": self.deny, "parents": [], "mfa": self.mfa,
        })
    }
}

/// Makes them, or brings them to this version's table. The `api` role calls it at start.
pub async fn make_built_in(cx: &Cx) -> Result<()> {
    for role in BUILT_IN {
        let spec = role.spec();
        let there = cx.get::<Role>(None, role.name);
        if let Some(there) = &there
            && serde_json::to_value(&there.spec).is_ok_and(|now| now == spec)
        {
            continue;
        }
        let op = Op::Update {
            target: ObjectRef {
                kind: KIND.name.into(),
                project: None,
                name: role.name.into(),
            },
            body: json!({ "metadata": { "name": role.name, "protection": true }, "spec": spec }),
            create: true,
        };
        match cx.submit(op, "first start").await {
            Ok(_)
            | Err(Error {
                what: What::Exists, ..
            }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
