//! Asks a person for what nobody may see, or reads it from standard input line by line.

use super::Screen;
use crate::failure::{Failure, INTERRUPTED, Result};
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};
use std::io::{BufRead as _, Read as _, Write as _, stdin};

/// Where answers come from.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    screen: Screen,
    lines: bool,
}

impl Asker {
    /// From standard input when `lines` is set, else from a person at the terminal.
    pub fn new(screen: Screen, lines: bool) -> Asker {
        Asker { screen, lines }
    }

    /// Whether a person is there to be asked.
    pub fn is_person(&self) -> bool {
        !self.lines && self.screen.in_tty && self.screen.err_tty
    }

    /// Whether anything can be asked for.
    pub fn can_ask(&self) -> bool {
        self.lines || self.is_person()
    }

    /// An answer that may be seen.
    pub fn plain(&self, question: &str) -> Result<String> {
        match self.lines {
            true => line(question),
            false => {
                self.need_person(question)?;
                self.screen.ask(question)
            }
        }
    }

    /// An answer that nobody may see.
    pub fn secret(&self, question: &str) -> Result<String> {
        if self.lines {
            return line(question);
        }
        self.need_person(question)?;
        _ = write!(std::io::stderr(), "{question}");
        _ = std::io::stderr().flush();
        let _quiet = Quiet::enter()?;
        let typed = typed();
        _ = writeln!(std::io::stderr());
        typed
    }

    /// A new password: of a person, twice.
    pub fn new_password(&self) -> Result<String> {
        let first = self.secret("New password: ")?;
        if self.lines {
            return Ok(first);
        }
        match self.secret("The same again: ")? == first {
            true => Ok(first),
            false => Err(Failure::usage("the two passwords differ")),
        }
    }

    fn need_person(&self, question: &str) -> Result<()> {
        match self.is_person() {
            true => Ok(()),
            false => Err(Failure::usage(format!(
                "nobody can be asked for: {}",
                question.trim_end_matches([':', ' '])
            ))
            .hint("use a terminal, or give the answers line by line with --password-stdin")),
        }
    }
}

fn line(question: &str) -> Result<String> {
    let mut line = String::new();
    let read = stdin()
        .lock()
        .read_line(&mut line)
        .map_err(|e| Failure::io("reading standard input", e))?;
    match read {
        0 => Err(Failure::usage(format!(
            "standard input has ended before: {}",
            question.trim_end_matches([':', ' '])
        ))),
        _ => Ok(line.trim_end_matches(['\n', '\r']).to_owned()),
    }
}

/// The terminal shows nothing and gives every key at once; it is as it was when this is dropped.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn enter() -> Result<Quiet> {
        let wrong = |e: nix::Error| Failure::io("hiding what is typed", e);
        let before = termios::tcgetattr(stdin()).map_err(wrong)?;
        let mut quiet = before.clone();
        // Signals too come as keys: the terminal must not stay like this.
        quiet
            .local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        termios::tcsetattr(stdin(), SetArg::TCSAFLUSH, &quiet).map_err(wrong)?;
        Ok(Quiet { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        _ = termios::tcsetattr(stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Keys up to Enter.
fn typed() -> Result<String> {
    const ENTER: [u8; 2] = [b'\n', b'\r'];
    const ERASE: [u8; 2] = [0x7f, 0x08];
    let mut bytes = Vec::new();
    for byte in stdin().lock().bytes() {
        let byte = byte.map_err(|e| Failure::io("reading the answer", e))?;
        match byte {
            b if ENTER.contains(&b) => {
                return String::from_utf8(bytes)
                    .map_err(|_| Failure::usage("what was typed is not text"));
            }
            // One character, not one byte.
            b if ERASE.contains(&b) => while bytes.pop().is_some_and(|b| b & 0xc0 == 0x80) {},
            0x03 | 0x04 => return Err(Failure::silent(INTERRUPTED)),
            0x15 => bytes.clear(),
            b => bytes.push(b),
        }
    }
    Err(Failure::silent(INTERRUPTED))
}
