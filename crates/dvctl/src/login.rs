//! `login`, `logout`, `whoami`: how a remote person becomes somebody, once, with a pinned CA.

use crate::connect::{Client, Login, Logins, Place, Request, SeenCa, look};
use crate::failure::{Failure, Result};
use crate::grammar::Before;
use crate::output::{Format, Screen, Table, indent, shown, yaml};
use crate::session::Session;
use clap::ArgMatches;
use serde_json::{Value, json};

/// Logs in: the CA's fingerprint is settled before the code leaves this machine.
pub async fn login(m: &ArgMatches) -> Result<()> {
    let screen = Screen::look(None);
    let word = |id: &str| m.get_one::<String>(id).map(String::as_str);
    let url = word("url")
        .unwrap_or_default()
        .trim_end_matches('/')
        .to_owned();
    let name = match word("name") {
        Some(name) => model::Name::parse("--name", name)?.to_string(),
        None => name_of(&url)?,
    };
    let ca = look(&url).await?;
    settle(screen, &ca, word("fingerprint"))?;
    let code = match word("code") {
        Some(code) => code.to_owned(),
        None if screen.in_tty => screen.ask("One-time code: ")?,
        None => {
            return Err(Failure::usage("--code is missing")
                .hint("the server prints one at `cargo xtask up`, or make one there with `dvctl api login-code`"));
        }
    };
    let wrong = |e: rcgen::Error| Failure::io("making a key", e);
    let key = rcgen::KeyPair::generate().map_err(wrong)?;
    let csr = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .and_then(|csr| csr.pem())
        .map_err(wrong)?;
    let mut login = Login {
        name: name.clone(),
        url: url.clone(),
        ca: ca.pem,
        certificate: String::new(),
        key: key.serialize_pem(),
    };
    // From here on the connection is checked against the CA that was just accepted.
    let client = Client::new(Place::Remote(Box::new(login.clone())));
    let request = Request::new(http::Method::POST, "/login");
    let answer = client
        .send(request.json(&json!({ "code": code.trim(), "csr": csr })))
        .await?
        .json()?;
    let text = |name: &str| answer.get(name).and_then(Value::as_str);
    login.certificate = text("certificate")
        .ok_or_else(|| Failure::unreachable(format!("{url} gave no certificate")))?
        .to_owned();
    let path = Logins::of_user().save(&login)?;
    let who = text("account").map_or(String::new(), |a| format!(" as {a}"));
    screen.put(&format!("logged in to {url}{who}\n"))?;
    screen.say(&format!(
        "saved as `{name}` in {}; `dvctl --cluster {name} ...` picks it",
        path.display()
    ));
    Ok(())
}

/// A name for a login, from the URL's host.
fn name_of(url: &str) -> Result<String> {
    let (host, _) = crate::connect::address(url)?;
    Ok(model::Name::suggest(&host).unwrap_or_else(|| "server".into()))
}

/// Compares the CA's fingerprint, or lets a person do it.
fn settle(screen: Screen, ca: &SeenCa, expected: Option<&str>) -> Result<()> {
    let plain = |text: &str| {
        let kept = text
            .trim()
            .trim_start_matches("sha256:")
            .trim_start_matches("SHA256:");
        kept.chars()
            .filter(char::is_ascii_hexdigit)
            .collect::<String>()
            .to_uppercase()
    };
    match expected {
        Some(expected) if plain(expected) == plain(&ca.fingerprint) => Ok(()),
        Some(_) => Err(Failure::new(
            5,
            format!(
                "the server's CA has another fingerprint: {}",
                ca.fingerprint
            ),
        )
        .hint("nothing was sent; check the address, and the fingerprint at the server itself")),
        None if screen.in_tty && screen.err_tty => {
            screen.say(&format!(
                "The server's CA has the SHA-256 fingerprint\n\n  {}\n",
                ca.fingerprint
            ));
            match screen
                .ask("Is this what the server itself printed? [y/N] ")?
                .to_lowercase()
                .as_str()
            {
                "y" | "yes" => Ok(()),
                _ => Err(Failure::new(5, "not logged in; nothing was sent")),
            }
        }
        None => Err(Failure::usage(format!(
            "nobody can be asked whether the CA's fingerprint is right: {}",
            ca.fingerprint
        ))
        .hint("compare it with what the server printed, and give it with --fingerprint")),
    }
}

/// Forgets a login.
pub fn logout(m: &ArgMatches, before: &Before) -> Result<()> {
    let logins = Logins::of_user();
    let named = m.get_one::<String>("login").cloned();
    let name = match named.or_else(|| before.cluster.clone()) {
        Some(name) => name,
        None => match logins.current()? {
            Some(login) => login.name,
            None => return Err(Failure::usage("you are not logged in anywhere")),
        },
    };
    logins.remove(&name)?;
    Screen::look(None).put(&format!("logged out of {name}\n"))
}

/// Shows who the server takes us for.
pub async fn whoami(s: &Session) -> Result<()> {
    let answer = s.client.send(Request::get("/whoami")).await?;
    let me = answer.json()?;
    match s.format {
        Format::Json => s.screen.put_bytes(&indent(&answer.body)),
        Format::Yaml => s.screen.put(&yaml(&me)?),
        Format::Name => {
            let name = me.get("name").and_then(Value::as_str).unwrap_or("");
            s.screen.put(&format!("{name}\n"))
        }
        Format::Table | Format::Wide => {
            let mut table = Table::new(["who", "server"]);
            let now = crate::output::now();
            let name = shown(me.get("name"), "", now);
            let kind = shown(me.get("kind"), "", now);
            let who = if kind.is_empty() {
                name
            } else {
                format!("{name} ({kind})")
            };
            table.row(vec![who, s.client.place().shown()]);
            s.screen.put(&table.text(s.screen.color))
        }
    }
}
