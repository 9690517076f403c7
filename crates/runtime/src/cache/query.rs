//! Pages of a list: selector, search, projection, order, continuation.

use super::Row;
use crate::View;
use crate::key::OBJECTS;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use model::{Error, Kind, Result, Selector, Violation, nearest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use store::{Key, Revision};

/// What a list asks for.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Query {
    /// Picks by labels.
    pub selector: Selector,
    /// Columns or dotted paths to answer with; empty means whole objects.
    pub fields: Vec<String>,
    /// A column to order by, `-` in front for downwards; by name when absent.
    pub sort: Option<String>,
    /// A text that name, display name, labels or a column must contain.
    pub search: Option<String>,
    /// Most objects in the page; 20 when 0, at most 1000.
    pub limit: usize,
    /// The `next` of the page before.
    pub after: Option<String>,
}

/// A page.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The objects, as JSON.
    pub items: Vec<Bytes>,
    /// The revision at which this was true.
    pub revision: Revision,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
    /// How many there are without selector and search.
    pub total: usize,
}

/// Largest page.
pub(crate) const MAX_PAGE: usize = 1000;
const DEFAULT_PAGE: usize = 20;

/// How the keys of a kind, or of a project of it, begin.
pub(super) fn prefix(kind: &str, project: Option<&str>) -> String {
    match project {
        Some(p) => format!("{OBJECTS}{kind}/{p}/"),
        None => format!("{OBJECTS}{kind}/"),
    }
}

/// The rows of one project behind a key.
pub(super) fn range<'a>(
    rows: &'a BTreeMap<Key, Arc<Row>>,
    kind: &str,
    project: Option<&str>,
    after: Option<&Key>,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Row>)> {
    let prefix = prefix(kind, project);
    let from = match after {
        Some(key) => Bound::Excluded(key.clone()),
        None => Bound::Included(Key::new(prefix.as_str())),
    };
    rows.range((from, Bound::Unbounded))
        .take_while(move |(k, _)| k.as_str().starts_with(&prefix))
}

pub(super) fn run(
    kind: &'static Kind,
    rows: &BTreeMap<Key, Arc<Row>>,
    project: Option<&str>,
    query: &Query,
    view: &View,
    revision: Revision,
    total: usize,
) -> Result<Listed> {
    let limit = match query.limit {
        0 => DEFAULT_PAGE,
        n if n <= MAX_PAGE => n,
        n => {
            return Err(Error::field(
                "limit",
                format!("{n} is more than {MAX_PAGE}"),
            ));
        }
    };
    let projection = Projection::new(kind, &query.fields)?;
    let search = query.search.as_ref().map(|s| s.to_lowercase());
    let picked = |row: &Row| {
        view.shows(row)
            && query.selector.matches(&row.labels)
            && search.as_ref().is_none_or(|s| matches_search(row, s))
    };
    let page: Vec<&Arc<Row>>;
    let next;
    match &query.sort {
        None => {
            let after = query.after.as_deref().map(token_key).transpose()?;
            let mut found = range(rows, kind.name, project, after.as_ref())
                .map(|(_, r)| r)
                .filter(|r| picked(r));
            page = found.by_ref().take(limit).collect();
            next = match (page.last(), found.next()) {
                (Some(last), Some(_)) => Some(BASE64.encode(last.key.as_str())),
                _ => None,
            };
        }
        Some(sort) => {
            let (down, name) = match sort.strip_prefix('-') {
                Some(name) => (true, name),
                None => (false, sort.as_str()),
            };
            let index = column_index(kind, "sort", name)?;
            let skip = query
                .after
                .as_deref()
                .map(token_offset)
                .transpose()?
                .unwrap_or(0);
            let mut all: Vec<&Arc<Row>> = range(rows, kind.name, project, None)
                .map(|(_, r)| r)
                .filter(|r| picked(r))
                .collect();
            all.sort_by(|a, b| {
                let by = compare(&a.columns[index], &b.columns[index]);
                if down { by.reverse() } else { by }.then_with(|| a.key.cmp(&b.key))
            });
            next = (all.len() > skip + limit).then(|| BASE64.encode(format!("#{}", skip + limit)));
            page = all.into_iter().skip(skip).take(limit).collect();
        }
    }
    let items = page
        .into_iter()
        .map(|row| projection.apply(row))
        .collect::<Result<_>>()?;
    Ok(Listed {
        items,
        revision,
        next,
        total,
    })
}

