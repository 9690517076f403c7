//! People of a directory: how one is found, and what his entry says of him.

use super::directory::Directory;
use super::filter::Filter;
use super::wire::{Entry, Search, Where};
use model::{Error, Result};
use runtime::Cx;

/// How many people are asked for in one search.
const AT_A_TIME: usize = 50;
/// Active Directory: the account is disabled (`ADS_UF_ACCOUNTDISABLE`).
const DISABLED: u32 = 2;
/// OpenLDAP: locked until an administrator unlocks it (ppolicy).
const FOR_GOOD: &str = "000001010000Z";
/// The attribute of Active Directory that is not a text.
const GUID: &str = "objectGUID";

/// Somebody of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    /// His entry.
    pub dn: String,
    /// Who he is for good.
    pub subject: String,
    /// His user names; there is at least one.
    pub names: Vec<String>,
    /// His e-mail address.
    pub email: Option<String>,
    /// His name as people write it.
    pub full_name: Option<String>,
    /// All that the directory has for who he is: where it has several, each finds him.
    pub ids: Vec<String>,
    /// Whether the directory says that his account is disabled; `None` when we may not read what says so.
    pub disabled: Option<bool>,
}

impl Person {
    /// Whether he may be let in: only who is known not to be disabled.
    pub(super) fn may_enter(&self) -> bool {
        self.disabled == Some(false)
    }

    /// Whether what was typed may stand for him. Of letters that are not ASCII directories take some for others: there it
    /// must be his name as it is written, or guessing would have many names for one.
    fn is_called(&self, typed: &str) -> bool {
        let typed_small = typed.to_lowercase();
        typed.is_ascii()
            || self
                .names
                .iter()
                .any(|name| name.to_lowercase() == typed_small)
    }

    /// Whether this is who he is, as directories compare: they take no notice of case.
    pub(super) fn is(&self, subject: &str) -> bool {
        self.ids.iter().any(|id| id.eq_ignore_ascii_case(subject))
    }

    /// The user name that he typed, as the directory writes it; else his first.
    pub(super) fn name(&self, typed: &str) -> &str {
        let mut same = self.names.iter().filter(|n| n.eq_ignore_ascii_case(typed));
        let first = self.names.first().map_or("", String::as_str);
        same.next().map_or(first, String::as_str)
    }

    /// What an entry says; `None` when it lacks what makes it a person, and what that is.
    fn read(entry: &Entry, directory: &Directory) -> Result<Person, &'static str> {
        let words = &directory.words;
        let names: Vec<String> = entry
            .values(&words.name)
            .iter()
            .filter_map(|v| String::from_utf8(v.clone()).ok())
            .filter(|name| !name.is_empty())
            .collect();
        if names.is_empty() {
            return Err("name_attribute");
        }
        let ids = entry.values(&words.id).iter();
        let ids: Option<Vec<String>> = ids.map(|id| subject(&words.id, id)).collect();
        let ids = ids.ok_or("id_attribute")?;
        Ok(Person {
            dn: entry.dn.clone(),
            subject: ids.first().ok_or("id_attribute")?.clone(),
            ids,
            names,
            email: entry.text("mail"),
            full_name: entry.text("displayName").or_else(|| entry.text("cn")),
            disabled: is_disabled(entry, directory.ad),
        })
    }
}

/// Who somebody is for good, as a text.
fn subject(attribute: &str, value: &[u8]) -> Option<String> {
    if attribute.eq_ignore_ascii_case(GUID) {
        let bytes = value.try_into().ok()?;
        // As every tool of Windows writes it: the first three groups are little-endian.
        return Some(uuid::Uuid::from_bytes_le(bytes).to_string());
    }
    let text = std::str::from_utf8(value).ok()?;
    let good = !text.is_empty() && text.len() <= 255 && !text.contains(char::is_control);
    good.then(|| text.to_owned())
}

/// The same as the directory has it.
fn value(attribute: &str, subject: &str) -> Option<Vec<u8>> {
    match attribute.eq_ignore_ascii_case(GUID) {
        true => {
            let guid = uuid::Uuid::parse_str(subject).ok()?;
            Some(guid.to_bytes_le().to_vec())
        }
        false => Some(subject.as_bytes().to_vec()),
    }
}

fn is_disabled(entry: &Entry, ad: bool) -> Option<bool> {
    if ad {
        let flags = entry.text("userAccountControl")?.parse::<i64>().ok()?;
        return Some(flags as u32 & DISABLED != 0);
    }
    // 389 and FreeIPA; OpenLDAP.
    let locked = entry
        .text("nsAccountLock")
        .is_some_and(|text| text.eq_ignore_ascii_case("true"));
    Some(locked || entry.text("pwdAccountLockedTime").as_deref() == Some(FOR_GOOD))
}

