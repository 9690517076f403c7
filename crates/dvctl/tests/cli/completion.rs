//! Completion works in a real bash and its scripts are good for zsh and fish; manual pages are made from the registry; and
//! the registry is asked for once.

use crate::Stage;
use std::process::Command;

/// What bash would offer after this line. The cursor is at its end.
fn completes(stage: &Stage, line: &str) -> Vec<String> {
    // bash splits at its word breaks before it calls the function; `compgen -F` does not, so that is done here the same way.
    let script = r#"
        source <("$DVCTL" completion bash)
        COMP_LINE=$1; COMP_POINT=${#1}
        COMP_WORDS=()
        rest=$1
        while [[ -n $rest ]]; do
            if [[ $rest =~ ^[[:space:]]+ ]]; then rest=${rest:${#BASH_REMATCH[0]}}; [[ -z $rest ]] && COMP_WORDS+=("")
            elif [[ $rest =~ ^[=:]+ || $rest =~ ^[^=:[:space:]]+ ]]; then COMP_WORDS+=("${BASH_REMATCH[0]}"); rest=${rest:${#BASH_REMATCH[0]}}
            fi
        done
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        COMP_WORDS[0]=$DVCTL
        _dvctl
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash", line])
        .env("DVCTL", stage.dvctl())
        .env("HOME", stage.folder.path())
        .current_dir(stage.folder.path())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(err, "", "{line}");
    let out = String::from_utf8_lossy(&output.stdout);
    out.lines()
        .filter(|l| !l.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes() {
    let stage = Stage::new();
    stage.run("vm create web1").ok();
    stage.run("vm create web2").ok();
    stage.run("vm create db").ok();
    stage.run("image create debian-12").ok();
    let check = |line: &str, expected: &[&str]| {
        assert_eq!(completes(&stage, line), expected, "{line}");
    };
    check("dvctl ne", &["network"]);
    check("dvctl vm sta", &["start"]);
    check("dvctl vm start we", &["web1", "web2"]);
    check("dvctl vm start web1 d", &["db"]);
    check("dvctl -o yaml vm show d", &["db"]);
    check("dvctl vm list --sort me", &["memory"]);
    check("dvctl vm list --output=j", &["json"]);
    check("dvctl vm list -o w", &["wide"]);
    check("dvctl vm create x --mem", &["--memory"]);
    check("dvctl vm create x --image d", &["debian-12"]);
    check("dvctl vm create x --firmware ue", &["uefi", "uefi-secure"]);
    check("dvctl vm create x --disk 8GiB,i", &["8GiB,image="]);
    check(
        "dvctl vm create x --disk size=8GiB,image=de",
        &["debian-12"],
    );
    check("dvctl vm create x --then sto", &["stop"]);
    check("dvctl vm create x ", &[]);
    check("dvctl completion z", &["zsh"]);
    std::fs::write(stage.folder.path().join("site.yaml"), "").unwrap();
    check("dvctl apply -f si", &["site.yaml"]);
}

/// A bash with a terminal, and a TAB.
#[test]
fn tab_in_a_terminal() {
    use nix::pty::openpty;
    use std::io::{Read as _, Write as _};
    use std::time::{Duration, Instant};
    let stage = Stage::new();
    stage.run("vm create the-only-one").ok();
    let pty = openpty(None, None).unwrap();
    let bin = stage.dvctl().parent().unwrap().to_owned();
    let mut child = Command::new("bash")
        .args(["--norc", "--noprofile", "-i"])
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("HOME", stage.folder.path())
        .env("INPUTRC", "/dev/null")
        .env("TERM", "dumb")
        .stdin(pty.slave.try_clone().unwrap())
        .stdout(pty.slave.try_clone().unwrap())
        .stderr(pty.slave)
        .spawn()
        .unwrap();
    let mut keys = std::fs::File::from(pty.master.try_clone().unwrap());
    let mut screen = std::fs::File::from(pty.master);
    let (send, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = screen.read(&mut buffer)
            && n > 0
            && send
                .send(String::from_utf8_lossy(&buffer[..n]).into_owned())
                .is_ok()
        {}
    });
    let mut text = String::new();
    let mut until = |what: &str| {
        let end = Instant::now() + Duration::from_secs(30);
        while !text.contains(what) {
            let left = end.saturating_duration_since(Instant::now());
            match seen.recv_timeout(left) {
                Ok(more) => text.push_str(&more),
                Err(_) => panic!("`{what}` never came: {text}"),
            }
        }
    };
    keys.write_all(b"source <(dvctl completion bash); echo re''ady\n")
        .unwrap();
    until("ready");
    keys.write_all(b"dvctl vm show the\t").unwrap();
    until("dvctl vm show the-only-one ");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn other_shells_get_a_script() {
    let stage = Stage::new();
    for (shell, word) in [("zsh", "compdef"), ("fish", "complete -c dvctl")] {
        let said = stage.run(&format!("completion {shell}"));
        assert!(said.ok().contains(word));
        let script = stage.folder.path().join(shell);
        std::fs::write(&script, &said.out).unwrap();
        match Command::new(shell).arg("-n").arg(&script).output() {
            Ok(checked) => assert!(checked.status.success(), "{checked:?}"),
            Err(_) => {
                eprintln!("SKIPPED: {shell} is not installed, its completion script was not parsed")
            }
        }
    }
    // What each shell makes of it.
    let path = format!(
        "{}:/usr/bin:/bin",
        stage.dvctl().parent().unwrap().display()
    );
    let runs = |shell: &str, script: &str| {
        let mut inside = Command::new(shell);
        inside
            .args(["-c", script])
            .env_clear()
            .env("HOME", stage.folder.path())
            .env("PATH", &path)
            .current_dir(stage.folder.path());
        inside.output().ok()
    };
    if let Some(said) = runs("fish", "source fish; complete -C 'dvctl vm wi'") {
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert_eq!(said, "wipe\tOverwrites its disks\n");
    }
    let script = "autoload -U compinit && compinit -D -u; source ./zsh; print $_comps[dvctl]";
    if let Some(said) = runs("zsh", script) {
        assert_eq!(
            String::from_utf8_lossy(&said.stdout),
            "_dvctl\n",
            "{said:?}"
        );
    }
    // The protocol that all scripts speak: a word, a tab, what it means.
    let said = stage.run("__complete -- vm wi");
    assert_eq!(said.ok(), "wipe\tOverwrites its disks\n");
}

#[test]
fn manual_pages() {
    let stage = Stage::new();
    stage.run("man pages").ok();
    let page =
        std::fs::read_to_string(stage.folder.path().join("pages/dvctl-vm-create.1")).unwrap();
    assert!(page.contains(".TH"), "{page}");
    assert!(page.contains("Guest memory"), "{page}");
    for page in ["dvctl.1", "dvctl-vm.1", "dvctl-task-log.1"] {
        assert!(
            stage.folder.path().join("pages").join(page).exists(),
            "{page}"
        );
    }
}

#[test]
fn the_registry_is_kept() {
    let stage = Stage::new();
    stage.run("vm list").ok();
    let cache = stage.folder.path().join(".cache/debvisor");
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1);
    stage.run("vm list").ok();
    assert_eq!(stage.server.count("GET /api/v1/registry"), 2);
    // Without a server the kinds are still in the help.
    std::fs::remove_file(stage.folder.path().join("api.sock")).unwrap();
    assert!(stage.run("--help").ok().contains("Virtual machine"));
}
