//! The groups of a directory that somebody is in, also through other groups.

use super::directory::Directory;
use super::filter::Filter;
use super::person::Person;
use super::wire::{Search, Where};
use model::{Error, Result, Timestamp};
use parking_lot::Mutex;
use runtime::Cx;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

/// Active Directory: follows the attribute through all groups (`LDAP_MATCHING_RULE_IN_CHAIN`).
const IN_CHAIN: &str = "1.2.840.113556.1.4.1941";
/// The attribute that names members by their user names.
const BY_NAME: &str = "memberUid";
/// Nobody is in more.
const MOST: usize = 1000;
/// Of how many groups it is remembered what they are in.
const REMEMBERED: usize = 10_000;

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    dn: String,
    names: Vec<String>,
}

/// In which groups each group is, by its entry, and when that was read.
#[derive(Default)]
pub(super) struct Parents(Mutex<HashMap<String, (Vec<Group>, Timestamp)>>);

impl Parents {
    /// Forgets all: what is asked next is what is now.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }

    fn get(&self, dn: &str, now: Timestamp, life: Duration) -> Option<Vec<Group>> {
        let all = self.0.lock();
        let (groups, read) = all.get(dn)?;
        (*read <= now && now.since(*read) < life).then(|| groups.clone())
    }

    fn keep(&self, dn: String, groups: &[Group], now: Timestamp) {
        let mut all = self.0.lock();
        if all.len() >= REMEMBERED {
            all.clear();
        }
        all.insert(dn, (groups.to_vec(), now));
    }
}

/// What the directory calls the groups that somebody is in: names and entries.
///
/// # Errors
/// `Unavailable` when no server answers; `Refused` when he is in too many to follow.
pub(super) async fn of(cx: &Cx, directory: &Directory, person: &Person) -> Result<Vec<String>> {
    let spec = &directory.spec;
    let by_name = spec.member_attribute.eq_ignore_ascii_case(BY_NAME);
    let member = |dn: &str| Filter::equal(&spec.member_attribute, dn.as_bytes());
    let him = if by_name {
        let names = person.names.iter();
        Filter::Or(names.map(|name| member(name)).collect())
    } else if directory.ad && spec.nested_groups {
        Filter::rule(IN_CHAIN, &spec.member_attribute, person.dn.as_bytes())
    } else {
        member(&person.dn)
    };
    let mut found = search(cx, directory, him).await?;
    if spec.nested_groups && !by_name && !directory.ad {
        climb(cx, directory, &mut found).await?;
    }
    let mut said: Vec<String> = Vec::new();
    for group in found {
        said.push(group.dn);
        // A name is free text for who may make groups: none is taken for an entry, nor for a name of a certain realm.
        let plain = group.names.into_iter();
        said.extend(plain.filter(|name| !name.contains(['=', ':'])));
    }
    said.sort();
    said.dedup();
    Ok(said)
}

/// Adds the groups that groups are in. Each is looked at once, so that groups that are in one another come to an end.
async fn climb(cx: &Cx, directory: &Directory, found: &mut Vec<Group>) -> Result<()> {
    let life = Duration::from_secs(u64::from(directory.spec.cache_seconds));
    let key = |group: &Group| group.dn.to_lowercase();
    let mut seen: HashSet<String> = found.iter().map(key).collect();
    let mut at = 0;
    while at < found.len() {
        let dn = found[at].dn.clone();
        at += 1;
        let now = cx.clock().now();
        let above = match directory.parents.get(&dn.to_lowercase(), now, life) {
            Some(above) => above,
            None => {
                let member = Filter::equal(&directory.spec.member_attribute, dn.as_bytes());
                let above = search(cx, directory, member).await?;
                directory.parents.keep(dn.to_lowercase(), &above, now);
                above
            }
        };
        for group in above {
            if seen.insert(key(&group)) {
                found.push(group);
            }
        }
        if found.len() > MOST {
            return Err(Error::refused(format!(
                "realm `{}`: somebody is in more than {MOST} groups",
                directory.realm
            ))
            .hint("narrow them with `group_base` or `group_filter`"));
        }
    }
    Ok(())
}

async fn search(cx: &Cx, directory: &Directory, member: Filter) -> Result<Vec<Group>> {
    let base = directory.spec.group_base.as_ref();
    let search = Search {
        base: base.unwrap_or(&directory.spec.base_dn).clone(),
        within: Where::Below,
        filter: Filter::And(vec![directory.words.group.clone(), member]),
        attributes: vec!["cn".into()],
        most: 0,
    };
    let found = directory.search(cx, &search).await?.entries;
    let texts = |values: &[Vec<u8>]| {
        let texts = values
            .iter()
            .filter_map(|v| String::from_utf8(v.clone()).ok());
        texts.collect()
    };
    Ok(found
        .into_iter()
        .map(|entry| Group {
            names: texts(entry.values("cn")),
            dn: entry.dn,
        })
        .collect())
}
