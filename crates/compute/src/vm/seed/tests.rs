use super::super::types::CloudInit;
use super::*;
use expect_test::{Expect, expect};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7yXyG3n8c1yY5mBz6l1y9mUqQwVYB2S7m8e1u3hXyK me@desk";

fn refused(it: CloudInit, expect: Expect) {
    let mut out = Vec::new();
    check(&it, &mut out);
    let lines: Vec<String> = out
        .iter()
        .map(|v| format!("{}: {}", v.field, v.message))
        .collect();
    expect.assert_eq(&lines.join("\n"));
}

fn with_user_data(text: &str) -> CloudInit {
    CloudInit {
        user_data: Some(text.into()),
        ..CloudInit::default()
    }
}

#[test]
fn mistakes_are_found_with_their_place() {
    refused(
        with_user_data("#cloud-config\npackages:\n  - nginx\n runcmd: [ls]\n"),
        expect![
            "spec.cloud_init.user_data: is not YAML: line 4, column 2: did not find expected key"
        ],
    );
    refused(
        with_user_data("packages: [nginx]\n"),
        expect!["spec.cloud_init.user_data: begins with nothing that cloud-init knows"],
    );
    refused(
        with_user_data("#cloud-config\n- a\n"),
        expect!["spec.cloud_init.user_data: is not a mapping"],
    );
    refused(
        with_user_data("#cloud-config\npassword: hunter2\nusers:\n  - name: a\n    passwd: x\n"),
        expect![[r#"
            spec.cloud_init.user_data: `password` would be readable by everyone who may read the VM
            spec.cloud_init.user_data: `users[0].passwd` would be readable by everyone who may read the VM"#]],
    );
    refused(with_user_data("#!/bin/sh\necho hi\n"), expect![""]);
    refused(
        CloudInit {
            ssh_keys: vec![
                KEY.into(),
                "hello".into(),
                "ssh-ed25519 AAAA".into(),
                "-----BEGIN OPENSSH PRIVATE KEY-----".into(),
            ],
            hostname: Some("Web_1".into()),
            user: Some("0day".into()),
            network_config: Some("ethernets: {}".into()),
            secret_user_data: Some("#!/bin/sh".into()),
            ..CloudInit::default()
        },
        expect![[r#"
            spec.cloud_init.hostname: `Web_1` is not a host name
            spec.cloud_init.user: `0day` is not a user name
            spec.cloud_init.ssh_keys[1]: `hello` is not a public SSH key
            spec.cloud_init.ssh_keys[2]: is damaged: it does not hold a key of type ssh-ed25519
            spec.cloud_init.ssh_keys[3]: is a private key: never give that away, give its `.pub` file
            spec.cloud_init.secret_user_data: does not begin with `#cloud-config`
            spec.cloud_init.network_config: has no `version: 1` or `version: 2`"#]],
    );
}

fn facts() -> Facts {
    Facts {
        instance_id: "i-1".into(),
        name: "web1".into(),
        nics: vec![
            NicFacts {
                name: "nic0".into(),
                mac: "52:54:00:00:00:01".into(),
                addresses: vec![("10.0.0.5".parse().unwrap(), 24)],
                gateways: vec!["10.0.0.1".parse().unwrap()],
                dns: vec!["10.0.0.1".parse().unwrap()],
                ..NicFacts::default()
            },
            NicFacts {
                name: "nic1".into(),
                mac: "52:54:00:00:00:02".into(),
                ..NicFacts::default()
            },
        ],
    }
}

#[test]
fn documents_are_merged() {
    let it = CloudInit {
        ssh_keys: vec![KEY.into()],
        password: Some("hunter2".into()),
        user_data: Some(
            "#cloud-config\nhostname: mine\nssh_authorized_keys: [other]\nruncmd: [ls]\n".into(),
        ),
        secret_user_data: Some("#cloud-config\nchpasswd: {list: [a]}\n".into()),
        ..CloudInit::default()
    };
    let seed = documents(&it, &facts()).unwrap();
    expect![[r#"
        #cloud-config
        hostname: mine
        ssh_authorized_keys:
        - ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7yXyG3n8c1yY5mBz6l1y9mUqQwVYB2S7m8e1u3hXyK me@desk
        - other
        password: hunter2
        chpasswd:
          expire: false
          list:
          - a
        runcmd:
        - ls
    "#]]
    .assert_eq(&seed.user_data);
    expect![[r#"
        version: 2
        ethernets:
          nic0:
            match:
              macaddress: 52:54:00:00:00:01
            addresses:
            - 10.0.0.5/24
            dhcp4: false
            dhcp6: false
            routes:
            - to: 0.0.0.0/0
              via: 10.0.0.1
            nameservers:
              addresses:
              - 10.0.0.1
              search: []
          nic1:
            match:
              macaddress: 52:54:00:00:00:02
            dhcp4: true
            dhcp6: true
    "#]]
    .assert_eq(&seed.network_config);
}

#[test]
fn a_script_travels_beside_the_config() {
    let seed = documents(&with_user_data("#!/bin/sh\necho hi\n"), &facts()).unwrap();
    assert!(seed.user_data.starts_with("Content-Type: multipart/mixed;"));
    assert!(
        seed.user_data.contains("text/x-shellscript") && seed.user_data.contains("hostname: web1")
    );
}

#[test]
#[allow(
    clippy::disallowed_types,
    reason = "a test reads the disk with a reader of another author"
)]
fn the_disk_is_read_by_isoinfo() {
    let seed = documents(&CloudInit::default(), &facts()).unwrap();
    let bytes = iso(&seed).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seed.iso");
    std::fs::write(&path, &bytes).unwrap();
    let run = |args: &[&str]| {
        let out = std::process::Command::new("isoinfo")
            .arg("-i")
            .arg(&path)
            .args(args)
            .output();
        out.ok()
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    let Some(info) = run(&["-d"]) else {
        eprintln!("SKIPPED: isoinfo of package genisoimage is not installed");
        return;
    };
    assert!(info.contains("Volume id: cidata"), "{info}");
    let listed = run(&["-J", "-f"]).unwrap();
    for name in ["/meta-data", "/user-data", "/network-config"] {
        assert!(listed.contains(name), "{listed}");
    }
    assert_eq!(run(&["-J", "-x", "/user-data"]).unwrap(), seed.user_data);
}

#[test]
fn a_seed_that_is_too_large_is_refused() {
    let it = with_user_data(&format!("#!/bin/sh\n#{}", "x".repeat(MAX)));
    let error = iso(&documents(&it, &facts()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("10 MiB"));
}
