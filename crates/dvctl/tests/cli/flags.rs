//! Flags are made from the schema, and send what a file would say.

use crate::Stage;
use serde_json::json;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA someone@example";

#[test]
fn the_line_of_the_readme() {
    let stage = Stage::new();
    std::fs::create_dir(stage.folder.path().join(".ssh")).unwrap();
    std::fs::write(stage.folder.path().join(".ssh/id.pub"), format!("{KEY}\n")).unwrap();
    let said = stage.run(
        "vm create web1 --image debian-12 --vcpus 2 --memory 1GiB --disk 8GiB --network default --ssh-key ~/.ssh/id.pub --start",
    );
    assert_eq!(said.ok(), "vm/web1 created\nvm/web1 started\n");
    let spec = stage.server.object("vms", "web1").unwrap()["spec"].clone();
    assert_eq!(
        spec,
        json!({ "vcpus": 2, "memory": 1073741824u64, "image": "debian-12", "disks": [{ "size": 8589934592u64 }],
            "nics": [{ "network": "default" }], "cloud_init": { "ssh_keys": [KEY] }, "firmware": "bios", "tpm": false, "power": "off" })
    );
}

#[test]
fn everything_a_flag_can_be() {
    let stage = Stage::new();
    stage
        .run("vm create a --disk size=1GiB,bus=scsi --disk 2GiB,read-only --cpu model=host --cpu.sockets 2 --tpm --label app=web --set nics[0].network=lan --protection")
        .ok();
    let made = stage.server.object("vms", "a").unwrap();
    assert_eq!(
        made["spec"]["disks"],
        json!([{ "size": 1u64 << 30, "bus": "scsi" }, { "size": 2u64 << 30, "read_only": true }])
    );
    assert_eq!(
        made["spec"]["cpu"],
        json!({ "model": "host", "sockets": 2 })
    );
    assert_eq!(made["spec"]["nics"], json!([{ "network": "lan" }]));
    assert_eq!(made["metadata"]["labels"], json!({ "app": "web" }));
    assert_eq!(
        (&made["spec"]["tpm"], &made["metadata"]["protection"]),
        (&json!(true), &json!(true))
    );

    stage
        .run("vm set a --memory 2GiB --tpm=false --label app- --label tier=x")
        .ok();
    stage
        .run("vm set a --set disks[1].size=3GiB --unset cpu.sockets")
        .ok();
    let made = stage.server.object("vms", "a").unwrap();
    assert_eq!(made["spec"]["memory"], 2u64 << 30);
    assert_eq!(
        made["spec"]["disks"][1],
        json!({ "size": 3u64 << 30, "read_only": true })
    );
    assert_eq!(made["spec"]["cpu"], json!({ "model": "host" }));
    assert_eq!(made["metadata"]["labels"], json!({ "tier": "x" }));
    assert_eq!(stage.run("vm set a").code, 2);
}

#[test]
fn dry_run_makes_nothing() {
    let stage = Stage::new();
    assert_eq!(
        stage.run("vm create a --dry-run").ok(),
        "vm/a would be created\n"
    );
    assert_eq!(stage.server.object("vms", "a"), None);
    // A wrong action is said before anything is made.
    let said = stage.run("vm create a --then strat");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.err.contains("did you mean `start`?"), "{said:?}");
    assert_eq!(stage.server.object("vms", "a"), None);
}

#[test]
fn a_private_key_stays_here() {
    let stage = Stage::new();
    let key = stage.folder.path().join("id");
    std::fs::write(&key, "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n").unwrap();
    let said = stage.run("vm create a --ssh-key ./id");
    assert_eq!(said.code, 2);
    assert!(said.err.contains("private key"), "{said:?}");
}
