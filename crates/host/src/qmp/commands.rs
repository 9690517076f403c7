//! The commands we use, each as one function. Where QEMU works on after its answer, the doc says how to see the end.

use super::client::{Event, Qmp};
use super::error::QmpError;
use super::types::{
    BlockNode, CpuFast, HotpluggableCpu, Machine, MemoryDevice, Migration, Property, QomType,
    Status, Version,
};
use serde_json::{Value, json};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;

type Result<T> = std::result::Result<T, QmpError>;

/// All functions fail as [`Qmp::execute`] does.
impl Qmp {
    async fn act(&self, command: &str, arguments: Value) -> Result<()> {
        self.execute(command, arguments).await.map(drop)
    }

    /// Whether the guest runs, and if not, why.
    pub async fn status(&self) -> Result<Status> {
        self.query("query-status", Value::Null).await
    }

    /// Stops the guest's processors.
    pub async fn stop(&self) -> Result<()> {
        self.act("stop", Value::Null).await
    }

    /// Lets the guest's processors run (on).
    pub async fn cont(&self) -> Result<()> {
        self.act("cont", Value::Null).await
    }

    /// The reset button.
    pub async fn system_reset(&self) -> Result<()> {
        self.act("system_reset", Value::Null).await
    }

    /// The power button: the guest decides. Its end comes as a `SHUTDOWN` event, or never.
    pub async fn system_powerdown(&self) -> Result<()> {
        self.act("system_powerdown", Value::Null).await
    }

    /// Wakes a guest that sleeps (S3).
    pub async fn system_wakeup(&self) -> Result<()> {
        self.act("system_wakeup", Value::Null).await
    }

    /// A non-maskable interrupt to the guest.
    pub async fn inject_nmi(&self) -> Result<()> {
        self.act("inject-nmi", Value::Null).await
    }

    /// Ends QEMU at once, flushing its disks. Its answer may be lost with the connection: that is success too.
    pub async fn quit(&self) -> Result<()> {
        match self.act("quit", Value::Null).await {
            Err(QmpError::Closed { .. }) => Ok(()),
            done => done,
        }
    }

    /// QEMU's version, asked for.
    pub async fn query_version(&self) -> Result<Version> {
        let answer = self.execute("query-version", Value::Null).await?;
        let number = |key: &str| {
            let found = answer
                .pointer(&format!("/qemu/{key}"))
                .and_then(Value::as_u64);
            found
                .and_then(|n| u32::try_from(n).ok())
                .ok_or_else(|| QmpError::Unexpected {
                    command: "query-version".to_owned(),
                    cause: format!("no {key} number"),
                })
        };
        Ok(Version {
            major: number("major")?,
            minor: number("minor")?,
            micro: number("micro")?,
        })
    }

    /// The machine types this QEMU has.
    pub async fn machines(&self) -> Result<Vec<Machine>> {
        self.query("query-machines", Value::Null).await
    }

    /// Names of the processor models it knows. Some accelerators cannot list them.
    pub async fn cpu_models(&self) -> Result<Vec<String>> {
        let list: Vec<Value> = self.query("query-cpu-definitions", Value::Null).await?;
        let name = |entry: &Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
        Ok(list.iter().filter_map(name).collect())
    }

    /// The options of its command line, as QEMU describes them.
    pub async fn command_line_options(&self) -> Result<Value> {
        self.execute("query-command-line-options", Value::Null)
            .await
    }

    /// All types that derive from `implements` (`device`, `object`), without the abstract ones.
    pub async fn types(&self, implements: &str) -> Result<Vec<QomType>> {
        let arguments = json!({ "implements": implements, "abstract": false });
        self.query("qom-list-types", arguments).await
    }

    /// The properties a device type takes.
    pub async fn device_properties(&self, device: &str) -> Result<Vec<Property>> {
        let arguments = json!({ "typename": device });
        self.query("device-list-properties", arguments).await
    }

    /// Names of the commands it knows.
    pub async fn commands(&self) -> Result<Vec<String>> {
        let list: Vec<Value> = self.query("query-commands", Value::Null).await?;
        let name = |entry: &Value| entry.get("name").and_then(Value::as_str).map(str::to_owned);
        Ok(list.iter().filter_map(name).collect())
    }

