//! What holds for all API keys, as one object, `default`: how many there are in which state, what is done to all of them at
//! once, and for how long an old secret works on. `dvctl api-key stats|check-expiring|cleanup|auto-rotate` is the short way
//! to it.
//!
//! **Invariants.** Its status has numbers only: whoever may not read a key learns no name here. What is done to all keys is
//! what the hourly look at each key does by itself, so that doing it again changes nothing.

use super::types::{ApiKeySpec, State};
use super::{ApiKey, KIND as KEY, hook, rules, target};
use futures::future::BoxFuture;
use model::{
    Action, Column, Condition, Danger, Error, Kind, Resource, Result, Scope, StreamKind, Timestamp,
    Verb, Way, What, WorkStyle, schema,
};
use parking_lot::Mutex;
use runtime::{
    Controller, Cx, Draft, Key, Next, Op, Place, Proc, Row, Run, Seat, StreamIo, StreamRequest,
    Subsystem, Watch, normal,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// The name of the only object.
pub const DEFAULT: &str = "default";

/// How often the numbers may change at most.
const CALM: Duration = Duration::from_secs(2);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Ties the kind to its types.
pub struct ApiKeyPolicy;

impl Resource for ApiKeyPolicy {
    const KIND: &'static Kind = &KIND;
    type Spec = ApiKeyPolicySpec;
    type Status = ApiKeyPolicyStatus;
}

/// The declaration.
pub static KIND: Kind = Kind {
    name: "api-key-policy",
    plural: "api-key-policies",
    title: "Policy of API keys",
    scope: Scope::Cluster,
    doc: "What holds for all API keys, and what is done to all of them at once. There is one, `default`. `dvctl api-key stats` is the short way to its numbers, and `dvctl api-key VERB` to its verbs.",
    verbs: &[Verb::Read, Verb::Update],
    spec: schema::of::<ApiKeyPolicySpec>,
    status: schema::of::<ApiKeyPolicyStatus>,
    columns: &[
        Column::new("name", "metadata.name"),
        Column::new("waiting", "status.waiting"),
        Column::new("active", "status.active"),
        Column::new("expiring", "status.expiring"),
        Column::new("expired", "status.expired"),
        Column::new("revoked", "status.revoked"),
        Column::new("next-end", "status.next_end"),
        Column::new("overlap-hours", "spec.overlap_hours").wide(),
        Column::new("approval", "spec.approval").wide(),
        Column::new("webhook", "spec.webhook.url").wide(),
    ],
    actions: &[
        action(
            "cleanup",
            "Deletes all keys that ended a year ago or earlier, as is done once an hour.",
            Danger::Destroys,
            "cleaned-up",
            &["dvctl api-key cleanup"],
        ),
        action(
            "auto-rotate",
            "Rotates all keys that end within 14 days and have `auto_rotate`, as is done once an hour. With `approval` this is how a person lets them.",
            Danger::Disrupts,
            "rotated-due",
            &["dvctl api-key auto-rotate"],
        ),
        Action {
            verb: "test",
            doc: "Posts a test message to the webhook, and says whether it is taken.",
            danger: Danger::None,
            style: WorkStyle::Procedure,
            input: schema::empty,
            claims: &[],
            deadline: 120,
            event: "tested",
            examples: &["dvctl api-key-policy test default"],
        },
    ],
    streams: &[StreamKind {
        name: "check-expiring",
        doc: "The keys that end soon and that you may see, the next one first, as lines of JSON.",
        way: Way::Read,
        ticketed: false,
        input: schema::of::<Soon>,
    }],
    examples: &[
        "dvctl api-key stats",
        "dvctl api-key check-expiring --days 30",
        "dvctl api-key-policy set default --overlap-hours 24",
        "dvctl api-key-policy set default --approval",
        "dvctl api-key-policy set default --webhook url=https://ops.example.org/keys,secret=default/key-hook",
    ],
};

const fn action(
    verb: &'static str,
    doc: &'static str,
    danger: Danger,
    event: &'static str,
    examples: &'static [&'static str],
) -> Action {
    Action {
        verb,
        doc,
        danger,
        style: WorkStyle::Procedure,
        input: schema::empty,
        claims: &["keys"],
        deadline: 3600,
        event,
        examples,
    }
}

/// What people want of all API keys.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-keeps" = "api-key"))]
pub struct ApiKeyPolicySpec {
    /// For how many hours the old secret of a rotated key works on when `rotate` does not say, at most 7 days.
    #[serde(default = "overlap")]
    #[schemars(range(min = 0, max = 168))]
    pub overlap_hours: u32,
    /// Whether a person must let keys rotate that have `auto_rotate`: then it is only said that it is time, until
    /// `auto-rotate`, or `rotate` of the key, is asked for.
    #[serde(default)]
    pub approval: bool,
    /// Where it is posted that a key ends soon, or has ended; nowhere when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

/// Where messages are posted, signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Its address: `https`, or `http` on this machine.
    #[schemars(length(min = 1, max = 500))]
    pub url: String,
    /// The secret, as `project/name`, that messages are signed with: at least 32 bytes that the receiver knows, too.
    #[schemars(length(max = 130), extend("x-ref" = "secret"))]
    pub secret: String,
    /// A certificate authority (PEM) that the receiver may be known by besides those that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100_000))]
    pub ca: Option<String>,
}

