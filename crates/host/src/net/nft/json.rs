//! Words for building nft's JSON, so that a rule reads nearly as nft writes it.

use super::Family;
use serde_json::{Value, json};

/// Adds objects to one table.
pub(super) struct Contents {
    family: &'static str,
    table: String,
    pub(super) objects: Vec<Value>,
}

impl Contents {
    pub(super) fn of(family: Family, table: &str) -> Self {
        Self {
            family: family.word(),
            table: table.to_owned(),
            objects: Vec::new(),
        }
    }

    /// A set; `kind` is one type or, for a concatenation, a list of types.
    pub(super) fn set(&mut self, name: &str, kind: Value, flags: &[&str], elements: Vec<Value>) {
        let mut set =
            json!({"family": self.family, "table": self.table, "name": name, "type": kind});
        if !flags.is_empty() {
            set["flags"] = json!(flags);
        }
        // nft takes an empty list of elements for a mistake.
        if !elements.is_empty() {
            set["elem"] = Value::Array(elements);
        }
        self.objects.push(json!({"set": set}));
    }

    /// A map from a type to verdicts.
    pub(super) fn verdicts(&mut self, name: &str, kind: &str, elements: Vec<Value>) {
        let mut map = json!({"family": self.family, "table": self.table, "name": name, "type": kind, "map": "verdict"});
        if !elements.is_empty() {
            map["elem"] = Value::Array(elements);
        }
        self.objects.push(json!({"map": map}));
    }

    /// Elements of a set that is declared apart.
    pub(super) fn elements(&mut self, set: &str, elements: Vec<Value>) {
        if !elements.is_empty() {
            self.objects.push(json!({"element": {
                "family": self.family, "table": self.table, "name": set, "elem": elements,
            }}));
        }
    }

    /// A chain that other chains jump to.
    pub(super) fn chain(&mut self, name: &str) {
        self.objects
            .push(json!({"chain": {"family": self.family, "table": self.table, "name": name}}));
    }

    /// A chain at a hook, which accepts what no rule decides.
    pub(super) fn hooked(&mut self, name: &str, kind: &str, hook: &str, priority: i32) {
        self.objects.push(json!({"chain": {
            "family": self.family, "table": self.table, "name": name,
            "type": kind, "hook": hook, "prio": priority, "policy": "accept",
        }}));
    }

    /// A rule at the end of a chain.
    pub(super) fn rule(&mut self, chain: &str, expressions: Vec<Value>) {
        self.objects.push(json!({"rule": {
            "family": self.family, "table": self.table, "chain": chain, "expr": expressions,
        }}));
    }
}

pub(super) fn is(left: Value, right: impl Into<Value>) -> Value {
    json!({"match": {"op": "==", "left": left, "right": right.into()}})
}

pub(super) fn is_not(left: Value, right: impl Into<Value>) -> Value {
    json!({"match": {"op": "!=", "left": left, "right": right.into()}})
}

pub(super) fn meta(key: &str) -> Value {
    json!({"meta": {"key": key}})
}

pub(super) fn field(protocol: &str, field: &str) -> Value {
    json!({"payload": {"protocol": protocol, "field": field}})
}

/// Several values compared as one.
pub(super) fn joined(values: impl Into<Vec<Value>>) -> Value {
    json!({"concat": values.into()})
}

pub(super) fn any_of(values: impl Into<Vec<Value>>) -> Value {
    json!({"set": values.into()})
}

pub(super) fn jump(chain: &str) -> Value {
    json!({"jump": {"target": chain}})
}

pub(super) fn accept() -> Value {
    json!({"accept": null})
}

pub(super) fn back() -> Value {
    json!({"return": null})
}

/// Some bytes of a packet: so many bits from an offset in bits, in the header of a layer (`nh` or `th`).
pub(super) fn bits(layer: &str, offset: u32, length: u32) -> Value {
    json!({"payload": {"base": layer, "offset": offset, "len": length}})
}

/// An IPv6 address as a number, which is what [`bits`] are compared with.
pub(super) fn number(ip: std::net::Ipv6Addr) -> Value {
    json!(format!("0x{:032x}", u128::from(ip)))
}

/// Puts a value into a set, for so many seconds from now; ends the rule when the set is full.
pub(super) fn learn(what: Value, set: &str, seconds: u32) -> Value {
    json!({"set": {"op": "update", "elem": {"elem": {"val": what, "timeout": seconds}}, "set": format!("@{set}")}})
}

/// What a rule that drops ends with: it counts, so that `nft list` shows who tries what.
pub(super) fn counted_drop() -> [Value; 2] {
    [json!({"counter": null}), json!({"drop": null})]
}

/// A rule that drops what the matches agree on.
pub(super) fn dropping(matches: impl Into<Vec<Value>>) -> Vec<Value> {
    let mut rule = matches.into();
    rule.extend(counted_drop());
    rule
}
