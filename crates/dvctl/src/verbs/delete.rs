//! `delete`: asks first, then waits until the object is gone.

use super::follow::Patience;
use super::{batch, confirm, documents, given, targets, text, texts, watch};
use crate::connect::{Request, query};
use crate::failure::{Failure, INTERRUPTED, Result};
use crate::grammar::at;
use crate::output::Progress;
use crate::registry::KindDef;
use crate::session::{Session, Target};
use clap::ArgMatches;
use serde_json::Value;

/// Deletes the named object, or many as one task.
pub async fn run(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    let targets = targets(s, kind, m).await?;
    let mut keep = text(m, "keep").map(str::to_owned);
    if given(m, "keep-disks") {
        keep = Some("disks".into());
    }
    if batch::meant(m, &targets) {
        let keep = keep.iter().flat_map(|k| k.split(','));
        let wish = batch::Wish {
            verb: "delete",
            danger: "destroys",
            params: Value::Null,
            keep: keep.map(|word| word.trim().to_owned()).collect(),
        };
        return batch::run(s, kind, &targets, wish, m).await;
    }
    all(s, &targets, keep.as_deref(), m).await
}

/// Deletes the objects of files, the last one first.
pub async fn files(s: &Session, m: &ArgMatches) -> Result<()> {
    let mut targets = Vec::new();
    for document in documents::read(&texts(m, "file"))? {
        targets.push(documents::target(s, &document)?);
    }
    targets.reverse();
    all(s, &targets, None, m).await
}

async fn all(s: &Session, targets: &[Target], keep: Option<&str>, m: &ArgMatches) -> Result<()> {
    let dry = given(m, "dry-run");
    if !dry {
        let names: Vec<String> = targets.iter().map(Target::to_string).collect();
        let what = format!("this deletes {}", names.join(", "));
        let what = match keep {
            Some(keep) => format!("{what} (its {keep} stay)"),
            None => format!("{what} and what belongs to it"),
        };
        confirm::destruction(s, given(m, "yes"), &what)?;
    }
    let mut pairs: Vec<(&str, String)> = Vec::new();
    pairs.extend(keep.map(|k| ("keep", k.to_owned())));
    if dry {
        pairs.push(("dry_run", "true".into()));
    }
    if given(m, "force") {
        pairs.push(("force", "true".into()));
    }
    let mut waiting = Vec::new();
    for target in targets {
        let path = format!("{}{}", target.path(), query(&pairs));
        s.client
            .send(Request::change(http::Method::DELETE, path))
            .await?;
        waiting.push(target);
    }
    let patience = Patience::of(m);
    for target in waiting {
        if dry {
            s.screen
                .put(&format!("{} would be deleted\n", target.short()))?;
            continue;
        }
        if patience.wait {
            gone(s, target, patience).await?;
        }
        let word = if patience.wait {
            "deleted"
        } else {
            "is being deleted"
        };
        if s.format.is_table() {
            s.screen.put(&format!("{} {word}\n", target.short()))?;
        }
    }
    Ok(())
}

/// Waits until an object is gone.
async fn gone(s: &Session, target: &Target, patience: Patience) -> Result<()> {
    let mut progress = Progress::new(s.screen, !s.format.is_table() && !s.screen.err_tty);
    let what = format!("{} delete {}", target.kind, target.name);
    let mut uid: Option<String> = None;
    let waiting = watch::until(s, target, patience.limit, |seen| {
        let Some(seen) = seen else {
            return Some(Ok(()));
        };
        // A new one of the same name is not the one that was deleted.
        let this = at(seen, "metadata.uid").and_then(Value::as_str);
        match (&uid, this) {
            (None, Some(this)) => uid = Some(this.to_owned()),
            (Some(uid), Some(this)) if uid != this => return Some(Ok(())),
            _ => {}
        }
        let holds = at(seen, "metadata.holds").and_then(Value::as_array);
        let names: Vec<&str> = holds
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !names.is_empty() {
            progress.show(
                &what,
                &format!("waiting for {}", names.join(", ")),
                None,
                None,
            );
        }
        None
    });
    let found = tokio::select! {
        found = waiting => found?,
        _ = tokio::signal::ctrl_c() => {
            s.screen.say(&format!("\n{target} goes on being deleted without you"));
            return Err(Failure::silent(INTERRUPTED));
        }
    };
    progress.clear();
    found.ok_or_else(|| {
        Failure::new(3, format!("{target} is not gone within --timeout")).hint(format!(
            "`dvctl {} explain {}` says what holds it",
            target.kind, target.name
        ))
    })
}
