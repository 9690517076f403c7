//! Anchors: the heads of the chain leave the machine at each seal, so that nobody who takes it over can cut the end of
//! the trail off unseen. To a file on other storage, as messages (RFC 5424) to a log server over TLS (RFC 5425), and to a
//! time stamp authority (RFC 3161).

use super::head::Head;
use super::kind::KIND;
use super::{AuditTrail, FileTrail};
use super::{files, stamp};
use crate::setting::{AUDIT_ANCHOR_CA, AUDIT_ANCHOR_FILE, AUDIT_ANCHOR_SYSLOG, AUDIT_ANCHOR_TSA};
use crate::{Cx, object_key};
use futures::future::BoxFuture;
use model::{ConditionStatus, Error, Result, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long one anchor may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// After a failure it is tried again so soon ...
const AGAIN: Duration = Duration::from_secs(5);
/// ... and at last so seldom.
const SELDOM: Duration = Duration::from_secs(60);
/// A head that has not left the machine for so long is missed.
const MISSED: Duration = Duration::from_secs(120);
/// Stamps that are kept here: at one a minute, those of a day.
const STAMPS: usize = 1440;
/// Where syslog over TLS listens (RFC 5425, section 4.1).
const SYSLOG_PORT: u16 = 6514;
/// Facility "log audit", severity "notice" (RFC 5424, section 6.2.1).
const PRIORITY: u8 = 13 * 8 + 5;

/// One place where heads go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Anchor {
    /// `file`, `syslog` or `stamps of`, and where.
    pub target: String,
    /// The last row whose head is there.
    pub seq: u64,
    /// When it came there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// Why the last try failed, or why it is worth little; empty when all is well.
    pub trouble: String,
    /// Whether a head that is there is out of reach for who takes this machine over.
    pub elsewhere: bool,
}

impl Anchor {
    /// Whether it is the file, and a head is in it.
    pub(super) fn has_file(&self) -> bool {
        self.target.starts_with("file ") && self.seq > 0
    }
}

/// Carries messages to a log server, and questions to a time stamp authority. A part of the api process, which can speak
/// TLS.
pub trait Carrier: Send + Sync {
    /// Sends one framed message to `host:port` over TLS and returns once the server has taken it. `ca`: whom to trust.
    fn carry<'a>(
        &'a self,
        host: &'a str,
        port: u16,
        ca: &'a Path,
        message: &'a [u8],
    ) -> BoxFuture<'a, Result<()>>;

    /// Posts a question to a URL and gives the body of its answer, when that is a success of at most so many bytes.
    fn post<'a>(
        &'a self,
        url: &'a str,
        content_type: &'a str,
        body: Vec<u8>,
        longest: usize,
    ) -> BoxFuture<'a, Result<Vec<u8>>>;
}

/// The part.
pub struct AnchorCarrier(pub Arc<dyn Carrier>);

/// What the setting of the anchor file says, when it says anything.
pub(super) fn file_of(cx: &Cx) -> Option<PathBuf> {
    let path = PathBuf::from(AUDIT_ANCHOR_FILE.text(cx));
    (!path.as_os_str().is_empty()).then_some(path)
}

/// The file itself: in a folder it has a name by its node. Asks a disk that may be away, so it blocks for as long as that
/// likes.
fn file_in(path: PathBuf, node: &str) -> PathBuf {
    match path.is_dir() {
        true => path.join(format!("{node}.heads")),
        false => path,
    }
}

/// The text of an anchor file, as far as it can be read; empty when there is none yet.
///
/// # Errors
/// When it is away, or does not answer in time.
pub(super) async fn text_of(path: PathBuf, node: &str) -> Result<String> {
    let (shown, node) = (path.display().to_string(), node.to_owned());
    let read = on_its_own("anchor-read", move || {
        let file = file_in(path, &node);
        match std::fs::read(&file) {
            // A damaged line is one head less, not all of them.
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => {
                Err(Error::unavailable(format!("{}: {error}", file.display())).because(error))
            }
        }
    })?;
    let late = || {
        Error::unavailable(format!(
            "the anchor {shown} did not answer within {} s",
            PATIENCE.as_secs()
        ))
    };
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(text)) => text,
        _ => Err(late()),
    }
}

