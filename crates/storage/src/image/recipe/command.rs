//! Runs the outside programs of a recipe: each can be cancelled, and each failure says in which step it happened and
//! what the program said last.

use anyhow::{Context, Result, anyhow, bail};
use host::process::{Output, Run};
use std::collections::VecDeque;
use std::future::Future;
use tokio_util::sync::CancellationToken;

/// How many of a program's last lines are kept for an error.
const LAST_LINES: usize = 15;

/// Told what is being done now, in words, and how much of the whole is done, in percent.
pub type Progress<'a> = &'a (dyn Fn(&str, u8) + Send + Sync);

/// Waits for `work` unless the build is cancelled, which drops the work: its program is killed.
pub(super) async fn until_cancelled<T>(
    work: impl Future<Output = Result<T>>,
    cancel: &CancellationToken,
) -> Result<T> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => bail!("the image build was cancelled"),
        done = work => done,
    }
}

/// Runs a program to its end and gives back what it printed.
pub(super) async fn run(what: &str, program: Run, cancel: &CancellationToken) -> Result<Output> {
    until_cancelled(
        async { program.output().await.with_context(|| what.to_owned()) },
        cancel,
    )
    .await
}

/// Runs a program that reports its progress on standard error, and hands on each line of both its outputs. `arguments`
/// starts with the program.
pub(super) async fn watch(
    what: &str,
    arguments: &[String],
    set_up: impl FnOnce(Run) -> Run,
    cancel: &CancellationToken,
    mut each: impl FnMut(&str) + Send,
) -> Result<()> {
    let program = arguments.first().map_or("", String::as_str);
    installed(program).with_context(|| what.to_owned())?;
    // The shell joins the outputs, so that they are read in the order in which they were written.
    let run = set_up(
        Run::new("sh")
            .args(["-c", "exec \"$@\" 2>&1", "sh"])
            .args(arguments),
    );
    let mut last = VecDeque::new();
    let ended = until_cancelled(
        async {
            Ok(run
                .lines(|line| {
                    if last.len() == LAST_LINES {
                        last.pop_front();
                    }
                    last.push_back(line.to_owned());
                    each(line);
                })
                .await)
        },
        cancel,
    )
    .await?;
    ended.map(|_| ()).map_err(|error| {
        let said = Vec::from(last).join("\n");
        anyhow!(error)
            .context(format!("`{program}` said last:\n{said}"))
            .context(what.to_owned())
    })
}

/// Refuses when `program` is not in the system's folders, naming the Debian package that has it.
pub(super) fn installed(program: &str) -> Result<()> {
    if program.contains('/') {
        return Ok(());
    }
    let folders = [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ];
    if folders
        .iter()
        .any(|folder| std::path::Path::new(folder).join(program).exists())
    {
        return Ok(());
    }
    match host::process::debian_package(program) {
        Some(package) => {
            bail!("`{program}` is not installed: install the Debian package `{package}`")
        }
        None => bail!("`{program}` is not installed"),
    }
}
