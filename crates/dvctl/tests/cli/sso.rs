//! `dvctl login --sso`: with the browser of this machine, and without one.

use crate::idp::{Browser, Provider};
use crate::logins::Far;
use runtime::Authority;
use serde_json::json;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// Starts a login, and reads the address that it prints.
async fn begin(
    far: &Far,
    more: &[&str],
) -> (Child, BufReader<tokio::process::ChildStderr>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_dvctl"))
        .args(["login", &far.url(), "--name", "lab", "--sso"])
        .args(["--fingerprint", &far.house.ca.ca().fingerprint])
        .args(more)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", far.home.path())
        .env("BROWSER", "true")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let read = async {
        let mut line = String::new();
        while said.read_line(&mut line).await.unwrap() > 0 {
            if line.trim().starts_with("https://") {
                return line.trim().to_owned();
            }
            line.clear();
        }
        panic!("it says no address");
    };
    let address = tokio::time::timeout(Duration::from_secs(60), read).await;
    let address = address.expect("it says where to begin");
    (child, said, address)
}

async fn ended(
    mut child: Child,
    mut said: BufReader<tokio::process::ChildStderr>,
) -> (bool, String) {
    let mut text = String::new();
    let all = async {
        said.read_to_string(&mut text).await.unwrap();
        let mut out = child.stdout.take().unwrap();
        out.read_to_string(&mut text).await.unwrap();
        child.wait().await.unwrap().success()
    };
    let good = tokio::time::timeout(Duration::from_secs(60), all).await;
    (good.expect("it ends"), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_browser_here_and_with_one_elsewhere() {
    let far = Far::open().await;
    let Some(provider) = Provider::open(&far.house, json!({})).await else {
        return;
    };
    let (child, said, address) = begin(&far, &["--realm", "corp"]).await;
    assert!(
        address.contains("return=http%3A%2F%2F127.0.0.1%3A"),
        "{address}"
    );
    let mut browser = Browser::new(&far.house, &provider);
    let (_, page) = browser.go(&address, "anna", |_| false).await;
    assert!(page.body.contains("You are logged in"), "{}", page.body);
    let (good, text) = ended(child, said).await;
    assert!(good && text.contains("as anna"), "{text}");
    let me = far.plain(&["whoami"]);
    assert!(me.ok().contains("anna"), "{}", me.out);
    far.plain(&["logout"]).ok();

    let (mut child, said, address) = begin(&far, &["--no-browser", "--password-stdin"]).await;
    let (_, page) = browser.go(&address, "anna", |_| false).await;
    let shown: serde_json::Value = serde_json::from_str(&page.body).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let line = format!("{}\n", shown["ticket"].as_str().unwrap());
    stdin.write_all(line.as_bytes()).await.unwrap();
    drop(stdin);
    let (good, text) = ended(child, said).await;
    assert!(good, "{text}");
    assert!(far.plain(&["whoami"]).ok().contains("anna"));

    // What the server refuses is told by the browser.
    let (child, said, address) = begin(&far, &["--realm", "nowhere"]).await;
    let (_, page) = browser.go(&address, "anna", |_| false).await;
    assert!(page.body.contains("not logged in"), "{}", page.body);
    let (good, text) = ended(child, said).await;
    assert!(!good && text.contains("no realm `nowhere`"), "{text}");
}
