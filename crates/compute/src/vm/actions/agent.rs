//! What the guest agent does for us: files, file systems, facts about the guest.

use super::super::hypervisor::{Ask, Guests, Reply, VmId};
use super::super::rules::Guest;
use super::{ask, may, target};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{Action, Danger, Error, ObjectRef, Result, Uid, What, WorkStyle, schema};
use runtime::{Cx, Proc, Undo};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Largest file that is read or written in one go; a task's result is no place for more.
const LARGEST: usize = 64 * 1024;
/// Most bytes in one answer of the agent.
const CHUNK: usize = 32 * 1024;

pub(super) const FILE_READ: Action = Action {
    verb: "file-read",
    doc: "Reads a file in the guest through its agent, at most 64 KiB. The task's result holds it as `content` (text) or \
          `base64`.",
    danger: Danger::None,
    style: WorkStyle::Procedure,
    input: schema::of::<FileRead>,
    claims: &[],
    deadline: 120,
    event: "file-read",
    examples: &["dvctl vm file-read web1 --path /etc/hostname"],
};

pub(super) const FILE_WRITE: Action = Action {
    verb: "file-write",
    doc: "Writes a file in the guest through its agent, at most 64 KiB; a file that exists is replaced.",
    danger: Danger::Disrupts,
    style: WorkStyle::Procedure,
    input: schema::of::<FileWrite>,
    claims: &[],
    deadline: 120,
    event: "file-written",
    examples: &["dvctl vm file-write web1 --path /etc/motd --content hello"],
};

pub(super) const FS_FREEZE: Action = Action {
    verb: "fs-freeze",
    doc: "Has the guest write everything to its disks and hold further writes until `fs-thaw`. The result is the number of \
          file systems.",
    danger: Danger::Disrupts,
    style: WorkStyle::Procedure,
    input: schema::empty,
    claims: &["disks"],
    deadline: 120,
    event: "frozen",
    examples: &["dvctl vm fs-freeze web1"],
};

pub(super) const FS_THAW: Action = Action {
    verb: "fs-thaw",
    doc: "Lets the guest write again after `fs-freeze`.",
    danger: Danger::None,
    style: WorkStyle::Procedure,
    input: schema::empty,
    claims: &[],
    deadline: 120,
    event: "thawed",
    examples: &["dvctl vm fs-thaw web1"],
};

pub(super) const OS_INFO: Action = Action {
    verb: "os-info",
    doc: "Asks the guest which operating system it is and who is logged in.",
    danger: Danger::None,
    style: WorkStyle::Procedure,
    input: schema::empty,
    claims: &[],
    deadline: 60,
    event: "os-info-read",
    examples: &["dvctl vm os-info web1"],
};

/// Which file.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileRead {
    /// Absolute path in the guest.
    #[schemars(length(min = 1, max = 4096))]
    path: String,
}

/// Which file, and what goes into it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileWrite {
    /// Absolute path in the guest.
    #[schemars(length(min = 1, max = 4096))]
    path: String,
    /// What goes into it, as text.
    #[serde(default)]
    #[schemars(length(max = 65536), extend("x-cli" = {"flag": "content", "from_file": true}))]
    content: String,
    /// What goes into it, as base64; instead of `content`.
    #[serde(default)]
    #[schemars(length(max = 90000))]
    base64: Option<String>,
}

/// One command of the agent.
async fn agent(proc: &Proc, command: &'static str, arguments: Value) -> Result<Value> {
    let (id, vm) = target(proc)?;
    may(&vm, "agent")?;
    match ask(proc, &id, Ask::Agent { command, arguments }).await? {
        Reply::Json(value) => Ok(value),
        other => Err(Error::internal(format!(
            "the guest agent answered {other:?}"
        ))),
    }
}

async fn open(proc: &Proc, path: &str, mode: &str) -> Result<i64> {
    let handle = agent(
        proc,
        "guest-file-open",
        json!({ "path": path, "mode": mode }),
    )
    .await?;
    handle
        .as_i64()
        .ok_or_else(|| Error::internal("the guest agent gave no file handle"))
}

pub(super) async fn file_read(proc: Proc) -> Result<Value> {
    let given: FileRead = proc.params()?;
    proc.step("read", || async {
        let handle = open(&proc, &given.path, "r").await?;
        let read = read_all(&proc, handle, &given.path).await;
        // Closed also after a failure: handles in the guest are few.
        let closed = agent(&proc, "guest-file-close", json!({ "handle": handle })).await;
        let bytes = read?;
        closed?;
        Ok(match String::from_utf8(bytes) {
            Ok(text) => json!({ "content": text }),
            Err(error) => json!({ "base64": STANDARD.encode(error.as_bytes()) }),
        })
    })
    .await
}

