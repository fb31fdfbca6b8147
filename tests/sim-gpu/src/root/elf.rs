//! The smallest shared object that `ldconfig` and the loader take: a SONAME and nothing else.
//!
//! Placeholders for the driver's other libraries are made of this, so that whatever reads a driver root sees
//! libraries with the right names. Layout from the ELF-64 specification, section by section as written.

/// Bytes of one page; the whole file is one read-only segment.
const PAGE: u64 = 0x1000;
const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const DYNAMIC: u64 = HEADER + 2 * PROGRAM_HEADER;
/// Six entries: SONAME, HASH, STRTAB, STRSZ, SYMTAB, NULL, 16 bytes each.
const HASH: u64 = DYNAMIC + 6 * 16;
/// One bucket, one chain: five words, padded to eight bytes.
const SYMBOLS: u64 = HASH + 24;
/// One empty symbol.
const STRINGS: u64 = SYMBOLS + 24;

/// The bytes of a shared object named `soname`.
pub(super) fn shared_object(soname: &str) -> Vec<u8> {
    let strings_len = soname.len() as u64 + 2;
    let length = STRINGS + strings_len;
    let mut bytes = Vec::new();
    header(&mut bytes);
    // PT_LOAD over the whole file, readable and (for the loader's own writes into the dynamic section) writable.
    program_header(&mut bytes, 1, 6, 0, length, PAGE);
    // PT_DYNAMIC.
    program_header(&mut bytes, 2, 6, DYNAMIC, HASH - DYNAMIC, 8);
    let dynamic = [
        (14, 1),
        (4, HASH),
        (5, STRINGS),
        (10, strings_len),
        (6, SYMBOLS),
        (0, 0),
    ];
    for (tag, value) in dynamic {
        words(&mut bytes, &[tag, value]);
    }
    halves(&mut bytes, &[1, 1, 0, 0, 0, 0]);
    words(&mut bytes, &[0, 0, 0]);
    bytes.push(0);
    bytes.extend_from_slice(soname.as_bytes());
    bytes.push(0);
    bytes
}

fn header(bytes: &mut Vec<u8>) {
    const MACHINE: u16 = if cfg!(target_arch = "aarch64") {
        183
    } else {
        62
    };
    bytes.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // ET_DYN, machine, version 1.
    bytes.extend_from_slice(&3_u16.to_le_bytes());
    bytes.extend_from_slice(&MACHINE.to_le_bytes());
    halves(bytes, &[1]);
    // No entry point, program headers behind this header, no section headers.
    words(bytes, &[0, HEADER, 0]);
    halves(bytes, &[0]);
    for value in [HEADER as u16, PROGRAM_HEADER as u16, 2, 64, 0, 0] {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
}

fn program_header(bytes: &mut Vec<u8>, kind: u32, flags: u32, start: u64, size: u64, align: u64) {
    halves(bytes, &[kind, flags]);
    words(bytes, &[start, start, start, size, size, align]);
}

fn halves(bytes: &mut Vec<u8>, values: &[u32]) {
    values
        .iter()
        .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

fn words(bytes: &mut Vec<u8>, values: &[u64]) {
    values
        .iter()
        .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_lie_where_the_headers_say() {
        let bytes = shared_object("libx.so.1");
        assert_eq!(&bytes[STRINGS as usize + 1..], b"libx.so.1\0");
        assert_eq!(bytes[DYNAMIC as usize], 14);
        assert_eq!(bytes[HASH as usize], 1);
    }
}
