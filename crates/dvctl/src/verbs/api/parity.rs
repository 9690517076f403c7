//! `api parity`: which surface offers which action. The server says what its surfaces say of themselves; here comes what
//! this program offers. A gap is fine only when the committed list of exceptions gives a reason for it.

use super::show;
use crate::failure::{Failure, Result};
use crate::grammar;
use crate::output::Table;
use crate::session::Session;
use serde::Deserialize;
use serde_json::{Value, json};

/// The gaps that are meant to be, with their reasons: `api/parity-exceptions.json`.
const EXCEPTIONS: &str = include_str!("../../../../../api/parity-exceptions.json");

/// The surfaces that the server answers for, in the order of the table; the CLI is ours.
const THEIRS: [&str; 4] = ["rest", "grpc", "graphql", "watch"];

/// Gaps with a reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exception {
    /// `*.explain`, `vm.start`; every action when absent.
    #[serde(default)]
    actions: Option<String>,
    /// `common`, `action`, `stream`; every sort when absent.
    #[serde(default)]
    sort: Option<String>,
    surfaces: Vec<String>,
    reason: String,
}

impl Exception {
    fn covers(&self, row: &Row, surface: &str) -> bool {
        let named = |pattern: &String| match pattern.strip_prefix('*') {
            Some(end) => row.action.ends_with(end),
            None => row.action == *pattern,
        };
        self.surfaces.iter().any(|s| s == surface)
            && self.actions.as_ref().is_none_or(named)
            && self.sort.as_ref().is_none_or(|sort| row.sort == *sort)
    }
}

/// One action, as the server answers it.
#[derive(Deserialize)]
struct Row {
    action: String,
    sort: String,
    #[serde(flatten)]
    more: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct Answer {
    actions: Vec<Row>,
}

/// `api parity [--check]`.
pub async fn parity(s: &Session, check: bool) -> Result<()> {
    let exceptions: Vec<Exception> = serde_json::from_str(EXCEPTIONS)
        .map_err(|e| Failure::new(1, format!("api/parity-exceptions.json cannot be read: {e}")))?;
    let answer: Answer = serde_json::from_value(s.client.json("/surfaces").await?)
        .map_err(|e| Failure::unreachable(format!("the server's table of surfaces: {e}")))?;
    let mut table = Table::new([
        "action", "rest", "grpc", "graphql", "watch", "cli", "why not",
    ]);
    let mut list = Vec::new();
    let mut gaps = Vec::new();
    let mut used = vec![false; exceptions.len()];
    for row in &answer.actions {
        let mut cells = vec![row.action.clone()];
        let mut out = json!({ "action": row.action, "sort": row.sort });
        let mut reasons: Vec<&str> = Vec::new();
        let mut gap = false;
        let offered = THEIRS
            .iter()
            .map(|surface| (*surface, row.more.get(*surface).and_then(Value::as_bool)));
        let ours = std::iter::once(("cli", Some(in_cli(s, &row.action)?)));
        for (surface, there) in offered.chain(ours) {
            out[surface] = json!(there);
            let excuse = exceptions.iter().position(|e| e.covers(row, surface));
            cells.push(match (there, excuse) {
                (None, _) => "-".into(),
                (Some(true), _) => "yes".into(),
                (Some(false), Some(at)) => {
                    used[at] = true;
                    if !reasons.contains(&exceptions[at].reason.as_str()) {
                        reasons.push(&exceptions[at].reason);
                    }
                    "no".into()
                }
                (Some(false), None) => {
                    gap = true;
                    gaps.push(format!("{} is missing in {surface}", row.action));
                    "MISSING".into()
                }
            });
        }
        out["reason"] = json!(reasons.join("; "));
        cells.push(reasons.join("; "));
        if gap || !check {
            table.row(cells);
            list.push(out);
        }
    }
    if !check || !list.is_empty() {
        show(s, &table, &Value::Array(list))?;
    }
    if !check {
        return Ok(());
    }
    let idle = exceptions.iter().zip(used).filter(|(_, used)| !used);
    gaps.extend(idle.map(|(e, _)| {
        format!(
            "the exception for {} is not needed any more",
            e.actions.as_deref().or(e.sort.as_deref()).unwrap_or("all")
        )
    }));
    match gaps.is_empty() {
        true => s.screen.put(&format!(
            "{} actions, no gap without a reason\n",
            answer.actions.len()
        )),
        false => Err(Failure::new(1, gaps.join("\n"))
            .hint("offer it there, or give the reason in api/parity-exceptions.json")),
    }
}

/// Whether this program has a command for an action.
fn in_cli(s: &Session, action: &str) -> Result<bool> {
    let Some((kind, verb)) = action.rsplit_once('.') else {
        return Ok(false);
    };
    let Some(kind) = s.registry.kind(kind)? else {
        return Ok(false);
    };
    let verb = match verb {
        // Replacing an object whole is what files are for.
        "update" => return Ok(grammar::BUILTINS.iter().any(|(name, _)| *name == "apply")),
        "patch" => "set",
        verb => verb,
    };
    let command = grammar::kind_command(&kind, Some(verb));
    Ok(command.find_subcommand(verb).is_some())
}
