//! The libraries as files: names, dependencies, exports, symbol floor, nothing that runs at load time.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::tests_outside_test_module,
    reason = "a suite"
)]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use vgpu_tests::{Outcome, built};

macro_rules! names {
    ($( { $slot:literal $class:ident $name:ident $($rest:tt)* } )*) => { [$(stringify!($name)),*] };
}

/// File, driver behind it, every public function of the header.
fn libraries() -> [(PathBuf, &'static str, BTreeSet<&'static str>); 2] {
    [
        (
            built::file("lib/vgpu/libcuda.so.1"),
            "libcuda-driver.so.1",
            BTreeSet::from(vgpu_cuda_sys::cuda_table!(names)),
        ),
        (
            built::file("lib/vgpu/libnvidia-ml.so.1"),
            "libnvidia-ml-driver.so.1",
            BTreeSet::from(vgpu_cuda_sys::nvml_table!(names)),
        ),
    ]
}

fn readelf(option: &str, file: &std::path::Path) -> String {
    Outcome::of(Command::new("readelf").args(["-W", option]).arg(file)).good()
}

#[test]
fn exactly_the_public_functions_are_exported() {
    for (file, _, names) in libraries() {
        let table = readelf("--dyn-syms", &file);
        let exported: BTreeSet<&str> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|fields| fields.len() >= 8 && fields[4] == "GLOBAL" && fields[6] != "UND")
            .map(|fields| fields[7])
            .collect();
        assert_eq!(exported, names, "{}", file.display());
    }
}

#[test]
fn it_stands_in_by_name_and_needs_the_driver_and_libc_alone() {
    for (file, driver, _) in libraries() {
        let dynamic = readelf("--dynamic", &file);
        let values = |tag: &str| -> Vec<String> {
            dynamic
                .lines()
                .filter(|line| line.contains(&format!("({tag})")))
                .map(|line| line.split(['[', ']']).nth(1).unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(
            values("SONAME"),
            [file.file_name().unwrap().to_str().unwrap()]
        );
        assert_eq!(values("RUNPATH"), ["$ORIGIN/driver:/usr/lib/vgpu/driver"]);
        let (ours, libc): (Vec<_>, Vec<_>) = values("NEEDED")
            .into_iter()
            .partition(|name| name.contains("-driver."));
        assert_eq!(ours, [driver]);
        let known = [
            "libc.so.6",
            "ld-linux-x86-64.so.2",
            "libpthread.so.0",
            "libdl.so.2",
            "libm.so.6",
            "librt.so.1",
        ];
        assert!(
            libc.iter().all(|name| known.contains(&name.as_str())),
            "{libc:?}"
        );
    }
}

#[test]
fn no_symbol_is_newer_than_glibc_2_17() {
    for (file, _, _) in libraries() {
        for word in readelf("--version-info", &file).split_whitespace() {
            if let Some(version) = word.strip_prefix("GLIBC_") {
                let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap());
                let version = (parts.next().unwrap(), parts.next().unwrap());
                assert!(version <= (2, 17), "{}: {word}", file.display());
            }
        }
    }
}

/// The one entry is the standard library's own: it keeps argc and argv. There must be no other, and no init function.
#[test]
fn nothing_of_ours_runs_at_load_time() {
    for (file, _, _) in libraries() {
        let dynamic = readelf("--dynamic", &file);
        assert!(
            !dynamic.contains("(INIT) ") && !dynamic.contains("(PREINIT_ARRAY)"),
            "{dynamic}"
        );
        let size = dynamic
            .lines()
            .find(|line| line.contains("(INIT_ARRAYSZ)"))
            .map_or("0", |line| line.split_whitespace().nth(2).unwrap_or("?"));
        assert!(
            matches!(size, "0" | "8"),
            "{}: {size} bytes of constructors",
            file.display()
        );
    }
}
