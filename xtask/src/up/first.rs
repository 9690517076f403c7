//! What a new instance gets: a project, a pool, a network, an image and the guest `hello`, all by the CLI that its owner will use.

use std::{
    io::{IsTerminal, Write},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{config, dvctl};
use crate::{
    instance::{Instance, http},
    sh,
};

/// Which image and guest are made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    Debian,
    Tiny,
}

const GROUND: &str = include_str!("ground.yaml");
/// Building an image under a busy machine, and booting it under software emulation.
const IMAGE: Duration = Duration::from_secs(20 * 60);
const BOOT: Duration = Duration::from_secs(10 * 60);

impl Sort {
    fn image(self) -> &'static str {
        match self {
            Sort::Debian => "debian-12",
            Sort::Tiny => "tiny",
        }
    }

    /// The image and the guest, which are two documents.
    fn manifest(self) -> (&'static str, &'static str) {
        let text = match self {
            Sort::Debian => include_str!("debian.yaml"),
            Sort::Tiny => include_str!("tiny.yaml"),
        };
        text.split_once("---\n").unwrap_or((text, ""))
    }
}

/// Makes what is not there yet. What somebody has changed since is left as it is.
pub fn make(instance: &Instance, sort: Sort) -> Result<()> {
    let vm = ground(instance, sort)?;
    let made = create(instance, vm)?;
    // One that its owner has switched off stays off.
    let wanted = show(instance, "vm", "hello")?;
    if wanted.is_some_and(|vm| vm["spec"]["power"] == "on") {
        follow(instance, "vm", "hello", BOOT, |object| {
            stage(object, "running", &["crashed"])
        })?;
        if made {
            answers(instance, sort)?;
        }
    }
    Ok(())
}

/// Makes what a guest stands on, and answers the guest's own manifest.
pub fn ground(instance: &Instance, sort: Sort) -> Result<&'static str> {
    for document in GROUND.split("---\n") {
        create(instance, document)?;
    }
    let (image, vm) = sort.manifest();
    create(instance, image)?;
    follow(instance, "image", sort.image(), IMAGE, |object| {
        stage(object, "ready", &["failed"])
    })?;
    Ok(vm)
}

/// True when it was made now.
fn create(instance: &Instance, document: &str) -> Result<bool> {
    let field = |name: &str| {
        let at = document.find(&format!("{name}: "))? + name.len() + 2;
        document[at..].split(['\n', ',', '}']).next()
    };
    let (kind, name) = field("kind")
        .zip(field("name"))
        .context("a manifest without kind and name")?;
    if show(instance, kind, name)?.is_some() {
        return Ok(false);
    }
    eprintln!("making the {kind} `{name}`");
    let mut command = dvctl(instance);
    command
        .args(["apply", "--no-wait", "-f", "-"])
        .stdin(Stdio::piped());
    let mut child = command.spawn().context("cannot start dvctl")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(document.as_bytes())?;
    }
    if !child.wait()?.success() {
        bail!("the {kind} `{name}` could not be made; dvctl said why above");
    }
    Ok(true)
}