/// Does something on a thread of its own: a mount that hangs takes that one with it, and no other work.
fn on_its_own<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<oneshot::Receiver<T>> {
    let (answer, done) = oneshot::channel();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || drop(answer.send(work())))
        .map_err(|e| Error::internal("start a thread for the anchor").because(e))?;
    Ok(done)
}

/// The one try at the file that may be under way.
#[derive(Default)]
struct Hand(Option<oneshot::Receiver<Result<bool>>>);

impl Hand {
    /// Adds heads to the file, unless the last try still hangs.
    async fn add(
        &mut self,
        path: PathBuf,
        lines: Vec<Head>,
        rows: PathBuf,
        node: &str,
    ) -> Result<bool> {
        if let Some(running) = &mut self.0 {
            match running.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => {
                    return Err(Error::unavailable("the try before it still hangs there"));
                }
                // What it did is done again: the same head twice does no harm.
                _ => self.0 = None,
            }
        }
        let node = node.to_owned();
        let begun = on_its_own("anchor", move || add(&file_in(path, &node), lines, &rows))?;
        let running = self.0.insert(begun);
        let done = running.await;
        self.0 = None;
        done.map_err(|_| Error::internal("anchor the audit trail"))?
    }
}

/// Whether heads stay on the machine: the condition `AuditUnanchored`.
pub(super) fn unanchored(
    anchors: &[Anchor],
    sealed: Option<&Head>,
    now: Timestamp,
) -> (ConditionStatus, &'static str, String) {
    if anchors.is_empty() {
        let message = "no head of the audit trail leaves this machine: who takes it over can cut the end off unseen. Set \
                       audit-anchor-file to a folder on other storage, audit-anchor-syslog to a log server, or \
                       audit-anchor-tsa to a time stamp authority";
        return (ConditionStatus::True, "NoAnchor", message.into());
    }
    let newest = sealed.map_or(0, |head| head.seq);
    // There is always a younger seal where much is done: what counts is when the anchor got its last.
    let lately = |a: &Anchor| a.time.is_some_and(|time| now.since(time) <= MISSED);
    let good = |a: &&Anchor| a.elsewhere && (a.seq >= newest || lately(a));
    if anchors.iter().any(|a| good(&a)) {
        return (ConditionStatus::False, "Anchored", String::new());
    }
    let troubles: Vec<String> = anchors
        .iter()
        .map(|a| format!("{}: {}", a.target, a.trouble))
        .collect();
    (ConditionStatus::True, "AnchorsFail", troubles.join("; "))
}

/// Brings each new head to the anchors, and tries again where that failed.
pub(super) async fn deliver(cx: Cx, part: Arc<AuditTrail>, trail: Arc<FileTrail>) {
    let stop = cx.shutdown();
    let mut standing = trail.standing();
    let mut wait = AGAIN;
    let mut hand = Hand::default();
    loop {
        let changed = [
            &AUDIT_ANCHOR_FILE,
            &AUDIT_ANCHOR_SYSLOG,
            &AUDIT_ANCHOR_CA,
            &AUDIT_ANCHOR_TSA,
        ]
        .map(|setting| Box::pin(setting.changed(&cx)));
        let sealed = standing.borrow_and_update().sealed.clone();
        let before = part.anchors();
        let now = bring(&cx, &trail, sealed.as_ref(), &before, &mut hand).await;
        let failing = now
            .iter()
            .any(|a| a.seq < sealed.as_ref().map_or(0, |h| h.seq));
        if now != before {
            part.set_anchors(now);
            cx.wake(&object_key(KIND.name, None, cx.node()));
        }
        let pause = wait;
        let again = async {
            match failing {
                true => tokio::time::sleep(pause).await,
                false => std::future::pending().await,
            }
        };
        wait = match failing {
            true => (wait * 2).min(SELDOM),
            false => AGAIN,
        };
        tokio::select! {
            () = stop.cancelled() => return,
            _ = futures::future::select_all(changed) => {}
            _ = standing.wait_for(|now| now.sealed != sealed) => {}
            () = again => {}
        }
    }
}

