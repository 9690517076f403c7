//! `edit`: the object as YAML in an editor, sent back at the revision it was read.

use super::{apply, documents, given, present, target};
use crate::failure::{Failure, Result};
use crate::output::yaml;
use crate::registry::KindDef;
use crate::session::Session;
use crate::session::Target;
use clap::ArgMatches;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;

/// Edits an object; a refused edit can be corrected.
pub async fn run(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    let target = target(s, kind, m).await?;
    let object = s.client.json(&target.path()).await?;
    let original = editable(&object)?;
    let mut file = tempfile::Builder::new()
        .prefix("dvctl-")
        .suffix(".yaml")
        .tempfile()
        .map_err(|e| Failure::io("making a file to edit", e))?;
    file.write_all(original.as_bytes())
        .and_then(|()| file.flush())
        .map_err(|e| Failure::io("writing the file to edit", e))?;
    let mut before = original.clone();
    loop {
        editor(file.path())?;
        let text = std::fs::read_to_string(file.path())
            .map_err(|e| Failure::io("reading the edited file", e))?;
        if text == before || text.trim().is_empty() {
            return Err(Failure::new(3, "nothing was changed").hint("the file came back as it was"));
        }
        let failure = match send(s, &target, &object, &text, given(m, "dry-run")).await {
            Ok(answer) => {
                return present::object(s, &answer, &format!("{} changed", target.short()));
            }
            Err(failure) => failure,
        };
        let again = s.screen.in_tty && s.screen.err_tty;
        if !again {
            return Err(failure);
        }
        s.screen.say(failure.lines(s.screen.color).trim_end());
        if s.screen
            .ask("Edit again? [Y/n] ")?
            .to_lowercase()
            .starts_with('n')
        {
            let (_, kept) = file
                .keep()
                .map_err(|e| Failure::io("keeping the edited file", e))?;
            return Err(Failure::new(failure.exit, "nothing was changed")
                .hint(format!("your text is in {}", kept.display())));
        }
        before = text;
    }
}

/// The parts of an object that people write, with its revision.
fn editable(object: &Value) -> Result<String> {
    let document = documents::Document {
        place: String::new(),
        object: object.clone(),
    };
    let mut body = documents::body(&document);
    if let Some(revision) = documents::revision(&document) {
        body["metadata"]["revision"] = json!(revision);
    }
    yaml(&body)
}

/// Sends the text; `read` is the object as it was when the editing began.
async fn send(
    s: &Session,
    target: &Target,
    read: &Value,
    text: &str,
    dry: bool,
) -> Result<crate::connect::Answer> {
    let mut object: Value = serde_yaml_ng::from_str(text)
        .map_err(|e| Failure::usage(format!("this is not YAML: {e}")))?;
    // What tells whether somebody else changed it meanwhile.
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "generation"] {
            if let Some(value) = read.get("metadata").and_then(|m| m.get(field)) {
                meta.insert(field.into(), value.clone());
            }
        }
    }
    let document = documents::Document {
        place: "your text".into(),
        object,
    };
    apply::replace(s, target, &document, dry).await
}

/// Runs the user's editor on a file and waits for it.
#[allow(
    clippy::disallowed_types,
    reason = "the user's own editor on the user's terminal; this crate is a client and has no host"
)]
fn editor(file: &Path) -> Result<()> {
    let command = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|v| std::env::var(v).ok().filter(|e| !e.trim().is_empty()))
        .unwrap_or_else(|| "editor".into());
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or("editor");
    let status = std::process::Command::new(program)
        .args(words)
        .arg(file)
        .status()
        .map_err(|e| {
            Failure::io(format!("starting the editor `{program}`"), e)
                .hint("set VISUAL or EDITOR to an editor that is installed")
        })?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::new(
            1,
            format!("the editor `{program}` ended with {status}; nothing was changed"),
        )),
    }
}