fn overlap() -> u32 {
    168
}

impl Default for ApiKeyPolicySpec {
    fn default() -> Self {
        ApiKeyPolicySpec {
            overlap_hours: overlap(),
            approval: false,
            webhook: None,
        }
    }
}

/// How many keys are in which state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ApiKeyPolicyStatus {
    /// Keys whose secret, or the next one, was not fetched yet.
    pub waiting: u64,
    /// Keys that let in.
    pub active: u64,
    /// Keys that let in, and end within 14 days.
    pub expiring: u64,
    /// Keys that have ended by their age.
    pub expired: u64,
    /// Keys that were taken back.
    pub revoked: u64,
    /// When the next of those that let in ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_end: Option<Timestamp>,
    /// Generation of its spec that was seen.
    pub observed_generation: u64,
    /// Conditions.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// The parameters of `check-expiring`.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Soon {
    /// Keys that end within so many days, at most 365; 14 when absent.
    #[serde(default = "fortnight")]
    #[schemars(range(min = 1, max = 365))]
    pub days: u32,
}

fn fortnight() -> u32 {
    14
}

/// The subsystem.
pub static SUBSYSTEM: Subsystem = Subsystem {
    kind: &KIND,
    place: Place::Api,
    seat: Seat::Api,
    normal: normal::<ApiKeyPolicy>,
    admit,
    runs: &[
        (
            "cleanup",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("delete", || cleanup(&proc)).await })
            }),
        ),
        (
            "auto-rotate",
            Run::Procedure(|proc| {
                Box::pin(async move { proc.step("rotate", || auto_rotate(&proc)).await })
            }),
        ),
        (
            "test",
            Run::Procedure(|proc| Box::pin(async move { proc.step("post", || test(&proc)).await })),
        ),
    ],
    undos: &[],
    streams: &[("check-expiring", check_expiring)],
    finalizes: false,
    controllers: |_| vec![Arc::new(Counter::default())],
};

fn admit(draft: &mut Draft<'_>) -> Result<()> {
    let old = draft.old_spec::<ApiKeyPolicy>()?;
    if draft.creating() && draft.meta.name.as_str() != DEFAULT {
        return Err(Error::field(
            "metadata.name",
            format!("is `{}`: there is one policy, `{DEFAULT}`", draft.meta.name),
        )
        .hint("dvctl api-key-policy set default"));
    }
    match &draft.spec::<ApiKeyPolicy>()?.webhook {
        Some(webhook) => hook::check(draft, webhook, old.and_then(|old| old.webhook).as_ref()),
        None => Ok(()),
    }
}

/// Makes the object. The `api` role calls it at start.
///
/// # Errors
/// When the store refuses.
pub async fn make(cx: &Cx) -> Result<()> {
    if cx.get::<ApiKeyPolicy>(None, DEFAULT).is_some() {
        return Ok(());
    }
    let op = Op::Create {
        kind: KIND.name.into(),
        project: None,
        body: json!({ "metadata": { "name": DEFAULT }, "spec": {} }),
    };
    match cx.submit(op, "first start").await {
        Err(error) if error.what != What::Exists => Err(error),
        _ => Ok(()),
    }
}

/// What holds now.
pub(super) fn in_force(cx: &Cx) -> ApiKeyPolicySpec {
    let policy = cx.get::<ApiKeyPolicy>(None, DEFAULT);
    policy.map_or_else(ApiKeyPolicySpec::default, |policy| policy.spec.clone())
}

