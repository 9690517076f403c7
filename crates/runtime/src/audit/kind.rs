//! The kind `audit-chain`: the chain of rows that a process keeps, as people look at it. There is one object for each
//! process that keeps one, with the name of its node.
//!
//! **Invariant.** Nothing here changes a row. What is destroyed are keys of persons, and only on demand.

use super::anchors;
use super::head::Head;
use super::reading;
use super::subjects::KeyCounts;
use super::verify::{Verdict, heads_of, verify};
use super::{
    AuditTrail, BROKEN, FileTrail, KEYS_ROTATED, Note, SUBJECT_ERASED, VERIFIED, files, note,
};
use crate::{
    Actor, Controller, Cx, Next, Op, Place, Proc, Run, Seat, Subsystem, normal, nothing_to_admit,
};
use futures::future::BoxFuture;
use model::{
    Action, Column, Condition, ConditionStatus, Danger, Error, Kind, Resource, Result, Scope,
    StreamKind, Timestamp, Unit, Verb, Way, What, WorkStyle, schema,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use store::Key;

/// Heads that one request may name.
const MOST_HEADS: usize = 200;
/// Heads of an anchor that are compared.
const MOST_ANCHORED: usize = 1_000_000;

/// The audit trail of one process.
pub struct AuditChain;

impl Resource for AuditChain {
    const KIND: &'static Kind = &KIND;
    type Spec = ChainSpec;
    type Status = ChainStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "audit-chain",
    plural: "audit-chains",
    title: "Audit chain",
    scope: Scope::Cluster,
    doc: "Who did what, as a chain of rows that nobody can change unseen: each row has the hash of the one before it, and the chain is signed every 1000 rows or 60 s by a key that is then erased. `dvctl audit` is the short way to it.",
    verbs: Verb::READ,
    spec: schema::of::<ChainSpec>,
    status: schema::of::<ChainStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("rows", "status.seq").unit(Unit::Count),
        Column::new("sealed", "status.sealed_to").unit(Unit::Count),
        Column::new("anchored", "status.anchored_to").unit(Unit::Count),
        Column::new("sealed-at", "status.sealed_at").unit(Unit::Age),
        Column::new("hash", "status.hash").wide(),
    ],
    actions: &[
        Action {
            verb: "verify",
            doc: "Looks through the whole chain, its signatures and the heads that were anchored, and names the first row that is not as it was written.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::of::<VerifyInput>,
            claims: &[],
            deadline: 3600,
            event: "verified",
            examples: &["dvctl audit-chain verify node1"],
        },
        Action {
            verb: "rotate-keys",
            doc: "Gives every person a new version of the key that seals what rows say of him. Older versions still open older rows.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::empty,
            claims: &["keys"],
            deadline: 600,
            event: "keys-rotated",
            examples: &["dvctl audit-chain rotate-keys node1"],
        },
        Action {
            verb: "erase",
            doc: "Destroys the key of a person: his name, addresses and whatever else rows say of him personally cannot be read any more, by nobody. The chain still verifies.",
            danger: Danger::Destroys,
            style: WorkStyle::Procedure,
            input: schema::of::<EraseInput>,
            claims: &["keys"],
            deadline: 600,
            event: "subject-erased",
            examples: &["dvctl audit-chain erase node1 --subject anna"],
        },
        Action {
            verb: "restrict",
            doc: "Shows nothing personal of a person until it is lifted again. His rows are still written.",
            danger: Danger::Disrupts,
            style: WorkStyle::Procedure,
            input: schema::of::<RestrictInput>,
            claims: &["keys"],
            deadline: 600,
            event: "subject-restricted",
            examples: &["dvctl audit-chain restrict node1 --subject anna --on"],
        },
    ],
    streams: &[
        StreamKind {
            name: "rows",
            doc: "Rows as lines of JSON, oldest first: the newest ones that fit.",
            way: Way::Read,
            ticketed: false,
            input: schema::of::<reading::Wanted>,
        },
        StreamKind {
            name: "export",
            doc: "All rows of a time as lines of JSON, each with its bytes as they were hashed. What is personal only with `decrypt`. That it was read is a row of its own.",
            way: Way::Read,
            ticketed: false,
            input: schema::of::<reading::Exported>,
        },
    ],
    examples: &[
        "dvctl audit-chain rows node1 --since 1h",
        "dvctl audit-chain show node1 -o yaml",
        "dvctl audit-chain verify node1",
        "dvctl audit-chain rows node1 --failures",
    ],
};

/// Nothing is chosen about a chain; where its heads go is told by settings.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChainSpec {}

