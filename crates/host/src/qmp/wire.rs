//! What stands on the wire: lines in, messages out. Pure.

use serde_json::{Map, Value};

/// Longest line taken, in bytes. The largest answer known, the full schema, is under 1 MiB.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// One message from QEMU.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first one on a connection.
    Greeting {
        /// Major, minor, micro.
        version: (u32, u32, u32),
        /// Whether `oob` commands are offered.
        capabilities: Vec<String>,
    },
    /// A command was done.
    Return {
        /// The id given with the command.
        id: Option<u64>,
        /// Its result, often an empty object.
        value: Value,
    },
    /// A command was refused.
    Error {
        /// The id given with the command; absent when QEMU could not read that far.
        id: Option<u64>,
        /// Class, such as `GenericError`.
        class: String,
        /// Words for people.
        description: String,
    },
    /// Something happened.
    Event {
        /// Its name, such as `SHUTDOWN`.
        name: String,
        /// What it says; an empty object when nothing.
        data: Value,
        /// When, in microseconds since 1970 by the host's clock; 0 when QEMU could not tell.
        at_micros: i64,
    },
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// JSON, but no message of the protocol.
    #[error("no QMP message: {0}")]
    NoMessage(&'static str),
    /// The line does not end.
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
}

impl Message {
    /// Reads one line, without its line end.
    ///
    /// # Errors
    /// When it is no message of the protocol. Never panics, whatever the bytes are.
    pub fn parse(line: &[u8]) -> Result<Self, WireError> {
        let value: Value =
            serde_json::from_slice(line).map_err(|error| WireError::NotJson(error.to_string()))?;
        let Value::Object(mut object) = value else {
            return Err(WireError::NoMessage("not an object"));
        };
        let id = object.get("id").and_then(Value::as_u64);
        if let Some(greeting) = object.get("QMP") {
            return Self::greeting(greeting);
        }
        if let Some(value) = object.remove("return") {
            return Ok(Self::Return { id, value });
        }
        if let Some(error) = object.get("error") {
            let text = |key| error.get(key).and_then(Value::as_str).unwrap_or("unknown");
            return Ok(Self::Error {
                id,
                class: text("class").to_owned(),
                description: text("desc").to_owned(),
            });
        }
        if let Some(event) = object.get("event") {
            let Some(name) = event.as_str() else {
                return Err(WireError::NoMessage("the event's name is not a string"));
            };
            let name = name.to_owned();
            let part = |key| {
                let stamp = object.get("timestamp").and_then(|stamp| stamp.get(key));
                stamp.and_then(Value::as_i64).unwrap_or(0).max(0)
            };
            let at_micros = part("seconds")
                .saturating_mul(1_000_000)
                .saturating_add(part("microseconds"));
            return Ok(Self::Event {
                name,
                at_micros,
                data: object
                    .remove("data")
                    .unwrap_or_else(|| Value::Object(Map::new())),
            });
        }
        Err(WireError::NoMessage(
            "none of QMP, return, error, event is there",
        ))
    }

    fn greeting(greeting: &Value) -> Result<Self, WireError> {
        let number = |key: &str| {
            let found = greeting.pointer(&format!("/version/qemu/{key}"));
            found
                .and_then(Value::as_u64)
                .and_then(|n| u32::try_from(n).ok())
                .ok_or(WireError::NoMessage("the greeting has no version"))
        };
        let capabilities = greeting.get("capabilities").and_then(Value::as_array);
        Ok(Self::Greeting {
            version: (number("major")?, number("minor")?, number("micro")?),
            capabilities: capabilities
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect(),
        })
    }
}

/// Cuts a stream of bytes into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    limit: usize,
    held: Vec<u8>,
    /// How far `held` was searched already, so that a long line is not searched over and over.
    searched: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self::with_limit(MAX_LINE)
    }
}

impl Lines {
    /// Lines of at most this many bytes.
    pub(crate) fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            held: Vec::new(),
            searched: 0,
        }
    }

    /// Takes more bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole line, without its end and without blank lines.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, WireError> {
        loop {
            let Some(at) = self.held[self.searched..].iter().position(|&b| b == b'\n') else {
                self.searched = self.held.len();
                return if self.held.len() > self.limit {
                    Err(WireError::TooLong(self.limit))
                } else {
                    Ok(None)
                };
            };
            let rest = self.held.split_off(self.searched + at + 1);
            let mut line = std::mem::replace(&mut self.held, rest);
            self.searched = 0;
            while line.last().is_some_and(u8::is_ascii_whitespace) {
                line.pop();
            }
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }
}
