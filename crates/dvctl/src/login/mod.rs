//! `login`, `logout`, `whoami`: how a remote person becomes somebody, with a pinned CA, and what he does about his
//! password and his second factor.

mod second;
mod sso;

pub use second::{mfa, passwd, recovery, totp};

use crate::connect::{Client, Login, Logins, Place, Request, SeenCa, Tokens, look};
use crate::failure::{Failure, Result};
use crate::grammar::Before;
use crate::output::{Asker, Format, Screen, Table, indent, shown, yaml};
use crate::session::Session;
use clap::ArgMatches;
use serde_json::{Value, json};

/// Logs in: the CA's fingerprint is settled before anything secret leaves this machine.
pub async fn login(m: &ArgMatches) -> Result<()> {
    let screen = Screen::look(None);
    let word = |id: &str| m.get_one::<String>(id).map(String::as_str);
    let asker = Asker::new(screen, m.get_flag("password-stdin"));
    let url = word("url")
        .unwrap_or_default()
        .trim_end_matches('/')
        .to_owned();
    let name = match word("name") {
        Some(name) => model::Name::parse("--name", name)?.to_string(),
        None => name_of(&url)?,
    };
    let ca = look(&url).await?;
    // Who has compared it once need not do it again.
    let known = Logins::of_user()
        .get(&name)
        .is_ok_and(|login| login.url == url && login.ca == ca.pem);
    if !known || word("fingerprint").is_some() {
        settle(screen, &ca, word("fingerprint"))?;
    }
    let mut way = Way {
        screen,
        asker,
        login: Login {
            name,
            url,
            ca: ca.pem,
            certificate: String::new(),
            key: String::new(),
            tokens: None,
            tpm: None,
            api_key: None,
        },
        remember: m.get_flag("remember"),
        realm: word("realm").map(str::to_owned),
    };
    if m.get_flag("forgot") {
        return way.forgot(word("user")).await;
    }
    if m.get_flag("sso") {
        return sso::login(&mut way, m.get_flag("no-browser")).await;
    }
    match word("code") {
        // A program without answers gets what it always got.
        Some(code) if m.get_flag("certificate") || !asker.can_ask() => {
            way.certificate(code.trim()).await
        }
        Some(code) => way.code(code.trim(), word("user")).await,
        None if !asker.can_ask() => Err(Failure::usage("neither --code nor a password is given")
            .hint("--user NAME --password-stdin reads the password from standard input; a code comes from the server's own \
                   console (`dvctl api login-code` there) or from an administrator")),
        None => way.password(word("user")).await,
    }
}

/// One login on its way.
struct Way {
    screen: Screen,
    asker: Asker,
    login: Login,
    remember: bool,
    /// Whose user he is, when he says so.
    realm: Option<String>,
}

impl Way {
    /// The server, trusting only the CA that was accepted.
    fn client(&self) -> Client {
        Client::new(Place::Remote(Box::new(self.login.clone())))
    }

    async fn say(&self, step: &str, body: &Value) -> Result<Value> {
        let request = Request::new(http::Method::POST, format!("/auth/{step}"));
        self.client().send(request.json(body)).await?.json()
    }

    /// With a code: what it is for decides.
    async fn code(&mut self, code: &str, user: Option<&str>) -> Result<()> {
        let asked = self.say("code", &json!({ "code": code })).await?;
        let text = |name: &str| asked.get(name).and_then(Value::as_str).map(str::to_owned);
        match text("for").as_deref() {
            Some("first") => {
                self.screen
                    .say("There is no administrator yet: choose a name and a password.");
                let user = match user {
                    Some(user) => user.to_owned(),
                    None => self.asker.plain("User name: ")?,
                };
                let password = self.asker.new_password()?;
                let body = json!({ "code": code, "user": user, "password": password });
                let answer = self.say("first", &body).await?;
                self.entered(answer).await
            }
            Some("reset") => {
                let user = text("user").unwrap_or_default();
                self.screen
                    .say(&format!("Choose a new password for {user}."));
                let password = self.asker.new_password()?;
                let body = json!({ "code": code, "password": password });
                let answer = self.say("reset", &body).await?;
                match answer.get("state").and_then(Value::as_str) {
                    Some("login") => self.with_password(&user, &password).await,
                    _ => self.entered(answer).await,
                }
            }
            _ => self.certificate(code).await,
        }
    }

    /// Asks for a link by mail.
    async fn forgot(&self, user: Option<&str>) -> Result<()> {
        let user = match user {
            Some(user) => user.to_owned(),
            None => self.asker.plain("User name or e-mail address: ")?,
        };
        self.say("forgot", &json!({ "user": user })).await?;
        self.screen.put("if there is such a user whom mail reaches, a letter is on its way: it says how to go on\n")
    }

    async fn password(&mut self, user: Option<&str>) -> Result<()> {
        let user = match user {
            Some(user) => user.to_owned(),
            None => self.asker.plain("User name: ")?,
        };
        let password = self.asker.secret("Password: ")?;
        self.with_password(&user, &password).await
    }