/// One try at each anchor that is behind.
async fn bring(
    cx: &Cx,
    trail: &FileTrail,
    head: Option<&Head>,
    before: &[Anchor],
    hand: &mut Hand,
) -> Vec<Anchor> {
    let mut out = Vec::new();
    let known = |target: &str| {
        let found = before.iter().find(|a| a.target == target);
        found.cloned().unwrap_or_else(|| Anchor {
            target: target.to_owned(),
            ..Anchor::default()
        })
    };
    if let Some(path) = file_of(cx) {
        let anchor = known(&format!("file {}", path.display()));
        let rows = trail.places().0.to_owned();
        let lines = [Some(trail.genesis().clone()), head.cloned()];
        let lines = lines.into_iter().flatten().collect();
        let bring = hand.add(path, lines, rows, cx.node());
        out.push(tried(cx, anchor, head, bring).await);
    }
    let server = AUDIT_ANCHOR_SYSLOG.text(cx);
    if !server.is_empty() {
        let anchor = known(&format!("syslog {server}"));
        out.push(tried(cx, anchor, head, send(cx, &server, head)).await);
    }
    let authority = AUDIT_ANCHOR_TSA.text(cx);
    if !authority.is_empty() {
        let anchor = known(&format!("stamps of {authority}"));
        let folder = trail.stamps();
        out.push(tried(cx, anchor, head, stamped(cx, &authority, &folder, head)).await);
    }
    out
}

/// Brings a head to an anchor that does not have it. The work answers whether the anchor is elsewhere.
async fn tried(
    cx: &Cx,
    mut anchor: Anchor,
    head: Option<&Head>,
    bring: impl Future<Output = Result<bool>>,
) -> Anchor {
    let Some(head) = head.filter(|head| head.seq > anchor.seq) else {
        return anchor;
    };
    let late = || Error::unavailable(format!("no answer within {} s", PATIENCE.as_secs()));
    let done = tokio::time::timeout(PATIENCE, bring).await;
    match done.unwrap_or_else(|_| Err(late())) {
        Ok(elsewhere) => {
            anchor.seq = head.seq;
            anchor.time = Some(cx.clock().now());
            anchor.elsewhere = elsewhere;
            anchor.trouble = match elsewhere {
                true => String::new(),
                false => "is on the same file system as the trail itself".into(),
            };
        }
        Err(error) => {
            tracing::warn!(target = %anchor.target, ?error, "a head of the audit trail could not be anchored");
            anchor.trouble = match error.hint {
                Some(hint) => format!("{} ({hint})", error.message),
                None => error.message,
            };
        }
    }
    anchor
}

/// Adds heads to a file, after its first line when it is new. Answers whether the file is on another file system than
/// the rows. A file that holds anything else is not touched.
fn add(path: &Path, lines: Vec<Head>, rows: &Path) -> Result<bool> {
    let failed = |e: std::io::Error| {
        let error = Error::unavailable(format!("{}: {e}", path.display()));
        match e.kind() {
            std::io::ErrorKind::ReadOnlyFilesystem => error.hint(
                "the unit of the daemon may write nowhere else: allow it with a drop-in, `systemctl edit debvisord`: [Service] ReadWritePaths=...",
            ),
            _ => error,
        }
        .because(e)
    };
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(NO_FOLLOW)
        .open(path)
        .map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(Error::refused(format!(
            "{} is not a plain file",
            path.display()
        )));
    }
    let mut first = String::new();
    BufReader::new((&file).take(4096))
        .read_line(&mut first)
        .map_err(failed)?;
    let fresh = meta.len() == 0;
    if !fresh && Head::parse(&first).is_none() {
        return Err(Error::refused(format!(
            "{} holds something else than heads",
            path.display()
        ))
        .hint("name a file that is not there yet, or a folder"));
    }
    let skip = usize::from(!fresh);
    let text: String = lines.iter().skip(skip).map(Head::line).collect();
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    if fresh && let Some(folder) = path.parent() {
        File::open(folder)
            .and_then(|f| f.sync_all())
            .map_err(failed)?;
    }
    let there = std::fs::metadata(rows).map_err(failed)?;
    Ok(there.dev() != meta.dev())
}