fn attributes(directory: &Directory) -> Vec<String> {
    let words = &directory.words;
    let mut wanted = vec![words.name.clone(), words.id.clone()];
    let more: &[&str] = match directory.ad {
        true => &["mail", "displayName", "cn", "userAccountControl"],
        false => &[
            "mail",
            "displayName",
            "cn",
            "nsAccountLock",
            "pwdAccountLockedTime",
        ],
    };
    wanted.extend(more.iter().map(|name| (*name).to_owned()));
    wanted
}

/// Whether a text may be a name. Directories take no notice of blanks at the ends, nor of how many there are: each way to
/// write them would be a name of its own to who counts wrong passwords.
fn is_a_name(typed: &str) -> bool {
    !typed.is_empty()
        && typed.len() <= 256
        && !typed.contains(char::is_control)
        && typed.trim() == typed
        && !typed.contains("  ")
}

/// Who is found for a name.
#[derive(Debug)]
pub(super) enum Found {
    /// Nobody.
    Nobody,
    /// He.
    One(Person),
    /// More than one, which is as good as nobody.
    Several,
}

/// Whom the filter finds for what somebody typed as his name.
///
/// # Errors
/// `Unavailable` when no server answers; `Refused` when what is found is no person.
pub(super) async fn by_name(cx: &Cx, directory: &Directory, typed: &str) -> Result<Found> {
    if !is_a_name(typed) {
        return Ok(Found::Nobody);
    }
    let search = Search {
        base: directory.spec.base_dn.clone(),
        within: Where::Below,
        filter: directory.words.user.filled(typed),
        attributes: attributes(directory),
        most: 2,
    };
    let found = directory.search(cx, &search).await?;
    match found.entries.as_slice() {
        [] => Ok(Found::Nobody),
        [entry] if !found.more => {
            let person = read(entry, directory)?;
            match person.is_called(typed) {
                true => Ok(Found::One(person)),
                false => Ok(Found::Nobody),
            }
        }
        _ => Ok(Found::Several),
    }
}

/// The people of these subjects who are still found by the filter, in any order.
///
/// # Errors
/// As [`by_name`]: then nothing is known of anybody.
pub(super) async fn by_subjects(
    cx: &Cx,
    directory: &Directory,
    subjects: &[&str],
) -> Result<Vec<Person>> {
    let id = &directory.words.id;
    let mut people = Vec::new();
    for some in subjects.chunks(AT_A_TIME) {
        let any: Vec<Filter> = some
            .iter()
            .filter_map(|subject| Some(Filter::equal(id, &value(id, subject)?)))
            .collect();
        if any.is_empty() {
            continue;
        }
        let search = Search {
            base: directory.spec.base_dn.clone(),
            within: Where::Below,
            filter: Filter::And(vec![directory.words.user.opened(), Filter::Or(any)]),
            attributes: attributes(directory),
            most: 0,
        };
        for entry in &directory.search(cx, &search).await?.entries {
            people.push(read(entry, directory)?);
        }
    }
    Ok(people)
}

fn read(entry: &Entry, directory: &Directory) -> Result<Person> {
    Person::read(entry, directory).map_err(|field| {
        let attribute = match field {
            "id_attribute" => &directory.words.id,
            _ => &directory.words.name,
        };
        Error::refused(format!(
            "realm `{}`: the entry `{}` has no usable `{attribute}` that DebVisor may read",
            directory.realm, entry.dn
        ))
        .hint(format!("set `spec.ldap.{field}` to an attribute that every person has, and let `bind_dn` read it"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_has_one_way_to_be_written() {
        for name in ["anna", "Anna Lisa", "o'hara+x@example.org", "änne"] {
            assert!(is_a_name(name), "{name}");
        }
        for other in [
            "",
            " anna",
            "anna ",
            "anna  lisa",
            "anna\t",
            "\u{a0}anna",
            "a\0",
        ] {
            assert!(!is_a_name(other), "{other:?}");
        }
        let person = Person {
            dn: String::new(),
            subject: "s".into(),
            names: vec!["anna".into(), "Änne".into()],
            email: None,
            full_name: None,
            ids: vec!["AB1".into()],
            disabled: Some(false),
        };
        // By a name that the filter takes, and is none of his.
        assert!(person.is_called("ANNA") && person.is_called("anna@example.org"));
        assert!(person.is_called("änne"));
        assert!(!person.is_called("ánna") && !person.is_called("\u{ff41}nna"));
        assert!(person.is("ab1") && !person.is("ab2"));
    }

    #[test]
    fn a_guid_is_written_as_windows_writes_it() {
        let bytes: Vec<u8> = (0..16).collect();
        let text = subject("objectguid", &bytes).unwrap();
        assert_eq!(text, "03020100-0504-0706-0809-0a0b0c0d0e0f");
        assert_eq!(value("objectGUID", &text).unwrap(), bytes);
        assert_eq!(subject("objectGUID", b"short"), None);
        assert_eq!(value("objectGUID", "no guid"), None);
        assert_eq!(subject("entryUUID", b"x\0"), None);
        assert_eq!(subject("entryUUID", b"a-b").as_deref(), Some("a-b"));
    }
}
