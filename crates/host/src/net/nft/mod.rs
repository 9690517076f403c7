//! nft: our tables, replaced as a whole in one transaction.
//!
//! Rulesets are built as JSON by pure functions ([`guard`], [`segments`]) and given to `nft -j -f -`. A replacement is one
//! transaction, so there is no moment without rules, and a ruleset the kernel refuses changes nothing.
//!
//! **Never:** names a table that is not ours, flushes the ruleset, or runs rules through a shell.

pub mod guard;
mod json;
mod probe;
pub mod segments;

pub use probe::{Features, probe};

use super::Netns;
use crate::process::Run;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::time::Duration;

/// Family of a table: which packets come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Frames that pass a bridge.
    Bridge,
    /// IPv4 and IPv6 packets that are routed, sent or received.
    Inet,
}

impl Family {
    /// The word nft has for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Inet => "inet",
        }
    }
}

/// A table of ours with everything in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name, unique in the family.
    pub name: String,
    /// Its sets, maps, chains and rules as `nft -j` wants them added, in that order.
    pub contents: Vec<Value>,
    /// Sets of IPv6 addresses that packets are compared with at any place in them. `nft -j` of Debian 12 cannot declare
    /// such a set, so these are made before the rest.
    pub raw_sets: Vec<RawSet>,
}

/// A set of IPv6 addresses that need not stand in a field nft has a name for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawSet {
    /// Its name.
    pub name: String,
    /// Most elements in it.
    pub size: u32,
    /// Whether packets fill it. What they put there outlives a replacement of the table.
    pub learned: bool,
    /// How the names of the sets begin whose elements packets put here too. When one of those goes, so does here what was
    /// in it.
    pub parts: Option<String>,
}

impl RawSet {
    fn declaration(&self, table: &Table) -> String {
        let flags = if self.learned {
            " flags dynamic,timeout;"
        } else {
            ""
        };
        format!(
            "add set {} {} {} {{ typeof @nh,64,128; size {};{flags} }}\n",
            table.family.word(),
            table.name,
            self.name,
            self.size
        )
    }
}

impl Table {
    /// The commands that put this table in place of `standing`, which has its name: all goes but what packets taught it.
    fn renewal(&self, standing: &[Value]) -> Vec<Value> {
        let (family, table) = (self.family.word(), self.name.as_str());
        let named = |name: &str| json!({"family": family, "table": table, "name": name});
        let wanted: Vec<(&str, &str)> = self
            .contents
            .iter()
            .filter_map(identity)
            .chain(self.raw_sets.iter().map(|set| ("set", set.name.as_str())))
            .collect();
        let learned = |name: &str| {
            let mut sets = self.raw_sets.iter();
            sets.any(|set| set.learned && set.name == name)
        };
        let mut commands = vec![json!({"flush": {"table": {"family": family, "name": table}}})];
        let mut stale = [Vec::new(), Vec::new(), Vec::new()];
        for (kind, name) in standing.iter().filter_map(identity) {
            if kind != "chain" && !(kind == "set" && learned(name)) {
                commands.push(json!({"flush": {kind: named(name)}}));
            }
            if !wanted.contains(&(kind, name)) {
                // Maps name chains, so they go first.
                let turn = ["map", "chain", "set"].iter().position(|one| *one == kind);
                if let Some(turn) = turn {
                    stale[turn].push(json!({"delete": {kind: named(name)}}));
                }
            }
        }
        for set in self.raw_sets.iter().filter(|set| set.learned) {
            commands.extend(self.without_lost_parts(set, standing, &wanted));
        }
        commands.extend(stale.into_iter().flatten());
        commands.extend(self.contents.iter().map(|object| json!({"add": object})));
        commands
    }