/// `O_NOFOLLOW` of Linux: not through a link that somebody may have put there.
const NO_FOLLOW: i32 = 0o400_000;

async fn send(cx: &Cx, server: &str, head: Option<&Head>) -> Result<bool> {
    let Some(head) = head else { return Ok(true) };
    let carrier = cx
        .try_part::<AnchorCarrier>()
        .ok_or_else(|| Error::refused("this process cannot speak to a log server"))?;
    let (host, port) = address(server).map_err(Error::refused)?;
    let ca = AUDIT_ANCHOR_CA.text(cx);
    if ca.is_empty() {
        return Err(Error::refused(
            "the setting audit-anchor-ca names no certificate authority to know the log server by",
        ));
    }
    let message = framed(&message(cx.node(), head));
    let call = || {
        carrier
            .0
            .carry(host, port, Path::new(&ca), message.as_bytes())
    };
    cx.dependencies()
        .named(&format!("log server {host}"))
        .call(call)
        .await?;
    Ok(true)
}

/// Has a head stamped. The stamp and the line that it is of are kept beside the keys; a copy of both proves to anybody that
/// the trail went so far at that time.
async fn stamped(cx: &Cx, url: &str, folder: &Path, head: Option<&Head>) -> Result<bool> {
    let Some(head) = head else { return Ok(true) };
    let carrier = cx
        .try_part::<AnchorCarrier>()
        .ok_or_else(|| Error::refused("this process cannot speak to a time stamp authority"))?;
    let host = stamper(url).map_err(Error::refused)?;
    let line = head.line();
    let hash = stamp::imprint(&line);
    let mut nonce = [0; 8];
    cx.clock().fill(&mut nonce);
    let question = stamp::request(&hash, nonce);
    let sort = "application/timestamp-query";
    let call = || carrier.0.post(url, sort, question.clone(), stamp::LONGEST);
    let answer = cx
        .dependencies()
        .named(&format!("time stamp authority {host}"))
        .call(call)
        .await?;
    stamp::check(&answer, &hash, nonce)?;
    let (folder, seq) = (folder.to_owned(), head.seq);
    let kept = tokio::task::spawn_blocking(move || -> Result<()> {
        files::folder(&folder)?;
        files::replace(&folder.join(format!("{seq:020}.head")), &line)?;
        files::replace(&folder.join(format!("{seq:020}.tsr")), answer)?;
        // The two that came now are the last by name.
        let _ = files::keep_last(&folder, 2 * STAMPS);
        Ok(())
    });
    kept.await
        .map_err(|e| Error::internal("keep a time stamp").because(e))??;
    Ok(true)
}

/// The host of a time stamp authority. Its answers are signed, so that plain `http` will do.
pub(crate) fn stamper(url: &str) -> std::result::Result<&str, String> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .ok_or_else(|| format!("`{url}` is no URL with http or https"))?;
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match !host.is_empty() && !host.contains('@') && !url.contains(char::is_whitespace) {
        true => Ok(host),
        false => Err(format!("`{url}` names no host")),
    }
}

/// Host and port of a log server. The port may be left out.
pub(crate) fn address(server: &str) -> std::result::Result<(&str, u16), String> {
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
            let port = port
                .parse()
                .map_err(|_| format!("`{port}` is not a port"))?;
            (host, port)
        }
        _ => (server, SYSLOG_PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let fits = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
    match !host.is_empty() && host.len() <= 253 && host.chars().all(fits) {
        true => Ok((host, port)),
        false => Err(format!("`{host}` is not the name or address of a host")),
    }
}

/// A head as a message of RFC 5424.
fn message(node: &str, head: &Head) -> String {
    let line = head.line();
    format!(
        "<{PRIORITY}>1 {} {node} debvisord - AUDITHEAD - {}",
        head.time,
        line.trim_end()
    )
}

