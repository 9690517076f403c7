//! `tpm enrol`: this machine proves by its TPM which one it is, and gets a certificate that only it can use; later it proves
//! that again. What it proves it for is an object of the server, which an administrator has made.

use super::{follow, text};
use crate::connect::{Login, Logins, Place, Request, Resident, escape};
use crate::failure::{Failure, Result};
use crate::grammar::at;
use crate::output::Asker;
use crate::session::Session;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::ArgMatches;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tpm::credential::Challenge;
use tpm::{Ask, Device, Endorsement, Tpm};

/// Proves which machine this is and saves what it gets as a login of its own.
pub async fn enrol(s: &Session, m: &ArgMatches) -> Result<()> {
    let Place::Remote(present) = s.client.place() else {
        return Err(Failure::usage(
            "a machine is enrolled over the network, and this is the server's own socket",
        )
        .hint("log in by the address that the machine will use: dvctl login https://HOST:8443"));
    };
    let named = text(m, "machine").map(str::to_owned);
    let machine = named.or_else(|| present.tpm.as_ref().map(|key| key.machine.clone()));
    let machine = machine.ok_or_else(|| {
        Failure::usage("which machine is this?")
            .hint("dvctl tpm enrol MACHINE; dvctl machine list shows them")
    })?;
    let name = model::Name::parse("--name", text(m, "name").unwrap_or(&machine))?.to_string();
    let logins = Logins::of_user();
    let before = match logins.names().contains(&name) {
        true => Some(logins.get(&name)?),
        false => None,
    };
    if let Some(before) = before.as_ref().filter(|before| before.tpm.is_none()) {
        return Err(Failure::usage(format!(
            "there is a saved login `{name}` to {} already",
            before.url
        ))
        .hint("--name gives that of this machine another name"));
    }
    let asker = Asker::new(s.screen, m.get_flag("api-key-stdin"));
    let api_key = match m.get_flag("api-key-stdin") {
        true => Some(asker.secret("API key: ")?),
        false => before.as_ref().and_then(|before| before.api_key.clone()),
    };
    let known = before
        .and_then(|before| before.tpm)
        .filter(|key| key.machine == machine);
    let device = match (text(m, "device"), &known) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(key)) => key.device.clone(),
        (None, None) => Device::STANDARD.into(),
    };
    let (ask, by, chain) = prepare(&device, known.as_ref())?;
    let params = json!({
        "certificate": STANDARD.encode(&by.certificate),
        "chain": STANDARD.encode(chain),
        "voucher": STANDARD.encode(&ask.voucher.public),
        "key": STANDARD.encode(&ask.key.public),
    });
    let given = act(s, &machine, "challenge", &params).await?;
    let answer = answer(&device, &ask, &by, &given)?;
    let proven = act(s, &machine, "prove", &answer).await?;
    let word = |name: &str| proven.get(name).and_then(Value::as_str).unwrap_or_default();
    let login = Login {
        name: name.clone(),
        url: present.url.clone(),
        ca: present.ca.clone(),
        certificate: word("certificate").to_owned(),
        key: String::new(),
        tokens: None,
        tpm: Some(Resident::new(&machine, device, &ask.key)),
        api_key,
    };
    let path = logins.keep(&login)?;
    s.screen.put(&format!(
        "machine {machine} has proven itself, until {}\n",
        word("until")
    ))?;
    s.screen.say(&format!(
        "saved as `{name}` in {}; `dvctl --cluster {name} ...` picks it",
        path.display()
    ));
    if login.api_key.is_none() {
        s.screen.say(&format!(
            "hint: a key that only works here: dvctl api-key create NAME --machine {machine}; dvctl api-key secret NAME | dvctl tpm enrol {machine} --api-key-stdin"
        ));
    }
    Ok(())
}

/// What the TPM is asked for before there is a challenge.
fn prepare(device: &Path, known: Option<&Resident>) -> Result<(Ask, Endorsement, Vec<u8>)> {
    let mut tpm = Tpm::open(device).map_err(failed)?;
    let by = tpm.endorsements().map_err(failed)?.into_iter().next();
    let by = by.ok_or_else(|| {
        Failure::new(3, format!("the TPM at {} keeps no certificate of its maker", device.display()))
            .hint("without one nobody can tell that it is a TPM: one in software gets it from swtpm_setup --create-ek-cert")
    })?;
    let chain = tpm.chain().map_err(failed)?;
    let key = known.map(Resident::key).transpose()?;
    Ok((tpm.ask(key).map_err(failed)?, by, chain))
}

/// The answer to a challenge.
fn answer(device: &Path, ask: &Ask, by: &Endorsement, given: &Value) -> Result<Value> {
    let odd = || Failure::unreachable("the server gave a challenge that cannot be read");
    let bytes = |name: &str| {
        let text = given.get(name).and_then(Value::as_str).ok_or_else(odd)?;
        STANDARD.decode(text).map_err(|_| odd())
    };
    let challenge = Challenge {
        credential: bytes("credential")?,
        seed: bytes("seed")?,
    };
    let registers = given.get("registers").cloned().ok_or_else(odd)?;
    let registers: Vec<u8> = serde_json::from_value(registers).map_err(|_| odd())?;
    let mut tpm = Tpm::open(device).map_err(failed)?;
    let said = tpm
        .answer(ask, by, &challenge, &registers)
        .map_err(failed)?;
    let registers = said.registers.iter();
    let registers: serde_json::Map<String, Value> = registers
        .map(|(register, value)| (register.to_string(), hex::encode(value).into()))
        .collect();
    Ok(json!({
        "secret": STANDARD.encode(&said.secret),
        "quote": STANDARD.encode(&said.quote.0),
        "quote_signature": STANDARD.encode(&said.quote.1),
        "certified": STANDARD.encode(&said.certified.0),
        "certified_signature": STANDARD.encode(&said.certified.1),
        "registers": registers,
    }))
}

fn failed(error: tpm::Error) -> Failure {
    let hint = match &error {
        tpm::Error::Device { .. } => {
            "is there a TPM 2.0, and may you use it? The group `tss` may, as a rule; --device names another one"
        }
        _ => {
            "was the TPM cleared, or is the saved login of another machine? Then `dvctl logout` that login and enrol again"
        }
    };
    Failure::new(3, error.to_string()).hint(hint)
}

/// Does something with the machine: the result of its task.
async fn act(s: &Session, machine: &str, verb: &str, params: &Value) -> Result<Value> {
    let path = format!("/machines/{}/actions/{verb}", escape(machine));
    let request = Request::change(http::Method::POST, path).json(params);
    let task = s.client.send(request).await?.json()?;
    let patience = follow::Patience {
        wait: true,
        limit: None,
    };
    let done = follow::task(s, &task, &format!("machine {verb} {machine}"), patience).await?;
    at(&done, "status.result").cloned().ok_or_else(|| {
        Failure::unreachable(format!("the server did not say what came of `{verb}`"))
    })
}
