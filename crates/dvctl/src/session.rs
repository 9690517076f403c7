//! One run of `dvctl`: the server, its registry, and how to show things.

use crate::connect::{Client, Logins, Place, Request, Wish, escape};
use crate::failure::{Failure, Result};
use crate::grammar::Before;
use crate::output::{Format, Screen};
use crate::registry::{KindDef, Registry};
use clap::ArgMatches;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// The project meant when none is named.
pub const DEFAULT_PROJECT: &str = "default";

/// What every verb needs.
pub struct Session {
    /// The server.
    pub client: Client,
    /// What it declares.
    pub registry: Registry,
    /// The terminal.
    pub screen: Screen,
    /// `--output`.
    pub format: Format,
    /// `--project`, else the default one.
    pub project: String,
    /// Whether somebody named the project.
    pub project_named: bool,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its kind.
    pub kind: String,
    /// The kind's plural.
    pub plural: String,
    /// Its project, for a kind that has one.
    pub project: Option<String>,
    /// Its name.
    pub name: String,
}

impl Target {
    /// The object of this kind with this name, which may be `project/name`.
    pub fn of(kind: &KindDef, project: &str, name: &str) -> Target {
        let (project, name) = match name.split_once('/') {
            Some((p, n)) if kind.in_project() && !p.is_empty() => (p, n),
            _ => (project, name),
        };
        Target {
            kind: kind.name.clone(),
            plural: kind.plural.clone(),
            project: kind.in_project().then(|| project.to_owned()),
            name: name.to_owned(),
        }
    }

    /// The collection's path.
    pub fn collection(&self) -> String {
        match &self.project {
            Some(project) => format!("/projects/{}/{}", escape(project), self.plural),
            None => format!("/{}", self.plural),
        }
    }

    /// The object's path.
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection(), escape(&self.name))
    }

    /// `vm/web1`, as lines of output begin.
    pub fn short(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.project {
            Some(project) => write!(f, "{} {project}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl Session {
    /// Finds the server and reads its registry.
    pub async fn open(before: &Before) -> Result<Session> {
        let client = Client::new(place(before)?);
        let registry = fetch(&client).await?;
        Ok(Session {
            client,
            registry,
            screen: Screen::look(None),
            format: Format::Table,
            project_named: project(before.project.clone()).is_some(),
            project: project(before.project.clone()).unwrap_or_else(|| DEFAULT_PROJECT.into()),
        })
    }

    /// The registry for `--help`: from the server, else as it was last seen, else none.
    pub async fn registry_for_help(before: &Before) -> Option<Registry> {
        let place = place(before).ok()?;
        let client = Client::new(place);
        match fetch(&client).await {
            Ok(registry) => Some(registry),
            Err(_) => Cache::of(client.place()).registry(),
        }
    }

    /// Takes what the command line says about output and project.
    pub fn settle(&mut self, matches: &ArgMatches) {
        let mut deepest = matches;
        while let Some((_, inner)) = deepest.subcommand() {
            deepest = inner;
        }
        let word = |id: &str| deepest.get_one::<String>(id).map(String::as_str);
        self.format = Format::from_word(word("output"));
        self.screen = Screen::look(word("color"));
        if let Some(project) = word("project") {
            self.project = project.to_owned();
            self.project_named = true;
        }
    }
}

/// Which server the arguments and the environment mean.
pub fn place(before: &Before) -> Result<Place> {
    let instance = before.instance.clone().or_else(|| {
        let from_env = std::env::var("DEBVISOR_INSTANCE").ok();
        from_env.filter(|i| !i.is_empty() && before.cluster.is_none())
    });
    if before.instance.is_some() && before.cluster.is_some() {
        return Err(Failure::usage("--instance and --cluster name two servers")
            .hint("give only one of them"));
    }
    let wish = Wish {
        instance,
        cluster: before.cluster.clone(),
    };
    wish.decide(&Logins::of_user())
}

fn project(given: Option<String>) -> Option<String> {
    given
        .or_else(|| std::env::var("DEBVISOR_PROJECT").ok())
        .filter(|p| !p.is_empty())
}

/// The registry, from the cache when the server says that it has not changed.
pub async fn fetch(client: &Client) -> Result<Registry> {
    let cache = Cache::of(client.place());
    let kept = cache.read();
    let mut request = Request::get("/registry").header("accept", "application/json");
    if let Some((etag, _)) = &kept {
        request = request.header("if-none-match", etag.clone());
    }
    let answer = client.ask(request).await?;
    match (answer.status, kept) {
        (304, Some((_, json))) => Registry::parse(&json),
        (200, _) => {
            let registry = Registry::parse(&answer.body)?;
            if let Some(etag) = &answer.etag {
                cache.write(etag, &answer.body);
            }
            Ok(registry)
        }
        (status, _) => Err(crate::connect::problem(status, &answer.body)),
    }
}

/// The registry as last seen, one file per server. It only saves time: nothing is lost with it.
pub struct Cache {
    file: Option<PathBuf>,
}

impl Cache {
    /// Of the server at a place.
    pub fn of(place: &Place) -> Cache {
        let folder = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|p| p.is_absolute())
            .or_else(|| std::env::var_os("HOME").map(|h| Path::new(&h).join(".cache")));
        let name = hex::encode(&Sha256::digest(place.shown())[..8]);
        Cache {
            file: folder.map(|f| f.join("debvisor").join(format!("registry-{name}"))),
        }
    }

    /// ETag and JSON: the first line of the file, and the rest.
    fn read(&self) -> Option<(String, Vec<u8>)> {
        let bytes = std::fs::read(self.file.as_ref()?).ok()?;
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let etag = String::from_utf8(bytes[..end].to_vec()).ok()?;
        Some((etag, bytes[end + 1..].to_vec()))
    }

    /// The registry in it, whatever its age.
    pub fn registry(&self) -> Option<Registry> {
        Registry::parse(&self.read()?.1).ok()
    }

    fn write(&self, etag: &str, json: &[u8]) {
        let Some(file) = &self.file else {
            return;
        };
        let text = [etag.as_bytes(), b"\n", json].concat();
        let beside = file.with_extension(format!("new-{}", std::process::id()));
        let written = file
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::write(&beside, text))
            .and_then(|()| std::fs::rename(&beside, file));
        if written.is_err() {
            _ = std::fs::remove_file(&beside);
        }
    }
}
