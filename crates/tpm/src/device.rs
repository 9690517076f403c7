//! The way to a TPM: the kernel's device, or the socket of a TPM in software.

use crate::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The longest answer of a TPM (`TPM_PT_MAX_RESPONSE_SIZE`).
const LONGEST: usize = 4096;
/// Tag, size and code stand before each answer.
const HEAD: usize = 10;
/// Making an RSA key takes a slow TPM this long at worst.
const PATIENCE: Duration = Duration::from_secs(90);

/// An open TPM.
pub struct Device {
    path: String,
    wire: Wire,
}

enum Wire {
    File(File),
    Socket(UnixStream),
}

impl Device {
    /// The kernel's device that shares the TPM between programs.
    pub const STANDARD: &str = "/dev/tpmrm0";

    /// Opens a device file, or the data socket of `swtpm`.
    ///
    /// # Errors
    /// When there is none, or it may not be opened.
    pub fn open(path: &Path) -> Result<Device> {
        let shown = path.display().to_string();
        let failed = |e: std::io::Error| Error::Device {
            device: shown.clone(),
            why: e.to_string(),
        };
        let sort = path.metadata().map_err(failed)?.file_type();
        let wire = match sort.is_socket() {
            true => {
                let socket = UnixStream::connect(path).map_err(failed)?;
                socket.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
                socket.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
                Wire::Socket(socket)
            }
            false => {
                let opened = OpenOptions::new().read(true).write(true).open(path);
                Wire::File(opened.map_err(failed)?)
            }
        };
        Ok(Device { path: shown, wire })
    }

    /// Sends a command and reads the answer.
    pub(crate) fn exchange(&mut self, command: &[u8]) -> Result<Vec<u8>> {
        let answer = match &mut self.wire {
            Wire::File(file) => talk(file, command),
            Wire::Socket(socket) => talk(socket, command),
        };
        answer.map_err(|e| Error::Device {
            device: self.path.clone(),
            why: e.to_string(),
        })
    }
}

fn talk(wire: &mut (impl Read + Write), command: &[u8]) -> std::io::Result<Vec<u8>> {
    wire.write_all(command)?;
    let short = || std::io::Error::new(std::io::ErrorKind::InvalidData, "its answer is broken");
    let mut answer = vec![0; LONGEST];
    let mut read = 0;
    loop {
        match wire.read(&mut answer[read..])? {
            0 => return Err(short()),
            more => read += more,
        }
        if read < HEAD {
            continue;
        }
        let size = u32::from_be_bytes([answer[2], answer[3], answer[4], answer[5]]) as usize;
        if !(HEAD..=LONGEST).contains(&size) || read > size {
            return Err(short());
        }
        if read == size {
            answer.truncate(size);
            return Ok(answer);
        }
    }
}