    /// Takes out of a set what stood in parts of it that go.
    fn without_lost_parts(
        &self,
        set: &RawSet,
        standing: &[Value],
        wanted: &[(&str, &str)],
    ) -> Vec<Value> {
        let Some(parts) = &set.parts else {
            return Vec::new();
        };
        let parts = standing.iter().filter_map(|object| {
            let found = identity(object)
                .filter(|(kind, name)| *kind == "set" && name.starts_with(parts.as_str()))?;
            Some((wanted.contains(&found), elements(object)))
        });
        let (stay, go): (Vec<_>, Vec<_>) = parts.partition(|(stays, _)| *stays);
        if go.is_empty() {
            return Vec::new();
        }
        let (family, table) = (self.family.word(), &self.name);
        let named = json!({"family": family, "table": table, "name": set.name});
        let mut commands = vec![json!({"flush": {"set": named}})];
        let stay: Vec<Value> = stay
            .into_iter()
            .flat_map(|(_, elements)| elements)
            .collect();
        if !stay.is_empty() {
            commands.push(json!({"add": {"element": {
                "family": family, "table": table, "name": set.name, "elem": stay,
            }}}));
        }
        commands
    }

    /// The commands that put this table in place of whatever has its name.
    fn replacement(&self) -> Vec<Value> {
        let table = json!({"table": {"family": self.family.word(), "name": self.name}});
        let mut commands = vec![
            // Deleting what does not exist fails, so it is made first.
            json!({"add": table}),
            json!({"delete": table}),
            json!({"add": table}),
        ];
        commands.extend(self.contents.iter().map(|object| json!({"add": object})));
        commands
    }
}

/// The nft tables of one namespace.
#[derive(Clone, Debug)]
pub struct Nft {
    netns: Netns,
}

impl Nft {
    /// For the tables of that namespace.
    pub fn new(netns: &Netns) -> Self {
        Self {
            netns: netns.clone(),
        }
    }

    /// Puts these tables in place of those with their names, all or nothing.
    ///
    /// # Errors
    /// When `nft` is missing or the kernel refuses the rules; then nothing has changed.
    pub async fn replace(&self, tables: &[Table]) -> Result<()> {
        let mut commands = Vec::new();
        for table in tables {
            commands.extend(match table.raw_sets.is_empty() {
                true => table.replacement(),
                false => table.renewal(&self.with_raw_sets(table).await?),
            });
        }
        let names: Vec<_> = tables
            .iter()
            .map(|table| format!("{} {}", table.family.word(), table.name))
            .collect();
        self.carry_out(&commands).await.with_context(|| {
            format!(
                "cannot replace nft table `{}` in network namespace `{}`",
                names.join("`, `"),
                self.netns.name()
            )
        })
    }

    /// Declares the table's raw sets, which harms nothing while no rule names them, and answers what is in the table then.
    async fn with_raw_sets(&self, table: &Table) -> Result<Vec<Value>> {
        let (family, name) = (table.family.word(), &table.name);
        let mut program = format!("add table {family} {name}\n");
        for set in &table.raw_sets {
            program.push_str(&set.declaration(table));
        }
        self.nft()
            .args(["-f", "-"])
            .stdin_bytes(program)
            .output()
            .await
            .with_context(|| format!("cannot declare sets of nft table `{family} {name}`"))?;
        let listing = self.list(&["list", "table", family, name]).await?;
        Ok(listing.unwrap_or_default())
    }

    /// Removes a table; one that is not there is no error.
    ///
    /// # Errors
    /// When `nft` is missing or the kernel refuses.
    pub async fn remove(&self, family: Family, name: &str) -> Result<()> {
        let table = json!({"table": {"family": family.word(), "name": name}});
        self.carry_out(&[json!({"add": table}), json!({"delete": table})])
            .await
            .with_context(|| format!("cannot remove nft table `{} {name}`", family.word()))
    }

    /// The names of all tables of a family, ours and others'.
    ///
    /// # Errors
    /// When `nft` is missing or fails.
    pub async fn tables(&self, family: Family) -> Result<Vec<String>> {
        let listing = self
            .list(&["list", "tables", family.word()])
            .await?
            .unwrap_or_default();
        Ok(listing
            .iter()
            .filter_map(|object| Some(object.get("table")?.get("name")?.as_str()?.to_owned()))
            .collect())
    }

