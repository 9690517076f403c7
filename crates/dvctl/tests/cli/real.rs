//! The real program against the real server: a kind that is declared in one place has its commands, its help, its
//! completion and its manual pages, and what they do is what the API does.

use crate::Said;
use crate::house::House;
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A server and a checkout whose `dvctl` talks to it.
pub struct Real {
    pub house: House,
    pub folder: tempfile::TempDir,
}

impl Real {
    pub async fn open() -> Real {
        let house = House::open().await;
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join(".dev/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dvctl"), bin.join("dvctl")).unwrap();
        let socket = house.unix.to_str().unwrap();
        std::fs::write(folder.path().join(".dev/default-instance"), socket).unwrap();
        Real { house, folder }
    }

    /// Runs a line whose words have no spaces, while the server goes on.
    pub fn run(&self, line: &str) -> Said {
        let mut command = Command::new(self.folder.path().join(".dev/bin/dvctl"));
        command
            .args(line.split_whitespace())
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.folder.path())
            .stdin(Stdio::null());
        tokio::task::block_in_place(|| Said::of(command.output().unwrap()))
    }

    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(self.run(line).ok()).unwrap()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }
}

const LAMPS: &str = "/api/v1/projects/default/lamps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_kind_has_all_its_commands() {
    let real = Real::open().await;
    real.run("lamp create a --brightness 7 --mode slow-blink --label room=hall")
        .ok();
    let shown = real.json("lamp show a -o json");
    assert_eq!((200, shown), real.house.get(&format!("{LAMPS}/a")).await);
    let said = real.run("lamp list");
    assert!(said.ok().starts_with("NAME  ON"), "{said:?}");
    assert_eq!(
        real.run("lamps list --selector room=hall -o name").ok(),
        "lamp/a\n"
    );
    real.run("lamp set a --on").ok();
    real.run("lamp wait a --for spec.on=true --timeout 20s")
        .ok();
    // The action makes a task. Nobody waits for it: no controller tends lamps.
    real.run("lamp dim a --to 5 --no-wait").ok();
    let (_, lamp) = real.house.get(&format!("{LAMPS}/a")).await;
    assert_eq!(
        (&lamp["spec"]["brightness"], &lamp["spec"]["on"]),
        (&json!(5), &json!(true))
    );
    assert_eq!(
        real.run("lamp light a --flashes 2").ok(),
        "flash 0\nflash 1\n"
    );
    real.write("bytes", "0123456789");
    assert_eq!(real.json("lamp fill a bytes -o json")["bytes"], 10);
    assert!(real.run("lamp explain a").ok().contains("brightness"));
    let tasks = real.json("task list -o json");
    assert_eq!(tasks["items"][0]["spec"]["action"], "lamp.dim", "{tasks}");
    assert!(real.run("event list").ok().contains("lamp.created"));
    // Files.
    let yaml = real
        .run("lamp show a -o yaml")
        .ok()
        .replace("brightness: 5", "brightness: 9");
    real.write("lamp.yaml", &yaml);
    let differs = real.run("diff -f lamp.yaml");
    assert_eq!(differs.code, 1, "{differs:?}");
    real.run("apply -f lamp.yaml").ok();
    assert_eq!(real.run("diff -f lamp.yaml").code, 0);
    // Errors keep their exit codes.
    let refused = real.run("lamp set a --brightness 500");
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.err.contains("spec.brightness"), "{refused:?}");
    assert_eq!(real.run("lamp show nobody").code, 4);
    assert_eq!(real.run("lamp create a").code, 3);
    real.run("lamp delete a --yes").ok();
    assert_eq!(real.house.get(&format!("{LAMPS}/a")).await.0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_declared_kind_is_in_help_completion_and_manual() {
    let real = Real::open().await;
    assert!(
        real.run("--help").ok().contains("lamp"),
        "the list of kinds"
    );
    let help = real.run("lamp --help");
    assert!(help.ok().contains("A lamp, for tests."), "{help:?}");
    assert!(help.ok().contains("Changes its brightness"), "{help:?}");
    assert!(
        real.run("lamp dim --help")
            .ok()
            .contains("New brightness in percent")
    );
    assert!(real.run("__complete -- lamp di").ok().starts_with("dim\t"));
    assert!(
        real.run("__complete -- lamp create x --mode s")
            .ok()
            .contains("slow-blink")
    );
    real.run("man pages").ok();
    let page = real.folder.path().join("pages/dvctl-lamp-dim.1");
    assert!(
        std::fs::read_to_string(page)
            .unwrap()
            .contains("New brightness")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_api_command_says_is_true() {
    let real = Real::open().await;
    let actions = real.json("api actions -o json");
    let dim = actions
        .as_array()
        .unwrap()
        .iter()
        .find(|a| a["kind"] == "lamp" && a["verb"] == "dim");
    assert_eq!(dim.unwrap()["privilege"], "lamp.dim");
    let checked = real.run("api parity --check");
    assert!(
        checked.ok().contains("no gap without a reason"),
        "{checked:?}"
    );
    let table = real.run("api parity");
    let line = table
        .ok()
        .lines()
        .find(|l| l.starts_with("lamp.dim"))
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(
        words[..6],
        ["lamp.dim", "yes", "yes", "yes", "-", "yes"],
        "{line}"
    );
    // Counted where they pass the gate: one that goes well and two that do not.
    real.run("lamp create a").ok();
    real.run("lamp dim a --to 5 --no-wait").ok();
    assert_ne!(real.run("lamp dim a --to 500 --no-wait").code, 0);
    assert_ne!(real.run("lamp dim nobody --to 5 --no-wait").code, 0);
    let stats = real.json("api stats -o json");
    let dim = stats
        .as_array()
        .unwrap()
        .iter()
        .find(|a| a["action"] == "lamp.dim")
        .unwrap();
    assert_eq!(
        (&dim["calls"], &dim["errors"]),
        (&json!(3), &json!(2)),
        "{stats}"
    );
    assert!(dim["p99_ms"].as_f64().unwrap() > 0.0, "{stats}");
    assert!(real.run("api stats -o wide").ok().contains("rest"));
}

/// A file that the kind is made from: its size and checksum are filled in, and what has arrived is not sent again when
/// the line breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_sent_to_its_end() {
    let real = Real::open().await;
    let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n * 7 / 3) as u8).collect();
    std::fs::write(real.folder.path().join("Desk-Lamp.2.dxf"), &bytes).unwrap();
    let said = real.run("lamp draw Desk-Lamp.2.dxf");
    assert!(
        said.ok().contains("lamp/desk-lamp-2 draw: complete"),
        "{said:?}"
    );
    assert!(said.err.contains("lamp/desk-lamp-2 created"), "{said:?}");
    assert!(
        said.err.contains("going on when the server is back"),
        "{said:?}"
    );
    let (_, lamp) = real.house.get(&format!("{LAMPS}/desk-lamp-2")).await;
    assert_eq!(lamp["spec"]["drawing"], 5_000_000);
    let (drawn, tries) = crate::demo::DRAWN.lock().unwrap()["desk-lamp-2"].clone();
    assert!(drawn == bytes, "every byte once");
    assert_eq!(tries, 3, "the line broke twice");
    // The same file again is the same object; another file of that name is not.
    real.run("lamp draw Desk-Lamp.2.dxf").ok();
    real.write("Desk-Lamp.2.dxf", "something else");
    let refused = real.run("lamp draw Desk-Lamp.2.dxf");
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("another file"), "{refused:?}");
    // An object that is there takes a file by name.
    real.run("lamp create plain").ok();
    assert_ne!(real.run("lamp draw plain Desk-Lamp.2.dxf").code, 0);
}

/// What is secret is in nothing that the program prints.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_not_printed() {
    const HUSH: &str = "hush-4711";
    let real = Real::open().await;
    let made = real.run(&format!("lamp create a --pin {HUSH} -o json"));
    made.ok();
    real.run(&format!("lamp rekey a --pin {HUSH}-2 --no-wait"))
        .ok();
    let mut all = made.all();
    for line in [
        "lamp show a",
        "lamp show a -o json",
        "lamp show a -o yaml",
        "lamp list -o wide",
        "lamp list -o json",
        "lamp list --fields name,spec.pin",
        "lamp explain a",
        "task list -o json",
        "task list -o wide",
        "event list -o json",
        "lamp set a --on -o json",
        "lamp create a --pin [1,2]",
        "lamp create a --set pin.x=1",
        "lamp delete a --yes",
    ] {
        all.push_str(&real.run(line).all());
    }
    assert!(!all.contains(HUSH) && !all.contains("$sealed:h"), "{all}");
    assert!(all.contains("brightness"), "{all}");
}
