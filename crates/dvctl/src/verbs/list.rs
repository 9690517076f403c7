//! `list`: a table, or the API's list. Pages are fetched until the limit is reached.

use super::{given, text, texts};
use crate::connect::{Request, query};
use crate::failure::{Failure, Result};
use crate::grammar::{at, word};
use crate::output::{Format, Table, indent, name_of, now, shown, yaml};
use crate::registry::{ColumnDef, KindDef};
use crate::session::{Session, Target};
use clap::ArgMatches;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// Rows of a table when `--limit` does not say.
const PAGE: u64 = 20;
/// Objects asked for at once.
const BULK: u64 = 500;

/// A page as the API gives it; items stay as they came.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    items: Vec<Box<RawValue>>,
    #[serde(default)]
    next: Option<String>,
    #[serde(default)]
    total: Option<u64>,
}

/// Lists objects of a kind.
pub async fn run(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    let fields = texts(m, "fields");
    let columns = columns(
        kind,
        &fields,
        s.format == Format::Wide,
        given(m, "all-projects"),
    )?;
    let all = Target::of(kind, &s.project, "");
    // Objects that may be in no project are listed wherever they are.
    let everywhere = given(m, "all-projects") || (kind.scope == "any" && !s.project_named);
    let path = match everywhere {
        true => format!("/{}", kind.plural),
        false => all.collection(),
    };
    let limit = match (m.get_one::<u64>("limit"), s.format.is_table()) {
        (Some(0), _) | (None, false) => u64::MAX,
        (Some(n), _) => *n,
        (None, true) => PAGE,
    };
    let mut pairs: Vec<(&str, String)> = Vec::new();
    for id in ["selector", "sort", "search"] {
        if let Some(value) = text(m, id) {
            pairs.push((id, value.to_owned()));
        }
    }
    // A table picks its cells itself; programs get what the server makes of the fields.
    if !fields.is_empty() && !s.format.is_table() {
        pairs.push(("fields", fields.join(",")));
    }
    let mut items: Vec<Box<RawValue>> = Vec::new();
    let mut after: Option<String> = None;
    let mut total = None;
    loop {
        let want = (limit - items.len() as u64).min(BULK);
        let mut pairs = pairs.clone();
        pairs.push(("limit", want.to_string()));
        pairs.extend(after.iter().map(|token| ("after", token.clone())));
        let answer = s
            .client
            .send(Request::get(format!("{path}{}", query(&pairs))))
            .await?;
        let page: Page = serde_json::from_slice(&answer.body)
            .map_err(|e| Failure::unreachable(format!("the server's list cannot be read: {e}")))?;
        total = total.or(page.total);
        let whole = after.is_none() && page.next.is_none();
        // One page holds all: exactly the API's bytes.
        if whole && s.format == Format::Json {
            return s.screen.put_bytes(&indent(&answer.body));
        }
        items.extend(page.items);
        after = page.next;
        if after.is_none() || items.len() as u64 >= limit {
            break;
        }
    }
    match s.format {
        Format::Json | Format::Yaml => {
            let list = json!({ "version": model::VERSION, "kind": format!("{}-list", kind.name), "total": total, "items": items });
            match s.format {
                Format::Json => s.screen.put_bytes(&indent(list.to_string().as_bytes())),
                _ => s.screen.put(&yaml(&list)?),
            }
        }
        Format::Name => {
            let mut out = String::new();
            for item in &items {
                let item: Value = parse(item)?;
                out.push_str(&format!("{}\n", name_of(&item)));
            }
            s.screen.put(&out)
        }
        Format::Table | Format::Wide => {
            let now = now();
            let mut table = Table::new(columns.iter().map(|c| c.name.clone()));
            for item in &items {
                let item = parse(item)?;
                let cells = columns
                    .iter()
                    .map(|c| shown(at(&item, &c.path), &c.unit, now));
                table.row(cells.collect());
            }
            if table.is_empty() {
                s.screen.say(&nothing(s, kind, m, everywhere));
                return Ok(());
            }
            s.screen.put(&table.text(s.screen.color))?;
            if after.is_some() {
                let of = total.map_or("more".into(), |t| t.to_string());
                s.screen.say(&format!(
                    "{} of {of}; --limit N shows more, --limit 0 all",
                    items.len()
                ));
            }
            Ok(())
        }
    }
}

