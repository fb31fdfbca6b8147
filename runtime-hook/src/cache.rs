//! glibc's loader cache: reads `ld.so.cache`, puts names in front, writes it again.
//!
//! Owns the bytes only: no file is opened here, and no byte of the input is trusted (offsets are checked, an entry
//! that points nowhere is left out, as the loader leaves it out). Keeps every other entry, the order that the
//! loader's binary search needs, and the table of `glibc-hwcaps`. Facts: glibc `sysdeps/generic/dl-cache.h`,
//! `elf/dl-cache.c` and `elf/cache.c`, 2.17 to 2.41.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashMap;

use thiserror::Error;

/// The longest cache that is read, in bytes. A desktop's has about 200 KiB.
pub const CACHE_LIMIT: u64 = 16 << 20;

const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
const HEADER: usize = 48;
const ENTRY: usize = 24;
const EXTENSION_MAGIC: u32 = 0xeaa4_2174;
const TAG_GENERATOR: u32 = 0;
const TAG_HWCAPS: u32 = 1;
const ENDIAN_LITTLE: u8 = 2;
const ENDIAN_BIG: u8 = 3;
/// The most names of `glibc-hwcaps` folders that are kept; glibc knows fewer than ten.
const HWCAPS_LIMIT: usize = 1024;

/// Entry flags of a library for this machine: ELF, glibc 2, 64 bit. Source: `dl-cache.h`, `FLAG_*`.
#[cfg(target_arch = "aarch64")]
pub const NATIVE_FLAGS: u32 = 0x0a03;
/// Entry flags of a library for this machine: ELF, glibc 2, 64 bit. Source: `dl-cache.h`, `FLAG_*`.
#[cfg(not(target_arch = "aarch64"))]
pub const NATIVE_FLAGS: u32 = 0x0303;

/// Why a file is not a loader cache. The loader ignores such a file and searches its default directories.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CacheError {
    /// It begins with no known magic.
    #[error("no loader cache: it begins with neither 'ld.so-1.7.0' nor 'glibc-ld.so.cache1.1'")]
    Magic,
    /// It is of the old kind only, from before glibc 2.2.
    #[error("loader cache of the old format only")]
    OldOnly,
    /// It is for the other byte order.
    #[error("loader cache in the other byte order")]
    ByteOrder,
    /// It is shorter than its own tables.
    #[error("loader cache is cut short: {entries} entries do not fit in {length} bytes")]
    Truncated {
        /// Entries promised by the header.
        entries: u32,
        /// Bytes there are.
        length: usize,
    },
    /// The result would not fit the format's 32-bit offsets.
    #[error("loader cache would be longer than 4 GiB")]
    TooLong,
}

/// One library of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Kind and architecture.
    pub flags: u32,
    /// The name that a program asks for.
    pub name: Cow<'a, [u8]>,
    /// The file that it gets.
    pub path: Cow<'a, [u8]>,
    /// Oldest kernel, encoded; 0 since glibc 2.38.
    pub osversion: u32,
    /// Required processor features; bit 62 makes the low half an index into the cache's `hwcaps`.
    pub hwcap: u64,
}

/// A parsed cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cache<'a> {
    /// In the file's order, which is descending.
    pub entries: Vec<Entry<'a>>,
    hwcaps: Vec<&'a [u8]>,
    generator: Option<&'a [u8]>,
    byte_order: u8,
}

