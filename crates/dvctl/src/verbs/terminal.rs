//! The user's terminal in raw mode: every key goes to the guest, until `^]`.

use crate::failure::{Failure, Result};
use bytes::Bytes;
use nix::sys::termios::{self, SetArg, Termios};
use std::io::{Read as _, stdin};
use tokio::sync::mpsc;

/// `^]`: leaves the console.
pub const ESCAPE: u8 = 0x1d;

/// Raw mode; the terminal is as it was when this is dropped.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Sets standard input raw.
    pub fn enter() -> Result<Raw> {
        let wrong = |e: nix::Error| Failure::io("setting the terminal raw", e);
        let before = termios::tcgetattr(stdin()).map_err(wrong)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin(), SetArg::TCSANOW, &raw).map_err(wrong)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        _ = termios::tcsetattr(stdin(), SetArg::TCSANOW, &self.before);
    }
}

/// Standard input piece by piece; ends at its end. The thread that reads it ends with the process, as a read of a terminal cannot be
/// called back.
pub fn input() -> mpsc::Receiver<Bytes> {
    let (to, from) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0u8; 16 * 1024];
        loop {
            match stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(n) => {
                    if to
                        .blocking_send(Bytes::copy_from_slice(&buffer[..n]))
                        .is_err()
                    {
                        return;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    from
}

/// Columns and rows of the terminal.
pub fn size() -> Option<(u16, u16)> {
    let mut size = nix::libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize, which outlives the call.
    let asked =
        unsafe { nix::libc::ioctl(nix::libc::STDOUT_FILENO, nix::libc::TIOCGWINSZ, &mut size) };
    (asked == 0 && size.ws_col > 0).then_some((size.ws_col, size.ws_row))
}