/// Every object of a collection.
pub(super) async fn everything(s: &Session, path: &str) -> Result<Vec<Value>> {
    let mut items = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut pairs = vec![("limit", BULK.to_string())];
        pairs.extend(after.iter().map(|token| ("after", token.clone())));
        let request = Request::get(format!("{path}{}", query(&pairs)));
        let answer = s.client.send(request).await?;
        let page: Page = serde_json::from_slice(&answer.body)
            .map_err(|e| Failure::unreachable(format!("the server's list cannot be read: {e}")))?;
        for item in &page.items {
            items.push(parse(item)?);
        }
        after = page.next;
        if after.is_none() {
            return Ok(items);
        }
    }
}

fn parse(item: &RawValue) -> Result<Value> {
    serde_json::from_str(item.get()).map_err(|e| {
        Failure::unreachable(format!(
            "an object of the server's list cannot be read: {e}"
        ))
    })
}

fn nothing(s: &Session, kind: &KindDef, m: &ArgMatches, everywhere: bool) -> String {
    let filtered = text(m, "selector").is_some() || text(m, "search").is_some();
    let scope = match kind.in_project() && !everywhere {
        true => format!(" in project {}", s.project),
        false => String::new(),
    };
    match filtered {
        true => format!("no {} match{scope}", kind.plural),
        false => format!("no {}{scope}", kind.plural),
    }
}

/// The columns to show: those of the kind with name in front and age behind, or the chosen ones.
pub fn columns(
    kind: &KindDef,
    fields: &[&str],
    wide: bool,
    with_project: bool,
) -> Result<Vec<ColumnDef>> {
    let column = |name: &str, path: &str, unit: &str| ColumnDef {
        name: name.into(),
        path: path.into(),
        wide: false,
        unit: unit.into(),
    };
    let common = [
        column("name", "metadata.name", "text"),
        column("project", "metadata.project", "text"),
        column("age", "metadata.created", "age"),
        column("labels", "metadata.labels", "text"),
    ];
    if !fields.is_empty() {
        return fields
            .iter()
            .map(|field| {
                let known = kind.columns.iter().chain(&common);
                match known.clone().find(|c| c.name == *field) {
                    Some(found) => Ok(found.clone()),
                    None if field.contains('.') => {
                        let unit = unit_at(kind, field);
                        Ok(column(field, field, &unit))
                    }
                    None => {
                        let names: Vec<&str> = known.map(|c| c.name.as_str()).collect();
                        let failure =
                            Failure::usage(format!("{} has no column `{field}`", kind.name));
                        Err(failure
                            .hint(format!(
                                "columns: {}; or a path such as spec.memory",
                                names.join(", ")
                            ))
                            .nearest(field, &names))
                    }
                }
            })
            .collect();
    }
    let [name, project, age, _] = common;
    let mut out: Vec<ColumnDef> = Vec::new();
    let has = |path: &str| kind.columns.iter().any(|c| c.path == path);
    if with_project && kind.in_project() && !has("metadata.project") {
        out.push(project);
    }
    if !has("metadata.name") {
        out.push(name);
    }
    out.extend(kind.columns.iter().filter(|c| wide || !c.wide).cloned());
    if !has("metadata.created") {
        out.push(age);
    }
    Ok(out)
}

/// The unit that the schema gives the field at a path.
fn unit_at(kind: &KindDef, path: &str) -> String {
    let schema = match path.split_once('.') {
        Some(("spec", rest)) => model::schema::at(&kind.spec, rest),
        Some(("status", rest)) => model::schema::at(&kind.status, rest),
        _ => None,
    };
    let unit = schema.and_then(|s| word(s, model::schema::UNIT));
    unit.and_then(Value::as_str).unwrap_or("text").to_owned()
}