impl<'a> Cache<'a> {
    /// A cache for an image that has none.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            byte_order: ENDIAN_LITTLE,
            ..Self::default()
        }
    }

    /// Reads a cache of the current format, also one with the old format in front of it.
    ///
    /// # Errors
    /// [`CacheError`] in each case in which the loader would ignore the file too.
    pub fn parse(file: &'a [u8]) -> Result<Self, CacheError> {
        let start = new_start(file)?;
        let new = file.get(start..).unwrap_or_default();
        let count = word(new, 20).ok_or(CacheError::Magic)?;
        let truncated = || CacheError::Truncated {
            entries: count,
            length: file.len(),
        };
        let byte_order = *new.get(28).ok_or_else(truncated)?;
        if byte_order == ENDIAN_BIG {
            return Err(CacheError::ByteOrder);
        }
        let size = usize::try_from(count)
            .ok()
            .and_then(|n| n.checked_mul(ENTRY));
        let end = size
            .and_then(|s| s.checked_add(HEADER))
            .ok_or_else(truncated)?;
        let table = new.get(HEADER..end).ok_or_else(truncated)?;
        let entries = table
            .chunks_exact(ENTRY)
            .filter_map(|raw| entry(new, raw))
            .collect();
        let extension = word(new, 32).unwrap_or(0);
        let (generator, hwcaps) = extensions(file, extension).unwrap_or_default();
        Ok(Self {
            entries,
            hwcaps,
            generator,
            byte_order,
        })
    }

    /// Puts `name` in front of every entry of that name, so that the loader takes `path`. Does nothing when the
    /// first entry of that name is this one already; answers whether it did anything.
    pub fn put_first(&mut self, name: &'a [u8], path: &'a [u8]) -> bool {
        let place = self
            .entries
            .iter()
            .position(|e| compare(name, &e.name) != Ordering::Less);
        let place = place.unwrap_or(self.entries.len());
        let there = |e: &Entry<'_>| {
            *e.name == *name && *e.path == *path && e.flags == NATIVE_FLAGS && e.hwcap == 0
        };
        if self.entries.get(place).is_some_and(there) {
            return false;
        }
        let entry = Entry {
            flags: NATIVE_FLAGS,
            name: Cow::Borrowed(name),
            path: Cow::Borrowed(path),
            osversion: 0,
            hwcap: 0,
        };
        self.entries.insert(place, entry);
        true
    }

    /// Writes the cache in the current format.
    ///
    /// # Errors
    /// [`CacheError::TooLong`] when it does not fit 32-bit offsets.
    pub fn encode(&self) -> Result<Vec<u8>, CacheError> {
        self.try_encode().ok_or(CacheError::TooLong)
    }

    fn try_encode(&self) -> Option<Vec<u8>> {
        let strings_start = self.entries.len().checked_mul(ENTRY)?.checked_add(HEADER)?;
        let mut strings = Strings::new(strings_start);
        let mut table = Vec::new();
        for entry in &self.entries {
            push(&mut table, entry.flags);
            push(&mut table, strings.add(&entry.name)?);
            push(&mut table, strings.add(&entry.path)?);
            push(&mut table, entry.osversion);
            table.extend_from_slice(&entry.hwcap.to_le_bytes());
        }
        let hwcaps: Vec<u32> = self
            .hwcaps
            .iter()
            .map(|h| strings.add(h))
            .collect::<Option<_>>()?;
        let strings_end = strings_start.checked_add(strings.bytes.len())?;
        let padding = strings_end.next_multiple_of(4).checked_sub(strings_end)?;
        let extension_at = u32::try_from(strings_end.checked_add(padding)?).ok()?;
        let extension = self.extension(extension_at, &hwcaps)?;

        let mut out = NEW_MAGIC.to_vec();
        push(&mut out, u32::try_from(self.entries.len()).ok()?);
        push(&mut out, u32::try_from(strings.bytes.len()).ok()?);
        out.extend_from_slice(&[self.byte_order, 0, 0, 0]);
        push(
            &mut out,
            if extension.is_empty() {
                0
            } else {
                extension_at
            },
        );
        out.extend_from_slice(&[0; 12]);
        out.append(&mut table);
        out.append(&mut strings.bytes);
        if !extension.is_empty() {
            out.resize(out.len().checked_add(padding)?, 0);
            out.extend_from_slice(&extension);
        }
        Some(out)
    }

    /// The extension block; its section offsets count from the start of the file.
    fn extension(&self, at: u32, hwcaps: &[u32]) -> Option<Vec<u8>> {
        let mut sections: Vec<(u32, Vec<u8>)> = Vec::new();
        if !hwcaps.is_empty() {
            sections.push((
                TAG_HWCAPS,
                hwcaps.iter().flat_map(|o| o.to_le_bytes()).collect(),
            ));
        }
        if let Some(generator) = self.generator {
            sections.push((TAG_GENERATOR, generator.to_vec()));
        }
        if sections.is_empty() {
            return Some(Vec::new());
        }
        let count = u32::try_from(sections.len()).ok()?;
        let mut next = at.checked_add(8)?.checked_add(count.checked_mul(16)?)?;
        let mut out = Vec::new();
        push(&mut out, EXTENSION_MAGIC);
        push(&mut out, count);
        for (tag, data) in &sections {
            let size = u32::try_from(data.len()).ok()?;
            for word in [*tag, 0, next, size] {
                push(&mut out, word);
            }
            next = next.checked_add(size)?;
        }
        out.extend(sections.into_iter().flat_map(|(_, data)| data));
        Some(out)
    }
}

/// The string table while it grows; equal strings share a place.
struct Strings<'a> {
    start: usize,
    bytes: Vec<u8>,
    seen: HashMap<&'a [u8], u32>,
}

impl<'a> Strings<'a> {
    fn new(start: usize) -> Self {
        Self {
            start,
            bytes: Vec::new(),
            seen: HashMap::new(),
        }
    }

