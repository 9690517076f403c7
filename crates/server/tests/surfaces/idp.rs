//! A real provider of OpenID Connect, npm `oidc-provider`, and a browser, as far as logins need one. Also used by the tests
//! of `dvctl`.

use crate::house::House;
use reqwest::header::{CONTENT_TYPE, COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Url};
use runtime::Authority;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The audience of programs' tokens.
pub const AUDIENCE: &str = "https://debvisor.example";

/// The provider, for one house.
pub struct Provider {
    pub issuer: String,
    pub http: Client,
    _child: Child,
    _trusted: tempfile::NamedTempFile,
}

impl Provider {
    /// Starts it, and declares the realm `corp`.
    pub async fn open(house: &House, more: Value) -> Option<Provider> {
        let cache = std::env::var_os("DEBVISOR_CACHE")
            .map_or_else(|| PathBuf::from("/var/cache/debvisor"), PathBuf::from);
        let folder = cache.join("tools/oidc-provider");
        if !folder.join("node_modules/oidc-provider").is_dir() {
            eprintln!("SKIPPED: there is no npm oidc-provider; `cargo xtask test` installs it");
            return None;
        }
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let trusted = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(trusted.path(), &house.ca.ca().pem).unwrap();
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../server/tests/surfaces/provider.mjs"
        );
        let mut child = Command::new("node")
            .arg(script)
            .arg(port.to_string())
            .arg(house.url("/api/v1/auth/oidc/callback"))
            .arg(house.url("/api/v1/auth/oidc/backchannel-logout"))
            .env("PROVIDER", &folder)
            .env("NODE_EXTRA_CA_CERTS", trusted.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line == "ready" {
                    return;
                }
            }
            panic!("the provider has ended");
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), ready).await;
        waited.expect("the provider listens");
        let issuer = format!("http://127.0.0.1:{port}");
        let secret = json!({ "metadata": { "name": "idp" }, "spec": { "value": "the secret of the client" } });
        let (status, made) = house.post("/api/v1/projects/default/secrets", secret).await;
        assert_eq!(status, 201, "{made}");
        let mut oidc = json!({
            "issuer": issuer, "client_id": "debvisor", "client_secret": "default/idp",
            "machine_audiences": [AUDIENCE],
        });
        for (name, value) in more.as_object().unwrap() {
            oidc[name] = value.clone();
        }
        let realm = json!({ "metadata": { "name": "corp" }, "spec": { "type": "oidc", "auto_create": true, "oidc": oidc } });
        let (status, made) = house.post("/api/v1/realms", realm).await;
        assert_eq!(status, 201, "{made}");
        // Longer than the controller waits before it looks again.
        for _ in 0..1400 {
            let (_, realm) = house.get("/api/v1/realms/corp").await;
            let known = realm["status"]["conditions"][0]["status"] == "true"
                || realm["status"]["conditions"][0]["status"] == "True";
            if known {
                let http = Client::builder()
                    .redirect(reqwest::redirect::Policy::none())
                    .build();
                return Some(Provider {
                    issuer,
                    http: http.unwrap(),
                    _child: child,
                    _trusted: trusted,
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "the realm is not reachable: {:?}",
            house.get("/api/v1/realms/corp").await
        );
    }
}

/// A browser, as far as logins need one: cookies, redirections, forms.
pub struct Browser {
    ours: Client,
    theirs: Client,
    /// By host and port, and name: the value.
    cookies: BTreeMap<(String, String), String>,
}

pub struct Page {
    pub status: u16,
    pub location: Option<Url>,
    pub body: String,
}

impl Browser {
    pub fn new(house: &House, provider: &Provider) -> Browser {
        let root = reqwest::Certificate::from_pem(house.ca.ca().pem.as_bytes()).unwrap();
        let ours = Client::builder()
            .tls_certs_only([root])
            .redirect(reqwest::redirect::Policy::none())
            .build();
        Browser {
            ours: ours.unwrap(),
            theirs: provider.http.clone(),
            cookies: BTreeMap::new(),
        }
    }

    pub async fn fetch(&mut self, url: &Url, form: Option<String>) -> Page {
        let site = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
        let http = if url.scheme() == "https" {
            &self.ours
        } else {
            &self.theirs
        };
        let mut request = match form {
            None => http.get(url.clone()),
            Some(form) => http
                .post(url.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form),
        };
        let mine = self.cookies.iter().filter(|((at, _), _)| *at == site);
        let mine: Vec<String> = mine.map(|((_, n), v)| format!("{n}={v}")).collect();
        if !mine.is_empty() {
            request = request.header(COOKIE, mine.join("; "));
        }
        let answer = request.send().await.unwrap();
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let (pair, _) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            let key = (site.clone(), name.to_owned());
            match value.is_empty() {
                true => drop(self.cookies.remove(&key)),
                false => drop(self.cookies.insert(key, value.to_owned())),
            }
        }
        let location = answer.headers().get(LOCATION);
        let location = location.map(|to| url.join(to.to_str().unwrap()).unwrap());
        Page {
            status: answer.status().as_u16(),
            location,
            body: answer.text().await.unwrap(),
        }
    }

    /// Follows redirections and fills the provider's pages, until a place is reached for which `stop` holds, or a page
    /// that is none of the provider's.
    pub async fn go(&mut self, from: &str, who: &str, stop: impl Fn(&Url) -> bool) -> (Url, Page) {
        let mut url = Url::parse(from).unwrap();
        let mut page = self.fetch(&url, None).await;
        for _ in 0..20 {
            if let Some(to) = page.location.take() {
                url = to;
                if stop(&url) {
                    return (url, page);
                }
                page = self.fetch(&url, None).await;
                continue;
            }
            let form = match () {
                () if page.body.contains("name=\"prompt\" value=\"login\"") => {
                    format!("prompt=login&login={who}&password=any")
                }
                () if page.body.contains("name=\"prompt\" value=\"consent\"") => {
                    "prompt=consent".into()
                }
                () => return (url, page),
            };
            page = self.fetch(&url, Some(form)).await;
        }
        panic!("it goes in circles at {url}");
    }

    pub fn cookie(&self, house: &House, name: &str) -> Option<String> {
        let at = (house.https.to_string(), name.to_owned());
        self.cookies.get(&at).cloned()
    }
}
