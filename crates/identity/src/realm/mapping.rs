//! Which of our groups somebody is in, by the groups that his realm says he is in.
//!
//! What no word of the realm could give, people have given here: it stays. All else follows the realm at each login, so
//! that who is taken out of a group there loses its rights here.

use super::{GroupMap, Realm};
use crate::group::Group;
use model::Name;
use runtime::{Cx, Obj};
use std::collections::BTreeSet;

/// How names begin that are the same on both sides without being declared: `debvisor-admin`, `debvisor-operator`,
/// `debvisor-<project>-<role>`.
pub const SAME: &str = "debvisor-";

/// One of our groups, and what directories and providers call it.
#[derive(Clone, Debug)]
pub struct Ours {
    /// Its name.
    pub name: String,
    /// `directory` of it: `NAME`, which any realm may say, or `REALM:NAME`. Whatever looks like the latter is it: no realm,
    /// also none that is made later, is believed what is said to be of another.
    pub called: Vec<String>,
}

/// What decides about it.
pub struct Mapping<'a> {
    /// Name of the realm.
    pub realm: &'a str,
    /// The realm's own table.
    pub table: &'a [GroupMap],
    /// Whether names with [`SAME`] are the same.
    pub same_names: bool,
    /// Our groups.
    pub groups: &'a [Ours],
}

impl Mapping<'_> {
    /// Our groups that a name of the realm stands for.
    fn of(&self, said: &str) -> BTreeSet<String> {
        let by_table = self.table.iter().filter(|map| map.from == said);
        let mut found: BTreeSet<String> = by_table.map(|map| map.to.clone()).collect();
        for group in self.groups {
            let same = self.same_names && group.name == said && said.starts_with(SAME);
            if same || group.called.iter().any(|name| self.is(name, said)) {
                found.insert(group.name.clone());
            }
        }
        found
    }

    /// Whether what a group of ours is called is this name of this realm.
    fn is(&self, called: &str, said: &str) -> bool {
        self.mine(called) == Some(said)
    }

    /// What a group of ours is called by this realm; nothing when only another calls it so.
    fn mine<'n>(&self, called: &'n str) -> Option<&'n str> {
        match called.split_once(':') {
            Some((realm, name)) if Name::parse("directory", realm).is_ok() => {
                (realm == self.realm).then_some(name)
            }
            _ => Some(called),
        }
    }

    /// Whether some word of the realm puts people into a group of ours.
    pub fn reaches(&self, group: &Ours) -> bool {
        self.table.iter().any(|map| map.to == group.name)
            || (self.same_names && group.name.starts_with(SAME))
            || group.called.iter().any(|name| self.mine(name).is_some())
    }

    /// The groups that somebody is in from now on.
    pub fn groups(&self, now: &[String], said: &[String]) -> Vec<String> {
        let mut new: BTreeSet<String> = said.iter().flat_map(|said| self.of(said)).collect();
        let ruled: BTreeSet<&str> = self
            .groups
            .iter()
            .filter(|group| self.reaches(group))
            .map(|group| group.name.as_str())
            .collect();
        new.extend(now.iter().filter(|g| !ruled.contains(g.as_str())).cloned());
        // A table may name a group that is gone.
        new.retain(|name| self.groups.iter().any(|group| group.name == *name));
        new.into_iter().collect()
    }
}

/// Our groups as they are now.
pub fn ours(cx: &Cx) -> Vec<Ours> {
    let groups = cx.list::<Group>(None);
    let ours = |group: &std::sync::Arc<Obj<Group>>| Ours {
        name: group.metadata.name.to_string(),
        called: group.spec.directory.clone(),
    };
    groups.iter().map(ours).collect()
}

/// The groups that somebody of this realm is in, who was in `now` and of whom it says `said`.
pub(super) fn groups(cx: &Cx, realm: &Obj<Realm>, now: &[String], said: &[String]) -> Vec<String> {
    let mapping = Mapping {
        realm: realm.metadata.name.as_str(),
        table: &realm.spec.group_map,
        same_names: realm.spec.same_names,
        groups: &ours(cx),
    };
    mapping.groups(now, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(now: &[&str], said: &[&str], same_names: bool) -> Vec<String> {
        let group = |name: &str, called: &[&str]| Ours {
            name: name.into(),
            called: called.iter().map(|c| (*c).to_owned()).collect(),
        };
        let groups = [
            group("debvisor-admin", &[]),
            group("operators", &["ops", "corp:night shift"]),
            group("others", &["elsewhere:ops2"]),
            group("by-table", &[]),
            group("by-hand", &[]),
        ];
        let mapping = Mapping {
            realm: "corp",
            table: &[
                GroupMap {
                    from: "cn=x,dc=org".into(),
                    to: "by-table".into(),
                },
                GroupMap {
                    from: "gone".into(),
                    to: "deleted".into(),
                },
            ],
            same_names,
            groups: &groups,
        };
        let owned = |list: &[&str]| list.iter().map(|c| (*c).to_owned()).collect::<Vec<_>>();
        mapping.groups(&owned(now), &owned(said))
    }

    #[test]
    fn each_way_to_name_a_group() {
        assert_eq!(mapped(&[], &["ops"], true), ["operators"]);
        assert_eq!(mapped(&[], &["night shift"], true), ["operators"]);
        assert_eq!(mapped(&[], &["cn=x,dc=org"], true), ["by-table"]);
        assert_eq!(mapped(&[], &["debvisor-admin"], true), ["debvisor-admin"]);
        assert!(mapped(&[], &["debvisor-admin"], false).is_empty());
        // Another realm's name, a name of ours that nothing maps, one whose group is gone, one that is unknown.
        for foreign in [
            "ops2",
            "elsewhere:ops2x",
            "elsewhere:ops2",
            "corp:night shift",
            "by-hand",
            "gone",
            "Ops",
            "debvisor-other",
        ] {
            assert!(mapped(&[], &[foreign], true).is_empty(), "{foreign}");
        }
    }

    #[test]
    fn what_people_gave_stays_and_what_the_realm_gave_goes_with_it() {
        // `others` is another realm's: who is in it stays in it.
        let of_others = ["by-hand", "others"];
        assert_eq!(mapped(&of_others, &[], true), of_others);
        let before = ["by-hand", "by-table", "debvisor-admin", "operators"];
        assert_eq!(mapped(&before, &[], true), ["by-hand"]);
        assert_eq!(mapped(&before, &["ops"], true), ["by-hand", "operators"]);
        assert_eq!(mapped(&before, &[], false), ["by-hand", "debvisor-admin"]);
    }
}
