//! Against a real slapd and a real domain controller of Samba, through the conversation of a login.

use super::samba::{self, Samba};
use super::slapd::{BASE, SEARCHER, SEARCHER_PASSWORD, Slapd};
use super::*;
use crate::login::People;
use crate::secret_backend::Backends;
use crate::session::Session;
use crate::user::User;
use model::{ConditionStatus, ObjectRef, What};
use runtime::audit::{AuditTrail, FileTrail, Trail, TrailOptions};
use runtime::task::{Task, TaskState};
use runtime::{
    Actor, Answer, CxBuilder, Engine, Identities, Op, Proof, Query, Registry, Request, Said,
    SecretUsers, Surface, Talk,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use store::seal::{RootSource, Sealer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct World {
    cx: Cx,
    people: Arc<People>,
    trail: Arc<FileTrail>,
    _folder: tempfile::TempDir,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    std::fs::create_dir(&keys).unwrap();
    let sealer = Sealer::open(RootSource::File(folder.path().join("root.key")), keys).unwrap();
    let sealer = Arc::new(sealer);
    let (rows, secrets) = (
        folder.path().join("audit"),
        folder.path().join("audit-keys"),
    );
    let options = TrailOptions::new(&rows, &secrets, sealer.clone());
    let trail = Arc::new(FileTrail::open(options).await.unwrap());
    let registry = Registry::new(&[runtime::SUBSYSTEMS, crate::SUBSYSTEMS]).unwrap();
    let (rules, access) = crate::access::parts();
    let people = People::new();
    let cx = CxBuilder::new(registry, store::Memory::new())
        .seal(sealer)
        .part(Arc::new(AuditTrail::new(trail.clone())))
        .part(Arc::new(Backends::default()))
        .part(Arc::new(SecretUsers::new(crate::secret_users())))
        .part(Arc::new(Directories::default()))
        .part(rules.clone())
        .part(access)
        .part(people.part())
        .build()
        .await
        .unwrap();
    crate::project::make_default(&cx).await.unwrap();
    crate::role::make_built_in(&cx).await.unwrap();
    crate::realm::make_local(&cx).await.unwrap();
    cx.life().spawn("access rules", rules.follow(cx.clone()));
    Engine::start(&cx);
    World {
        cx,
        people,
        trail,
        _folder: folder,
    }
}

fn target(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind: kind.into(),
        project: None,
        name: name.into(),
    }
}

impl World {
    async fn ask(&self, op: Op) -> Result<Value> {
        let request = Request::new("r", Actor::administrator("root@unix"), Surface::Rest, op);
        match self
            .cx
            .desk()
            .carry_out(self.cx.gate().admit(request)?)
            .await?
        {
            Answer::Object { json, .. } | Answer::Accepted { task: json } => {
                Ok(serde_json::from_slice(&json).unwrap())
            }
            _ => Ok(Value::Null),
        }
    }

    async fn create(&self, kind: &str, name: &str, spec: Value) -> Result<Value> {
        self.ask(Op::Create {
            kind: kind.into(),
            project: (kind == "secret").then(|| "default".into()),
            body: json!({ "metadata": { "name": name }, "spec": spec }),
        })
        .await
    }

    async fn set(&self, kind: &str, name: &str, spec: Value) -> Result<Value> {
        let mut target = target(kind, name);
        if kind == "secret" {
            target.project = Some("default".into());
        }
        self.ask(Op::Patch {
            target,
            body: json!({ "spec": spec }),
        })
        .await
    }

    /// The password of the account that searches, and a realm `corp` that uses it.
    async fn realm(&self, sort: &str, ldap: Value) -> Result<Value> {
        let spec = json!({ "type": sort, "ldap": ldap, "auto_create": true, "default": true });
        self.create("realm", "corp", spec).await
    }

    async fn secret(&self, password: &str) {
        let spec = json!({ "value": password });
        self.create("secret", "searcher", spec).await.unwrap();
    }

    async fn say(&self, step: &str, body: Value, actor: Actor) -> Result<Said> {
        let talk = Talk {
            step: step.into(),
            body,
            actor,
            from: None,
            agent: None,
            host: None,
            flow: None,
            request_id: "r".into(),
        };
        self.people.talk(&self.cx, talk).await
    }

    async fn login(&self, user: &str, password: &str) -> Result<Value> {
        let body = json!({ "user": user, "password": password });
        let said = self.say("login", body, Actor::anonymous()).await?;
        Ok(said.body)
    }

    /// Who is in with this answer of a login.
    fn who(&self, said: &Value) -> Result<Actor> {
        let token = said["access"].as_str().unwrap();
        self.people
            .who(&self.cx, Proof::Bearer(token), runtime::Whence::default())
    }

    fn user(&self, name: &str) -> Arc<Obj<User>> {
        self.cx.get::<User>(None, name).unwrap()
    }

    async fn act(&self, verb: &str, params: Value) -> (TaskState, Value) {
        let op = Op::Act {
            target: target("realm", "corp"),
            verb: verb.into(),
            params,
        };
        let task = self.ask(op).await.unwrap();
        let name = task["metadata"]["name"].as_str().unwrap().to_owned();
        let get = || self.cx.get::<Task>(None, &name).unwrap();
        self.until("ended", || {
            get().status.as_ref().is_some_and(|s| s.state.ended())
        })
        .await;
        let status = get().status.clone().unwrap();
        (status.state, serde_json::to_value(&status).unwrap())
    }

    /// Looks everybody up; the result, which must be there.
    async fn sync(&self, dry_run: bool) -> Value {
        let (state, status) = self.act("sync", json!({ "dry_run": dry_run })).await;
        assert_eq!(state, TaskState::Succeeded, "{status}");
        status["result"].clone()
    }

    async fn until(&self, what: &str, so: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !so() {
            assert!(Instant::now() < end, "never {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn sessions(&self, user: &str) -> usize {
        let all = self.cx.list::<Session>(None);
        all.iter().filter(|s| s.spec.user == user).count()
    }

    async fn failed_because(&self) -> Vec<String> {
        let rows = self.trail.last(1000).await;
        let failed = rows.iter().filter(|r| r.action == "auth.login.failed");
        failed.filter_map(|r| r.result.clone()).collect()
    }
}

fn ldap(slapd: &Slapd) -> Value {
    json!({
        "urls": [slapd.ldaps()], "ca": slapd.ca, "base_dn": BASE, "bind_dn": SEARCHER,
        "secret": "default/searcher", "timeout_seconds": 5,
    })
}

const ANNA: &str = "anna's password 1";

fn wrong(answer: Result<Value>) {
    let error = answer.unwrap_err();
    assert_eq!(
        (error.what, error.message.as_str()),
        (
            What::Unauthenticated,
            "the user name or the password is not accepted"
        )
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_the_directory_logs_in_and_nobody_else() {
    let Some(slapd) = Slapd::start() else { return };
    let world = world().await;
    world.secret(SEARCHER_PASSWORD).await;
    world.realm("ldap", ldap(&slapd)).await.unwrap();
    let called = json!({ "directory": ["operators"] });
    world.create("group", "on-call", called).await.unwrap();
    let grant = json!({ "group": "on-call", "role": "auditor" });
    world.create("grant", "on-call", grant).await.unwrap();

    let said = world.login("anna", ANNA).await.unwrap();
    let anna = world.user("anna");
    assert_eq!(anna.spec.realm, "corp");
    assert_eq!(anna.spec.full_name.as_deref(), Some("Anna Huber"));
    assert_eq!(anna.spec.email.as_deref(), Some("anna@example.org"));
    // She is in `night shift`, that is in `shifts`, that is in `operators`, which is in a ring.
    assert_eq!(anna.spec.groups, ["on-call"]);
    let factors = world.cx.list::<crate::factor::Factor>(None);
    assert!(factors.is_empty(), "her password is kept nowhere");
    let actor = world.who(&said).unwrap();
    let list = || {
        Request::new(
            "r",
            actor.clone(),
            Surface::Rest,
            Op::List {
                kind: "user".into(),
                project: None,
                query: Query::default(),
            },
        )
    };
    world
        .until("allowed by the nested group", || {
            world.cx.gate().admit(list()).is_ok()
        })
        .await;

    // Nobody gets in by what is not a password of his.
    for (user, password) in [
        ("anna", "wrong"),
        ("nobody", ANNA),
        ("*)(uid=*", ANNA),
        ("anna)(|(uid=*", ANNA),
        ("*", ANNA),
        ("twin", "twin's password 1"),
        ("\u{430}nna", ANNA),
    ] {
        world
            .set(
                "user",
                "anna",
                json!({ "unlocked": world.cx.clock().now() }),
            )
            .await
            .unwrap();
        wrong(world.login(user, password).await);
    }
    assert!(world.login("anna", "").await.is_err());
    let directory = Directories::of(&world.cx, &world.cx.get::<Realm>(None, "corp").unwrap());
    let directory = directory.unwrap();
    let dn = "uid=anna,ou=people,dc=example,dc=org";
    assert!(!directory.proves(&world.cx, dn, "").await.unwrap());
    assert!(!directory.proves(&world.cx, "", ANNA).await.unwrap());
    assert!(directory.proves(&world.cx, dn, ANNA).await.unwrap());
    // As a value of the filter it finds nobody, and a referral that lies in the way is not followed.
    let found = person::by_name(&world.cx, &directory, "*)(uid=*").await;
    assert!(matches!(found, Ok(Found::Nobody)), "{found:?}");
    let search = wire::Search {
        base: BASE.into(),
        within: wire::Where::Below,
        filter: filter::Filter::Present("uid".into()),
        attributes: vec!["uid".into()],
        most: 0,
    };
    let found = directory.search(&world.cx, &search).await.unwrap();
    assert_eq!((found.entries.len(), found.elsewhere), (4, 1));
    let why = world.failed_because().await;
    assert!(why.contains(&"WRONG_PASSWORD".into()), "{why:?}");
    assert!(why.contains(&"UNKNOWN_USER".into()), "{why:?}");

    let (state, status) = world.act("test", json!({ "user": "anna" })).await;
    assert_eq!(state, TaskState::Succeeded, "{status}");
    let shown = &status["result"]["user"];
    assert_eq!(shown["dn"], dn);
    assert_eq!(shown["groups"], json!(["on-call"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_user_of_the_same_name_is_never_taken_over() {
    let Some(mut slapd) = Slapd::start() else {
        return;
    };
    let world = world().await;
    world.secret(SEARCHER_PASSWORD).await;
    world.realm("ldap", ldap(&slapd)).await.unwrap();
    world.create("user", "anna", json!({})).await.unwrap();
    let hash = crate::factor::password::hash("here 12345678".into(), [7; 16])
        .await
        .unwrap();
    let local = world.user("anna");
    let sort = crate::factor::Sort::Password;
    let name = crate::factor::fresh_name(&world.cx, sort);
    crate::factor::replace(&world.cx, &local, &name, sort, hash, None)
        .await
        .unwrap();

    wrong(world.login("anna", ANNA).await);
    assert_eq!(
        world.login("anna", "here 12345678").await.unwrap()["user"],
        "anna"
    );
    // Who says which realm he means becomes a user of his own.
    let body = json!({ "user": "anna", "password": ANNA, "realm": "corp" });
    let said = world.say("login", body, Actor::anonymous()).await.unwrap();
    let theirs = said.body["user"].as_str().unwrap().to_owned();
    assert_ne!(theirs, "anna");
    assert_eq!(world.user(&theirs).spec.realm, "corp");
    assert_eq!(world.user("anna").spec.realm, "local");
    // And is known by that name too.
    let username = world.user(&theirs).spec.username.clone();
    assert_eq!(world.login(&username, ANNA).await.unwrap()["user"], theirs);
    let body = json!({ "user": "anna", "password": ANNA, "realm": "local" });
    assert!(world.say("login", body, Actor::anonymous()).await.is_err());

    // The directory is down: its people are told so, and who is kept here comes in.
    slapd.kill();
    let down = world.login(&username, ANNA).await.unwrap_err();
    assert!(matches!(down.what, What::Unavailable(_)), "{down}");
    assert!(down.message.contains("realm `corp`"), "{down}");
    assert_eq!(
        world.login("anna", "here 12345678").await.unwrap()["user"],
        "anna"
    );
    // Whether a name is known here cannot be told from the answer to a wrong password.
    let known = world.login("anna", "wrong").await.unwrap_err();
    let unknown = world.login("nobody", "wrong").await.unwrap_err();
    assert_eq!(known.message, unknown.message);
    let named = |s: &runtime::resilience::Standing| s.name == "directory corp";
    assert!(world.cx.dependencies().standings().iter().any(named));
    // It comes back, with the breaker half open at the latest.
    slapd.go();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_gone_or_disabled_there_is_out_at_the_next_sync() {
    let Some(mut slapd) = Slapd::start() else {
        return;
    };
    let world = world().await;
    world.secret(SEARCHER_PASSWORD).await;
    world.realm("ldap", ldap(&slapd)).await.unwrap();
    world
        .create("group", "on-call", json!({ "directory": ["operators"] }))
        .await
        .unwrap();
    assert_eq!(world.sync(false).await["result"], "skipped");
    let anna = world.login("anna", ANNA).await.unwrap();
    let bert = world.login("bert", "bert's password 1").await.unwrap();
    let all = world.sync(false).await;
    assert_eq!(
        (&all["result"], &all["people"], &all["unchanged"]),
        (&json!("success"), &json!(2), &json!(2)),
        "{all}"
    );

    slapd.modify(
        "dn: uid=anna,ou=people,dc=example,dc=org\nchangetype: modify\nadd: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n\n\
         dn: uid=bert,ou=people,dc=example,dc=org\nchangetype: delete\n",
    );
    // What would be done is only said.
    let would = world.sync(true).await;
    assert_eq!(would["suspended"], 2, "{would}");
    assert!(world.user("anna").spec.active && world.who(&bert).is_ok());

    // A sync that does not come to its end changes nobody.
    slapd.kill();
    let (state, status) = world.act("sync", json!({})).await;
    assert_eq!(state, TaskState::Failed, "{status}");
    let sync = || {
        let realm = world.cx.get::<Realm>(None, "corp").unwrap();
        realm.status.as_ref().and_then(|s| s.sync.clone()).unwrap()
    };
    assert_eq!(sync().result, SyncResult::Failed);
    assert!(world.user("anna").spec.active && world.user("bert").spec.active);
    assert!(world.who(&anna).is_ok() && world.who(&bert).is_ok());

    slapd.go();
    let done = world.sync(false).await;
    assert_eq!(
        (&done["result"], &done["suspended"]),
        (&json!("success"), &json!(2)),
        "{done}"
    );
    assert!(world.who(&anna).is_err() && world.who(&bert).is_err());
    world
        .until("without sessions", || {
            world.sessions("anna") + world.sessions("bert") == 0
        })
        .await;
    let why = |name: &str| world.user(name).spec.suspended.clone().unwrap();
    assert!(why("anna").contains("disabled") && why("bert").contains("not in"));
    wrong(world.login("anna", ANNA).await);

    // Let in there, let in here; and the group follows.
    slapd.modify(
        "dn: uid=anna,ou=people,dc=example,dc=org\nchangetype: modify\ndelete: pwdAccountLockedTime\n\n\
         dn: cn=night shift,ou=groups,dc=example,dc=org\nchangetype: modify\nreplace: member\nmember: cn=searcher,dc=example,dc=org\n",
    );
    assert_eq!(world.user("anna").spec.groups, ["on-call"]);
    let done = world.sync(false).await;
    assert_eq!(done["resumed"], 1, "{done}");
    let back = world.user("anna");
    assert!(back.spec.active && back.spec.suspended.is_none() && back.spec.groups.is_empty());
    world.login("anna", ANNA).await.unwrap();
    // Whom a person has disabled the directory does not let in.
    let op = Op::Act {
        target: target("user", "anna"),
        verb: "disable".into(),
        params: json!({}),
    };
    world.ask(op).await.unwrap();
    world
        .until("disabled", || !world.user("anna").spec.active)
        .await;
    assert_eq!(world.sync(false).await["resumed"], 0);
    wrong(world.login("anna", ANNA).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_cannot_be_trusted_is_told_nothing() {
    let Some(mut slapd) = Slapd::start() else {
        return;
    };
    let other = tempfile::tempdir().unwrap();
    let foreign = slapd::certificates(other.path(), "127.0.0.1");
    let world = world().await;
    world.secret(SEARCHER_PASSWORD).await;
    let mut spec = ldap(&slapd);
    // In the clear, and by halves.
    spec["urls"] = json!([slapd.ldap()]);
    let clear = world.realm("ldap", spec.clone()).await.unwrap_err();
    assert!(format!("{clear:?}").contains("in the clear"), "{clear:?}");
    spec["ca"] = json!("no certificate");
    spec["urls"] = json!([slapd.ldaps()]);
    spec["user_filter"] = json!("(uid=anna)");
    let wrong = world.realm("ldap", spec.clone()).await.unwrap_err();
    assert!(
        matches!(&wrong.what, What::Invalid(all) if all.len() == 2),
        "{wrong:?}"
    );

    let mut spec = ldap(&slapd);
    spec["ca"] = json!(foreign);
    world.realm("ldap", spec).await.unwrap();
    let down = world.login("anna", ANNA).await.unwrap_err();
    assert!(matches!(down.what, What::Unavailable(_)), "{down}");
    let (state, status) = world.act("test", json!({})).await;
    assert_eq!(state, TaskState::Failed);
    assert!(status.to_string().contains("cannot be trusted"), "{status}");
    world
        .until("said to be out of reach", || {
            let realm = world.cx.get::<Realm>(None, "corp").unwrap();
            let status = realm.status.clone().unwrap_or_default();
            status
                .conditions
                .iter()
                .any(|c| c.kind == "Reachable" && c.status == ConditionStatus::False)
        })
        .await;

    // The right one, by STARTTLS, the second of two servers; also when the first connection was cut.
    let mut spec = ldap(&slapd);
    spec["tls"] = json!("starttls");
    spec["urls"] = json!(["ldap://127.0.0.1:1", slapd.ldap()]);
    world
        .set("realm", "corp", json!({ "ldap": spec }))
        .await
        .unwrap();
    world.login("anna", ANNA).await.unwrap();
    slapd.kill();
    slapd.go();
    world.login("anna", ANNA).await.unwrap();

    // A wrong password of the account that searches is said to who looks.
    world
        .set("secret", "searcher", json!({ "value": "another-9" }))
        .await
        .unwrap();
    let (state, status) = world.act("test", json!({})).await;
    assert_eq!(state, TaskState::Failed);
    assert!(
        status.to_string().contains("does not let DebVisor in"),
        "{status}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn active_directory_says_who_is_in_which_group_and_who_is_disabled() {
    let Some(samba) = Samba::start() else { return };
    samba.change(&[
        "user",
        "create",
        "anna",
        "Geheim.99x",
        "--given-name=Anna",
        "--surname=Huber",
        "--mail-address=anna@ad.test",
    ]);
    samba.change(&["user", "create", "searcher", "Sucht.99x"]);
    for group in ["inner", "outer"] {
        samba.change(&["group", "add", group]);
    }
    samba.change(&["group", "addmembers", "inner", "anna"]);
    samba.change(&["group", "addmembers", "outer", "inner"]);
    // In one another: the server follows them and comes to an end.
    samba.change(&["group", "addmembers", "inner", "outer"]);
    let world = world().await;
    world.secret("Sucht.99x").await;
    let spec = json!({
        "urls": [samba.ldaps()], "ca": samba.ca, "base_dn": samba::BASE, "bind_dn": "searcher@ad.test",
        "secret": "default/searcher",
    });
    world.realm("ad", spec).await.unwrap();
    world
        .create("group", "on-call", json!({ "directory": ["outer"] }))
        .await
        .unwrap();

    let said = world.login("Anna", "Geheim.99x").await.unwrap();
    let anna = world.user("anna");
    assert_eq!(anna.spec.groups, ["on-call"]);
    assert_eq!(anna.spec.full_name.as_deref(), Some("Anna Huber"));
    let subject = anna.spec.subject.clone().unwrap();
    assert!(uuid::Uuid::parse_str(&subject).is_ok(), "{subject}");
    wrong(world.login("anna", "Geheim.99y").await);
    wrong(world.login("*)(sAMAccountName=*", "Geheim.99x").await);
    // Machines are no people.
    wrong(world.login("VM$", "x").await);
    assert_eq!(world.sync(false).await["unchanged"], 1);

    samba.change(&["user", "disable", "anna"]);
    let done = world.sync(false).await;
    assert_eq!(done["suspended"], 1, "{done}");
    assert!(world.who(&said).is_err());
    assert!(
        world
            .user("anna")
            .spec
            .suspended
            .clone()
            .unwrap()
            .contains("disabled")
    );
    samba.change(&["user", "enable", "anna"]);
    // Who proves himself need not wait for the next look.
    world.login("anna", "Geheim.99x").await.unwrap();
    assert!(world.user("anna").spec.active);
}

/// Stands between us and a server, and lets so many bytes of its answers through in all.
struct Gate {
    port: u16,
    left: Arc<AtomicI64>,
}

impl Gate {
    #[allow(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    async fn before(server: String) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let budget = left.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, left) = (server.clone(), budget.clone());
                tokio::spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let there = async {
                        tokio::io::copy(&mut from_client, &mut to_server).await.ok();
                    };
                    let back = async {
                        let mut some = [0; 512];
                        while let Ok(count @ 1..) = from_server.read(&mut some).await {
                            let count = i64::try_from(count).unwrap();
                            if left.fetch_sub(count, Ordering::SeqCst) < count {
                                return;
                            }
                            let count = usize::try_from(count).unwrap();
                            if to_client.write_all(&some[..count]).await.is_err() {
                                return;
                            }
                        }
                    };
                    tokio::select! { () = there => {}, () = back => {} }
                });
            }
        });
        Gate { port, left }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sync_that_is_cut_in_the_middle_changes_nobody() {
    let Some(slapd) = Slapd::start() else { return };
    let server = slapd.ldaps().trim_start_matches("ldaps://").to_owned();
    let gate = Gate::before(server).await;
    let world = world().await;
    world.secret(SEARCHER_PASSWORD).await;
    let mut spec = ldap(&slapd);
    spec["urls"] = json!([format!("ldaps://127.0.0.1:{}", gate.port)]);
    world.realm("ldap", spec).await.unwrap();
    let anna = world.login("anna", ANNA).await.unwrap();
    world.login("bert", "bert's password 1").await.unwrap();
    slapd.modify("dn: uid=bert,ou=people,dc=example,dc=org\nchangetype: delete\n");
    world
        .until("looked at by its controller", || {
            let realm = world.cx.get::<Realm>(None, "corp").unwrap();
            let status = realm.status.clone().unwrap_or_default();
            status.last_reached.is_some()
        })
        .await;
    // The search for people comes to its end, and what is asked of their groups does not.
    gate.left.store(1_000_000, Ordering::SeqCst);
    let would = world.sync(true).await;
    assert_eq!(would["suspended"], 1, "{would}");
    let whole = 1_000_000 - gate.left.load(Ordering::SeqCst);
    gate.left.store(whole - 20, Ordering::SeqCst);
    let (state, status) = world.act("sync", json!({})).await;
    assert_eq!(state, TaskState::Failed, "{status}");
    assert!(gate.left.load(Ordering::SeqCst) < 0, "it was cut");
    assert!(world.user("bert").spec.active && world.who(&anna).is_ok());
    gate.left.store(i64::MAX, Ordering::SeqCst);
    assert_eq!(world.sync(false).await["suspended"], 1);
    assert!(!world.user("bert").spec.active);
}

/// A directory that shows another certificate than is pinned hears nothing, however well that is signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_held_to_its_pin() {
    use sha2::{Digest, Sha256};
    let Some(slapd) = Slapd::start() else { return };
    let world = world().await;
    world.secret(SEARCHER_PASSWORD).await;
    let other = hex::encode(Sha256::digest(b"another CA"));
    let pin = json!({ "peer": "127.0.0.1", "type": "ca", "primary": other });
    world.create("pin", "directory", pin).await.unwrap();
    world.realm("ldap", ldap(&slapd)).await.unwrap();
    let (state, said) = world.act("test", json!({})).await;
    assert_ne!(state, TaskState::Succeeded);
    assert!(
        said.to_string().contains("pin `directory` does not expect"),
        "{said}"
    );
    assert!(world.login("anna", ANNA).await.is_err());
    let der = crate::ca::der_of(&slapd.ca).next().unwrap();
    let params = json!({ "primary": hex::encode(Sha256::digest(&der)) });
    let op = Op::Act {
        target: target("pin", "directory"),
        verb: "rotate".into(),
        params,
    };
    world.ask(op).await.unwrap();
    // Who was down a moment ago is left alone for a while.
    let end = Instant::now() + Duration::from_secs(60);
    while let Err(error) = world.login("anna", ANNA).await {
        assert!(Instant::now() < end, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(world.user("anna").spec.realm, "corp");
}
