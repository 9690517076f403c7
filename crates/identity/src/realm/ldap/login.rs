//! Whether a name and a password are those of somebody of a directory.

use super::directory::{Directories, Directory};
use super::groups;
use super::person::{self, Found, Person};
use crate::realm::{Incoming, Realm};
use crate::user::User;
use model::{Error, Result};
use runtime::{Cx, Obj};

/// What a directory says of a name and a password.
#[derive(Debug)]
pub(crate) enum Proved {
    /// It is him.
    Yes(Incoming),
    /// It is nobody; why is for the trail and for nobody else.
    No(&'static str),
}

/// Asks. For a name that nobody has as much is asked as for one that somebody has.
///
/// # Errors
/// `Unavailable` when the directory does not answer, or not as it must.
pub(crate) async fn prove(
    cx: &Cx,
    realm: &Obj<Realm>,
    user: Option<&Obj<User>>,
    typed: &str,
    password: &str,
) -> Result<Proved> {
    ask(cx, realm, user, typed, password)
        .await
        .map_err(|error| down(realm, &error))
}

/// What everybody is told who cannot be looked up, whether there is such a user or not. Why is for who set the realm up.
fn down(realm: &Obj<Realm>, error: &Error) -> Error {
    let name = &realm.metadata.name;
    tracing::warn!(realm = %name, %error, "a directory could not be asked for a login");
    Error::unavailable(format!(
        "the directory of realm `{name}` cannot be asked now: its users cannot log in"
    ))
    .hint(
        "users of the realm `local` log in as always; dvctl realm show says why it does not answer",
    )
}

async fn ask(
    cx: &Cx,
    realm: &Obj<Realm>,
    user: Option<&Obj<User>>,
    typed: &str,
    password: &str,
) -> Result<Proved> {
    let directory = Directories::of(cx, realm)?;
    let Some(person) = find(cx, &directory, user, typed).await? else {
        let nobody = format!(
            "cn=nobody-{:016x},{}",
            rand::random::<u64>(),
            directory.spec.base_dn
        );
        directory.proves(cx, &nobody, password).await?;
        return Ok(Proved::No("UNKNOWN_USER"));
    };
    if !directory.proves(cx, &person.dn, password).await? {
        return Ok(Proved::No("WRONG_PASSWORD"));
    }
    if !person.may_enter() {
        return Ok(Proved::No("DISABLED"));
    }
    let groups = groups::of(cx, &directory, &person).await?;
    Ok(Proved::Yes(incoming(&person, typed, groups)))
}

/// Asks the directory for a name as a login does, and forgets the answer: so a login that was refused without asking
/// says and takes the same.
///
/// # Errors
/// As [`prove`].
pub(crate) async fn pretend(cx: &Cx, realm: &Obj<Realm>, typed: &str) -> Result<()> {
    let asked = async {
        let directory = Directories::of(cx, realm)?;
        find(cx, &directory, None, typed).await.map(drop)
    };
    asked.await.map_err(|error| down(realm, &error))
}

/// The person of a name: by what he typed, or, when he is called otherwise here than there, by who he is.
async fn find(
    cx: &Cx,
    directory: &Directory,
    user: Option<&Obj<User>>,
    typed: &str,
) -> Result<Option<Person>> {
    match person::by_name(cx, directory, typed).await? {
        Found::One(person) => return Ok(Some(person)),
        Found::Several => {
            // Who has set the filter must learn of it; the name stays out of the log.
            let filter = directory.words.user.to_string();
            tracing::warn!(
                realm = directory.realm,
                filter,
                "a directory has several people for one name"
            );
        }
        Found::Nobody => {}
    }
    let Some(subject) = user.and_then(|user| user.spec.subject.as_deref()) else {
        return Ok(None);
    };
    let mut found = person::by_subjects(cx, directory, &[subject]).await?;
    // Of several nobody says which he is.
    Ok(found
        .pop()
        .filter(|person| found.is_empty() && person.is(subject)))
}

/// What is known of a person.
pub(super) fn incoming(person: &Person, typed: &str, groups: Vec<String>) -> Incoming {
    Incoming {
        subject: person.subject.clone(),
        username: person.name(typed).to_owned(),
        email: person.email.clone(),
        full_name: person.full_name.clone(),
        groups,
    }
}
