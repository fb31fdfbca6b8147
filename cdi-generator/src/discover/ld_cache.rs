//! Reads the dynamic loader's cache, `/etc/ld.so.cache`, of a driver root.
//!
//! The file belongs to a root that may be a container's, so nothing in it is trusted: every offset is checked, a broken
//! file is no entries and never a panic. **Source:** glibc `sysdeps/generic/dl-cache.h` and `elf/cache.c` of 2.41; the
//! old format (`ld.so-1.7.0`) is only skipped, no system since 2.32 writes it alone.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Root;

/// Where a system keeps it.
const PATH: &str = "/etc/ld.so.cache";
/// Larger than any real cache; a hostile one shall not fill the memory.
const MAX_BYTES: u64 = 64 << 20;

const OLD_MAGIC: &[u8] = b"ld.so-1.7.0";
const OLD_HEADER: usize = 16;
const OLD_ENTRY: usize = 12;
const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const NEW_HEADER: usize = 48;
const NEW_ENTRY: usize = 24;

/// Flags of a 64-bit library for glibc on this machine: `FLAG_ELF_LIBC6` and the architecture's own bits.
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0x0a03;
#[cfg(not(target_arch = "aarch64"))]
const NATIVE: u32 = 0x0303;

/// One library that the loader would find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What a program asks for, `libcuda.so.1`.
    pub name: String,
    /// Where it is, a path below the root.
    pub path: PathBuf,
}

/// The libraries of this machine's architecture in the cache of `root`, in the order of the file; none where there is
/// no cache or it is broken.
#[must_use]
pub fn read(root: &Root) -> Vec<Entry> {
    let bytes = root.resolve_on_host(Path::new(PATH)).and_then(|path| {
        let mut bytes = Vec::new();
        File::open(path)
            .ok()?
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)
            .ok()?;
        Some(bytes)
    });
    bytes
        .and_then(|bytes| parse(&bytes, NATIVE))
        .unwrap_or_default()
}

/// The entries of a cache whose flags are `flags`; nothing where the file is not a cache.
#[must_use]
pub fn parse(file: &[u8], flags: u32) -> Option<Vec<Entry>> {
    let cache = skip_old(file)?;
    if !cache.starts_with(NEW_MAGIC) {
        return None;
    }
    let count = usize::try_from(word(cache, NEW_MAGIC.len())?).ok()?;
    let length = count.checked_mul(NEW_ENTRY)?;
    let entries = cache.get(NEW_HEADER..)?.get(..length)?;
    let parsed = entries.chunks_exact(NEW_ENTRY).filter_map(|entry| {
        let kind = word(entry, 0)?;
        let name = string(cache, word(entry, 4)?)?;
        let path = string(cache, word(entry, 8)?)?;
        (kind == flags && path.starts_with('/')).then(|| Entry {
            name: name.to_owned(),
            path: path.into(),
        })
    });
    Some(parsed.collect())
}

/// The new format behind an old one, whose end is rounded up to the alignment of its entries.
fn skip_old(file: &[u8]) -> Option<&[u8]> {
    if !file.starts_with(OLD_MAGIC) {
        return Some(file);
    }
    let count = usize::try_from(word(file, 12)?).ok()?;
    let end = count.checked_mul(OLD_ENTRY)?.checked_add(OLD_HEADER)?;
    file.get(end.checked_next_multiple_of(8)?..)
}

/// The number at `at`, in the order of this machine: a cache is never read on another.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// The text at `at`, which counts from the start of the new header.
fn string(cache: &[u8], at: u32) -> Option<&str> {
    let text = cache.get(usize::try_from(at).ok()?..)?;
    CStr::from_bytes_until_nul(text).ok()?.to_str().ok()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::arithmetic_side_effects,
        reason = "offsets of a file that the test makes"
    )]

    use super::*;
    use proptest::prelude::*;

    /// A cache with these (flags, name, path) entries.
    fn cache(entries: &[(u32, &str, &str)]) -> Vec<u8> {
        let mut strings = Vec::new();
        let mut table = Vec::new();
        let base = NEW_HEADER + entries.len() * NEW_ENTRY;
        for (flags, name, path) in entries {
            let mut place = |text: &str| {
                let at = u32::try_from(base + strings.len()).unwrap();
                strings.extend(text.bytes().chain([0]));
                at
            };
            for number in [*flags, place(name), place(path), 0, 0, 0] {
                table.extend(number.to_ne_bytes());
            }
        }
        let mut file = NEW_MAGIC.to_vec();
        file.extend(u32::try_from(entries.len()).unwrap().to_ne_bytes());
        file.resize(NEW_HEADER, 0);
        file.extend(table);
        file.extend(strings);
        file
    }

    const ENTRIES: [(u32, &str, &str); 3] = [
        (0x303, "libcuda.so.1", "/opt/nvidia/libcuda.so.1"),
        (0x003, "libcuda.so.1", "/opt/nvidia32/libcuda.so.1"),
        (0x303, "libx.so", "relative"),
    ];

    #[test]
    fn reads_what_the_machine_can_load() {
        let entries = parse(&cache(&ENTRIES), 0x303).unwrap();
        let path = PathBuf::from("/opt/nvidia/libcuda.so.1");
        assert_eq!(
            entries,
            [Entry {
                name: "libcuda.so.1".to_owned(),
                path
            }]
        );
    }

    #[test]
    fn skips_the_old_format() {
        for count in 0..4_u32 {
            let mut file = OLD_MAGIC.to_vec();
            file.push(0);
            file.extend(count.to_ne_bytes());
            let end = OLD_HEADER + usize::try_from(count).unwrap() * OLD_ENTRY;
            file.resize(end.next_multiple_of(8), 0);
            file.extend(cache(&ENTRIES));
            assert_eq!(parse(&file, 0x303).unwrap().len(), 1);
        }
    }

    #[test]
    fn reads_this_machine() {
        for entry in read(&Root::new("/")) {
            assert!(entry.path.is_absolute() && !entry.name.is_empty());
        }
    }

    #[test]
    fn every_cut_is_harmless() {
        let whole = cache(&ENTRIES);
        for length in 0..whole.len() {
            let entries = parse(&whole[..length], 0x303).unwrap_or_default();
            assert!(entries.len() <= 1);
        }
    }

    proptest! {
        #[test]
        fn no_file_panics(tail in proptest::collection::vec(any::<u8>(), 0..256), old: bool) {
            let mut file = if old { OLD_MAGIC.to_vec() } else { NEW_MAGIC.to_vec() };
            file.extend(tail);
            prop_assert!(parse(&file, 0x303).is_none_or(|entries| entries.len() < 256));
        }

        #[test]
        fn no_damage_panics(at in 0_usize..160, value: u8) {
            let mut file = cache(&ENTRIES);
            let at = at % file.len();
            file[at] = value;
            if let Some(entries) = parse(&file, 0x303) {
                prop_assert!(entries.iter().all(|entry| entry.path.is_absolute()));
            }
        }
    }
}