    fn add(&mut self, text: &'a [u8]) -> Option<u32> {
        if let Some(&offset) = self.seen.get(text) {
            return Some(offset);
        }
        let offset = u32::try_from(self.start.checked_add(self.bytes.len())?).ok()?;
        self.bytes.extend_from_slice(text);
        self.bytes.push(0);
        self.seen.insert(text, offset);
        Some(offset)
    }
}

/// The loader's order of names: digits count as numbers. Source: `elf/dl-cache.c`, `_dl_cache_libcmp`.
#[must_use]
pub fn compare(mut left: &[u8], mut right: &[u8]) -> Ordering {
    loop {
        match (left.first(), right.first()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(l), right_first) if l.is_ascii_digit() => {
                if !right_first.is_some_and(u8::is_ascii_digit) {
                    return Ordering::Greater;
                }
                let (l, l_rest) = number(left);
                let (r, r_rest) = number(right);
                // Without leading zeros the longer run is the larger number.
                let order = l.len().cmp(&r.len()).then_with(|| l.cmp(r));
                if order != Ordering::Equal {
                    return order;
                }
                (left, right) = (l_rest, r_rest);
            }
            (Some(_), None) => return Ordering::Greater,
            (Some(_), Some(r)) if r.is_ascii_digit() => return Ordering::Less,
            (Some(l), Some(r)) => {
                if l != r {
                    return l.cmp(r);
                }
                left = left.get(1..).unwrap_or_default();
                right = right.get(1..).unwrap_or_default();
            }
        }
    }
}

/// Splits the leading digits off, without their leading zeros.
fn number(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text
        .iter()
        .position(|c| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end).unwrap_or((text, &[]));
    let zeros = digits
        .iter()
        .position(|c| *c != b'0')
        .unwrap_or(digits.len());
    (digits.get(zeros..).unwrap_or_default(), rest)
}

/// Where the current format begins: at once, or after the old format's table, aligned to eight bytes.
fn new_start(file: &[u8]) -> Result<usize, CacheError> {
    if file.starts_with(NEW_MAGIC) {
        return Ok(0);
    }
    if !file.starts_with(OLD_MAGIC) {
        return Err(CacheError::Magic);
    }
    let count = word(file, 12).ok_or(CacheError::OldOnly)?;
    let size = usize::try_from(count)
        .ok()
        .and_then(|n| n.checked_mul(OLD_ENTRY));
    let start = size
        .and_then(|s| s.checked_add(OLD_HEADER))
        .and_then(|s| s.checked_next_multiple_of(8))
        .ok_or(CacheError::OldOnly)?;
    let new = file.get(start..).ok_or(CacheError::OldOnly)?;
    if new.starts_with(NEW_MAGIC) {
        Ok(start)
    } else {
        Err(CacheError::OldOnly)
    }
}

fn entry<'a>(new: &'a [u8], raw: &[u8]) -> Option<Entry<'a>> {
    let hwcap = raw.get(16..24)?.try_into().ok().map(u64::from_le_bytes)?;
    Some(Entry {
        flags: word(raw, 0)?,
        name: Cow::Borrowed(text(new, word(raw, 4)?)?),
        path: Cow::Borrowed(text(new, word(raw, 8)?)?),
        osversion: word(raw, 12)?,
        hwcap,
    })
}

type Extensions<'a> = (Option<&'a [u8]>, Vec<&'a [u8]>);

/// Generator and hwcaps names. Any fault in them makes the loader ignore the block, and so do we.
fn extensions(file: &[u8], at: u32) -> Option<Extensions<'_>> {
    let block = file.get(usize::try_from(at).ok()?..)?;
    if at == 0 || word(block, 0)? != EXTENSION_MAGIC {
        return None;
    }
    let (mut generator, mut hwcaps) = (None, Vec::new());
    let count = usize::try_from(word(block, 4)?).ok()?;
    for section in block.get(8..)?.chunks_exact(16).take(count) {
        let from = usize::try_from(word(section, 8)?).ok()?;
        let to = from.checked_add(usize::try_from(word(section, 12)?).ok()?)?;
        let data = file.get(from..to)?;
        match word(section, 0)? {
            TAG_GENERATOR => generator = Some(data),
            TAG_HWCAPS => {
                let words = data.chunks_exact(4).take(HWCAPS_LIMIT);
                hwcaps = words
                    .map(|w| text(file, word(w, 0)?))
                    .collect::<Option<_>>()?;
            }
            _ => {}
        }
    }
    Some((generator, hwcaps))
}

/// The string at an offset, without its end mark.
fn text(data: &[u8], offset: u32) -> Option<&[u8]> {
    let tail = data.get(usize::try_from(offset).ok()?..)?;
    // A path longer than the system's limit cannot be opened by the loader either.
    let end = tail.iter().take(4097).position(|c| *c == 0)?;
    tail.get(..end)
}

fn word(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_le_bytes)
}

fn push(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests;
