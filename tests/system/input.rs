//! Bad input: each is refused with a sentence that names the field, the value and a remedy, and leaves nothing behind.

use std::fs;

use anyhow::{Context, Result, ensure};
use system_tests::Instance;

use crate::harness::Stage;

/// A manifest, and words of its refusal.
struct Case {
    what: &'static str,
    manifest: &'static str,
    says: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        what: "an unknown field",
        manifest: "kind: vm\nmetadata: {name: bad}\nspec: {vcpu: 2}\n",
        says: &["vcpu", "vcpus"],
    },
    Case {
        what: "a wrong unit",
        manifest: "kind: vm\nmetadata: {name: bad}\nspec: {memory: 1GX}\n",
        says: &["memory", "1GX"],
    },
    Case {
        what: "too many vCPUs",
        manifest: "kind: vm\nmetadata: {name: bad}\nspec: {vcpus: 257}\n",
        says: &["vcpus", "256"],
    },
    Case {
        what: "a name that is none",
        manifest: "kind: vm\nmetadata: {name: Bad_Name}\nspec: {}\n",
        says: &["name"],
    },
    Case {
        what: "an image that is not there",
        manifest: "kind: vm\nmetadata: {name: bad}\nspec: {disks: [{image: nowhere}]}\n",
        says: &["nowhere"],
    },
    Case {
        what: "a subnet that is none",
        manifest: "kind: network\nmetadata: {name: bad}\nspec: {subnet: 10.0.0.0/33}\n",
        says: &["subnet", "10.0.0.0/33"],
    },
];

pub fn refused(stage: &mut Stage) -> Result<()> {
    let on = stage.tiny()?;
    for case in CASES {
        check(on, case).context(case.what)?;
    }
    in_use(on).context("a name in use")
}

fn check(on: &Instance, case: &Case) -> Result<()> {
    let file = on.dir().join("bad.yaml");
    fs::write(&file, format!("version: v1\n{}", case.manifest))?;
    let said = on.dvctl(&["apply", "-f", &file.display().to_string()])?;
    ensure!(said.code != 0, "it was accepted");
    said.says(case.says)?;
    for kind in ["vm", "network"] {
        let names = on.dvctl(&[kind, "list", "-o", "name"])?.ok()?.out;
        ensure!(!names.contains("bad"), "something is left: {names}");
    }
    Ok(())
}

fn in_use(on: &Instance) -> Result<()> {
    on.dvctl(&["vm", "create", "hello", "--image", "tiny"])?
        .exit(3)?
        .says(&["hello"])?;
    Ok(())
}