/// What a chain is, as of its last seal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ChainStatus {
    /// Names the chain.
    pub chain: String,
    /// Number of its last row.
    pub seq: u64,
    /// SHA-256 of that row.
    pub hash: String,
    /// The oldest row that is kept.
    pub first: u64,
    /// The last row that is signed.
    pub sealed_to: u64,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed_at: Option<Timestamp>,
    /// Number of the key that signed it.
    pub epoch: u64,
    /// The key that must sign next.
    pub next_key: String,
    /// The last row whose head has left the machine.
    pub anchored_to: u64,
    /// Where heads go, and how that went.
    pub anchors: Vec<anchors::Anchor>,
    /// How the keys of persons stand.
    pub keys: KeyCounts,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// `AuditUnanchored`: no head leaves the machine. `Sound`: what the last look has found.
    pub conditions: Vec<Condition>,
}

/// What a chain is compared with.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VerifyInput {
    /// Lines of an anchor that is kept elsewhere, each a head as JSON. At most 200.
    #[schemars(length(max = 200))]
    pub heads: Vec<String>,
}

/// Who is to be erased.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EraseInput {
    /// The name of the user.
    #[schemars(extend("x-personal" = true, "x-subject" = true), length(min = 1, max = 256))]
    pub subject: String,
}

/// Whose rows are to be restricted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestrictInput {
    /// The name of the user.
    #[schemars(extend("x-personal" = true, "x-subject" = true), length(min = 1, max = 256))]
    pub subject: String,
    /// Whether; `false` lifts it.
    pub on: bool,
}

/// The kind `audit-chain`.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<AuditChain>,
    admit: nothing_to_admit,
    runs: &[
        ("verify", Run::Procedure(|proc| Box::pin(look(proc)))),
        ("rotate-keys", Run::Procedure(|proc| Box::pin(rotate(proc)))),
        ("erase", Run::Procedure(|proc| Box::pin(erase(proc)))),
        ("restrict", Run::Procedure(|proc| Box::pin(restrict(proc)))),
    ],
    undos: &[],
    streams: &[("rows", reading::rows), ("export", reading::export)],
    finalizes: false,
    controllers: |_| vec![Arc::new(Show)],
};

/// Makes the object of this process's chain. For the api, at its start.
///
/// # Errors
/// When the store refuses.
pub async fn make(cx: &Cx) -> Result<()> {
    if cx.try_part::<FileTrail>().is_none() || cx.get::<AuditChain>(None, cx.node()).is_some() {
        return Ok(());
    }
    let op = Op::Create {
        kind: KIND.name.into(),
        project: None,
        body: json!({ "metadata": { "name": cx.node() }, "spec": {} }),
    };
    match cx.submit(op, "audit").await {
        Err(error) if error.what != What::Exists => Err(error),
        _ => Ok(()),
    }
}

/// The trail that an object of this name stands for.
pub(super) fn trail(cx: &Cx, name: &str) -> Result<Arc<FileTrail>> {
    match cx.try_part::<FileTrail>() {
        Some(trail) if name == cx.node() => Ok(trail),
        _ => Err(Error::unavailable(format!(
            "the audit chain `{name}` is kept by another process, which does not answer here"
        ))),
    }
}

fn own(proc: &Proc) -> Result<Arc<FileTrail>> {
    trail(proc.cx(), &proc.target().name)
}

/// The heads that are known here: those kept beside the keys, the last seal, and the file they are anchored in.
async fn known_heads(cx: &Cx, trail: &FileTrail) -> Result<Vec<Head>> {
    let own = trail.places().1.to_owned();
    let read = move || Ok(files::read(&own)?.unwrap_or_default());
    let mut text: String = tokio::task::spawn_blocking(read)
        .await
        .map_err(|e| Error::internal("heads of the audit trail").because(e))??;
    if let Some(anchor) = anchors::file_of(cx) {
        // Sound without the anchor would say what nobody has looked at.
        let hint = "bring it back; what is here alone: debvisord audit verify";
        let found = anchors::text_of(anchor.clone(), cx.node()).await;
        let found = found.map_err(|error| error.hint(hint))?;
        let part = cx.try_part::<AuditTrail>();
        let anchored =
            part.is_some_and(|part| part.anchors().iter().any(anchors::Anchor::has_file));
        if found.is_empty() && anchored {
            return Err(Error::unavailable(format!(
                "the anchor {} is gone: heads were written to it",
                anchor.display()
            ))
            .hint(hint));
        }
        text.push_str(&found);
    }
    let mut heads = heads_of(&text, MOST_ANCHORED);
    heads.extend(trail.standing().borrow().sealed.clone());
    Ok(heads)
}

