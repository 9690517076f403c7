//! `expiring`: the objects of a kind that end within some days, and those that have ended, the soonest first.

use super::given;
use super::list::{columns, everything};
use crate::failure::Result;
use crate::grammar::at;
use crate::output::{Format, Table, indent, name_of, now, shown, yaml};
use crate::registry::{ColumnDef, KindDef};
use crate::session::{Session, Target};
use clap::ArgMatches;
use model::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// Lists what ends soon.
pub async fn run(s: &Session, kind: &KindDef, m: &ArgMatches) -> Result<()> {
    let path = kind.ends_at().unwrap_or_default();
    let days = m.get_one::<u32>("days").copied().unwrap_or(30);
    let everywhere = given(m, "all-projects");
    let from = match everywhere {
        true => format!("/{}", kind.plural),
        false => Target::of(kind, &s.project, "").collection(),
    };
    let (now, mut items) = (now(), Vec::new());
    let last = now.plus(DAY * days);
    for item in everything(s, &from).await? {
        let end = at(&item, &path).cloned().unwrap_or_default();
        if let Ok(end) = serde_json::from_value::<Timestamp>(end)
            && end <= last
        {
            items.push((end, item));
        }
    }
    items.sort_by_key(|(end, _)| *end);
    let items = items.into_iter().map(|(_, item)| item);
    match s.format {
        Format::Json | Format::Yaml => {
            let items: Vec<Value> = items.collect();
            let list = json!({ "version": model::VERSION, "kind": format!("{}-list", kind.name), "total": items.len(), "items": items });
            match s.format {
                Format::Json => s.screen.put_bytes(&indent(list.to_string().as_bytes())),
                _ => s.screen.put(&yaml(&list)?),
            }
        }
        Format::Name => {
            let names: String = items.map(|item| format!("{}\n", name_of(&item))).collect();
            s.screen.put(&names)
        }
        Format::Table | Format::Wide => {
            let mut columns = columns(kind, &[], s.format == Format::Wide, everywhere)?;
            if !columns.iter().any(|c| c.path == path) {
                columns.push(ColumnDef {
                    name: path.rsplit('.').next().unwrap_or_default().to_owned(),
                    path,
                    wide: false,
                    unit: "text".into(),
                });
            }
            let mut table = Table::new(columns.iter().map(|c| c.name.clone()));
            for item in items {
                let cells = columns
                    .iter()
                    .map(|c| shown(at(&item, &c.path), &c.unit, now));
                table.row(cells.collect());
            }
            if table.is_empty() {
                s.screen
                    .say(&format!("no {} end within {days} days", kind.plural));
                return Ok(());
            }
            s.screen.put(&table.text(s.screen.color))
        }
    }
}
