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
    /// Whether the directory says that his account is disabled.
    pub disabled: bool,
}

impl Person {
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
        let id = entry.values(&words.id).first().ok_or("id_attribute")?;
        Ok(Person {
            dn: entry.dn.clone(),
            subject: subject(&words.id, id).ok_or("id_attribute")?,
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

fn is_disabled(entry: &Entry, ad: bool) -> bool {
    if ad {
        let flags = entry.text("userAccountControl");
        // An account whose flags cannot be read is not let in.
        return flags
            .and_then(|text| text.parse::<i64>().ok())
            .is_none_or(|flags| flags as u32 & DISABLED != 0);
    }
    // 389 and FreeIPA; OpenLDAP.
    entry
        .text("nsAccountLock")
        .is_some_and(|text| text.eq_ignore_ascii_case("true"))
        || entry.text("pwdAccountLockedTime").as_deref() == Some(FOR_GOOD)
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
    let good = !typed.is_empty() && typed.len() <= 256 && !typed.contains(char::is_control);
    if !good {
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
        [entry] if !found.more => read(entry, directory).map(Found::One),
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
