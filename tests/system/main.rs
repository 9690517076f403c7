//! End-to-end tests through the real binaries: what the user types, and the bad days that befall him.
//!
//! They run one after another in this order, on one instance where they can: a guest under software emulation takes a core.
#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "drives the real programs from outside, as a user's shell does"
)]

mod boots;
mod crashes;
mod disks;
mod follow;
mod harness;
mod input;
mod instances;
mod killed;
mod restarts;
mod transcript;

use std::process::ExitCode;

use harness::Test;

const TESTS: &[Test] = &[
    Test {
        name: "up_makes_a_guest_that_answers",
        run: transcript::hello_answers,
    },
    Test {
        name: "up_twice_changes_nothing",
        run: instances::twice,
    },
    Test {
        name: "a_vm_lives_as_the_readme_says",
        run: transcript::life_of_a_vm,
    },
    Test {
        name: "a_vm_is_described_changed_and_applied",
        run: transcript::files,
    },
    Test {
        name: "tasks_and_events_are_told",
        run: transcript::tasks_and_events,
    },
    Test {
        name: "remote_login_by_code",
        run: transcript::remote_login,
    },
    Test {
        name: "bad_input_is_refused_with_a_remedy",
        run: input::refused,
    },
    Test {
        name: "a_killed_api_comes_back_to_the_same_guests",
        run: crashes::api,
    },
    Test {
        name: "a_killed_agent_adopts_its_guests",
        run: crashes::agent,
    },
    Test {
        name: "a_killed_guest_is_started_again",
        run: crashes::qemu,
    },
    Test {
        name: "a_killed_dnsmasq_is_started_again",
        run: crashes::dnsmasq,
    },
    Test {
        name: "all_killed_at_once_converges",
        run: crashes::everything,
    },
    Test {
        name: "a_restart_under_load_cuts_no_request",
        run: restarts::under_load,
    },
    Test {
        name: "one_id_follows_a_request_through_both_processes",
        run: follow::request_id,
    },
    Test {
        name: "a_daemon_killed_in_the_middle_of_a_change",
        run: killed::at_any_moment,
    },
    Test {
        name: "a_boot_of_the_host_brings_guests_back",
        run: boots::reboot,
    },
    Test {
        name: "the_wall_clock_may_jump",
        run: boots::wall_clock,
    },
    Test {
        name: "a_full_disk_refuses_changes_and_stops_no_guest",
        run: disks::full,
    },
    Test {
        name: "a_damaged_store_goes_back_to_its_copy",
        run: disks::damaged_store,
    },
    Test {
        name: "down_leaves_guests_running",
        run: instances::down_keeps_guests,
    },
    Test {
        name: "two_daemons_on_one_folder_are_refused",
        run: instances::two_daemons,
    },
    Test {
        name: "a_port_in_use_is_named",
        run: instances::port_in_use,
    },
    Test {
        name: "instances_run_side_by_side",
        run: instances::side_by_side,
    },
    Test {
        name: "down_leaves_nothing",
        run: instances::nothing_left,
    },
];

fn main() -> ExitCode {
    harness::main(TESTS)
}
