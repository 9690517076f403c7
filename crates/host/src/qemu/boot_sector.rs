//! Guests of 512 bytes for tests and probes: machine code for the sector a PC starts from.

/// A boot sector of this 16-bit code, loaded at 0x7c00, with `text` right behind it.
fn sector(code: &[u8], text: &[u8]) -> Vec<u8> {
    let mut sector = [code, text].concat();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
}

/// Writes this byte to this port, then stands still.
pub(crate) fn ends_with(port: u8, byte: u8) -> Vec<u8> {
    let code = [
        0xb0, byte, // mov al, byte
        0xe6, port, // out port, al
        0xf4, // done: hlt
        0xeb, 0xfd, // jmp done
    ];
    sector(&code, &[])
}

/// Prints `text` (at most 400 bytes) to the first serial port, then executes `then`, then stands still.
#[cfg(test)]
pub(crate) fn says(text: &str, then: &[u8]) -> Vec<u8> {
    let mut code = vec![
        0xfa, // cli
        0xfc, // cld
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0, 0,    // mov si, text
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz done
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb, 0xf5, // jmp next
    ];
    code.extend(then);
    code.extend([0xf4, 0xeb, 0xfd]); // done: hlt; jmp done
    let at = 0x7c00 + code.len() as u16;
    code[7..9].copy_from_slice(&at.to_le_bytes());
    sector(&code, text.as_bytes())
}

/// Powers a q35 machine off, by its ACPI control register.
#[cfg(test)]
pub(crate) const POWER_OFF: &[u8] = &[
    0xba, 0x04, 0x06, // mov dx, 0x604
    0xb8, 0x00, 0x20, // mov ax, 0x2000
    0xef, // out dx, ax
];

/// Resets the machine.
#[cfg(test)]
pub(crate) const RESET: &[u8] = &[
    0xba, 0xf9, 0x0c, // mov dx, 0xcf9
    0xb0, 0x06, // mov al, 6
    0xee, // out dx, al
];