/// Framed by its length, as RFC 5425 has it (section 4.3).
fn framed(message: &str) -> String {
    format!("{} {message}", message.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_a_host_and_perhaps_a_port() {
        assert_eq!(address("log.example.org"), Ok(("log.example.org", 6514)));
        assert_eq!(address("10.0.0.7:10514"), Ok(("10.0.0.7", 10514)));
        assert_eq!(address("[2001:db8::7]:6515"), Ok(("2001:db8::7", 6515)));
        assert_eq!(address("2001:db8::7"), Ok(("2001:db8::7", 6514)));
        for bad in ["", ":6514", "host:port", "a b", "host:99999", "h;rm -rf"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_anchor_that_has_died_is_missed_also_while_seals_go_on() {
        let at = |seconds: i64| Timestamp::from_millis(1_700_000_000_000 + seconds * 1000);
        let sealed = |seq: u64, seconds: i64| Head {
            seq,
            ..Head::genesis([7; 16], [9; 32], at(seconds))
        };
        let anchor = |seq: u64, seconds: i64, elsewhere: bool| Anchor {
            target: "syslog x".into(),
            seq,
            time: Some(at(seconds)),
            elsewhere,
            ..Anchor::default()
        };
        for (anchors, head, now, stands) in [
            (vec![], sealed(9, 0), 0, true),
            (vec![anchor(9, 0, true)], sealed(9, 0), 100_000, false),
            (vec![anchor(9, 0, true)], sealed(12, 60), 70, false),
            // A seal each minute, none of which gets there.
            (vec![anchor(9, 0, true)], sealed(99, 600), 610, true),
            (vec![anchor(9, 0, false)], sealed(9, 0), 10, true),
            (
                vec![anchor(9, 0, true), anchor(99, 600, true)],
                sealed(99, 600),
                610,
                false,
            ),
        ] {
            let (status, reason, _) = unanchored(&anchors, Some(&head), at(now));
            assert_eq!(status == ConditionStatus::True, stands, "{reason}");
        }
    }

    #[tokio::test]
    async fn a_file_that_hangs_is_tried_by_one_thread_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let (answer, done) = oneshot::channel();
        let mut hand = Hand(Some(done));
        let (rows, file) = (dir.path().to_owned(), dir.path().join("heads"));
        let genesis = Head::genesis([7; 16], [9; 32], Timestamp::from_millis(0));
        let mut try_it = async || {
            let lines = vec![genesis.clone()];
            hand.add(file.clone(), lines, rows.clone(), "n").await
        };
        for _ in 0..3 {
            let error = try_it().await.unwrap_err();
            assert!(error.message.contains("still hangs"), "{error}");
        }
        assert!(!file.exists(), "nobody else tried");
        answer.send(Ok(true)).unwrap();
        try_it().await.unwrap();
        let text = text_of(file.clone(), "n").await.unwrap();
        assert_eq!(text, genesis.line());
        std::fs::write(&file, b"\xff\xfe\n").unwrap();
        assert!(text_of(file, "n").await.unwrap().contains('\u{fffd}'));
        let away = dir.path().join("heads/below");
        text_of(away, "n").await.unwrap_err();
    }

    #[test]
    fn a_message_says_who_and_can_be_read_back() {
        let mut head = Head::genesis([7; 16], [9; 32], Timestamp::from_millis(1_700_000_000_000));
        head.seq = 17;
        let text = message("node1", &head);
        assert!(
            text.starts_with("<109>1 2023-11-14T22:13:20Z node1 debvisord - AUDITHEAD - {"),
            "{text}"
        );
        assert_eq!(Head::parse(&text), Some(head));
        assert_eq!(framed("abc"), "3 abc");
    }

    #[test]
    fn a_file_gets_the_first_line_once_and_nothing_foreign_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("heads");
        let genesis = Head::genesis([7; 16], [9; 32], Timestamp::from_millis(0));
        let second = Head {
            seq: 5,
            ..genesis.clone()
        };
        for _ in 0..2 {
            let elsewhere = add(&path, vec![genesis.clone(), second.clone()], dir.path());
            assert!(!elsewhere.unwrap(), "beside the rows");
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            [genesis.line(), second.line(), second.line()].concat()
        );
        let foreign = dir.path().join("notes");
        std::fs::write(&foreign, "my notes\n").unwrap();
        add(&foreign, vec![genesis.clone()], dir.path()).unwrap_err();
        assert_eq!(std::fs::read_to_string(&foreign).unwrap(), "my notes\n");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        add(&link, vec![genesis], dir.path()).unwrap_err();
    }
}
