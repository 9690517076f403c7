//! The task that owns the port, and the handle that asks it.

use super::error::QgaError;
use crate::qmp::{Lines, Message};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// How long an agent may take to show that it is there.
const PRESENCE: Duration = Duration::from_secs(3);
/// How long a question may take unless told otherwise.
const QUESTION: Duration = Duration::from_secs(10);
/// How long an idle connection stays open.
const IDLE: Duration = Duration::from_secs(10);
/// Questions that wait their turn.
const WAITING: usize = 32;
/// Longest answer, in bytes: the agent keeps at most 16 MiB of each output of a program, in base64.
const ANSWER: usize = 48 * 1024 * 1024;

struct Question {
    command: &'static str,
    arguments: Value,
    limit: Duration,
    /// Whether the agent says nothing when it succeeds.
    silent: bool,
    answer: oneshot::Sender<Result<Value, QgaError>>,
}

/// The guest's agent. Cheap to clone; connects when first asked.
#[derive(Debug, Clone)]
pub struct Agent {
    questions: mpsc::Sender<Question>,
    _task: Arc<JoinSet<()>>,
}

impl Agent {
    /// The agent behind this socket (see [`crate::qemu::Sockets::qga`]). Must be called within a tokio runtime.
    pub fn new(socket: &Path) -> Self {
        let (questions, queue) = mpsc::channel(WAITING);
        let mut task = JoinSet::new();
        let port = Port {
            socket: socket.to_owned(),
            open: None,
            next_sync: 1,
        };
        task.spawn(port.serve(queue));
        Self {
            questions,
            _task: Arc::new(task),
        }
    }

    /// Asks anything, 10 s at most once it is this question's turn. `arguments` is an object, or null for none.
    ///
    /// # Errors
    /// See [`QgaError`].
    pub async fn ask(&self, command: &'static str, arguments: Value) -> Result<Value, QgaError> {
        self.ask_within(command, arguments, QUESTION).await
    }

    /// As [`Agent::ask`], with another time limit.
    ///
    /// # Errors
    /// See [`QgaError`].
    pub async fn ask_within(
        &self,
        command: &'static str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QgaError> {
        self.queue(command, arguments, limit, false).await
    }

    /// Asks for something after which the agent is silent, such as a shutdown. A refusal still comes back, when it comes
    /// within a second.
    ///
    /// # Errors
    /// See [`QgaError`].
    pub async fn tell(&self, command: &'static str, arguments: Value) -> Result<(), QgaError> {
        let told = self.queue(command, arguments, Duration::from_secs(1), true);
        told.await.map(drop)
    }

    /// As [`Agent::ask_within`], with the answer read into a type.
    pub(super) async fn query<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Value,
    ) -> Result<T, QgaError> {
        let value = self.ask(command, arguments).await?;
        serde_json::from_value(value).map_err(|error| QgaError::Unexpected {
            command: command.to_owned(),
            cause: error.to_string(),
        })
    }

    async fn queue(
        &self,
        command: &'static str,
        arguments: Value,
        limit: Duration,
        silent: bool,
    ) -> Result<Value, QgaError> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            command,
            arguments,
            limit,
            silent,
            answer,
        };
        let ended = || QgaError::Broken {
            command: command.to_owned(),
            cause: "we are shutting down".to_owned(),
        };
        self.questions.send(question).await.map_err(|_| ended())?;
        answered.await.unwrap_or_else(|_| Err(ended()))
    }
}

struct Port {
    socket: PathBuf,
    open: Option<Open>,
    next_sync: u64,
}

struct Open {
    stream: UnixStream,
    lines: Lines,
}

