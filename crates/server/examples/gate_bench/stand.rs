//! A server with roles, grants, users, a key and a session; with its checks, or without them.

use crate::client::Client;
use crate::open::Open;
use crate::{Failure, OBJECTS, machine};
use identity::login::People;
use identity::session::{self, Begin};
use identity::user::User;
use identity::{Ca, CaConfig};
use model::ObjectRef;
use runtime::{
    AccessRules, Actor, Authority, Clock, Cx, CxBuilder, Known, Msg, Op, Registry, Request, Seal,
    StreamIo, Surface, SystemClock,
};
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use server::{Limits, Listeners, Server};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Grants of one user.
const EACH: usize = 10;

/// Whether anybody looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Gates {
    /// As shipped.
    Shut,
    /// As nowhere.
    Open,
}

/// One server, running.
pub struct Stand {
    pub cx: Cx,
    /// The token of an API key of the first user.
    pub key: String,
    /// The token of a session of his.
    pub session: String,
    users: usize,
    at: SocketAddr,
    connector: TlsConnector,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

/// Keeps secrets as they are: it is not about them.
struct Bare;

impl Seal for Bare {
    fn seal(&self, _: &str, plain: &str) -> model::Result<String> {
        Ok(plain.to_owned())
    }
    fn open(&self, _: &str, sealed: &str) -> model::Result<String> {
        Ok(sealed.to_owned())
    }
}

async fn make(cx: &Cx, kind: &str, project: Option<&str>, body: Value) -> Result<(), Failure> {
    let op = Op::Create {
        kind: kind.into(),
        project: project.map(str::to_owned),
        body,
    };
    let request = Request::new("fill", Actor::administrator("bench"), Surface::Inside, op);
    cx.desk().carry_out(cx.gate().admit(request)?).await?;
    Ok(())
}

fn named(name: &str, spec: Value) -> Value {
    json!({ "metadata": { "name": name }, "spec": spec })
}

impl Stand {
    /// Starts one.
    #[allow(clippy::disallowed_methods, reason = "the stand holds the handle")]
    pub async fn start(gates: Gates, roles: usize, grants: usize) -> Result<Stand, Failure> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = Registry::new(&[
            runtime::SUBSYSTEMS,
            identity::SUBSYSTEMS,
            machine::SUBSYSTEMS,
        ])?;
        let (rules, access) = identity::access::parts();
        let people = People::new();
        let mut cx = CxBuilder::new(registry, store::Memory::new())
            .seal(Arc::new(Bare))
            .part(identity::quota::part());
        cx = match gates {
            Gates::Shut => cx.part(rules).part(access).part(people.part()),
            Gates::Open => {
                let open = Arc::new(Open::new());
                cx.part(Arc::new(AccessRules(open.clone())))
                    .part(Arc::new(Known(open)))
            }
        };
        let cx = cx.build().await?;
        identity::project::make_default(&cx).await?;
        identity::role::make_built_in(&cx).await?;
        // What is measured is what the checks cost, not how often one user may ask.
        for known in runtime::limit::SETTINGS {
            let spec = json!({ "value": 100_000_000 });
            make_system(&cx, "setting", named(known.name, spec)).await?;
        }
        for n in 0..OBJECTS {
            make(&cx, "machine", Some("default"), machine::body(n)).await?;
        }
        let users = (grants / EACH).max(1);
        fill(&cx, roles, grants, users).await?;
        let dir = tempfile::tempdir()?;
        let ca = Ca::open(CaConfig {
            folder: dir.path().join("pki"),
            cluster: "bench".into(),
            names: vec!["localhost".into()],
            now: Arc::new(|| SystemClock.now()),
        })?;
        if gates == Gates::Shut {
            people.start(&cx, ca.clone());
        }
        let (key, session) = logins(&cx).await?;
        let mut listeners = Listeners::new();
        let at = listeners.bind_https("127.0.0.1:0".parse()?).await?;
        let server = Server::builder(cx.clone(), ca.clone())
            .limits(Limits {
                drain: Duration::ZERO,
                head: Duration::from_secs(120),
                ..Limits::default()
            })
            .build()?;
        let stop = CancellationToken::new();
        let ending = stop.clone();
        let serving = tokio::spawn(async move {
            if let Err(error) = server.serve(listeners, ending).await {
                eprintln!("the server: {error}");
            }
        });
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(ca.ca().der))?;
        let config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Stand {
            cx,
            key,
            session,
            users,
            at,
            connector: TlsConnector::from(Arc::new(config)),
            stop,
            serving,
            _dir: dir,
        })
    }

    /// A connection of somebody with this token.
    pub async fn connect(&self, token: &str) -> Result<Client, Failure> {
        let stream = TcpStream::connect(self.at).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = self.connector.connect(name, stream).await?;
        let head = format!("authorization: Bearer {token}\r\n");
        Ok(Client::new(stream, head))
    }

    /// One request of somebody, and whether it is to be let in: two of three ask for what is there for them, the third for
    /// what nobody may.
    pub fn wish(&self, n: usize) -> (Request, bool) {
        let (user, object) = (n.wrapping_mul(7919) % self.users, n % OBJECTS);
        let allowed = n % 3 != 2;
        let target = ObjectRef {
            kind: if allowed { "machine" } else { "member" }.into(),
            project: Some("default".into()),
            name: format!("m{object:05}"),
        };
        let op = Op::Get { target };
        let actor = Actor::user(&format!("u{user}"), None, None);
        let request = Request::new("decide", actor, Surface::Rest, op);
        (request, allowed)
    }

    /// Ends it.
    pub async fn close(self) {
        self.stop.cancel();
        let _ = self.serving.await;
        self.cx.life().stop(Duration::from_secs(5)).await;
    }
}

