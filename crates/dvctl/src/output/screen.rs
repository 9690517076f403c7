//! The terminal, or what stands in for it.

use crate::failure::{Failure, Result};
use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// What standard input, output and error are.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// Standard input is a terminal.
    pub in_tty: bool,
    /// Standard output is a terminal.
    pub out_tty: bool,
    /// Standard error is a terminal.
    pub err_tty: bool,
    /// Colours on standard output.
    pub color: bool,
}

impl Screen {
    /// Looks at the descriptors; `color` is the word of `--color`.
    pub fn look(color: Option<&str>) -> Screen {
        let out_tty = std::io::stdout().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Screen {
            in_tty: std::io::stdin().is_terminal(),
            out_tty,
            err_tty: std::io::stderr().is_terminal(),
            color: match color {
                Some("always") => true,
                Some("never") => false,
                _ => out_tty && !dumb && std::env::var_os("NO_COLOR").is_none(),
            },
        }
    }

    /// Writes to standard output. A reader that went away (`| head`) ends us quietly.
    pub fn put(&self, text: &str) -> Result<()> {
        self.put_bytes(text.as_bytes())
    }

    /// Writes bytes to standard output.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut out = std::io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Failure::silent(0)),
            Err(e) => Err(Failure::io("writing to standard output", e)),
        }
    }

    /// Writes a line to standard error; there is nobody to tell when that fails.
    pub fn say(&self, text: &str) {
        _ = writeln!(std::io::stderr().lock(), "{text}");
    }

    /// Asks and reads one line. Only with a terminal.
    pub fn ask(&self, question: &str) -> Result<String> {
        let mut err = std::io::stderr().lock();
        _ = write!(err, "{question}");
        _ = err.flush();
        let mut line = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|e| Failure::io("reading the answer", e))?;
        Ok(line.trim().to_owned())
    }
}
