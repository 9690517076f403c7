//! What this process keeps of each directory: connections, the password that it searches with, and which groups are in
//! which. All asking goes through one named dependency, with its breaker.

use super::connection::{Bound, Connection, Found, Server, trust};
use super::filter::{self, Filter};
use super::groups::Parents;
use super::types::LdapSpec;
use super::wire::{INVALID_CREDENTIALS, Outcome, SUCCESS, Search};
use crate::realm::{Realm, RealmType};
use crate::secret::{self, Secret};
use model::{Error, ObjectRef, Result, Timestamp, Uid, What};
use parking_lot::Mutex;
use runtime::resilience::Dependency;
use runtime::{Cx, Obj};
use rustls::ClientConfig;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Connections that are kept; more are not made either, since a dependency takes ten calls at a time.
const POOL: usize = 10;
/// For how long one is kept that is of no use. Servers and what lies between close them after minutes, unheard.
const IDLE: Duration = Duration::from_secs(60);
/// For how long a server that did not answer is asked after the others.
const LAST: Duration = Duration::from_secs(30);
/// For how long the password is used without reading its secret again; a key server may have a new one.
const PROOF: Duration = Duration::from_secs(300);

/// All directories of this process; a part of it.
#[derive(Default)]
pub struct Directories(Mutex<HashMap<Uid, Arc<Directory>>>);

impl Directories {
    /// The directory of a realm; made anew when the realm was declared anew.
    ///
    /// # Errors
    /// When the process asks none, or the declaration cannot be used.
    pub(super) fn of(cx: &Cx, realm: &Obj<Realm>) -> Result<Arc<Directory>> {
        let all = cx
            .try_part::<Directories>()
            .ok_or_else(|| Error::refused("this process asks no directory"))?;
        let meta = &realm.metadata;
        if let Some(kept) = all.0.lock().get(&meta.uid)
            && kept.generation == meta.generation
        {
            return Ok(kept.clone());
        }
        let made = Arc::new(Directory::new(cx, realm)?);
        let mut all = all.0.lock();
        let there: Vec<Uid> = cx
            .list::<Realm>(None)
            .iter()
            .map(|r| r.metadata.uid)
            .collect();
        all.retain(|uid, _| there.contains(uid));
        all.insert(meta.uid, made.clone());
        Ok(made)
    }
}

/// The filters of a declaration, read, and what stands for what is not said.
pub(super) struct Words {
    /// Finds a person.
    pub user: Filter,
    /// Finds groups.
    pub group: Filter,
    /// The attribute of a person's user name.
    pub name: String,
    /// The attribute of what he is known again by.
    pub id: String,
}

impl Words {
    /// What is declared.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub(super) fn of(spec: &LdapSpec, ad: bool) -> Result<Words, (&'static str, String)> {
        let or = |said: &Option<String>, here: &str, there: &str| -> String {
            let usual = if ad { there } else { here };
            said.clone().unwrap_or_else(|| usual.to_owned())
        };
        let user = or(
            &spec.user_filter,
            "(uid={username})",
            "(&(objectCategory=person)(objectClass=user)(sAMAccountName={username}))",
        );
        let user = filter::parse(&user).map_err(|why| ("spec.ldap.user_filter", why))?;
        if !user.has_place() {
            let why = "names nobody: `{username}` must be in it";
            return Err(("spec.ldap.user_filter", why.into()));
        }
        if !user.can_be_opened() {
            let why = "has `{username}` where it cannot be: put it behind a `=`, not below `!`";
            return Err(("spec.ldap.user_filter", why.into()));
        }
        let group = or(
            &spec.group_filter,
            "(|(objectClass=groupOfNames)(objectClass=groupOfUniqueNames)(objectClass=posixGroup))",
            "(objectClass=group)",
        );
        let group = filter::parse(&group).map_err(|why| ("spec.ldap.group_filter", why))?;
        if group.has_place() {
            let why = "finds groups, whoever asks: `{username}` cannot be in it";
            return Err(("spec.ldap.group_filter", why.into()));
        }
        Ok(Words {
            user,
            group,
            name: or(&spec.name_attribute, "uid", "sAMAccountName"),
            id: or(&spec.id_attribute, "entryUUID", "objectGUID"),
        })
    }
}

