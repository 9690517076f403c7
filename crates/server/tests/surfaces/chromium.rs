//! Security keys in a real browser: Debian's Chromium with its virtual authenticator, against a real server whose CA it
//! trusts. Without Chromium this says so; `cargo xtask test` installs it.

use crate::house::{House, set};
use crate::login::{PASSWORD, get, say, text, user};
use futures::{SinkExt, StreamExt};
use runtime::Authority;
use runtime::setting::{PANEL_HOST, PANEL_ORIGINS};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A browser with one page.
struct Browser {
    _process: tokio::process::Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    asked: u64,
    page: String,
    _home: tempfile::TempDir,
}

async fn run(program: &str, words: &[&str]) {
    let mut command = tokio::process::Command::new(program);
    let done = command.args(words).stdin(Stdio::null()).output();
    let done = done.await.unwrap();
    assert!(
        done.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

fn there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !there {
        eprintln!("SKIPPED: there is no {program}; `cargo xtask test` installs it");
    }
    there
}

impl Browser {
    /// Starts one that trusts a CA, as a person's own computer does: by the database of his home.
    async fn open(house: &House) -> Option<Browser> {
        if !there("chromium") || !there("certutil") {
            return None;
        }
        let home = tempfile::tempdir().unwrap();
        let known = home.path().join(".pki/nssdb");
        std::fs::create_dir_all(&known).unwrap();
        let ca = home.path().join("ca.pem");
        std::fs::write(&ca, &house.ca.ca().pem).unwrap();
        let database = format!("sql:{}", known.display());
        run("certutil", &["-N", "-d", &database, "--empty-password"]).await;
        let ca = ca.display().to_string();
        run(
            "certutil",
            &["-A", "-d", &database, "-n", "ours", "-t", "C,,", "-i", &ca],
        )
        .await;
        let profile = home.path().join("profile");
        let process = tokio::process::Command::new("chromium")
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let at = address(&profile.join("DevToolsActivePort")).await;
        let (socket, _) = tokio_tungstenite::connect_async(at).await.unwrap();
        let mut browser = Browser {
            _process: process,
            socket,
            asked: 0,
            page: String::new(),
            _home: home,
        };
        let made = browser
            .ask("Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let target = json!({ "targetId": made["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", target).await;
        browser.page = text(&attached, "sessionId").to_owned();
        Some(browser)
    }

    /// One call of the browser's own protocol.
    async fn ask(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        let mut call = json!({ "id": id, "method": method, "params": params });
        if !self.page.is_empty() {
            call["sessionId"] = self.page.as_str().into();
        }
        self.socket
            .send(Message::text(call.to_string()))
            .await
            .unwrap();
        let answer = async {
            while let Some(message) = self.socket.next().await {
                let Ok(Message::Text(message)) = message else {
                    continue;
                };
                let message: Value = serde_json::from_str(&message).unwrap();
                if message["id"] == id {
                    return message;
                }
            }
            panic!("the browser has ended")
        };
        let answer = tokio::time::timeout(Duration::from_secs(60), answer).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {method}"));
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// What an expression of the page becomes.
    async fn page(&mut self, script: &str) -> Value {
        let body = json!({ "expression": script, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let done = self.ask("Runtime.evaluate", body).await;
        assert!(done.get("exceptionDetails").is_none(), "{script}: {done}");
        done["result"]["value"].clone()
    }

    /// A page of the server asks it: status and body.
    async fn say(&mut self, step: &str, body: Value) -> (u64, Value) {
        let script = format!(
            "fetch('/api/v1/auth/{step}', {{ method: 'POST', headers: {{ 'content-type': 'application/json', 'x-csrf-token': window.token || '' }}, \
             body: JSON.stringify({body}) }}).then(async r => {{ window.token = r.headers.get('x-csrf-token') || window.token; return [r.status, await r.json()]; }})"
        );
        let said = self.page(&script).await;
        (said[0].as_u64().unwrap(), said[1].clone())
    }

    /// Has the authenticator make a key, or prove one.
    async fn key(&mut self, call: &str, options: &Value) -> Value {
        let read = if call == "create" {
            "parseCreationOptionsFromJSON"
        } else {
            "parseRequestOptionsFromJSON"
        };
        let script = format!(
            "navigator.credentials.{call}({{ publicKey: PublicKeyCredential.{read}({options}) }}).then(c => c.toJSON(), e => ({{ failed: String(e) }}))"
        );
        self.page(&script).await
    }
}

/// Where a browser listens, as soon as it says so.
async fn address(file: &Path) -> String {
    let said = async {
        loop {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            if let Some((port, path)) = text.split_once('\n') {
                return format!("ws://127.0.0.1:{port}{}", path.trim());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let said = tokio::time::timeout(Duration::from_secs(60), said).await;
    said.expect("the browser starts")
}

/// Plugs an authenticator in.
async fn plug(browser: &mut Browser, verified: bool) -> Value {
    browser.ask("WebAuthn.enable", json!({})).await;
    let options = json!({ "options": {
        "protocol": "ctap2", "transport": "usb", "hasResidentKey": true, "hasUserVerification": true, "isUserVerified": verified,
    } });
    let made = browser
        .ask("WebAuthn.addVirtualAuthenticator", options)
        .await;
    made["authenticatorId"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_security_key_in_a_real_browser() {
    let house = House::open().await;
    let Some(mut browser) = Browser::open(&house).await else {
        return;
    };
    let port = house.https.port();
    let me = user(&house, "anna").await;
    let token = text(&me, "access").to_owned();
    // Without a name of the panel there is nothing to bind a key to.
    let (status, refused) = say(&house, "webauthn/begin", json!({ "token": token })).await;
    assert_eq!(
        (status, text(&refused, "code")),
        (409, "REFUSED"),
        "{refused}"
    );
    set(&house.cx, &PANEL_HOST, json!("localhost")).await;
    let origins = format!("https://elsewhere.example https://localhost:{port}");
    set(&house.cx, &PANEL_ORIGINS, json!(origins)).await;

    let url = format!("https://localhost:{port}/health/live");
    browser.ask("Page.enable", json!({})).await;
    // There is no page of the panel yet, and all others may ask nobody.
    browser
        .ask("Page.setBypassCSP", json!({ "enabled": true }))
        .await;
    let went = browser.ask("Page.navigate", json!({ "url": url })).await;
    assert!(
        went.get("errorText").is_none(),
        "the browser trusts our CA: {went}"
    );
    let ready = "document.readyState == 'complete' ? 0 : new Promise(r => window.addEventListener('load', r)).then(() => 0)";
    browser.page(ready).await;
    let plugged = plug(&mut browser, true).await;

    // In by password, with a cookie, as a browser does; then a key is enrolled.
    let entry = json!({ "user": "anna", "password": PASSWORD, "cookie": true });
    let (status, said) = browser.say("login", entry.clone()).await;
    assert_eq!((status, text(&said, "state")), (200, "in"), "{said}");
    assert_eq!(said["remind"], true, "{said}");
    let (status, begun) = browser.say("webauthn/begin", json!({})).await;
    assert_eq!(status, 200, "{begun}");
    assert_eq!(
        begun["webauthn"]["authenticatorSelection"]["userVerification"],
        "required"
    );
    let made = browser.key("create", &begun["webauthn"]).await;
    let (status, done) = browser
        .say(
            "webauthn/confirm",
            json!({ "credential": made, "label": "blue" }),
        )
        .await;
    assert_eq!(status, 200, "{done}");
    assert_eq!(done["recovery"].as_array().unwrap().len(), 10);
    // The same answer again is worth nothing, and the browser makes no second key in the same authenticator.
    assert_eq!(
        browser
            .say("webauthn/confirm", json!({ "credential": made }))
            .await
            .0,
        409
    );
    let (_, begun) = browser.say("webauthn/begin", json!({})).await;
    let again = browser.key("create", &begun["webauthn"]).await;
    assert!(
        again["failed"].as_str().unwrap().contains("InvalidState"),
        "{again}"
    );

    // A login asks for it now: on the panel, and whoever asks without a browser.
    let (status, asked) = browser.say("login", entry.clone()).await;
    assert_eq!(
        (status, text(&asked, "state")),
        (200, "second_factor"),
        "{asked}"
    );
    assert_eq!(asked["factors"], json!(["recovery", "webauthn"]));
    let proof = browser.key("get", &asked["webauthn"]).await;
    let mut with = entry.clone();
    with["credential"] = proof.clone();
    let (status, said) = browser.say("login", with.clone()).await;
    assert_eq!((status, text(&said, "state")), (200, "in"), "{said}");
    let session = house
        .cx
        .get::<identity::session::Session>(None, text(&said, "session"))
        .unwrap();
    assert_eq!(session.spec.factors, ["password", "webauthn"]);
    // A proof is good once.
    assert_eq!(browser.say("login", with).await.0, 401);

    // A step-up with it counts as fresh.
    let (_, offered) = browser.say("mfa/begin", json!({})).await;
    let proof = browser.key("get", &offered["webauthn"]).await;
    let (status, said) = browser.say("mfa", json!({ "credential": proof })).await;
    assert_eq!((status, text(&said, "factor")), (200, "webauthn"), "{said}");

    // Whoever holds the authenticator but is not its owner does not get in.
    let unverified = json!({ "authenticatorId": plugged, "isUserVerified": false });
    browser.ask("WebAuthn.setUserVerified", unverified).await;
    let (_, asked) = browser.say("login", entry.clone()).await;
    let proof = browser.key("get", &asked["webauthn"]).await;
    assert!(proof["failed"].is_string(), "{proof}");

    // A copy of the key, whose counter stands where it stood before, is refused and somebody is told.
    let keys = browser
        .ask(
            "WebAuthn.getCredentials",
            json!({ "authenticatorId": plugged }),
        )
        .await;
    let mut copy = keys["credentials"][0].clone();
    let counted = copy["signCount"].as_u64().unwrap();
    assert!(counted >= 2, "{copy}");
    copy["signCount"] = 1.into();
    browser
        .ask(
            "WebAuthn.removeVirtualAuthenticator",
            json!({ "authenticatorId": plugged }),
        )
        .await;
    let other = plug(&mut browser, true).await;
    browser
        .ask(
            "WebAuthn.addCredential",
            json!({ "authenticatorId": other, "credential": copy }),
        )
        .await;
    let (_, asked) = browser.say("login", entry.clone()).await;
    let mut with = entry.clone();
    with["credential"] = browser.key("get", &asked["webauthn"]).await;
    let (status, refused) = browser.say("login", with).await;
    assert_eq!(
        (status, text(&refused, "code")),
        (401, "UNAUTHENTICATED"),
        "{refused}"
    );
    let rows = house.trail.last(1000).await;
    assert!(rows.iter().any(|row| row.action == "auth.factor.cloned"));
    let (_, events) = house.get("/api/v1/events?limit=100").await;
    assert!(events.to_string().contains("factor.cloned"), "{events}");

    // It is taken away with a fresh proof, of a code on paper here.
    let code = done["recovery"][0].clone();
    assert_eq!(browser.say("mfa", json!({ "code": code })).await.0, 200);
    let (_, mine) = browser.say("factors", json!({})).await;
    let key = mine["factors"]
        .as_array()
        .unwrap()
        .iter()
        .find(|f| f["sort"] == "webauthn")
        .unwrap();
    assert_eq!(key["label"], "blue");
    assert_eq!(
        browser
            .say("factors/remove", json!({ "factor": key["name"] }))
            .await
            .0,
        200
    );
    let (_, said) = browser.say("login", entry).await;
    assert_eq!(text(&said, "state"), "in");
    assert_eq!(get(&house, &token, "/api/v1/whoami").await.0, 200);
    browser.ask("Page.close", json!({})).await;
}
