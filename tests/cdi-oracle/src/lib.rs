//! Our specs and our verdicts before the reference implementation of CDI for Rust.
//!
//! It is what Kata's runtime resolves devices with, written after the library of the other engines. Where it is more
//! lenient than we are, the rule is one of the engines' or of the specification, and named here.

#![cfg(test)]

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use container_device_interface::cache::{new_cache, with_auto_refresh};
use container_device_interface::spec::{parse_spec, read_spec};
use container_device_interface::spec_dirs::with_spec_dirs;
use container_device_interface::version::minimum_required_version;
use oci_spec::runtime::Spec as OciSpec;
use vgpu_cdi::spec::{Severity, Version, file, validate};

/// Faults that the reference lets pass: the library of the other engines crashes on a one-letter name, and a hook with
/// a relative path is started from wherever the runtime happens to be.
const ONLY_OURS: [&str; 3] = [
    "one-letter-class.json",
    "one-letter-vendor.json",
    "relative-hook.json",
];

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "json" || e == "yaml"));
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths
}

/// Our golden CDI specs and the good ones of the fixtures.
fn good() -> Vec<PathBuf> {
    let mut paths = files("golden");
    paths.retain(|path| {
        path.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("nvidia-")
    });
    paths.extend(files("fixtures/cdi/good"));
    paths
}

/// Whether the reference accepts the file; a panic is a refusal too.
fn reference_accepts(path: &Path) -> bool {
    let path = path.to_owned();
    catch_unwind(move || read_spec(&path, 0).is_ok()).unwrap_or(false)
}

fn we_accept(path: &Path) -> bool {
    file::read(path).is_ok_and(|spec| {
        validate(&spec, &[])
            .iter()
            .all(|fault| fault.severity == Severity::Warning)
    })
}

#[test]
fn what_we_generate_and_call_good_is_accepted() {
    for path in good() {
        assert!(we_accept(&path), "{}", path.display());
        let read = read_spec(&path, 0);
        assert!(read.is_ok(), "{}: {:?}", path.display(), read.err());
    }
}

#[test]
fn what_is_refused_there_is_refused_here() {
    let mut only_ours = Vec::new();
    for path in files("fixtures/cdi/bad") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(!we_accept(&path), "{name}");
        if reference_accepts(&path) {
            only_ours.push(name);
        }
    }
    assert_eq!(only_ours, ONLY_OURS);
}

#[test]
fn the_lowest_version_is_the_same() {
    for path in good() {
        let theirs = minimum_required_version(&parse_spec(&path).unwrap()).unwrap();
        let ours = Version::needed(&file::read(&path).unwrap()).0;
        assert_eq!(
            theirs.to_string().trim_start_matches('v'),
            ours.to_string(),
            "{path:?}"
        );
    }
}

#[test]
fn a_quarter_is_injected() {
    let golden = good()
        .into_iter()
        .find(|path| path.ends_with("nvidia-basic.json"));
    let mut text = fs::read_to_string(golden.unwrap()).unwrap();
    // The nodes have to exist for the reference to look at them.
    for node in [
        "nvidia-uvm-tools",
        "nvidia-uvm",
        "nvidiactl",
        "nvidia0",
        "nvidia3",
    ] {
        text = text.replace(&format!("/ROOT/dev/{node}\""), "/dev/null\"");
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vgpu.json"), text).unwrap();
    let directories = with_spec_dirs(&[folder.path().to_str().unwrap()]);
    let cache = new_cache(vec![directories, with_auto_refresh(true)]);
    let mut container = OciSpec::default();
    let device = "tensor-fusion.ai/vgpu=gpu0-quarter".to_owned();
    cache
        .lock()
        .unwrap()
        .inject_devices(Some(&mut container), vec![device])
        .unwrap();

    let env = container.process().as_ref().unwrap().env().clone().unwrap();
    assert!(
        env.contains(&"NVIDIA_VISIBLE_DEVICES=void".to_owned()),
        "{env:?}"
    );
    let nodes = container
        .linux()
        .as_ref()
        .unwrap()
        .devices()
        .clone()
        .unwrap();
    let paths: Vec<&Path> = nodes.iter().map(|node| node.path().as_path()).collect();
    assert!(paths.contains(&Path::new("/dev/nvidia3")), "{paths:?}");
    assert!(!paths.contains(&Path::new("/dev/nvidia0")), "{paths:?}");
    let hooks = container.hooks().clone().unwrap();
    assert_eq!(hooks.create_runtime().as_ref().unwrap().len(), 1);
    assert_eq!(hooks.create_container().as_ref().unwrap().len(), 1);
    assert_eq!(hooks.poststop().as_ref().unwrap().len(), 1);
    let mounts = container.mounts().clone().unwrap();
    let limiter = Path::new("/usr/lib/vgpu/libcuda.so.1");
    let limiter = mounts
        .iter()
        .find(|mount| mount.destination() == limiter)
        .unwrap();
    assert!(
        limiter
            .options()
            .as_ref()
            .unwrap()
            .contains(&"ro".to_owned())
    );
}
