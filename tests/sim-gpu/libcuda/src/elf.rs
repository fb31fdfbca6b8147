//! Cubins: the sections and symbols of an ELF file that name kernels and variables.
//!
//! A kernel is a section `.text.<name>`; its parameters are in `.nv.info.<name>`; variables are objects in the
//! symbol table. Offsets are checked against the file before they are used.

use vgpu_cuda_sys::cuda::*;

use crate::error::{Cu, Fail, ensure_or};
use crate::image::{Entry, Global, Image};
use crate::raw;

/// `EM_CUDA`.
const MACHINE: u16 = 190;
/// Section types.
const SYMBOLS: u32 = 2;
const NO_BITS: u32 = 8;
/// `EIATTR_KPARAM_INFO`, and the format of attributes with a length.
const PARAMETER: u8 = 0x17;
const SIZED: u8 = 4;

struct Section {
    name: usize,
    kind: u32,
    offset: usize,
    size: usize,
    link: usize,
}

/// Bytes of the file at an address, from its headers.
pub(crate) fn length(address: u64) -> usize {
    let table: u64 = raw::read(address + 0x28);
    let count: u16 = raw::read(address + 0x3C);
    let mut end = table + u64::from(count) * 64;
    for index in 0..u64::from(count) {
        let section = address + table + index * 64;
        if raw::read::<u32>(section + 4) != NO_BITS {
            end = end.max(raw::read::<u64>(section + 24) + raw::read::<u64>(section + 32));
        }
    }
    end as usize
}

fn number(bytes: &[u8], at: usize, len: usize) -> Cu<u64> {
    let part = bytes
        .get(at..at + len)
        .ok_or(Fail(CUDA_ERROR_INVALID_IMAGE))?;
    Ok(part
        .iter()
        .rev()
        .fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

fn name(bytes: &[u8], at: usize) -> String {
    let text = bytes.get(at..).unwrap_or_default();
    let len = text.iter().position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&text[..len]).into_owned()
}

fn sections(bytes: &[u8]) -> Cu<Vec<Section>> {
    let table = number(bytes, 0x28, 8)? as usize;
    let count = number(bytes, 0x3C, 2)? as usize;
    let read = |index: usize| {
        let at = table + index * 64;
        Ok(Section {
            name: number(bytes, at, 4)? as usize,
            kind: number(bytes, at + 4, 4)? as u32,
            offset: number(bytes, at + 24, 8)? as usize,
            size: number(bytes, at + 32, 8)? as usize,
            link: number(bytes, at + 40, 4)? as usize,
        })
    };
    (0..count).map(read).collect()
}

/// Reads a cubin.
pub(crate) fn read(bytes: &[u8]) -> Cu<Image> {
    ensure_or(
        number(bytes, 0x12, 2)? as u16 == MACHINE,
        CUDA_ERROR_INVALID_IMAGE,
    )?;
    let sections = sections(bytes)?;
    let names = number(bytes, 0x3E, 2)? as usize;
    let names = sections
        .get(names)
        .ok_or(Fail(CUDA_ERROR_INVALID_IMAGE))?
        .offset;
    let mut image = Image::default();
    for section in &sections {
        if let Some(kernel) = name(bytes, names + section.name).strip_prefix(".text.") {
            let info = format!(".nv.info.{kernel}");
            let info = sections
                .iter()
                .find(|other| name(bytes, names + other.name) == info);
            let params = info.map_or(Ok(Vec::new()), |info| parameters(bytes, info))?;
            image.entries.push(Entry {
                name: kernel.to_owned(),
                params,
                ..Entry::default()
            });
        }
        if section.kind == SYMBOLS {
            let strings = sections
                .get(section.link)
                .map_or(0, |strings| strings.offset);
            variables(bytes, section, strings, &mut image.globals)?;
        }
    }
    Ok(image)
}

fn parameters(bytes: &[u8], info: &Section) -> Cu<Vec<(usize, usize)>> {
    let mut params = Vec::new();
    let mut at = info.offset;
    while at + 4 <= info.offset + info.size {
        let format = number(bytes, at, 1)? as u8;
        let attribute = number(bytes, at + 1, 1)? as u8;
        let value = number(bytes, at + 2, 2)? as usize;
        at += 4;
        if format == SIZED {
            if attribute == PARAMETER {
                let ordinal = number(bytes, at + 4, 2)?;
                let offset = number(bytes, at + 6, 2)? as usize;
                let size = (number(bytes, at + 8, 4)? >> 18 & 0x3FFF) as usize;
                params.push((ordinal, offset, size));
            }
            at += value;
        }
    }
    params.sort_unstable();
    Ok(params
        .into_iter()
        .map(|(_, offset, size)| (offset, size))
        .collect())
}

fn variables(bytes: &[u8], table: &Section, strings: usize, globals: &mut Vec<Global>) -> Cu {
    const OBJECT: u64 = 1;
    for at in (table.offset..table.offset + table.size).step_by(24) {
        let (kind, size) = (number(bytes, at + 4, 1)? & 0xF, number(bytes, at + 16, 8)?);
        if kind == OBJECT && size > 0 {
            let name = name(bytes, strings + number(bytes, at, 4)? as usize);
            globals.push(Global {
                name,
                size,
                managed: false,
            });
        }
    }
    Ok(())
}