    /// A hash of what the kernel has in the place of a table, counters and handles apart; `None` when it is not there, or
    /// has more or fewer objects or elements than it should.
    ///
    /// What packets taught it does not count. It changes with any rule or element that anybody adds, takes away or changes, so comparing it with the hash seen
    /// after [`Nft::replace`] tells whether somebody has meddled. The count tells it even when he was faster than the
    /// first look.
    ///
    /// # Errors
    /// When `nft` is missing or fails.
    pub async fn fingerprint(&self, table: &Table) -> Result<Option<String>> {
        let listing = self
            .list(&["list", "table", table.family.word(), &table.name])
            .await?;
        let Some(mut objects) = listing else {
            return Ok(None);
        };
        let learned = |object: &Value| {
            let name = identity(object).map(|(_, name)| name);
            let mut sets = table.raw_sets.iter();
            sets.any(|set| set.learned && Some(set.name.as_str()) == name)
        };
        objects.retain(|object| {
            object.get("metainfo").is_none() && object.get("table").is_none() && !learned(object)
        });
        let (listed, elements) = count(&objects);
        let (mut wanted, all) = count(&table.contents);
        wanted += table.raw_sets.iter().filter(|set| !set.learned).count();
        if (listed, elements) != (wanted, all) {
            return Ok(None);
        }
        let mut lines: Vec<String> = objects
            .iter_mut()
            .map(|object| {
                forget_counters(object);
                object.to_string()
            })
            .collect();
        // The kernel lists sets and chains in an order of its own.
        lines.sort();
        Ok(Some(hex::encode(Sha256::digest(
            lines.join("\n").as_bytes(),
        ))))
    }

    async fn list(&self, command: &[&str]) -> Result<Option<Vec<Value>>> {
        let output = self
            .nft()
            .args(["-j"])
            .args(command)
            .accept([0, 1])
            .output()
            .await?;
        if output.code != 0 {
            if output.said().contains("No such file or directory") {
                return Ok(None);
            }
            bail!(
                "`nft {}` failed: {}",
                command.join(" "),
                output.said().trim()
            );
        }
        let mut answer: Value =
            serde_json::from_slice(&output.stdout).context("cannot read what nft listed")?;
        Ok(match answer.get_mut("nftables").map(Value::take) {
            Some(Value::Array(objects)) => Some(objects),
            _ => Some(Vec::new()),
        })
    }

    async fn carry_out(&self, commands: &[Value]) -> Result<()> {
        let program = json!({"nftables": commands}).to_string();
        self.nft()
            .args(["-j", "-f", "-"])
            .stdin_bytes(program)
            .output()
            .await?;
        Ok(())
    }

    fn nft(&self) -> Run {
        let netns = (!self.netns.is_root()).then(|| self.netns.path());
        Run::new("nft")
            .maybe_netns(netns)
            .timeout(Duration::from_secs(30))
    }
}

/// What sort of object it is and its name; none for rules and elements.
fn identity(object: &Value) -> Option<(&str, &str)> {
    let (kind, inner) = object.as_object()?.iter().next()?;
    let named = ["set", "map", "chain"].contains(&kind.as_str());
    named.then_some((kind.as_str(), inner.get("name")?.as_str()?))
}

/// The elements of a listed set, each with its timeout as it was given.
fn elements(object: &Value) -> Vec<Value> {
    let listed = object
        .get("set")
        .and_then(|set| set.get("elem")?.as_array());
    let mut elements = listed.cloned().unwrap_or_default();
    for element in &mut elements {
        if let Some(Value::Object(fields)) = element.get_mut("elem") {
            fields.remove("expires");
        }
    }
    elements
}

/// How many objects there are, and how many elements in them.
fn count(objects: &[Value]) -> (usize, usize) {
    let elements = |object: &Value| {
        let inner = object.as_object()?.values().next()?;
        Some(inner.get("elem")?.as_array()?.len())
    };
    (
        // Elements given apart belong to an object that is counted.
        objects
            .iter()
            .filter(|one| one.get("element").is_none())
            .count(),
        objects.iter().filter_map(elements).sum::<usize>(),
    )
}

/// Takes handles and counter values out of a listing, and sorts the elements of its sets.
fn forget_counters(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("handle");
            if let Some(Value::Object(counter)) = fields.get_mut("counter") {
                counter.clear();
            }
            for field in fields.values_mut() {
                forget_counters(field);
            }
            if let Some(Value::Array(elements)) = fields.get_mut("elem") {
                elements.sort_by_key(Value::to_string);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(forget_counters),
        _ => {}
    }
}
