//! Tests of the loader cache, also against this machine's own `ldconfig`.

use std::process::Command;

use proptest::prelude::*;

use super::*;

fn names(cache: &Cache<'_>) -> Vec<String> {
    cache
        .entries
        .iter()
        .map(|e| String::from_utf8_lossy(&e.name).into_owned())
        .collect()
}

fn sorted(cache: &Cache<'_>) -> bool {
    cache
        .entries
        .windows(2)
        .all(|w| compare(&w[0].name, &w[1].name) != Ordering::Less)
}

#[test]
fn digits_compare_as_numbers() {
    assert_eq!(compare(b"libfoo.so.10", b"libfoo.so.9"), Ordering::Greater);
    assert_eq!(compare(b"libfoo.so.1", b"libfoo.so.1.2"), Ordering::Less);
    assert_eq!(compare(b"liba", b"lib1"), Ordering::Less);
    assert_eq!(compare(b"lib01", b"lib1"), Ordering::Equal);
    assert_eq!(compare(b"", b"a"), Ordering::Less);
    assert_eq!(compare(b"1", b""), Ordering::Greater);
}

#[test]
fn a_new_cache_holds_what_was_put() {
    let mut cache = Cache::empty();
    assert!(cache.put_first(b"libcuda.so.1", b"/usr/lib/vgpu/libcuda.so.1"));
    assert!(cache.put_first(b"libnvidia-ml.so.1", b"/usr/lib/vgpu/libnvidia-ml.so.1"));
    assert!(cache.put_first(b"libcuda.so", b"/usr/lib/vgpu/libcuda.so.1"));
    assert!(!cache.put_first(b"libcuda.so", b"/usr/lib/vgpu/libcuda.so.1"));
    let bytes = cache.encode().unwrap();
    let again = Cache::parse(&bytes).unwrap();
    assert_eq!(again, cache);
    assert_eq!(
        names(&again),
        ["libnvidia-ml.so.1", "libcuda.so.1", "libcuda.so"]
    );
}

#[test]
fn ours_goes_in_front_of_others_of_the_name() {
    let mut cache = Cache::empty();
    cache.put_first(b"libcuda.so.1", b"/usr/lib/x86_64-linux-gnu/libcuda.so.1");
    cache.put_first(b"libz.so.1", b"/usr/lib/libz.so.1");
    cache.put_first(b"liba.so.1", b"/usr/lib/liba.so.1");
    let other = cache
        .entries
        .iter()
        .position(|e| *e.name == *b"libcuda.so.1")
        .unwrap();
    cache.entries[other].hwcap = (1 << 62) | 1;
    assert!(cache.put_first(b"libcuda.so.1", b"/usr/lib/vgpu/libcuda.so.1"));
    assert_eq!(
        names(&cache),
        ["libz.so.1", "libcuda.so.1", "libcuda.so.1", "liba.so.1"]
    );
    assert_eq!(*cache.entries[1].path, *b"/usr/lib/vgpu/libcuda.so.1");
    assert!(sorted(&cache));
}

#[test]
fn what_is_no_cache_is_refused() {
    assert_eq!(Cache::parse(b"").unwrap_err(), CacheError::Magic);
    assert_eq!(Cache::parse(b"root:x:0:0").unwrap_err(), CacheError::Magic);
    assert_eq!(
        Cache::parse(b"ld.so-1.7.0\0\xff\xff\xff\xff").unwrap_err(),
        CacheError::OldOnly
    );
    let mut big = Cache::empty();
    big.put_first(b"liba.so", b"/a");
    let mut bytes = big.encode().unwrap();
    bytes[20] = 200;
    assert!(matches!(
        Cache::parse(&bytes).unwrap_err(),
        CacheError::Truncated { .. }
    ));
}

#[test]
fn the_old_format_in_front_is_skipped() {
    let mut cache = Cache::empty();
    cache.put_first(b"liba.so.1", b"/lib/liba.so.1");
    let mut file = b"ld.so-1.7.0\0".to_vec();
    file.extend_from_slice(&1u32.to_le_bytes());
    file.extend_from_slice(&[0; OLD_ENTRY]);
    file.resize(32, 0);
    file.extend_from_slice(&cache.encode().unwrap());
    assert_eq!(Cache::parse(&file).unwrap(), cache);
}

/// The system's own cache must survive a round trip, and `ldconfig` must read the result the same way.
#[test]
fn ldconfig_reads_what_is_written() {
    let Ok(system) = std::fs::read("/etc/ld.so.cache") else {
        eprintln!("SKIP: this machine has no /etc/ld.so.cache");
        return;
    };
    let mut cache = Cache::parse(&system).unwrap();
    assert!(sorted(&cache), "the order differs from ldconfig's");
    assert_eq!(Cache::parse(&cache.encode().unwrap()).unwrap(), cache);
    cache.put_first(b"libcuda.so.1", b"/usr/lib/vgpu/libcuda.so.1");
    cache.put_first(b"libcuda.so", b"/usr/lib/vgpu/libcuda.so.1");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ld.so.cache");
    std::fs::write(&file, cache.encode().unwrap()).unwrap();
    let (Some(before), Some(after)) = (print(None), print(Some(&file))) else {
        eprintln!("SKIP: this machine has no ldconfig");
        return;
    };
    let ours = |line: &&String| line.contains("/usr/lib/vgpu/");
    assert_eq!(after.iter().filter(ours).count(), 2, "{after:?}");
    let others: Vec<_> = after.iter().filter(|l| !ours(l)).skip(1).collect();
    assert_eq!(others, before.iter().skip(1).collect::<Vec<_>>());
}

fn print(cache: Option<&std::path::Path>) -> Option<Vec<String>> {
    let mut command = Command::new("/sbin/ldconfig");
    command.arg("-p");
    if let Some(file) = cache {
        command.arg("-C").arg(file);
    }
    let output = command.output().ok()?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(str::to_owned)
            .collect(),
    )
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(Cache::parse(&bytes));
        let mut file = NEW_MAGIC.to_vec();
        file.extend_from_slice(&bytes);
        if let Ok(cache) = Cache::parse(&file) {
            let again = cache.encode().unwrap();
            prop_assert_eq!(Cache::parse(&again).unwrap().entries, cache.entries);
        }
    }

    #[test]
    fn a_damaged_cache_never_panics(at in 0usize..300, value in any::<u8>()) {
        let mut cache = Cache::empty();
        for name in [&b"liba.so.1"[..], b"libb.so.2", b"libcuda.so.1"] {
            cache.put_first(name, b"/usr/lib/x");
        }
        let mut bytes = cache.encode().unwrap();
        let at = at.min(bytes.len().saturating_sub(1));
        bytes[at] = value;
        if let Ok(mut cache) = Cache::parse(&bytes) {
            cache.put_first(b"libcuda.so.1", b"/usr/lib/vgpu/libcuda.so.1");
            cache.encode().unwrap();
        }
    }

    #[test]
    fn the_order_is_total(a in "[a0-9.]{0,6}", b in "[a0-9.]{0,6}", c in "[a0-9.]{0,6}") {
        let (a, b, c) = (a.as_bytes(), b.as_bytes(), c.as_bytes());
        prop_assert_eq!(compare(a, b), compare(b, a).reverse());
        if compare(a, b) != Ordering::Less && compare(b, c) != Ordering::Less {
            prop_assert_ne!(compare(a, c), Ordering::Less);
        }
    }
}