/// Does something with each key, in order of their names, until the task is cancelled. Says how often it did.
async fn each<F>(proc: &Proc, picks: impl Fn(&ApiKeySpec) -> bool, act: F) -> Result<u64>
where
    F: Fn(&str) -> Op,
{
    let (cx, token) = (proc.cx(), proc.token());
    let mut done = 0;
    for row in cx.cache().rows(KEY.name, None) {
        if token.is_cancelled() {
            return Err(Error::refused("the task was cancelled"));
        }
        let Some(key) = cx.get_key::<ApiKey>(&row.key) else {
            continue;
        };
        if !picks(&key.spec) {
            continue;
        }
        match cx.submit(act(&row.name), "api keys").await {
            Ok(_) => done += 1,
            // Somebody was faster, or is at it: the hourly look sees to what is left.
            Err(Error {
                what:
                    What::NotFound
                    | What::Busy(_)
                    | What::Conflict(_)
                    | What::PreconditionFailed(_)
                    | What::Refused,
                ..
            }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

async fn cleanup(proc: &Proc) -> Result<Value> {
    let now = proc.cx().clock().now();
    let delete = |name: &str| Op::Delete {
        target: target(name),
        keep: Vec::new(),
    };
    let deleted = each(proc, |spec| rules::is_old(spec, now), delete).await?;
    Ok(json!({ "deleted": deleted }))
}

async fn auto_rotate(proc: &Proc) -> Result<Value> {
    let now = proc.cx().clock().now();
    let due = |spec: &ApiKeySpec| spec.auto_rotate && rules::state(spec, now) == State::Expiring;
    let rotated = each(proc, due, rules::rotation_due).await?;
    Ok(json!({ "rotated": rotated }))
}

async fn test(proc: &Proc) -> Result<Value> {
    let (cx, token) = (proc.cx(), proc.token());
    let message = json!({ "event": "test", "time": cx.clock().now() });
    tokio::select! {
        () = token.cancelled() => Err(Error::refused("the task was cancelled")),
        sent = hook::send(cx, &message) => sent.map(|()| json!({ "taken": true })),
    }
}

/// The text in a column of a key; empty when there is none.
fn column<'a>(row: &'a Row, name: &str) -> &'a str {
    let at = KEY.columns.iter().position(|column| column.name == name);
    let json = at.and_then(|at| row.columns.get(at));
    // Neither a state nor a time holds anything that JSON writes otherwise.
    json.map_or("", |json| json.trim_matches('"'))
}

/// The stream `check-expiring`.
fn check_expiring(cx: Cx, request: StreamRequest, io: StreamIo) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let target = &request.target;
        if cx.get::<ApiKeyPolicy>(None, &target.name).is_none() {
            return Err(Error::not_found(format!("there is no {target}")));
        }
        let soon: Soon = serde_json::from_value(request.params.clone())
            .map_err(|e| Error::field("days", e.to_string()))?;
        let now = cx.clock().now();
        let until = now.plus(DAY * soon.days);
        let mut found = Vec::new();
        for row in cx.cache().rows(KEY.name, None) {
            let Some(end) = Timestamp::parse(column(&row, "expires")) else {
                continue;
            };
            let seen = || {
                let (actor, name) = (&request.actor, Some(&*row.name));
                cx.gate().may(actor, None, KEY.name, "read", None, name)
            };
            if end <= now || end > until || !seen() {
                continue;
            }
            let Some(key) = cx.get_key::<ApiKey>(&row.key) else {
                continue;
            };
            if rules::lives(&key.spec, now) {
                found.push((end, row.name.clone(), key));
            }
        }
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        for (end, name, key) in found {
            let line = json!({
                "name": name, "owner": key.spec.owner, "expires": end,
                "days": end.since(now).as_secs() / DAY.as_secs(),
                "state": rules::state(&key.spec, now), "auto_rotate": key.spec.auto_rotate,
            });
            io.data(format!("{line}\n")).await?;
        }
        Ok(())
    })
}

/// Counts keys.
#[derive(Default)]
struct Counter {
    /// When they were counted last, by the clock of the process.
    counted: Mutex<Option<Timestamp>>,
}

impl Controller for Counter {
    fn name(&self) -> &'static str {
        "numbers of api keys"
    }

    fn owns(&self) -> &'static Kind {
        &KIND
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::Map(KEY.name, |cx, _| {
            vec![cx.key::<ApiKeyPolicy>(None, DEFAULT)]
        })]
    }

    fn reconcile<'a>(&'a self, cx: &'a Cx, key: &'a Key) -> BoxFuture<'a, Result<Next>> {
        Box::pin(async move {
            if cx.get_key::<ApiKeyPolicy>(key).is_none() {
                return Ok(Next::Settled);
            }
            let now = cx.clock().now();
            {
                // Each use of a key changes it: thousands of them must not be counted for each.
                let mut counted = self.counted.lock();
                let passed = counted.map(|at| now.since(at));
                if let Some(left) = passed.and_then(|passed| CALM.checked_sub(passed))
                    && !left.is_zero()
                {
                    return Ok(Next::Again(left));
                }
                *counted = Some(now);
            }
            let counts = count(&cx.cache().rows(KEY.name, None), now);
            cx.set_status::<ApiKeyPolicy>(key, |status: &mut ApiKeyPolicyStatus| {
                *status = ApiKeyPolicyStatus {
                    observed_generation: status.observed_generation,
                    conditions: std::mem::take(&mut status.conditions),
                    ..counts.clone()
                };
            })
            .await?;
            Ok(Next::Settled)
        })
    }
}

/// By what their controller says of them.
fn count(rows: &[Arc<Row>], now: Timestamp) -> ApiKeyPolicyStatus {
    let mut out = ApiKeyPolicyStatus::default();
    for row in rows {
        let lets_in = match column(row, "state") {
            "active" => {
                out.active += 1;
                true
            }
            "expiring" => {
                out.expiring += 1;
                true
            }
            "expired" => {
                out.expired += 1;
                false
            }
            "revoked" => {
                out.revoked += 1;
                false
            }
            // Its controller has not looked at a new one yet.
            _ => {
                out.waiting += 1;
                false
            }
        };
        let end = Timestamp::parse(column(row, "expires"));
        if let Some(end) = end.filter(|end| lets_in && *end > now) {
            out.next_end = Some(out.next_end.map_or(end, |next| next.min(end)));
        }
    }
    out
}