/// The object, or nothing when there is none of that name (dvctl's exit code 4).
fn show(instance: &Instance, kind: &str, name: &str) -> Result<Option<Value>> {
    let output = dvctl(instance)
        .args([kind, "show", name, "-o", "json"])
        .stdin(Stdio::null())
        .output()?;
    match output.status.code() {
        Some(0) => Ok(Some(
            serde_json::from_slice(&output.stdout).context("dvctl printed no JSON")?,
        )),
        Some(4) => Ok(None),
        _ => bail!(
            "`dvctl {kind} show {name}` failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        ),
    }
}

/// How far something is.
enum Stage {
    Done,
    /// With what it waits for.
    On(String),
    Failed(String),
}

fn stage(object: &Value, wanted: &str, fatal: &[&str]) -> Stage {
    let status = &object["status"];
    let state = status["state"].as_str().unwrap_or("new");
    let conditions = || status["conditions"].as_array().into_iter().flatten();
    let said = |kind: &str| {
        conditions()
            .find(|one| one["type"] == kind)
            .and_then(|one| one["message"].as_str())
    };
    if state == wanted {
        return Stage::Done;
    }
    if fatal.contains(&state) {
        let why = conditions()
            .filter_map(|one| one["message"].as_str())
            .chain(status["message"].as_str());
        let why: Vec<_> = why.filter(|text| !text.is_empty()).collect();
        return Stage::Failed(format!("{state}: {}", why.join("; ")));
    }
    let note = status["message"]
        .as_str()
        .filter(|text| !text.is_empty())
        .or_else(|| said("Waiting"))
        .or_else(|| said("Reconciled"));
    Stage::On(match note {
        Some(note) if !note.is_empty() => format!("{state}, {note}"),
        _ => state.to_owned(),
    })
}

/// The step and percentage of the task that works on an object.
fn working(instance: &Instance, object: &Value) -> Result<Option<String>> {
    let Some(name) = object["status"]["task"]
        .as_str()
        .filter(|name| !name.is_empty())
    else {
        return Ok(None);
    };
    let Some(task) = show(instance, "task", name)? else {
        return Ok(None);
    };
    let status = &task["status"];
    let step = status["step"]
        .as_str()
        .filter(|step| !step.is_empty())
        .unwrap_or("queued");
    Ok(Some(format!(
        "{step}, {} %",
        status["progress"].as_u64().unwrap_or(0)
    )))
}

/// Shows the stages of an object until it is there.
fn follow(
    instance: &Instance,
    kind: &str,
    name: &str,
    limit: Duration,
    stage: impl Fn(&Value) -> Stage,
) -> Result<()> {
    let mut line = Line::new(format!("{kind} `{name}`"));
    let end = Instant::now() + limit;
    loop {
        let object = show(instance, kind, name)?
            .with_context(|| format!("the {kind} `{name}` went away"))?;
        match stage(&object) {
            Stage::Done => {
                line.finish("is there");
                return Ok(());
            }
            Stage::Failed(why) => bail!("the {kind} `{name}` {why}"),
            Stage::On(what) => line.show(&working(instance, &object)?.unwrap_or(what)),
        }
        if Instant::now() > end {
            bail!(
                "the {kind} `{name}` is not there after {} s: `dvctl {kind} explain {name}` says why",
                limit.as_secs()
            );
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// Waits for the guest agent, and for cloud-init where the image has it.
fn answers(instance: &Instance, sort: Sort) -> Result<()> {
    let mut line = Line::new("guest `hello`".to_owned());
    let end = Instant::now() + BOOT;
    let mut exec = |words: &[&str], what: &str| -> Result<()> {
        loop {
            line.show(what);
            let mut command = dvctl(instance);
            command.args(["vm", "exec", "hello", "--"]).args(words);
            match sh::output(&mut command) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > end => {
                    return Err(error.context(format!(
                        "the guest `hello` did not answer within {} s",
                        BOOT.as_secs()
                    )));
                }
                Err(_) => thread::sleep(Duration::from_secs(1)),
            }
        }
    };
    exec(&["/bin/uname", "-a"], "boots; waiting for its agent")?;
    if sort == Sort::Debian {
        // `--wait` ends with 2 when something in it was only recoverable.
        exec(
            &[
                "/bin/sh",
                "-c",
                "cloud-init status --wait >/dev/null; [ $? -ne 1 ]",
            ],
            "cloud-init is at work",
        )?;
    }
    line.finish("is up and answers");
    Ok(())
}

/// Says where the instance is and what can be tried.
pub fn tell(instance: &Instance, guest: bool, took: Duration) -> Result<()> {
    let code = http::call(
        &instance.api_socket(),
        "POST",
        "/api/v1/login/code",
        &http::Body::None,
    )?;
    let text = |name: &str| code[name].as_str().unwrap_or_default().to_owned();
    let url = config::url(instance)?;
    println!(
        "\nDebVisor instance `{}` is ready ({:.0} s).\n",
        instance.name,
        took.as_secs_f64()
    );
    println!("  URL             {url}");
    println!("  CA fingerprint  {}", text("ca_fingerprint"));
    println!(
        "  remote login    dvctl login {url} --code {}   (once, until {})",
        text("code"),
        text("expires")
    );
    println!("\nTo try (`export PATH=$PWD/.dev/bin:$PATH` first):\n");
    let first: &[&str] = if guest {
        &[
            "dvctl vm list",
            "dvctl vm console hello        # ^] leaves",
            "dvctl vm exec hello -- uname -a",
            "dvctl vm explain hello",
            "dvctl event watch",
        ]
    } else {
        &[
            "dvctl node list",
            "dvctl pool create default --driver dir",
            "dvctl network create default",
            "dvctl vm create --help",
            "dvctl event watch",
        ]
    };
    for line in first {
        println!("  {line}");
    }
    Ok(())
}

/// One line of progress: rewritten on a terminal, printed when it changes elsewhere.
struct Line {
    subject: String,
    last: String,
    start: Instant,
    terminal: bool,
}

impl Line {
    fn new(subject: String) -> Line {
        Line {
            subject,
            last: String::new(),
            start: Instant::now(),
            terminal: std::io::stdout().is_terminal(),
        }
    }

    fn show(&mut self, what: &str) {
        if self.terminal {
            print!(
                "\r\x1b[K{}: {what} ({} s)",
                self.subject,
                self.start.elapsed().as_secs()
            );
            let _ = std::io::stdout().flush();
        } else if what != self.last {
            eprintln!("{}: {what}", self.subject);
        }
        what.clone_into(&mut self.last);
    }

    fn finish(&mut self, what: &str) {
        let clear = if self.terminal && !self.last.is_empty() {
            "\r\x1b[K"
        } else {
            ""
        };
        eprintln!(
            "{clear}{} {what} ({:.1} s)",
            self.subject,
            self.start.elapsed().as_secs_f64()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_says_what_is_waited_for() {
        let on =
            |json: &str| match stage(&serde_json::from_str(json).unwrap(), "ready", &["failed"]) {
                Stage::Done => "done".to_owned(),
                Stage::On(what) => what,
                Stage::Failed(why) => format!("FAILED {why}"),
            };
        assert_eq!(on(r#"{"status":{"state":"ready"}}"#), "done");
        assert_eq!(on(r#"{}"#), "new");
        assert_eq!(
            on(
                r#"{"status":{"state":"pending","conditions":[{"type":"Waiting","message":"pool default"}]}}"#
            ),
            "pending, pool default"
        );
        assert_eq!(
            on(
                r#"{"status":{"state":"failed","conditions":[{"type":"Reconciled","message":"disk full"}]}}"#
            ),
            "FAILED failed: disk full"
        );
    }
}