async fn make_system(cx: &Cx, kind: &str, body: Value) -> Result<(), Failure> {
    let op = Op::Create {
        kind: kind.into(),
        project: None,
        body,
    };
    cx.submit(op, "bench").await?;
    Ok(())
}

/// Roles of which each says something else, and for each user a handful of grants on the project and on objects, some
/// under conditions that hold.
async fn fill(cx: &Cx, roles: usize, grants: usize, users: usize) -> Result<(), Failure> {
    for n in 0..roles {
        let allow: &[&str] = match n % 3 {
            0 => &["machine.read", "project.read"],
            1 => &["machine.*", "task.read"],
            _ => &["machine.read", "machine.update", "event.read"],
        };
        make(
            cx,
            "role",
            None,
            named(&format!("r{n}"), json!({ "allow": allow })),
        )
        .await?;
    }
    for n in 0..users {
        make(cx, "user", None, named(&format!("u{n}"), json!({}))).await?;
    }
    for n in 0..grants.max(1) {
        let (user, which) = (n % users, n / users);
        let scope = match which {
            0 => "project/default".to_owned(),
            which => format!("machine/default/m{:05}", (user + which * 97) % OBJECTS),
        };
        let mut spec = json!({
            "user": format!("u{user}"), "role": format!("r{}", n % roles), "scope": scope,
        });
        if which % 3 == 2 {
            let day = json!({ "type": "time_range", "from": "00:00", "to": "23:59:59.999", "zone": "Europe/Vienna" });
            spec["conditions"] = json!([day]);
        }
        make(cx, "grant", None, named(&format!("g{n}"), spec)).await?;
    }
    Ok(())
}

/// The tokens of a key and of a session of the first user.
async fn logins(cx: &Cx) -> Result<(String, String), Failure> {
    make(cx, "api-key", None, named("ci", json!({ "owner": "u0" }))).await?;
    let op = Op::Stream {
        target: ObjectRef {
            kind: "api-key".into(),
            project: None,
            name: "ci".into(),
        },
        stream: "secret".into(),
        params: json!({}),
    };
    let request = Request::new("fill", Actor::administrator("bench"), Surface::Inside, op);
    let admitted = cx.gate().admit(request)?;
    let (ours, theirs) = StreamIo::pair();
    let (mut told, _keep) = ours.split();
    let desk = cx.desk();
    let opened = desk.open(admitted, theirs);
    let heard = async {
        let mut text = String::new();
        while let Some(message) = told.recv().await {
            if let Msg::Data(bytes) = message {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        text
    };
    let (opened, key) = tokio::join!(opened, heard);
    opened?;
    let user = cx.get::<User>(None, "u0").ok_or("there is no user u0")?;
    let begin = Begin {
        factors: vec!["password"],
        ..Begin::default()
    };
    let given = session::begin(cx, &user, begin).await?;
    let (access, _) = given.access.ok_or("a session without a token")?;
    Ok((key.trim().to_owned(), access))
}