    async fn with_password(&mut self, user: &str, password: &str) -> Result<()> {
        let mut body = json!({ "user": user, "password": password, "remember": self.remember });
        if let Some(realm) = &self.realm {
            body["realm"] = realm.as_str().into();
        }
        let mut answer = self.say("login", &body).await?;
        if answer.get("state").and_then(Value::as_str) == Some("second_factor") {
            body["code"] = self
                .asker
                .plain("Code of your app, or one on paper: ")?
                .into();
            answer = self.say("login", &body).await?;
        }
        self.by_letter("login", body, answer).await
    }

    /// Asks for the code in a letter, when the server wants it too.
    async fn by_letter(&mut self, step: &str, mut body: Value, mut answer: Value) -> Result<()> {
        if answer.get("state").and_then(Value::as_str) == Some("mail_code") {
            self.screen
                .say("This login is unlike those before: a code was sent to you by mail.");
            body["mail_code"] = self.asker.plain("Code in the letter: ")?.into();
            answer = self.say(step, &body).await?;
        }
        self.entered(answer).await
    }

    /// Somebody is in, or will be when he has enrolled a second factor.
    async fn entered(&mut self, answer: Value) -> Result<()> {
        let url = self.login.url.clone();
        let tokens = Tokens::of(&answer)
            .ok_or_else(|| Failure::unreachable(format!("{url} gave no tokens")))?;
        let user = tokens.user.clone();
        self.login.tokens = Some(tokens);
        let logins = Logins::of_user();
        let path = logins.save(&self.login)?;
        second::unlooked(self.screen, &answer);
        let must = answer.get("state").and_then(Value::as_str) == Some("enrol");
        if must {
            self.screen
                .say("Your role asks for a second factor: enrol an app that makes codes.");
            second::enrol(self.screen, self.asker, &self.login).await?;
        }
        self.screen
            .put(&format!("logged in to {url} as {user}\n"))?;
        self.screen.say(&format!(
            "saved as `{}` in {}; `dvctl --cluster {} ...` picks it",
            self.login.name,
            path.display(),
            self.login.name
        ));
        if answer.get("remind") == Some(&Value::Bool(true)) {
            self.screen
                .say("hint: a second factor keeps others out who learn your password: dvctl totp");
        }
        Ok(())
    }

    /// Trades a code for a client certificate: for programs, and for the way back in.
    async fn certificate(&mut self, code: &str) -> Result<()> {
        let wrong = |e: rcgen::Error| Failure::io("making a key", e);
        let key = rcgen::KeyPair::generate().map_err(wrong)?;
        let csr = rcgen::CertificateParams::default()
            .serialize_request(&key)
            .and_then(|csr| csr.pem())
            .map_err(wrong)?;
        let request = Request::new(http::Method::POST, "/login");
        let answer = self
            .client()
            .send(request.json(&json!({ "code": code, "csr": csr })))
            .await?
            .json()?;
        let text = |name: &str| answer.get(name).and_then(Value::as_str);
        let (url, name) = (self.login.url.clone(), self.login.name.clone());
        text("certificate")
            .ok_or_else(|| Failure::unreachable(format!("{url} gave no certificate")))?
            .clone_into(&mut self.login.certificate);
        self.login.key = key.serialize_pem();
        let path = Logins::of_user().save(&self.login)?;
        let who = text("account").map_or(String::new(), |a| format!(" as {a}"));
        self.screen.put(&format!("logged in to {url}{who}\n"))?;
        self.screen.say(&format!(
            "saved as `{name}` in {}; `dvctl --cluster {name} ...` picks it",
            path.display()
        ));
        Ok(())
    }
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

/// Ends a login at the server and forgets it here.
pub async fn logout(m: &ArgMatches, before: &Before) -> Result<()> {
    let logins = Logins::of_user();
    let named = m.get_one::<String>("login").cloned();
    let name = match named.or_else(|| before.cluster.clone()) {
        Some(name) => name,
        None => match logins.current()? {
            Some(login) => login.name,
            None => return Err(Failure::usage("you are not logged in anywhere")),
        },
    };
    let login = logins.get(&name)?;
    if login.tokens.is_some() {
        let client = Client::new(Place::Remote(Box::new(login)));
        let request = Request::new(http::Method::POST, "/auth/logout");
        // A server that is away ends it by its age; here it is forgotten either way.
        let screen = Screen::look(None);
        let told = client.send(request.json(&json!({}))).await;
        match told.and_then(|answer| answer.json()) {
            Ok(said) => {
                if let Some(url) = said.get("provider_logout").and_then(Value::as_str) {
                    screen.say(&format!("hint: to log out of the provider too, open {url}"));
                }
            }
            Err(failure) => screen.say(&format!("the server was not told: {}", failure.message)),
        }
    }
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
