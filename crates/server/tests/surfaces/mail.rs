//! Mail, to a real mail server: aiosmtpd, which demands STARTTLS and a password. Links for a new password, codes that
//! stand in for a second factor, and what a mail server that is away does.

#[path = "../../../identity/src/login/risk/made.rs"]
mod made;

use crate::house::{House, set, told};
use crate::login::{PASSWORD, get, login, say, text, user, with};
use reqwest::Method;
use runtime::setting::{
    GEOIP_FILE, PANEL_HOST, SMTP_CA, SMTP_FROM, SMTP_SECRET, SMTP_SERVER, SMTP_USER,
};
use serde_json::{Value, json};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

const SERVER: &str = r#"
import asyncio, json, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
class Box:
    async def handle_DATA(self, server, session, envelope):
        print(json.dumps({"to": envelope.rcpt_tos, "from": envelope.mail_from, "text": envelope.content.decode(),
                          "tls": session.ssl is not None, "known": bool(session.authenticated)}), flush=True)
        return "250 OK"
def known(server, session, envelope, mechanism, data):
    good = isinstance(data, LoginPassword) and data.login == b"debvisor" and data.password == b"hush-mail"
    return AuthResult(success=good)
async def main():
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(sys.argv[1], sys.argv[2])
    make = lambda: SMTP(Box(), tls_context=tls, require_starttls=True, authenticator=known, auth_required=True)
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    print(json.dumps(server.sockets[0].getsockname()[1]), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"#;

struct Post {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
    dir: tempfile::TempDir,
}

impl Post {
    async fn open() -> Option<Post> {
        if !std::path::Path::new("/usr/lib/python3/dist-packages/aiosmtpd/smtp.py").exists() {
            eprintln!("SKIPPED: there is no python3-aiosmtpd; `cargo xtask test` installs it");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut process = tokio::process::Command::new("/usr/bin/python3")
            .args(["-c", SERVER])
            .args([&cert, &key])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut post = Post {
            _process: process,
            lines,
            port: 0,
            dir,
        };
        post.port = u16::try_from(post.next().await.as_u64().unwrap()).unwrap();
        Some(post)
    }

    /// The next thing it says: a letter.
    async fn next(&mut self) -> Value {
        let line = tokio::time::timeout(Duration::from_secs(30), self.lines.next_line());
        let line = line.await.expect("a letter comes").unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Has a server use it.
    async fn used_by(&self, house: &House) {
        let secret = json!({ "metadata": { "name": "mail" }, "spec": { "value": "hush-mail" } });
        let (status, made) = house.post("/api/v1/projects/default/secrets", secret).await;
        assert_eq!(status, 201, "{made}");
        let ca = self.dir.path().join("cert.pem").display().to_string();
        for (known, value) in [
            (&SMTP_FROM, "DebVisor <debvisor@example.org>".to_owned()),
            (&SMTP_USER, "debvisor".to_owned()),
            (&SMTP_SECRET, "default/mail".to_owned()),
            (&SMTP_CA, ca),
            (&PANEL_HOST, "panel.example.org".to_owned()),
            (&SMTP_SERVER, format!("localhost:{}", self.port)),
        ] {
            set(&house.cx, known, json!(value)).await;
        }
    }
}

/// Gives a user an address.
async fn address(house: &House, name: &str, email: &str) {
    let asked = house
        .ask(Method::PATCH, &format!("/api/v1/users/{name}"))
        .header("content-type", "application/merge-patch+json")
        .body(json!({ "spec": { "email": email } }).to_string());
    assert_eq!(told(asked.send().await.unwrap()).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_for_a_new_password_comes_by_mail_and_nobody_learns_who_there_is() {
    let house = House::open().await;
    let bob = user(&house, "bob").await;
    let body = json!({ "user": "bob" });
    // Without a mail server that is said.
    assert_eq!(say(&house, "forgot", body.clone()).await.0, 409);
    let Some(mut post) = Post::open().await else {
        return;
    };
    post.used_by(&house).await;
    user(&house, "carl").await;
    let mut answers = Vec::new();
    // Nobody, somebody without an address, and by an address.
    for typed in ["nobody", "carl", "nobody@example.org"] {
        answers.push(say(&house, "forgot", json!({ "user": typed })).await);
    }
    address(&house, "bob", "bob@example.org").await;
    answers.push(say(&house, "forgot", body).await);
    assert!(
        answers
            .iter()
            .all(|a| *a == (200, json!({ "state": "asked" }))),
        "{answers:?}"
    );
    let letter = post.next().await;
    assert_eq!(letter["to"], json!(["bob@example.org"]), "{letter}");
    assert_eq!(
        (&letter["tls"], &letter["known"]),
        (&json!(true), &json!(true))
    );
    let words = text(&letter, "text")
        .replace("=\r\n", "")
        .replace("=3D", "=");
    let code = words
        .split("/#reset=")
        .nth(1)
        .unwrap_or_else(|| panic!("{words}"));
    let code = code.split_whitespace().next().unwrap();
    assert!(
        words.contains("https://panel.example.org:8443/#reset="),
        "{words}"
    );
    // What he was in by goes on until the link is used, and then no more; the link works once.
    let token = text(&bob, "access");
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 200);
    let fresh = json!({ "code": code, "password": "a new password" });
    assert_eq!(say(&house, "reset", fresh.clone()).await.0, 200);
    assert_eq!(get(&house, token, "/api/v1/whoami").await.0, 401);
    assert_eq!(say(&house, "reset", fresh).await.0, 401);
    assert_eq!(login(&house, "bob", "a new password").await.0, 200);
    // The password of the mail server was read on record and is nowhere to be seen.
    let rows = house.trail.last(1000).await;
    assert!(rows.iter().any(|row| row.action == "secret.read"));
    assert!(!format!("{rows:?}").contains("hush-mail"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_by_mail_stands_in_for_a_second_factor_of_who_has_none() {
    let house = House::open().await;
    let Some(mut post) = Post::open().await else {
        return;
    };
    let bob = user(&house, "bob").await;
    let token = text(&bob, "access");
    let mail = async |step: &str, body: Value| {
        let path = format!("/api/v1/auth/{step}");
        with(&house, token, Method::POST, &path, Some(body)).await
    };
    assert_eq!(mail("mfa/mail", json!({})).await.0, 409);
    post.used_by(&house).await;
    address(&house, "bob", "bob@example.org").await;
    let code = async |post: &mut Post| {
        let letter = post.next().await;
        let words = text(&letter, "text").to_owned();
        let at = words
            .find(" is your code")
            .unwrap_or_else(|| panic!("{words}"));
        words[at - 6..at].to_owned()
    };
    assert_eq!(mail("mfa/mail", json!({})).await.0, 200);
    let right = code(&mut post).await;
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    assert_eq!(mail("mfa", json!({ "mail_code": wrong })).await.0, 401);
    let (status, said) = mail("mfa", json!({ "mail_code": right })).await;
    assert_eq!((status, text(&said, "factor")), (200, "mail"), "{said}");
    let (_, me) = get(&house, token, "/api/v1/whoami").await;
    assert!(me["mfa"].is_string(), "{me}");
    // Good once, and three wrong tries end it.
    assert_eq!(mail("mfa", json!({ "mail_code": right })).await.0, 401);
    assert_eq!(mail("mfa/mail", json!({})).await.0, 200);
    let right = code(&mut post).await;
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    for _ in 0..3 {
        assert_eq!(mail("mfa", json!({ "mail_code": wrong })).await.0, 401);
    }
    assert_ne!(mail("mfa", json!({ "mail_code": right })).await.0, 200);
    // A mail server that is away is said to be, and one that is not who it should be gets nothing.
    set(&house.cx, &SMTP_CA, json!("")).await;
    let (status, said) = mail("mfa/mail", json!({})).await;
    assert_eq!(status, 503, "{said}");
    assert!(!said.to_string().contains(PASSWORD) && !said.to_string().contains("hush-mail"));
}

/// Logs in with a program of this name.
async fn enter(house: &House, agent: &str, code: Option<&str>) -> (u16, Value) {
    let mut body = json!({ "user": "bob", "password": PASSWORD });
    if let Some(code) = code {
        body["mail_code"] = code.into();
    }
    let asked = house.stranger().post(house.url("/api/v1/auth/login"));
    let asked = asked.header("user-agent", agent).json(&body);
    told(asked.send().await.unwrap()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_suddenly_on_the_other_side_of_the_world_needs_more_or_is_refused() {
    let house = House::open().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("places.mmdb");
    let world = |latitude: f64, longitude: f64| {
        std::fs::write(&path, made::made(&[(127, latitude, longitude)])).unwrap();
    };
    // We are all in Vienna.
    world(48.2, 16.37);
    let file = json!(path.display().to_string());
    set(&house.cx, &GEOIP_FILE, file).await;
    user(&house, "bob").await;
    let (status, said) = enter(&house, "dvctl/1", None).await;
    assert_eq!(status, 200, "{said}");
    let session = format!("/api/v1/sessions/{}", text(&said, "session"));
    let (_, session) = house.get(&session).await;
    assert_eq!(session["spec"]["risk"]["places"], "known", "{session}");
    // And now in Sydney, with another program: 40 + 20 + 15. Without mail there is nothing more to ask for.
    world(-33.867, 151.2);
    let (status, refused) = enter(&house, "strange/1", None).await;
    assert_eq!(status, 401, "{refused}");
    let Some(mut post) = Post::open().await else {
        return;
    };
    post.used_by(&house).await;
    address(&house, "bob", "bob@example.org").await;
    let (status, asked) = enter(&house, "strange/1", None).await;
    assert_eq!(
        (status, text(&asked, "state")),
        (200, "mail_code"),
        "{asked}"
    );
    assert!(asked.get("access").is_none(), "{asked}");
    let letter = post.next().await;
    let words = text(&letter, "text");
    let at = words
        .find(" is your code")
        .unwrap_or_else(|| panic!("{words}"));
    let (status, said) = enter(&house, "strange/1", Some(&words[at - 6..at])).await;
    assert_eq!((status, text(&said, "state")), (200, "in"), "{said}");
    let name = text(&said, "session");
    let session = house
        .cx
        .get::<identity::session::Session>(None, name)
        .unwrap();
    assert_eq!(session.spec.factors, ["password", "mail"]);
    let risk = session.spec.risk.clone().unwrap();
    assert_eq!((risk.score, risk.signs.len()), (75, 3), "{risk:?}");
    // Back in Vienna at once, with one more program, the sixth time within five minutes: nobody's day.
    world(48.2, 16.37);
    let (status, refused) = enter(&house, "other/1", None).await;
    assert_eq!(
        (status, text(&refused, "code")),
        (401, "UNAUTHENTICATED"),
        "{refused}"
    );
    let rows = house.trail.last(1000).await;
    let row = rows
        .iter()
        .rev()
        .find(|row| row.action == "auth.login.refused");
    assert_eq!(row.unwrap().params["risk"], 90, "{row:?}");
    // He is told.
    let letter = post.next().await;
    assert!(text(&letter, "text").contains("was refused"), "{letter}");
}
