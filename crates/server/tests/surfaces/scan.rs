//! Scans by tools that others made: sslscan looks at TLS, schemathesis asks what the OpenAPI description allows and what it
//! does not, as somebody and as nobody. `cargo xtask test` installs both; without them this says so.

use crate::house::House;
use runtime::Authority;
use server::Limits;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// A program in `PATH` or in the cache of our tools.
fn tool(name: &str, inside: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("DEBVISOR_CACHE")
        .map_or_else(|| PathBuf::from("/var/cache/debvisor"), PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .chain([cache.join("tools").join(inside)])
        .find(|file| file.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: there is no {name}; `cargo xtask test` installs it");
    }
    found
}

/// What a program says.
async fn said(program: PathBuf, words: &[&str]) -> String {
    let mut command = tokio::process::Command::new(program);
    // What it writes beside itself goes with the test.
    let dir = tempfile::tempdir().unwrap();
    command.args(words).current_dir(dir.path());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let out = tokio::time::timeout(Duration::from_secs(240), command.output());
    let out = out.await.expect("it ends").unwrap();
    let text = [out.stdout, out.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_as_sslscan_sees_it() {
    let Some(sslscan) = tool("sslscan", "sslscan") else {
        return;
    };
    let house = House::open().await;
    for at in [house.https, house.grpc] {
        let words = ["--no-colour", "--no-check-certificate", &at.to_string()];
        let text = said(sslscan.clone(), &words).await;
        let state = |protocol: &str| {
            let line = text.lines().find(|line| line.starts_with(protocol));
            let line = line.unwrap_or_else(|| panic!("no {protocol} in {text}"));
            line.split_whitespace().last().unwrap().to_owned()
        };
        assert_eq!(state("TLSv1.3"), "enabled", "{text}");
        for old in ["SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1", "TLSv1.2"] {
            assert_eq!(state(old), "disabled", "{old}");
        }
        let accepted = text
            .lines()
            .filter(|line| line.starts_with("Preferred") || line.starts_with("Accepted"));
        for line in accepted {
            assert!(line.contains("TLSv1.3"), "{line}");
        }
        assert!(!text.contains("vulnerable to heartbleed") || text.contains("not vulnerable"));
    }
}

async fn schemathesis(house: &House, tool: PathBuf, somebody: bool) {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let description = server::openapi(house.cx.registry()).to_string();
    let description = file("openapi.json", &description);
    let ca = file("ca.pem", &house.ca.ca().pem);
    let certificate = file("client.pem", &house.identity.0);
    let key = file("client.key", &house.identity.1);
    let url = house.url("");
    let mut words = vec![
        "run",
        &description,
        "--url",
        &url,
        "--tls-verify",
        &ca,
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance",
        "--phases",
        "examples,coverage,fuzzing",
        "--max-examples",
        "5",
        "--max-time",
        "20",
        "--request-retries",
        "2",
        "--seed",
        "1",
        "--no-color",
        "--warnings",
        "off",
        "--request-timeout",
        "40",
        "--suppress-health-check",
        "all",
        // What never ends by itself, and what waits for an agent that is not here.
        "--exclude-path-regex",
        "/watch|/events|/streams/|/actions/",
    ];
    if somebody {
        words.extend(["--request-cert", &certificate, "--request-cert-key", &key]);
    }
    let text = said(tool, &words).await;
    // Its exit code also tells of connections that ended (a request whose rest is not read ends its own), which is our
    // right; an answer that is wrong is a failure.
    let cases = text.lines().find(|line| line.contains(" generated, "));
    let cases = cases.unwrap_or_else(|| panic!("it asked nothing: {text}"));
    let number = |word: &str| {
        let part = cases.split(',').find(|part| part.contains(word));
        let number = part.and_then(|part| part.split_whitespace().next());
        number.map_or(0, |n| n.parse::<u32>().unwrap())
    };
    let (passed, failed, ended) = (number("passed"), number("failed"), number("errored"));
    eprintln!("somebody: {somebody}: {passed} passed, {failed} failed, {ended} connections ended");
    assert!(failed == 0 && passed > 100 && ended * 50 < passed, "{text}");
    assert!(!text.contains("FAILURES"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_as_schemathesis_sees_it() {
    let Some(tool) = tool("schemathesis", "schemathesis/bin/schemathesis") else {
        return;
    };
    // The times of production: the tests' own are too short for a scanner on a busy machine.
    let house = House::with(Limits::default()).await;
    schemathesis(&house, tool.clone(), false).await;
    schemathesis(&house, tool, true).await;
}
