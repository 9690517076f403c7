use super::*;
use expect_test::{Expect, expect};
use std::collections::BTreeMap;
use std::path::Path;

const UUID: &str = "0192d3a4-5b6c-7d8e-9f00-112233445566";

fn guest() -> Launch {
    Launch::new("dv-test-web1", UUID, Path::new("/run/dv/vm"), "pc-q35-10.0")
}

/// One argument per flag and line; descriptors numbered from 10.
fn check(launch: &Launch, expect: Expect) {
    launch.check().unwrap();
    let numbers: BTreeMap<_, _> = launch
        .fd_names()
        .iter()
        .map(|n| (*n).to_owned())
        .zip(10..)
        .collect();
    let mut text = String::new();
    for arg in launch.args(&numbers) {
        if arg.starts_with('-') && !text.is_empty() {
            text.push('\n');
        } else if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&arg);
    }
    text.push('\n');
    expect.assert_eq(&text);
}

#[test]
fn the_smallest_guest() {
    let mut launch = guest();
    launch.ports = 1;
    launch.video = Video::None;
    launch.balloon = false;
    check(
        &launch,
        expect![[r#"
        -name guest=dv-test-web1,debug-threads=on
        -uuid 0192d3a4-5b6c-7d8e-9f00-112233445566
        -nodefaults
        -no-user-config
        -display none
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
        -msg timestamp=on
        -machine pc-q35-10.0,usb=off,hpet=off,vmport=off,smm=off,dump-guest-core=off,memory-backend=ram
        -accel tcg,thread=multi,tb-size=128
        -cpu qemu64
        -smp cpus=1,maxcpus=1,sockets=1,cores=1,threads=1
        -m size=512M
        -object {"qom-type":"memory-backend-ram","id":"ram","size":536870912}
        -global ICH9-LPC.disable_s3=1
        -global ICH9-LPC.disable_s4=1
        -boot strict=on,menu=off
        -rtc base=utc,clock=host
        -action reboot=reset,shutdown=pause,panic=pause,watchdog=reset
        -smbios type=1,manufacturer=DebVisor,product=Guest
        -chardev socket,id=qmp,path=/run/dv/vm/run/qmp,server=on,wait=off
        -mon chardev=qmp,mode=control
        -object {"qom-type":"iothread","id":"io0"}
        -device {"driver":"pcie-root-port","id":"port0","bus":"pcie.0","addr":"0x10.0x0","chassis":1,"port":0,"multifunction":true}
        -chardev socket,id=serial,path=/run/dv/vm/run/serial,server=on,wait=off
        -device {"driver":"isa-serial","id":"serial","chardev":"serial","index":0}
        -device {"driver":"virtio-serial-pci","id":"channels","bus":"pcie.0","addr":"0x2"}
        -chardev socket,id=qga,path=/run/dv/vm/run/qga,server=on,wait=off
        -device {"driver":"virtserialport","id":"qga","bus":"channels.0","nr":1,"chardev":"qga","name":"org.qemu.guest_agent.0"}
        -object {"qom-type":"rng-builtin","id":"random"}
        -device {"driver":"virtio-rng-pci","id":"rng","rng":"random","bus":"pcie.0","addr":"0x4"}
        -device {"driver":"pvpanic-pci","id":"pvpanic","bus":"pcie.0","addr":"0x5"}
        -device {"driver":"vmcoreinfo","id":"vmcoreinfo"}
        -device {"driver":"virtio-scsi-pci","id":"scsi0","bus":"pcie.0","addr":"0x6"}
    "#]],
    );
}

#[test]
fn a_full_guest() {
    let mut launch = guest();
    launch.user = Some((640_000, 640_000));
    launch.accel = Accel::Kvm;
    launch.cpu = "host".to_owned();
    launch.topology = Topology {
        boot: 2,
        sockets: 1,
        cores: 4,
        threads: 2,
    };
    launch.memory = Memory {
        mib: 1024,
        max_mib: 8192,
        slots: 4,
        shared: true,
        huge_page: None,
    };
    launch.firmware = Firmware::Uefi {
        code: "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd".into(),
        vars_fd: "vars".to_owned(),
        secure: true,
    };
    launch.tpm_state = Some("/var/lib/dv/tpm".into());
    launch.ports = 10;
    launch.tablet = true;
    launch.smbios_serial = Some("ds=nocloud;s=http://x/,h=y".to_owned());
    launch.paused = true;
    let mut root = Disk::virtio("root", "disk/root", Format::Qcow2, 0);
    root.layers.push(Layer {
        fd: "disk/base".to_owned(),
        format: Format::Raw,
        block_device: true,
    });
    root.aio = Aio::IoUring;
    root.iothread = Some(0);
    root.boot_index = Some(0);
    root.serial = Some("root".to_owned());
    let mut data = Disk::virtio("data", "disk/data", Format::Raw, 3);
    data.bus = Bus::Sata;
    let mut fast = Disk::virtio("fast", "disk/fast", Format::Raw, 2);
    fast.bus = Bus::Nvme;
    launch.disks = vec![root, data, fast, Disk::cdrom("seed", "disk/seed", 0)];
    launch.nics = vec![
        Nic {
            id: "eth0".to_owned(),
            tap_fds: vec!["tap0".to_owned(), "tap1".to_owned()],
            vhost_fds: vec!["vhost0".to_owned(), "vhost1".to_owned()],
            mac: "52:54:00:12:34:56".to_owned(),
            model: NicModel::Virtio,
            slot: 1,
            mtu: Some(1450),
            boot_index: None,
        },
        Nic {
            id: "eth1".to_owned(),
            tap_fds: vec!["tap2".to_owned()],
            vhost_fds: Vec::new(),
            mac: "52:54:00:12:34:57".to_owned(),
            model: NicModel::E1000e,
            slot: 9,
            mtu: None,
            boot_index: Some(1),
        },
    ];
    check(
        &launch,
        expect![[r#"
        -name guest=dv-test-web1,debug-threads=on
        -uuid 0192d3a4-5b6c-7d8e-9f00-112233445566
        -nodefaults
        -no-user-config
        -display none
        -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
        -msg timestamp=on
        -machine pc-q35-10.0,usb=off,hpet=off,vmport=off,smm=on,dump-guest-core=off,memory-backend=ram,pflash0=uefi-code,pflash1=uefi-vars
        -accel kvm
        -cpu host
        -smp cpus=2,maxcpus=8,sockets=1,cores=4,threads=2
        -m size=1024M,slots=4,maxmem=8192M
        -object {"qom-type":"memory-backend-memfd","id":"ram","size":1073741824,"share":true}
        -add-fd fd=10,set=1,opaque=vars
        -add-fd fd=11,set=2,opaque=disk/root
        -add-fd fd=12,set=3,opaque=disk/base
        -add-fd fd=13,set=4,opaque=disk/data
        -add-fd fd=14,set=5,opaque=disk/fast
        -add-fd fd=15,set=6,opaque=disk/seed
        -blockdev {"driver":"file","node-name":"uefi-code","filename":"/usr/share/OVMF/OVMF_CODE_4M.secboot.fd","read-only":true}
        -blockdev {"driver":"file","node-name":"uefi-vars","filename":"/dev/fdset/1","auto-read-only":false}
        -global driver=cfi.pflash01,property=secure,value=on
        -global ICH9-LPC.disable_s3=1
        -global ICH9-LPC.disable_s4=1
        -boot strict=on,menu=off
        -rtc base=utc,clock=host
        -action reboot=reset,shutdown=pause,panic=pause,watchdog=reset
        -smbios type=1,manufacturer=DebVisor,product=Guest,serial=ds=nocloud;s=http://x/,,h=y
        -chardev socket,id=qmp,path=/run/dv/vm/run/qmp,server=on,wait=off
        -mon chardev=qmp,mode=control
        -object {"qom-type":"iothread","id":"io0"}
        -device {"driver":"pcie-root-port","id":"port0","bus":"pcie.0","addr":"0x10.0x0","chassis":1,"port":0,"multifunction":true}
        -device {"driver":"pcie-root-port","id":"port1","bus":"pcie.0","addr":"0x10.0x1","chassis":2,"port":1}
        -device {"driver":"pcie-root-port","id":"port2","bus":"pcie.0","addr":"0x10.0x2","chassis":3,"port":2}
        -device {"driver":"pcie-root-port","id":"port3","bus":"pcie.0","addr":"0x10.0x3","chassis":4,"port":3}
        -device {"driver":"pcie-root-port","id":"port4","bus":"pcie.0","addr":"0x10.0x4","chassis":5,"port":4}
        -device {"driver":"pcie-root-port","id":"port5","bus":"pcie.0","addr":"0x10.0x5","chassis":6,"port":5}
        -device {"driver":"pcie-root-port","id":"port6","bus":"pcie.0","addr":"0x10.0x6","chassis":7,"port":6}
        -device {"driver":"pcie-root-port","id":"port7","bus":"pcie.0","addr":"0x10.0x7","chassis":8,"port":7}
        -device {"driver":"pcie-root-port","id":"port8","bus":"pcie.0","addr":"0x11.0x0","chassis":9,"port":8,"multifunction":true}
        -device {"driver":"pcie-root-port","id":"port9","bus":"pcie.0","addr":"0x11.0x1","chassis":10,"port":9}
        -chardev socket,id=serial,path=/run/dv/vm/run/serial,server=on,wait=off
        -device {"driver":"isa-serial","id":"serial","chardev":"serial","index":0}
        -device {"driver":"virtio-serial-pci","id":"channels","bus":"pcie.0","addr":"0x2"}
        -chardev socket,id=qga,path=/run/dv/vm/run/qga,server=on,wait=off
        -device {"driver":"virtserialport","id":"qga","bus":"channels.0","nr":1,"chardev":"qga","name":"org.qemu.guest_agent.0"}
        -object {"qom-type":"rng-builtin","id":"random"}
        -device {"driver":"virtio-rng-pci","id":"rng","rng":"random","bus":"pcie.0","addr":"0x4"}
        -device {"driver":"virtio-balloon-pci","id":"balloon","bus":"pcie.0","addr":"0x3","deflate-on-oom":true,"free-page-reporting":true}
        -device {"driver":"pvpanic-pci","id":"pvpanic","bus":"pcie.0","addr":"0x5"}
        -device {"driver":"vmcoreinfo","id":"vmcoreinfo"}
        -chardev socket,id=tpm,path=/run/dv/vm/run/tpm
        -tpmdev emulator,id=tpm,chardev=tpm
        -device {"driver":"tpm-crb","id":"tpm-crb","tpmdev":"tpm"}
        -vnc unix:/run/dv/vm/run/vnc,share=force-shared
        -device {"driver":"VGA","id":"video","bus":"pcie.0","addr":"0x1"}
        -device {"driver":"qemu-xhci","id":"usb","bus":"pcie.0","addr":"0x7"}
        -device {"driver":"usb-tablet","id":"tablet","bus":"usb.0"}
        -device {"driver":"virtio-scsi-pci","id":"scsi0","bus":"pcie.0","addr":"0x6"}
        -blockdev {"driver":"host_device","node-name":"disk-root.1.file","filename":"/dev/fdset/3","aio":"io_uring","cache":{"direct":true,"no-flush":false},"discard":"unmap","read-only":true,"auto-read-only":false}
        -blockdev {"driver":"raw","node-name":"disk-root.1","file":"disk-root.1.file","cache":{"direct":true,"no-flush":false},"discard":"unmap","read-only":true}
        -blockdev {"driver":"file","node-name":"disk-root.file","filename":"/dev/fdset/2","aio":"io_uring","cache":{"direct":true,"no-flush":false},"discard":"unmap","read-only":false,"auto-read-only":false}
        -blockdev {"driver":"qcow2","node-name":"disk-root","file":"disk-root.file","backing":"disk-root.1","cache":{"direct":true,"no-flush":false},"discard":"unmap","read-only":false,"detect-zeroes":"unmap"}
        -device {"driver":"virtio-blk-pci","bus":"port0","iothread":"io0","id":"disk-root","drive":"disk-root","bootindex":0,"serial":"root","write-cache":"on"}
        -blockdev {"driver":"file","node-name":"disk-data.file","filename":"/dev/fdset/4","aio":"threads","cache":{"direct":true,"no-flush":false},"discard":"unmap","read-only":false,"auto-read-only":false}
        -blockdev {"driver":"raw","node-name":"disk-data","file":"disk-data.file","cache":{"direct":true,"no-flush":false},"discard":"unmap","read-only":false,"detect-zeroes":"unmap"}
        -device {"driver":"ide-hd","bus":"ide.3","id":"disk-data","drive":"disk-data","write-cache":"on"}
        -blockdev {"driver":"file","node-name":"disk-fast.file","filename":"/dev/fdset/5","aio":"threads","cache":{"direct":true,"no-flush":false},"discard":"unmap","read-only":false,"auto-read-only":false}
        -blockdev {"driver":"raw","node-name":"disk-fast","file":"disk-fast.file","cache":{"direct":true,"no-flush":false},"discard":"unmap","read-only":false,"detect-zeroes":"unmap"}
        -device {"driver":"nvme","bus":"port2","id":"disk-fast","drive":"disk-fast","serial":"fast"}
        -blockdev {"driver":"file","node-name":"disk-seed.file","filename":"/dev/fdset/6","aio":"threads","cache":{"direct":false,"no-flush":false},"discard":"ignore","read-only":true,"auto-read-only":false}
        -blockdev {"driver":"raw","node-name":"disk-seed","file":"disk-seed.file","cache":{"direct":false,"no-flush":false},"discard":"ignore","read-only":true}
        -device {"driver":"scsi-cd","bus":"scsi0.0","scsi-id":0,"id":"disk-seed","drive":"disk-seed"}
        -netdev tap,id=net-eth0,fds=16:17,vhost=on,vhostfds=18:19
        -device {"driver":"virtio-net-pci","mq":true,"vectors":6,"host_mtu":1450,"id":"nic-eth0","netdev":"net-eth0","mac":"52:54:00:12:34:56","bus":"port1","romfile":""}
        -netdev tap,id=net-eth1,fd=20
        -device {"driver":"e1000e","id":"nic-eth1","netdev":"net-eth1","mac":"52:54:00:12:34:57","bus":"port9","bootindex":1}
        -S
    "#]],
    );
}

#[test]
fn mistakes_name_field_value_and_remedy() {
    let say = |change: &dyn Fn(&mut Launch)| {
        let mut launch = guest();
        change(&mut launch);
        launch.check().unwrap_err().to_string()
    };
    let disk = |id: &str, slot| Disk::virtio(id, &format!("disk/{id}"), Format::Raw, slot);
    let said = [
        say(&|l| l.cpu = "host -incoming tcp:0:1".to_owned()),
        say(&|l| l.disks = vec![disk("a", 8)]),
        say(&|l| l.disks = vec![disk("a", 1), disk("b", 1)]),
        say(&|l| l.disks = vec![disk("a", 1), disk("a", 2)]),
        say(&|l| l.disks = vec![disk("A,B", 1)]),
        say(&|l| {
            l.disks = vec![disk("a", 1), disk("b", 2)];
            for disk in &mut l.disks {
                disk.boot_index = Some(0);
            }
        }),
        say(&|l| l.topology.boot = 9),
        say(&|l| l.memory.max_mib = 2048),
        say(&|l| l.dir = format!("/{}", "x".repeat(120)).into()),
    ];
    expect![[r#"
        guest `dv-test-web1`: cpu `host -incoming tcp:0:1` is not a processor model such as host or Nehalem,+aes
        guest `dv-test-web1`: disks[0].slot `8` is not below 8, the number of places on PCIe
        guest `dv-test-web1`: disks[1].slot `1` is taken by another device
        guest `dv-test-web1`: disks[1].id `a` is used twice
        guest `dv-test-web1`: disks[0].id `A,B` is not 1 to 16 of a-z, 0-9 and dash
        guest `dv-test-web1`: boot_index `0` is used twice
        guest `dv-test-web1`: topology.boot `9` is not between 1 and sockets * cores * threads (at most 4096)
        guest `dv-test-web1`: memory.slots `0` leaves no place for the memory up to memory.max_mib
        guest `dv-test-web1`: dir `/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx` is too long or not absolute: a socket below it must have at most 107 bytes"#]].assert_eq(&said.join("\n"));
}