/// One directory, as it is declared.
pub(super) struct Directory {
    /// The realm's name.
    pub realm: String,
    generation: u64,
    /// How it is asked.
    pub spec: LdapSpec,
    /// Whether it is Active Directory.
    pub ad: bool,
    /// Its filters.
    pub words: Words,
    /// In which groups groups are.
    pub parents: Parents,
    /// Held while everybody is looked up.
    pub syncing: tokio::sync::Mutex<()>,
    servers: Vec<Server>,
    trusted: Arc<ClientConfig>,
    idle: Mutex<Vec<Connection>>,
    /// When each server last did not answer.
    failed: Mutex<Vec<Option<Instant>>>,
    proof: Mutex<Option<Proof>>,
}

/// The password that it searches with, and of which state of its secret.
#[derive(Clone)]
struct Proof {
    password: String,
    of: (Uid, u64),
    read: Timestamp,
}

impl Directory {
    fn new(cx: &Cx, realm: &Obj<Realm>) -> Result<Directory> {
        let name = realm.metadata.name.to_string();
        let wrong = |field: &str, why: String| {
            Error::refused(format!("realm `{name}` cannot be asked: `{field}` {why}"))
        };
        let spec = realm.spec.ldap.clone();
        let spec = spec.ok_or_else(|| wrong("spec.ldap", "is missing".into()))?;
        let ad = realm.spec.sort == RealmType::Ad;
        let words = Words::of(&spec, ad).map_err(|(field, why)| wrong(field, why))?;
        let servers = spec
            .urls
            .iter()
            .map(|url| Server::parse(url, spec.tls))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|why| wrong("spec.ldap.urls", why))?;
        Ok(Directory {
            generation: realm.metadata.generation,
            trusted: trust(cx, spec.ca.as_deref())?,
            failed: Mutex::new(vec![None; servers.len()]),
            idle: Mutex::default(),
            proof: Mutex::default(),
            parents: Parents::default(),
            syncing: tokio::sync::Mutex::default(),
            realm: name,
            spec,
            ad,
            words,
            servers,
        })
    }

    /// Its breaker and retries.
    fn dependency(&self, cx: &Cx) -> Arc<Dependency> {
        cx.dependencies()
            .named(&format!("directory {}", self.realm))
    }

    /// Searches.
    ///
    /// # Errors
    /// `Unavailable` when no server answers, `NotFound` when the base is not there.
    pub(super) async fn search(&self, cx: &Cx, search: &Search) -> Result<Found> {
        let ask = || async {
            loop {
                let (mut connection, kept) = self.connection().await?;
                let asked = async {
                    self.as_service(cx, &mut connection).await?;
                    connection.search(search).await
                };
                match asked.await {
                    Ok(found) => {
                        self.give_back(connection);
                        return Ok(found);
                    }
                    Err(error) if kept && is_down(&error) => self.idle.lock().clear(),
                    Err(error) => {
                        self.keep_if_well(connection, &error);
                        return Err(error);
                    }
                }
            }
        };
        // On the heap: what is asked is below many levels of a conversation.
        Box::pin(self.dependency(cx).call(ask)).await
    }

    /// Whether a password is that of an entry. An empty one never is.
    ///
    /// # Errors
    /// `Unavailable` when no server answers.
    pub(super) async fn proves(&self, cx: &Cx, dn: &str, password: &str) -> Result<bool> {
        if password.is_empty() {
            return Ok(false);
        }
        let ask = || async {
            loop {
                let (mut connection, kept) = self.connection().await?;
                match connection.bind(dn, password).await {
                    Ok(outcome) => {
                        self.give_back(connection);
                        return Ok(outcome.code == SUCCESS);
                    }
                    Err(error) if kept && is_down(&error) => self.idle.lock().clear(),
                    Err(error) => return Err(error),
                }
            }
        };
        self.dependency(cx).call(ask).await
    }

    /// Asks each server, also those that are left alone, and says how each is.
    pub(super) async fn look(&self, cx: &Cx) -> Vec<(String, Result<()>)> {
        let mut all = Vec::new();
        for server in &self.servers {
            let asked = async {
                let mut connection = self.open(server).await?;
                self.as_service(cx, &mut connection).await?;
                let base = &self.spec.base_dn;
                let there = connection.has(base).await?;
                connection.close().await;
                match there {
                    true => Ok(()),
                    false => Err(Error::not_found(format!(
                        "{} has no entry `{base}` that DebVisor may see",
                        server.url
                    ))
                    .hint("is `base_dn` right, and may `bind_dn` read it?")),
                }
            };
            all.push((server.url.clone(), asked.await));
        }
        all
    }

    /// A connection, and whether it was kept from before.
    async fn connection(&self) -> Result<(Connection, bool)> {
        {
            let mut idle = self.idle.lock();
            idle.retain(|connection| connection.used.elapsed() < IDLE);
            if let Some(connection) = idle.pop() {
                return Ok((connection, true));
            }
        }
        let mut order: Vec<usize> = (0..self.servers.len()).collect();
        {
            let failed = self.failed.lock();
            let lately = |at: &usize| failed[*at].is_some_and(|when| when.elapsed() < LAST);
            order.sort_by_key(lately);
        }
        let mut why = Vec::new();
        for at in order {
            match self.open(&self.servers[at]).await {
                Ok(connection) => {
                    self.failed.lock()[at] = None;
                    return Ok((connection, false));
                }
                Err(error) => {
                    self.failed.lock()[at] = Some(Instant::now());
                    why.push(error.message.clone());
                }
            }
        }
        Err(Error::unavailable(format!(
            "the directory of realm `{}` does not answer: {}",
            self.realm,
            why.join("; ")
        )))
    }

    async fn open(&self, server: &Server) -> Result<Connection> {
        let patience = Duration::from_secs(u64::from(self.spec.timeout_seconds));
        Connection::open(server, self.spec.tls, &self.trusted, patience).await
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock();
        if idle.len() < POOL {
            idle.push(connection);
        }
    }

    /// After an answer that is none of what was hoped for, a connection is as good as before.
    fn keep_if_well(&self, connection: Connection, error: &Error) {
        if error.what == What::NotFound {
            self.give_back(connection);
        }
    }

    /// Makes a connection speak as the account that searches.
    async fn as_service(&self, cx: &Cx, connection: &mut Connection) -> Result<()> {
        if connection.bound == Bound::Service {
            return Ok(());
        }
        let Some(dn) = &self.spec.bind_dn else {
            // Not as the person who was bound last.
            if connection.bound == Bound::Person {
                let outcome = connection.become_nobody().await?;
                self.let_in("nobody", connection.url(), &outcome)?;
            }
            connection.bound = Bound::Service;
            return Ok(());
        };
        let fresh = self.proof.lock().is_none();
        let mut outcome = connection.bind(dn, &self.password(cx).await?).await?;
        if outcome.code == INVALID_CREDENTIALS && !fresh {
            // It may have been changed where it is kept.
            *self.proof.lock() = None;
            outcome = connection.bind(dn, &self.password(cx).await?).await?;
        }
        self.let_in(dn, connection.url(), &outcome)?;
        connection.bound = Bound::Service;
        Ok(())
    }

    fn let_in(&self, dn: &str, url: &str, outcome: &Outcome) -> Result<()> {
        match outcome.code {
            SUCCESS => Ok(()),
            _ => Err(Error::refused(format!(
                "{url} does not let DebVisor in as `{dn}`: {}",
                outcome.told()
            ))
            .hint(format!(
                "is the password right that `spec.ldap.secret` of realm `{}` names?",
                self.realm
            ))),
        }
    }

    /// The password of the account that searches.
    async fn password(&self, cx: &Cx) -> Result<String> {
        let Some((project, name)) = self.spec.secret.as_deref().and_then(|s| s.split_once('/'))
        else {
            return Err(Error::refused(format!(
                "realm `{}` has a `bind_dn` and no `secret`",
                self.realm
            )));
        };
        let target = ObjectRef {
            kind: secret::KIND.name.into(),
            project: Some(project.into()),
            name: name.into(),
        };
        let object = cx
            .get::<Secret>(Some(project), name)
            .ok_or_else(|| Error::not_found(format!("there is no {target}")))?;
        let (of, now) = (
            (object.metadata.uid, object.metadata.generation),
            cx.clock().now(),
        );
        let kept = self.proof.lock().clone();
        if let Some(proof) = kept
            && proof.of == of
            && proof.read <= now
            && now.since(proof.read) < PROOF
        {
            return Ok(proof.password);
        }
        let by = ObjectRef {
            kind: crate::realm::KIND.name.into(),
            project: None,
            name: self.realm.clone(),
        };
        let password = secret::read(cx, &target, &by).await?;
        *self.proof.lock() = Some(Proof {
            password: password.clone(),
            of,
            read: now,
        });
        Ok(password)
    }
}

fn is_down(error: &Error) -> bool {
    matches!(error.what, What::Unavailable(_))
}
