//! The settings of new projects: how much each may use until somebody says otherwise.

use super::known::{Known, Sort};

macro_rules! limits {
    ($($name:ident $text:literal $default:literal $unit:literal $what:literal;)*) => {
        $(#[doc = concat!("How much a new project may use: ", $what, ".")]
        pub static $name: Known = Known {
            name: $text,
            doc: concat!(
                "How much a project that is made from now on may use: ", $what,
                ". 0: no limit. The project `default`, and projects that are there, keep theirs: `dvctl quota set PROJECT`."
            ),
            sort: Sort::Number { default: $default, min: 0, max: 1_000_000_000, unit: $unit },
            restart_needed: false,
        };)*
    };
}

limits! {
    PROJECT_VMS "project-vms" 10 "" "virtual machines";
    PROJECT_VCPUS "project-vcpus" 20 "" "virtual CPUs";
    PROJECT_MEMORY "project-memory" 64 "GiB" "memory of virtual machines";
    PROJECT_DISK "project-disk" 1000 "GiB" "sizes of volumes";
    PROJECT_NETWORKS "project-networks" 5 "" "networks";
    PROJECT_SNAPSHOTS "project-snapshots" 50 "" "snapshots";
}