async fn look(proc: Proc) -> Result<Value> {
    let verdict: Verdict = proc
        .step("look through the chain", async || {
            let input: VerifyInput = proc.params()?;
            let cx = proc.cx();
            let trail = own(&proc)?;
            // So that all that is there is signed.
            trail.seal().await?;
            let mut heads = known_heads(cx, &trail).await?;
            for line in input.heads.iter().take(MOST_HEADS) {
                heads.push(Head::parse(line).ok_or_else(|| {
                    Error::field("heads", format!("`{line}` is not a line of an anchor"))
                })?);
            }
            let rows = trail.places().0.to_owned();
            tokio::task::spawn_blocking(move || verify(&rows, heads))
                .await
                .map_err(|e| Error::internal("verify the audit trail").because(e))?
        })
        .await?;
    let cx = proc.cx();
    let key = cx.key::<AuditChain>(None, &proc.target().name);
    let now = cx.clock().now();
    let (holds, reason) = match verdict.sound {
        true => (ConditionStatus::True, "Verified"),
        false => (ConditionStatus::False, "Broken"),
    };
    let sentence = verdict.sentence();
    cx.set_status::<AuditChain>(&key, |status| {
        Condition::set(
            &mut status.conditions,
            "Sound",
            holds,
            reason,
            &sentence,
            now,
        );
    })
    .await?;
    let happening = match verdict.sound {
        true => &VERIFIED,
        false => &BROKEN,
    };
    let found = Note::by(happening, &Actor::system("audit")).with("found", sentence.clone());
    note(cx, found).await?;
    match verdict.sound {
        true => serde_json::to_value(verdict)
            .map_err(|e| Error::internal("verdict of the audit trail").because(e)),
        false => Err(Error::refused(format!("the audit trail is broken: {sentence}"))
            .hint("keep a copy of its folder as it is; compare the rows with your anchors and backups")),
    }
}

async fn rotate(proc: Proc) -> Result<Value> {
    let subjects: u64 = proc
        .step("rotate", async || own(&proc)?.rotate_keys().await)
        .await?;
    let done = Note::by(&KEYS_ROTATED, &Actor::system("audit")).with("subjects", subjects);
    note(proc.cx(), done).await?;
    show_again(&proc);
    Ok(json!({ "subjects": subjects }))
}

async fn erase(proc: Proc) -> Result<Value> {
    let input: EraseInput = proc.params()?;
    proc.step("look for the subject", async || {
        known(&proc, &input.subject)
    })
    .await?;
    // Again after a crash: then he is gone already.
    proc.step("destroy the key", async || {
        own(&proc)?.erase(&input.subject).await
    })
    .await?;
    note(
        proc.cx(),
        Note::by(&SUBJECT_ERASED, &Actor::system("audit")),
    )
    .await?;
    show_again(&proc);
    Ok(Value::Null)
}

async fn restrict(proc: Proc) -> Result<Value> {
    let input: RestrictInput = proc.params()?;
    known(&proc, &input.subject)?;
    proc.step("restrict", async || {
        own(&proc)?.restrict(&input.subject, input.on).await
    })
    .await?;
    show_again(&proc);
    Ok(Value::Null)
}

fn known(proc: &Proc, subject: &str) -> Result<()> {
    match own(proc)?.subjects().knows(subject) {
        true => Ok(()),
        false => Err(Error::not_found(format!(
            "no row of the audit trail is about a person `{subject}`"
        ))
        .hint("the name is that of the user, as `dvctl audit list` shows it")),
    }
}

fn show_again(proc: &Proc) {
    let cx = proc.cx();
    cx.wake(&cx.key::<AuditChain>(None, &proc.target().name));
}

/// Says where the chain stands, at each seal and anchor.
struct Show;

impl Controller for Show {
    fn name(&self) -> &'static str {
        "audit-chain"
    }
    fn owns(&self) -> &'static Kind {
        &KIND
    }
    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            let found = (cx.try_part::<FileTrail>(), cx.try_part::<AuditTrail>());
            let (Some(trail), Some(part)) = found else {
                return Ok(Next::Settled);
            };
            if *key != cx.key::<AuditChain>(None, cx.node()) {
                return Ok(Next::Settled);
            }
            let standing = trail.standing().borrow().clone();
            let anchors = part.anchors();
            let keys = trail.key_counts();
            let now = cx.clock().now();
            cx.set_status::<AuditChain>(key, |status| {
                status.chain = hex::encode(trail.chain());
                status.first = standing.first;
                if let Some(sealed) = &standing.sealed {
                    // The seal itself is a row too, and the last one then.
                    status.seq = sealed.seq + 1;
                    status.sealed_to = sealed.seq;
                    status.hash = hex::encode(sealed.hash);
                    status.sealed_at = Some(sealed.time);
                    status.epoch = sealed.epoch;
                    status.next_key = hex::encode(sealed.next_key);
                }
                status.anchored_to = anchors.iter().map(|a| a.seq).max().unwrap_or(0);
                status.anchors.clone_from(&anchors);
                status.keys = keys;
                if let Some(why) = trail.is_cut() {
                    let sound = ConditionStatus::False;
                    Condition::set(&mut status.conditions, "Sound", sound, "Cut", why, now);
                }
                let (holds, reason, message) =
                    anchors::unanchored(&anchors, standing.sealed.as_ref(), now);
                Condition::set(
                    &mut status.conditions,
                    "AuditUnanchored",
                    holds,
                    reason,
                    &message,
                    now,
                );
            })
            .await?;
            Ok(Next::Again(Duration::from_secs(300)))
        })
    }
}
