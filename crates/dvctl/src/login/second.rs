//! What somebody who is logged in does about his password and his second factor.

use crate::connect::{Client, Login, Logins, Place, Request};
use crate::failure::{Failure, Result};
use crate::grammar::Before;
use crate::output::{Asker, Screen, Table, shown};
use clap::ArgMatches;
use qrcodegen::{QrCode, QrCodeEcc};
use serde_json::{Value, json};

/// Whom the command is about, and how he is asked.
struct Me {
    screen: Screen,
    asker: Asker,
    login: Login,
    client: Client,
}

impl Me {
    fn of(m: &ArgMatches, before: &Before) -> Result<Me> {
        let logins = Logins::of_user();
        let login = match &before.cluster {
            Some(name) => Some(logins.get(name)?),
            None => logins.current()?,
        };
        let login = login
            .filter(|login| login.tokens.is_some())
            .ok_or_else(|| {
                Failure::new(5, "you are not logged in with a password")
                    .hint("dvctl login URL --user NAME; --cluster picks one of several logins")
            })?;
        let screen = Screen::look(None);
        Ok(Me {
            screen,
            asker: Asker::new(screen, m.get_flag("password-stdin")),
            client: Client::new(Place::Remote(Box::new(login.clone()))),
            login,
        })
    }

    async fn say(&self, step: &str, body: &Value) -> Result<Value> {
        say(&self.client, step, body).await
    }
}

async fn say(client: &Client, step: &str, body: &Value) -> Result<Value> {
    let request = Request::new(http::Method::POST, format!("/auth/{step}"));
    client.send(request.json(body)).await?.json()
}

/// `passwd`.
pub async fn passwd(m: &ArgMatches, before: &Before) -> Result<()> {
    let me = Me::of(m, before)?;
    let old = me.asker.secret("Present password: ")?;
    let new = me.asker.new_password()?;
    let answer = me.say("passwd", &json!({ "old": old, "new": new })).await?;
    unlooked(me.screen, &answer);
    let ended = answer.get("sessions_ended").and_then(Value::as_u64);
    me.screen.put(&format!(
        "your password at {} is changed; {} other logins of yours were ended\n",
        me.login.url,
        ended.unwrap_or(0)
    ))
}

/// `totp`.
pub async fn totp(m: &ArgMatches, before: &Before) -> Result<()> {
    let me = Me::of(m, before)?;
    enrol(me.screen, me.asker, &me.login).await
}

/// `recovery-codes`.
pub async fn recovery(m: &ArgMatches, before: &Before) -> Result<()> {
    let me = Me::of(m, before)?;
    let answer = me.say("recovery", &json!({})).await?;
    show(me.screen, &answer)
}

/// `mfa`: proves one, or shows them, or takes one away.
pub async fn mfa(m: &ArgMatches, before: &Before) -> Result<()> {
    let me = Me::of(m, before)?;
    if m.get_flag("list") {
        return list(&me).await;
    }
    let body = match m.get_flag("mail") {
        true => {
            me.say("mfa/mail", &json!({})).await?;
            json!({ "mail_code": me.asker.plain("Code in the letter: ")? })
        }
        false => json!({ "code": me.asker.plain("Code of your app, or one on paper: ")? }),
    };
    me.say("mfa", &body).await?;
    let Some(factor) = m.get_one::<String>("remove") else {
        return me.screen.put("your second factor is proved afresh\n");
    };
    me.say("factors/remove", &json!({ "factor": factor }))
        .await?;
    me.screen.put(&format!("{factor} is taken away\n"))
}

/// One's own second factors.
async fn list(me: &Me) -> Result<()> {
    let answer = me.say("factors", &json!({})).await?;
    let all = answer.get("factors").and_then(Value::as_array);
    let mut table = Table::new(["name", "sort", "label", "last-used"]);
    let now = crate::output::now();
    for factor in all.into_iter().flatten() {
        let cell = |name: &str, unit: &str| shown(factor.get(name), unit, now);
        table.row(vec![
            cell("name", ""),
            cell("sort", ""),
            cell("label", ""),
            cell("last_used", "age"),
        ]);
    }
    me.screen.put(&table.text(me.screen.color))
}

/// Enrols an app: shows it the key, and asks for its first code.
pub(super) async fn enrol(screen: Screen, asker: Asker, login: &Login) -> Result<()> {
    let client = Client::new(Place::Remote(Box::new(login.clone())));
    let token = login.tokens.as_ref().map(|tokens| &tokens.access);
    let begun = say(&client, "totp/begin", &json!({ "token": token })).await?;
    let text = |name: &str| begun.get(name).and_then(Value::as_str).unwrap_or_default();
    if asker.is_person() {
        screen.say(&format!(
            "Let your app read this, or type {}:\n\n{}",
            text("base32"),
            picture(text("uri"))
        ));
    }
    screen.put(&format!("{}\n", text("uri")))?;
    let mut tries = 0;
    let done = loop {
        tries += 1;
        let code = asker.plain("The code that it shows now: ")?;
        let body = json!({ "token": token, "code": code });
        match say(&client, "totp/confirm", &body).await {
            Err(failure) if failure.exit == 2 && asker.is_person() && tries < 3 => {
                screen.say(failure.lines(false).trim_end());
            }
            done => break done?,
        }
    };
    screen.say("The app is enrolled: a login asks for its code from now on.");
    show(screen, &done)
}

/// Says that a new password was not looked for among those that others have lost.
pub(super) fn unlooked(screen: Screen, answer: &Value) {
    let said = answer.get("breached").and_then(Value::as_str);
    if let Some(said) = said.filter(|said| said.starts_with("skipped")) {
        screen.say(&format!(
            "check against passwords that others have lost: {said}"
        ));
    }
}

/// Codes on paper, when there are any.
fn show(screen: Screen, answer: &Value) -> Result<()> {
    let Some(codes) = answer.get("recovery").and_then(Value::as_array) else {
        return Ok(());
    };
    screen.say(
        "Keep these codes on paper: each lets you in once when you do not have the app. They are not shown again.",
    );
    let codes: Vec<&str> = codes.iter().filter_map(Value::as_str).collect();
    screen.put(&format!("{}\n", codes.join("\n")))
}

/// A QR code in half blocks: dark on light in most terminals, which apps read either way.
fn picture(text: &str) -> String {
    let Ok(code) = QrCode::encode_text(text, QrCodeEcc::Low) else {
        return String::new();
    };
    let mut out = String::new();
    let edge = code.size() + 2;
    for y in (-2..edge).step_by(2) {
        out.push_str("  ");
        for x in -2..edge {
            // Light is drawn, so that a dark terminal shows it the right way round.
            let light = (!code.get_module(x, y), !code.get_module(x, y + 1));
            out.push(match light {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_quiet_edge_and_a_finder_in_three_corners() {
        let lines: Vec<String> = picture("otpauth://totp/a?secret=MZXW6YTBOI")
            .lines()
            .map(str::to_owned)
            .collect();
        assert!(lines[0].trim().chars().all(|c| c == '█'), "{}", lines[0]);
        let wide: Vec<usize> = lines.iter().map(|line| line.chars().count()).collect();
        assert!(wide.iter().all(|w| *w == wide[0]));
        // The upper edge of a finder: seven dark modules over one dark, five light, one dark.
        assert_eq!(
            &lines[1].chars().skip(4).take(7).collect::<String>(),
            " ▄▄▄▄▄ "
        );
    }
}
