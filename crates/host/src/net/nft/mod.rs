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
}

impl Table {
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
        let commands: Vec<Value> = tables.iter().flat_map(Table::replacement).collect();
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
    /// It changes with any rule or element that anybody adds, takes away or changes, so comparing it with the hash seen
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
        objects.retain(|object| object.get("metainfo").is_none() && object.get("table").is_none());
        if count(&objects) != count(&table.contents) {
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

/// How many objects there are, and how many elements in them.
fn count(objects: &[Value]) -> (usize, usize) {
    let elements = |object: &Value| {
        let inner = object.as_object()?.values().next()?;
        Some(inner.get("elem")?.as_array()?.len())
    };
    (
        objects.len(),
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
