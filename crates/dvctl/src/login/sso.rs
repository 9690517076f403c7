//! Logging in by the browser: the server sends it to its provider of OpenID Connect, and it comes back with a ticket, to a
//! port of this machine that is open for this one login (RFC 8252), or to be typed in where there is no browser. Only who
//! knows the text that the login was begun with can use the ticket (PKCE).

use super::Way;
use crate::failure::{Failure, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use url::Url;

/// How long the login may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long one connection may take to ask.
const ASKED: Duration = Duration::from_secs(10);
/// The longest head of a request that is read.
const HEAD: usize = 8192;

/// 256 random bits as text.
fn random() -> Result<String> {
    let mut bytes = [0; 32];
    let provider = rustls::crypto::ring::default_provider();
    let filled = provider.secure_random.fill(&mut bytes);
    filled.map_err(|_| Failure::unreachable("this machine gives no random bytes"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Where a browser begins.
fn begin(
    server: &str,
    realm: Option<&str>,
    back: &str,
    verifier: &str,
    remember: bool,
) -> Result<Url> {
    let address = format!("{server}/api/v1/auth/oidc/begin");
    let mut url = Url::parse(&address)
        .map_err(|_| Failure::usage(format!("`{server}` is no address of a server")))?;
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
    let mut query = url.query_pairs_mut();
    if let Some(realm) = realm {
        query.append_pair("realm", realm);
    }
    query
        .append_pair("return", back)
        .append_pair("challenge", &challenge);
    if remember {
        query.append_pair("remember", "true");
    }
    drop(query);
    Ok(url)
}

/// Logs in by a browser: of this machine, or with `elsewhere` any.
pub(super) async fn login(way: &mut Way, elsewhere: bool) -> Result<()> {
    let realm = way.realm.clone();
    let realm = realm.as_deref();
    let verifier = random()?;
    let server = way.login.url.clone();
    let ticket = match elsewhere {
        true => {
            let url = begin(&server, realm, "typed", &verifier, way.remember)?;
            way.screen.say(&format!(
                "Open this address in a browser, on any machine, and log in:\n\n  {url}\n"
            ));
            way.asker.plain("Ticket that it shows then: ")?
        }
        false => {
            let wrong = |e: std::io::Error| Failure::io("waiting for the browser", e);
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .map_err(wrong)?;
            let path = format!("/{}", random()?);
            let at = port.local_addr().map_err(wrong)?;
            let back = format!("http://127.0.0.1:{}{path}", at.port());
            let url = begin(&server, realm, &back, &verifier, way.remember)?;
            way.screen.say(&format!(
                "Log in with the browser. If none opens, open this address on this machine:\n\n  {url}\n"
            ));
            open(url.as_str());
            let came = tokio::time::timeout(PATIENCE, wait(&port, &path)).await;
            came.map_err(|_| {
                Failure::new(5, "nobody has logged in with the browser within 10 min")
                    .hint("without a browser on this machine: dvctl login URL --sso --no-browser")
            })??
        }
    };
    let mut body = json!({ "ticket": ticket.trim(), "verifier": verifier });
    let mut answer = way.say("oidc/finish", &body).await?;
    if answer.get("state").and_then(Value::as_str) == Some("second_factor") {
        body["code"] = way
            .asker
            .plain("Code of your app, or one on paper: ")?
            .into();
        answer = way.say("oidc/finish", &body).await?;
    }
    way.by_letter("oidc/finish", body, answer).await
}

/// Opens a browser, if there is one; nobody is told when there is none, since the address stands on the screen.
fn open(url: &str) {
    let named = std::env::var_os("BROWSER").filter(|b| !b.is_empty());
    let program = named.unwrap_or_else(|| "xdg-open".into());
    #[allow(
        clippy::disallowed_types,
        reason = "the person's own browser, which outlives this command"
    )]
    let started = std::process::Command::new(program)
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    drop(started);
}

/// Waits for the browser at a path that only it knows. Whatever else comes to the port is told that nothing is there.
async fn wait(port: &TcpListener, path: &str) -> Result<String> {
    loop {
        let (mut stream, _) = port
            .accept()
            .await
            .map_err(|e| Failure::io("waiting for the browser", e))?;
        let head = tokio::time::timeout(ASKED, head(&mut stream)).await;
        let found = head.ok().flatten().and_then(|head| came(&head, path));
        let (status, text) = match &found {
            Some(Ok(_)) => ("200 OK", "You are logged in. This window can be closed."),
            Some(Err(_)) => ("200 OK", "You are not logged in; the terminal says why."),
            None => ("404 Not Found", "Nothing is here."),
        };
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\ncache-control: no-store\r\nreferrer-policy: no-referrer\r\nconnection: close\r\n\r\n{text}",
            text.len()
        );
        // A browser that has gone has done its part.
        let _ = tokio::time::timeout(ASKED, stream.write_all(answer.as_bytes())).await;
        if let Some(found) = found {
            return found;
        }
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while head.len() < HEAD && !head.windows(4).any(|w| w == b"\r\n\r\n") {
        match stream.read(&mut part).await {
            Ok(0) | Err(_) => return None,
            Ok(read) => head.extend_from_slice(&part[..read]),
        }
    }
    String::from_utf8(head).ok()
}

/// What came, when it is the browser.
fn came(head: &str, path: &str) -> Option<Result<String>> {
    let asked = head.strip_prefix("GET ")?.split(' ').next()?;
    let url = Url::parse("http://127.0.0.1/").ok()?.join(asked).ok()?;
    if url.path() != path {
        return None;
    }
    let word = |name: &str| {
        let found = url.query_pairs().find(|(n, _)| n == name)?.1.into_owned();
        (!found.is_empty()).then_some(found)
    };
    if let Some(error) = word("error") {
        let shown: String = error
            .chars()
            .filter(|c| !c.is_control())
            .take(500)
            .collect();
        let failure = Failure::new(5, shown);
        return Some(Err(match word("hint") {
            Some(hint) => failure.hint(
                hint.chars()
                    .filter(|c| !c.is_control())
                    .take(500)
                    .collect::<String>(),
            ),
            None => failure,
        }));
    }
    word("ticket").map(Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_browser_is_heard() {
        let ticket = |head: &str| came(head, "/p").and_then(std::result::Result::ok);
        assert_eq!(
            ticket("GET /p?ticket=T HTTP/1.1\r\n\r\n").as_deref(),
            Some("T")
        );
        for other in [
            "GET /q?ticket=T HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET /p HTTP/1.1\r\n\r\n",
            "POST /p?ticket=T HTTP/1.1\r\n\r\n",
            "GET //evil.example/p2?ticket=T HTTP/1.1\r\n\r\n",
            "",
            "GET ",
        ] {
            assert!(came(other, "/p").is_none(), "{other:?}");
        }
        let refused = came("GET /p?error=no%1b%5bx&hint=why HTTP/1.1\r\n\r\n", "/p");
        let refused = refused.unwrap().unwrap_err();
        assert_eq!(
            (refused.message.as_str(), refused.hint.as_deref()),
            ("no[x", Some("why"))
        );
    }

    #[test]
    fn a_login_begins_with_a_challenge_and_not_with_its_text() {
        let url = begin("https://node1:8443", Some("corp"), "typed", "secret", true).unwrap();
        assert!(url.as_str().starts_with(
            "https://node1:8443/api/v1/auth/oidc/begin?realm=corp&return=typed&challenge="
        ));
        assert!(!url.as_str().contains("secret") && url.as_str().ends_with("&remember=true"));
        assert_eq!(random().unwrap().len(), 43);
    }
}