impl Port {
    async fn serve(mut self, mut queue: mpsc::Receiver<Question>) {
        loop {
            let question = match timeout(IDLE, queue.recv()).await {
                Ok(Some(question)) => question,
                Ok(None) => return,
                Err(_) => {
                    self.open = None;
                    match queue.recv().await {
                        Some(question) => question,
                        None => return,
                    }
                }
            };
            if question.answer.is_closed() {
                continue;
            }
            let answer = self.put(&question).await;
            if !matches!(answer, Ok(_) | Err(QgaError::Refused { .. })) || question.silent {
                // Nobody knows what is still on its way: begin anew.
                self.open = None;
            }
            // The asker may have left.
            let _ = question.answer.send(answer);
        }
    }

    async fn put(&mut self, question: &Question) -> Result<Value, QgaError> {
        if self.open.is_none() {
            self.open = Some(self.connect().await?);
        }
        let Some(open) = &mut self.open else {
            return Err(QgaError::Absent { after: PRESENCE });
        };
        let command = question.command;
        let mut message = json!({ "execute": command });
        if !question.arguments.is_null() {
            message["arguments"] = question.arguments.clone();
        }
        let broken = |cause: String| QgaError::Broken {
            command: command.to_owned(),
            cause,
        };
        let work = async {
            let line = format!("{message}\n");
            let sent = open.stream.write_all(line.as_bytes()).await;
            sent.map_err(|error| broken(error.to_string()))?;
            let line = open.line().await.map_err(broken)?;
            match Message::parse(&line) {
                Ok(Message::Return { value, .. }) => Ok(value),
                Ok(Message::Error {
                    class, description, ..
                }) => Err(QgaError::Refused {
                    command: command.to_owned(),
                    class,
                    description,
                }),
                Ok(_) => Err(QgaError::Unexpected {
                    command: command.to_owned(),
                    cause: "it is no answer".to_owned(),
                }),
                Err(error) => Err(QgaError::Unexpected {
                    command: command.to_owned(),
                    cause: error.to_string(),
                }),
            }
        };
        match timeout(question.limit, work).await {
            // A guest that is going down may take the port with it.
            Err(_) | Ok(Err(QgaError::Broken { .. })) if question.silent => Ok(Value::Null),
            Ok(answer) => answer,
            Err(_) => Err(QgaError::Timeout {
                command: command.to_owned(),
                after: question.limit,
            }),
        }
    }

    /// Opens the port and brings both sides in step.
    async fn connect(&mut self) -> Result<Open, QgaError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| QgaError::NoPort {
                socket: self.socket.clone(),
                cause: error.to_string(),
            })?;
        let mut open = Open {
            stream,
            lines: Lines::with_limit(ANSWER),
        };
        let id = self.next_sync;
        self.next_sync += 1;
        let deadline = Instant::now() + PRESENCE;
        let in_step = async {
            let sync = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
            let mut bytes = vec![0xff];
            bytes.extend(format!("{sync}\n").into_bytes());
            let sent = open.stream.write_all(&bytes).await;
            sent.map_err(|error| error.to_string())?;
            loop {
                let line = open.line().await?;
                // What an earlier connection asked may be answered first; our mark comes behind the byte.
                let Some(mark) = line.iter().rposition(|byte| *byte == 0xff) else {
                    continue;
                };
                if let Ok(Message::Return { value, .. }) = Message::parse(&line[mark + 1..])
                    && value.as_u64() == Some(id)
                {
                    return Ok::<(), String>(());
                }
            }
        };
        match tokio::time::timeout_at(deadline, in_step).await {
            Ok(Ok(())) => Ok(open),
            Ok(Err(cause)) => Err(QgaError::Broken {
                command: "guest-sync-delimited".to_owned(),
                cause,
            }),
            Err(_) => Err(QgaError::Absent { after: PRESENCE }),
        }
    }
}

impl Open {
    async fn line(&mut self) -> Result<Vec<u8>, String> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some(line) = self.lines.next().map_err(|error| error.to_string())? {
                return Ok(line);
            }
            let read = self.stream.read(&mut chunk).await;
            match read.map_err(|error| error.to_string())? {
                0 => return Err("the port was closed".to_owned()),
                n => self.lines.push(&chunk[..n]),
            }
        }
    }
}