fn bad_token() -> Error {
    Error::field("after", "is not a `next` that a list has answered").hint("begin again without it")
}

fn token_key(token: &str) -> Result<Key> {
    let bytes = BASE64.decode(token).map_err(|_| bad_token())?;
    let text = String::from_utf8(bytes).map_err(|_| bad_token())?;
    if !text.starts_with(OBJECTS) {
        return Err(bad_token());
    }
    Ok(Key::new(text))
}

fn token_offset(token: &str) -> Result<usize> {
    let bytes = BASE64.decode(token).map_err(|_| bad_token())?;
    let text = String::from_utf8(bytes).map_err(|_| bad_token())?;
    text.strip_prefix('#')
        .and_then(|n| n.parse().ok())
        .ok_or_else(bad_token)
}

fn column_index(kind: &'static Kind, field: &str, name: &str) -> Result<usize> {
    kind.columns
        .iter()
        .position(|c| c.name == name)
        .ok_or_else(|| {
            let known = kind.columns.iter().map(|c| c.name);
            let mut v = Violation::new(field, format!("`{name}` is not a column of {}", kind.name));
            v.hint = nearest(name, known.clone())
                .map(|n| format!("did you mean `{n}`?"))
                .or_else(|| Some(format!("columns: {}", known.collect::<Vec<_>>().join(", "))));
            Error::invalid(vec![v])
        })
}

fn compare(a: &str, b: &str) -> Ordering {
    match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(x), Ok(y)) => x.total_cmp(&y),
        _ => a.cmp(b),
    }
}

fn matches_search(row: &Row, text: &str) -> bool {
    row.name.contains(text)
        || row.columns.iter().any(|c| c.to_lowercase().contains(text))
        || row
            .labels
            .iter()
            .any(|(k, v)| k.to_lowercase().contains(text) || v.to_lowercase().contains(text))
}

/// How a row becomes an item.
enum Projection<'a> {
    Whole,
    /// Only columns: glued together from what the row holds.
    Columns(Vec<(&'a str, usize)>),
    /// Any path: the object is parsed.
    Paths(Vec<&'a str>, &'static Kind),
}

impl<'a> Projection<'a> {
    fn new(kind: &'static Kind, fields: &'a [String]) -> Result<Self> {
        if fields.is_empty() {
            return Ok(Projection::Whole);
        }
        let columns: Option<Vec<_>> = fields
            .iter()
            .map(|f| {
                kind.columns
                    .iter()
                    .position(|c| c.name == f)
                    .map(|i| (f.as_str(), i))
            })
            .collect();
        if let Some(columns) = columns {
            return Ok(Projection::Columns(columns));
        }
        for field in fields {
            let known = ["metadata", "spec", "status"]
                .iter()
                .any(|p| field == p || field.starts_with(&format!("{p}.")));
            if !known {
                column_index(kind, "fields", field)?;
            }
        }
        Ok(Projection::Paths(
            fields.iter().map(String::as_str).collect(),
            kind,
        ))
    }

    fn apply(&self, row: &Row) -> Result<Bytes> {
        match self {
            Projection::Whole => Ok(row.json.clone()),
            Projection::Columns(columns) => {
                let mut out = String::with_capacity(columns.len() * 32);
                for (i, (name, index)) in columns.iter().enumerate() {
                    out.push(if i == 0 { '{' } else { ',' });
                    out.push('"');
                    out.push_str(name);
                    out.push_str("\":");
                    out.push_str(&row.columns[*index]);
                }
                out.push('}');
                Ok(out.into())
            }
            Projection::Paths(paths, kind) => {
                let object = row.value()?;
                let mut out = serde_json::Map::new();
                for path in paths {
                    let at = kind
                        .columns
                        .iter()
                        .find(|c| c.name == *path)
                        .map_or(*path, |c| c.path);
                    let mut here = &object;
                    for part in at.split('.') {
                        here = here.get(part).unwrap_or(&Value::Null);
                    }
                    out.insert((*path).to_owned(), here.clone());
                }
                Ok(Value::Object(out).to_string().into())
            }
        }
    }
}