async fn read_all(proc: &Proc, handle: i64, path: &str) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let arguments = json!({ "handle": handle, "count": CHUNK });
        let answer = agent(proc, "guest-file-read", arguments).await?;
        let text = answer["buf-b64"].as_str().unwrap_or_default();
        let bytes = STANDARD
            .decode(text)
            .map_err(|e| Error::internal("the guest agent sent no base64").because(e))?;
        out.extend(bytes);
        if out.len() > LARGEST {
            return Err(
                Error::refused(format!("file `{path}` has more than 64 KiB"))
                    .hint("use `dvctl vm exec` with cat for larger files"),
            );
        }
        if answer["eof"].as_bool().unwrap_or(true) {
            return Ok(out);
        }
    }
}

pub(super) async fn file_write(proc: Proc) -> Result<Value> {
    let given: FileWrite = proc.params()?;
    let bytes = match &given.base64 {
        None => given.content.clone().into_bytes(),
        Some(text) => STANDARD
            .decode(text)
            .map_err(|_| Error::field("params.base64", "is not base64"))?,
    };
    let count = bytes.len();
    proc.step("write", || async {
        let handle = open(&proc, &given.path, "w").await?;
        let mut written = Ok(Value::Null);
        for chunk in bytes.chunks(CHUNK) {
            let arguments = json!({ "handle": handle, "buf-b64": STANDARD.encode(chunk) });
            written = agent(&proc, "guest-file-write", arguments).await;
            if written.is_err() {
                break;
            }
        }
        let closed = agent(&proc, "guest-file-close", json!({ "handle": handle })).await;
        written?;
        closed?;
        Ok(())
    })
    .await?;
    Ok(json!({ "bytes": count }))
}

/// Lets a guest write again when the task that froze it did not come to its end.
pub(super) static THAW: Undo = Undo {
    name: "vm.thaw",
    run: |cx, guest| Box::pin(thaw(cx, guest)),
};

/// Whose file systems hold.
#[derive(Debug, Serialize, Deserialize)]
struct Frozen {
    uid: Uid,
    object: ObjectRef,
}

async fn thaw(cx: Cx, guest: Value) -> Result<()> {
    let Frozen { uid, object } = serde_json::from_value(guest)
        .map_err(|e| Error::internal("the undo of a freeze names no guest").because(e))?;
    let id = VmId { uid, object };
    let guests = Guests::of(&cx)?;
    if guests.look(&cx, &id).await?.guest == Guest::Absent {
        return Ok(());
    }
    let ask = Ask::Agent {
        command: "guest-fsfreeze-thaw",
        arguments: Value::Null,
    };
    match guests.ask(&id, ask).await {
        // A guest that ended meanwhile, or has no agent, holds nothing.
        Err(error) if error.what == What::Refused => Ok(()),
        asked => asked.map(drop),
    }
}

pub(super) async fn fs_freeze(proc: Proc) -> Result<Value> {
    let (id, _) = target(&proc)?;
    let frozen = Frozen {
        uid: id.uid,
        object: id.object,
    };
    let count: Result<Value> = proc
        .undoable("freeze", THAW.with(&frozen), || async {
            let frozen = agent(&proc, "guest-fsfreeze-freeze", Value::Null).await;
            if frozen.is_err() {
                // Some may hold already.
                let _ = agent(&proc, "guest-fsfreeze-thaw", Value::Null).await;
            }
            frozen
        })
        .await;
    count.map(|n| json!({ "filesystems": n }))
}

pub(super) async fn fs_thaw(proc: Proc) -> Result<Value> {
    proc.step("thaw", || agent(&proc, "guest-fsfreeze-thaw", Value::Null))
        .await
        .map(|n: Value| json!({ "filesystems": n }))
}

pub(super) async fn os_info(proc: Proc) -> Result<Value> {
    proc.step("ask", || async {
        let os = agent(&proc, "guest-get-osinfo", Value::Null).await?;
        let users = agent(&proc, "guest-get-users", Value::Null).await;
        Ok(json!({ "os": os, "users": users.unwrap_or(Value::Null) }))
    })
    .await
}