    /// Reads one property of the object tree.
    pub async fn qom_get(&self, path: &str, property: &str) -> Result<Value> {
        let arguments = json!({ "path": path, "property": property });
        self.execute("qom-get", arguments).await
    }

    /// Sets one property of the object tree.
    pub async fn qom_set(&self, path: &str, property: &str, value: Value) -> Result<()> {
        let arguments = json!({ "path": path, "property": property, "value": value });
        self.act("qom-set", arguments).await
    }

    /// The children and properties of one place in the object tree.
    pub async fn qom_list(&self, path: &str) -> Result<Vec<Property>> {
        self.query("qom-list", json!({ "path": path })).await
    }

    /// Plugs a device. `device` has `driver`, `id` and its properties.
    pub async fn device_add(&self, device: Value) -> Result<()> {
        self.act("device_add", device).await
    }

    /// Asks the guest to let go of a device. It is gone when `DEVICE_DELETED` names it: see [`Qmp::unplug`].
    pub async fn device_del(&self, id: &str) -> Result<()> {
        self.act("device_del", json!({ "id": id })).await
    }

    /// Unplugs a device and waits until it is gone. The guest takes seconds (the PCIe attention delay is five), and a
    /// request that comes too early in its boot is lost, so it is repeated every 7 s until `limit`.
    ///
    /// A device that is not there (any more) is success.
    pub async fn unplug(&self, id: &str, limit: Duration) -> Result<()> {
        let mut events = self.events();
        let work = async {
            loop {
                match self.device_del(id).await {
                    Ok(()) => {}
                    Err(error) if error.is_unknown_device() => return Ok(()),
                    // "already in the process of unplug": the first request still stands.
                    Err(QmpError::Refused { .. }) => {}
                    Err(error) => return Err(error),
                }
                let gone = async {
                    loop {
                        match events.recv().await {
                            Ok(event) if event.name == "DEVICE_DELETED" => {
                                if event.text("device") == Some(id) {
                                    return true;
                                }
                            }
                            Ok(_) => {}
                            // Missed events are answered by asking again; a closed connection too.
                            Err(RecvError::Lagged(_) | RecvError::Closed) => return false,
                        }
                    }
                };
                if tokio::time::timeout(Duration::from_secs(7), gone).await == Ok(true) {
                    return Ok(());
                }
            }
        };
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(QmpError::Timeout {
                command: format!("device_del {id}"),
                after: limit,
            }),
        }
    }

    /// Waits for the first event that `wanted` takes, on a receiver made before the act that causes it.
    pub async fn wait_event(
        &self,
        events: &mut tokio::sync::broadcast::Receiver<Arc<Event>>,
        limit: Duration,
        mut wanted: impl FnMut(&Event) -> bool,
    ) -> Result<Arc<Event>> {
        let work = async {
            loop {
                match events.recv().await {
                    Ok(event) if wanted(&event) => return Ok(event),
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => {
                        return Err(QmpError::Closed {
                            why: "while waiting for an event".to_owned(),
                        });
                    }
                }
            }
        };
        let ended = async {
            self.closed().await;
            Err(QmpError::Closed {
                why: "while waiting for an event".to_owned(),
            })
        };
        let either = async {
            tokio::select! {
                biased;
                done = work => done,
                done = ended => done,
            }
        };
        match tokio::time::timeout(limit, either).await {
            Ok(done) => done,
            Err(_) => Err(QmpError::Timeout {
                command: "wait for an event".to_owned(),
                after: limit,
            }),
        }
    }

    /// Opens a block node.
    pub async fn blockdev_add(&self, node: Value) -> Result<()> {
        self.act("blockdev-add", node).await
    }

    /// Closes a block node that nothing uses.
    pub async fn blockdev_del(&self, node_name: &str) -> Result<()> {
        self.act("blockdev-del", json!({ "node-name": node_name }))
            .await
    }

    /// Tells a disk's node its new size, in bytes.
    pub async fn block_resize(&self, node_name: &str, bytes: u64) -> Result<()> {
        let arguments = json!({ "node-name": node_name, "size": bytes });
        self.act("block_resize", arguments).await
    }

    /// All block nodes.
    pub async fn block_nodes(&self) -> Result<Vec<BlockNode>> {
        self.query("query-named-block-nodes", json!({ "flat": true }))
            .await
    }

    /// Adds the host side of a NIC.
    pub async fn netdev_add(&self, netdev: Value) -> Result<()> {
        self.act("netdev_add", netdev).await
    }

    /// Removes the host side of a NIC.
    pub async fn netdev_del(&self, id: &str) -> Result<()> {
        self.act("netdev_del", json!({ "id": id })).await
    }

    /// Plugs or pulls a NIC's cable.
    pub async fn set_link(&self, id: &str, up: bool) -> Result<()> {
        self.act("set_link", json!({ "name": id, "up": up })).await
    }

    /// Adds an object (`qom-type`, `id`, properties): a memory backend, an iothread.
    pub async fn object_add(&self, object: Value) -> Result<()> {
        self.act("object-add", object).await
    }

    /// Removes an object.
    pub async fn object_del(&self, id: &str) -> Result<()> {
        self.act("object-del", json!({ "id": id })).await
    }

    /// Hands QEMU a descriptor for a new set; opened then as `/dev/fdset/N`. Returns N.
    pub async fn add_fd(&self, fd: OwnedFd, opaque: &str) -> Result<u64> {
        let arguments = json!({ "opaque": opaque });
        let answer = self.execute_with_fd("add-fd", arguments, fd).await?;
        answer
            .get("fdset-id")
            .and_then(Value::as_u64)
            .ok_or_else(|| QmpError::Unexpected {
                command: "add-fd".to_owned(),
                cause: "no fdset-id".to_owned(),
            })
    }

    /// Closes a set of descriptors; what has it open keeps it.
    pub async fn remove_fd(&self, set: u64) -> Result<()> {
        self.act("remove-fd", json!({ "fdset-id": set })).await
    }

    /// Hands QEMU a descriptor under a name, for `netdev_add` and the like, which take it over.
    pub async fn getfd(&self, fd: OwnedFd, name: &str) -> Result<()> {
        let arguments = json!({ "fdname": name });
        self.execute_with_fd("getfd", arguments, fd).await.map(drop)
    }

    /// Closes a descriptor that was handed over and not taken.
    pub async fn closefd(&self, name: &str) -> Result<()> {
        self.act("closefd", json!({ "fdname": name })).await
    }

    /// Writes a PNG of the screen to a file, as QEMU's user and in QEMU's view of the file system
    /// (a `/dev/fdset/N` path works). Fails when the machine has no display.
    pub async fn screendump(&self, file: &Path) -> Result<()> {
        let arguments = json!({ "filename": file, "format": "png" });
        self.act("screendump", arguments).await
    }

    /// Presses keys together and lets them go after `hold`. Names are QEMU's key codes: `ctrl`, `alt`, `delete`, `a`, `ret`.
    pub async fn send_key(&self, keys: &[String], hold: Duration) -> Result<()> {
        let keys: Vec<Value> = keys
            .iter()
            .map(|key| json!({ "type": "qcode", "data": key }))
            .collect();
        let hold = u64::try_from(hold.as_millis()).unwrap_or(u64::MAX);
        self.act("send-key", json!({ "keys": keys, "hold-time": hold }))
            .await
    }

    /// Sends raw input events, as QEMU's `InputEvent` list.
    pub async fn input_send_event(&self, events: Value) -> Result<()> {
        self.act("input-send-event", json!({ "events": events }))
            .await
    }

    /// Processors that are plugged.
    pub async fn cpus(&self) -> Result<Vec<CpuFast>> {
        self.query("query-cpus-fast", Value::Null).await
    }

    /// Places for processors, used and free.
    pub async fn hotpluggable_cpus(&self) -> Result<Vec<HotpluggableCpu>> {
        self.query("query-hotpluggable-cpus", Value::Null).await
    }

    /// Plugged memory modules.
    pub async fn memory_devices(&self) -> Result<Vec<MemoryDevice>> {
        self.query("query-memory-devices", Value::Null).await
    }

    /// Bytes of memory the guest started with and bytes plugged since.
    pub async fn memory_size(&self) -> Result<(u64, u64)> {
        let command = "query-memory-size-summary";
        let answer = self.execute(command, Value::Null).await?;
        let bytes = |key: &str| answer.get(key).and_then(Value::as_u64);
        match bytes("base-memory") {
            Some(base) => Ok((base, bytes("plugged-memory").unwrap_or(0))),
            None => Err(QmpError::Unexpected {
                command: command.to_owned(),
                cause: "no base-memory".to_owned(),
            }),
        }
    }

    /// Asks the guest's balloon driver to leave it this many bytes. The guest follows when it can.
    pub async fn balloon(&self, bytes: u64) -> Result<()> {
        self.act("balloon", json!({ "value": bytes })).await
    }

    /// Bytes the balloon leaves the guest now. Refused when there is no balloon or no driver for it.
    pub async fn query_balloon(&self) -> Result<u64> {
        let answer = self.execute("query-balloon", Value::Null).await?;
        answer
            .get("actual")
            .and_then(Value::as_u64)
            .ok_or_else(|| QmpError::Unexpected {
                command: "query-balloon".to_owned(),
                cause: "no actual size".to_owned(),
            })
    }

    /// Adds a character device backend.
    pub async fn chardev_add(&self, id: &str, backend: Value) -> Result<Value> {
        self.execute("chardev-add", json!({ "id": id, "backend": backend }))
            .await
    }

    /// Removes a character device backend.
    pub async fn chardev_remove(&self, id: &str) -> Result<()> {
        self.act("chardev-remove", json!({ "id": id })).await
    }

    /// Switches migration capabilities on, such as `mapped-ram` and `multifd`.
    pub async fn migrate_capabilities(&self, on: &[&str]) -> Result<()> {
        let list: Vec<Value> = on
            .iter()
            .map(|name| json!({ "capability": name, "state": true }))
            .collect();
        self.act("migrate-set-capabilities", json!({ "capabilities": list }))
            .await
    }

    /// Starts to send the guest to `uri`. Returns at once: see [`Qmp::migrated`].
    pub async fn migrate(&self, uri: &str) -> Result<()> {
        self.act("migrate", json!({ "uri": uri })).await
    }

    /// Starts to receive a guest from `uri`; QEMU was started with `-incoming defer`.
    pub async fn migrate_incoming(&self, uri: &str) -> Result<()> {
        self.act("migrate-incoming", json!({ "uri": uri })).await
    }

    /// How far the migration is.
    pub async fn query_migrate(&self) -> Result<Migration> {
        self.query("query-migrate", Value::Null).await
    }

    /// Waits until a migration under way has completed.
    ///
    /// # Errors
    /// [`QmpError::Refused`] with QEMU's reason when it failed, [`QmpError::Timeout`] after `limit`.
    pub async fn migrated(&self, limit: Duration) -> Result<()> {
        let work = async {
            let mut pause = Duration::from_millis(5);
            loop {
                let now = self.query_migrate().await?;
                match now.status.as_deref() {
                    Some("completed") => return Ok(()),
                    Some(status @ ("failed" | "cancelled")) => {
                        return Err(QmpError::Refused {
                            command: "migrate".to_owned(),
                            class: "GenericError".to_owned(),
                            description: now.error_desc.unwrap_or_else(|| status.to_owned()),
                        });
                    }
                    _ => tokio::time::sleep(pause).await,
                }
                pause = (pause * 2).min(Duration::from_millis(200));
            }
        };
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(QmpError::Timeout {
                command: "migrate".to_owned(),
                after: limit,
            }),
        }
    }

    /// Stops the guest and writes its whole state to a file that QEMU can write (a `/dev/fdset/N` path works), with
    /// memory at fixed offsets, so that it can be loaded by many at once.
    pub async fn save_state(&self, file: &Path, limit: Duration) -> Result<()> {
        self.migrate_capabilities(&["mapped-ram", "events"]).await?;
        self.stop().await?;
        self.migrate(&format!("file:{}", file.display())).await?;
        self.migrated(limit).await
    }

    /// Loads a state that [`Qmp::save_state`] wrote, into a QEMU with the same devices started with `-incoming defer`.
    /// The guest stays stopped, unless it was started to run at once.
    pub async fn load_state(&self, file: &Path, limit: Duration) -> Result<()> {
        self.migrate_capabilities(&["mapped-ram", "events"]).await?;
        self.migrate_incoming(&format!("file:{}", file.display()))
            .await?;
        self.migrated(limit).await
    }
}
