//! Whole specs against golden files: driver roots of `tests/fixtures/rootfs`, inventories as data, no driver needed.
//!
//! `VGPU_BLESS=1` writes the golden files anew; a person reads the difference before it is committed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::disallowed_methods,
    clippy::tests_outside_test_module,
    reason = "a test that cannot go on stops with the reason"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use vgpu_cdi::generate::{Naming, Settings, generate};
use vgpu_cdi::spec::{Format, Severity, file, validate};
use vgpu_cdi::vendor::nvidia::Nvidia;
use vgpu_cdi::{Gpu, Inventory};
use vgpu_core::{Bytes, Config};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A driver root of the fixtures, laid out in a temporary directory.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn lay_out(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tree = project()
            .join("tests/fixtures/rootfs")
            .join(name)
            .join("tree");
        for line in fs::read_to_string(tree).unwrap().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [kind, path, rest @ ..] = words.as_slice()
                && *kind != "#"
            {
                make(
                    kind,
                    &folder.path().join(path.trim_start_matches('/')),
                    rest,
                );
            }
        }
        Self { folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().to_owned()
    }
}

fn make(kind: &str, path: &Path, rest: &[&str]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match kind {
        "f" => fs::write(path, "").unwrap(),
        "l" => symlink(rest[0], path).unwrap(),
        "p" => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        "s" => drop(UnixListener::bind(path).unwrap()),
        "c" => fs::write(path, loader_cache(rest)).unwrap(),
        _ => panic!("unknown kind of entry {kind:?}"),
    }
}

/// A loader cache with pairs of name and path, 64-bit libraries of this machine.
fn loader_cache(pairs: &[&str]) -> Vec<u8> {
    let flags: u32 = if cfg!(target_arch = "aarch64") {
        0x0a03
    } else {
        0x0303
    };
    let count = pairs.len() / 2;
    let mut at = u32::try_from(48 + count * 24).unwrap();
    let mut table = Vec::new();
    for pair in pairs.chunks_exact(2) {
        let second = at + u32::try_from(pair[0].len() + 1).unwrap();
        for number in [flags, at, second, 0, 0, 0] {
            table.extend(number.to_ne_bytes());
        }
        at = second + u32::try_from(pair[1].len() + 1).unwrap();
    }
    let mut bytes = b"glibc-ld.so.cache1.1".to_vec();
    bytes.extend(u32::try_from(count).unwrap().to_ne_bytes());
    bytes.resize(48, 0);
    bytes.extend(table);
    bytes.extend(pairs.iter().flat_map(|text| text.bytes().chain([0])));
    bytes
}

fn gpu(index: u32, minor: u32, name: &str, vram: Bytes, reserved: Bytes) -> Gpu {
    let mut bytes = [0x11; 16];
    bytes[15] = u8::try_from(index).unwrap();
    Gpu {
        index,
        uuid: vgpu_core::DeviceUuid::from_bytes(bytes),
        name: name.to_owned(),
        vram,
        reserved,
        minor,
        pci_bus_id: None,
        dri_nodes: Vec::new(),
    }
}

fn inventory(driver_version: &str, gpus: Vec<Gpu>) -> Inventory {
    let driver_version = driver_version.to_owned();
    Inventory {
        driver_version,
        cuda_version: Some("13.0".to_owned()),
        gpus,
    }
}

fn settings(config: &str, driver_root: &Path, dev_root: &Path) -> Settings {
    let mut config = Config::parse(config, Path::new("config.toml")).unwrap();
    driver_root.clone_into(&mut config.paths.driver_root);
    dev_root.clone_into(&mut config.paths.dev_root);
    Settings::new(config)
}

/// Compares `text` with the golden file, whole; the temporary roots read `/NAME` there.
#[track_caller]
fn compare(golden: &str, text: &str, roots: &[(&Path, &str)]) {
    let mut text = text.to_owned();
    for (root, name) in roots {
        text = text.replace(root.to_str().unwrap(), name);
    }
    let path = project().join("tests/golden").join(golden);
    if std::env::var_os("VGPU_BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let wanted = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; make bless writes it", path.display()));
    if let Some((line, (wanted, found))) = wanted
        .lines()
        .zip(text.lines())
        .enumerate()
        .find(|(_, (wanted, found))| wanted != found)
    {
        let path = path.display();
        panic!(
            "{path}:{}\n  wanted: {wanted}\n   found: {found}\nmake bless accepts",
            line + 1
        );
    }
    assert_eq!(
        wanted.len(),
        text.len(),
        "{}: one is longer; make bless accepts",
        path.display()
    );
}

/// The spec as text, generated twice and checked.
fn generated(inventory: &Inventory, settings: &Settings, format: Format) -> String {
    let spec = generate(&Nvidia, inventory, settings).unwrap();
    assert_eq!(
        spec,
        generate(&Nvidia, inventory, settings).unwrap(),
        "not deterministic"
    );
    let podman = "podman@4.3".parse().unwrap();
    let errors: Vec<_> = validate(&spec, &[podman])
        .into_iter()
        .filter(|fault| fault.severity == Severity::Error)
        .collect();
    assert_eq!(errors, []);
    file::render(&spec, format).unwrap()
}

fn two_gpus() -> Inventory {
    let h200 = |index, minor| {
        gpu(
            index,
            minor,
            "NVIDIA H200",
            Bytes::mib(143_771),
            Bytes::mib(600),
        )
    };
    inventory("580.95.05", vec![h200(0, 3), h200(1, 0)])
}

#[test]
fn basic() {
    let tree = Tree::lay_out("nvidia-basic");
    let root = tree.root();
    let settings = settings("", &root, &root);
    let text = generated(&two_gpus(), &settings, Format::Json);
    compare("nvidia-basic.json", &text, &[(&root, "/ROOT")]);
}

#[test]
fn basic_as_yaml() {
    let tree = Tree::lay_out("nvidia-basic");
    let root = tree.root();
    let mut settings = settings(
        "[profiles.quarter]\nvram = \"25%\"\ncompute = 25",
        &root,
        &root,
    );
    settings.naming = [Naming::Index].into();
    let text = generated(&two_gpus(), &settings, Format::Yaml);
    compare("nvidia-basic.yaml", &text, &[(&root, "/ROOT")]);
}

#[test]
fn every_capability() {
    let tree = Tree::lay_out("nvidia-basic");
    let root = tree.root();
    let mut settings = settings(
        "[profiles.4gi-25]\nvram = \"4Gi\"\ncompute = 25",
        &root,
        &root,
    );
    settings.capabilities = "all".parse().unwrap();
    settings.naming = [Naming::Uuid].into();
    let mut inventory = two_gpus();
    inventory.gpus[1].dri_nodes = vec!["card1".to_owned(), "renderD128".to_owned()];
    let text = generated(&inventory, &settings, Format::Json);
    compare("nvidia-graphics.json", &text, &[(&root, "/ROOT")]);
}

#[test]
fn debian() {
    let tree = Tree::lay_out("nvidia-debian");
    let root = tree.root();
    let settings = settings("[profiles]", &root, &root);
    let t4 = gpu(0, 0, "Tesla T4", Bytes::mib(15_360), Bytes::ZERO);
    let text = generated(&inventory("535.247.01", vec![t4]), &settings, Format::Json);
    compare("nvidia-debian.json", &text, &[(&root, "/ROOT")]);
}

const CONTAINER_CONFIG: &str = r#"
oversubscription = 1.5
context_footprint = "300Mi"
[profiles.half]
vram = "50%"
vram_request = "25%"
qos = "high"
[gpus]
exclude = [1]
[paths]
hook = "/opt/vgpu/hook"
limiter_dir = "/opt/vgpu"
run_dir = "/run/other"
"#;

#[test]
fn driver_container() {
    let (driver, host) = (
        Tree::lay_out("nvidia-container"),
        Tree::lay_out("nvidia-basic"),
    );
    let (root, dev) = (driver.root(), host.root());
    let settings = settings(CONTAINER_CONFIG, &root, &dev);
    let text = generated(
        &inventory("550.54.15", two_gpus().gpus),
        &settings,
        Format::Json,
    );
    compare(
        "nvidia-container.json",
        &text,
        &[(&root, "/DRIVER"), (&dev, "/DEV")],
    );
}

#[test]
fn what_is_missing_is_named() {
    let tree = Tree::lay_out("nvidia-basic");
    let root = tree.root();
    let fails = |inventory: &Inventory, dev_root: &Path| {
        generate(&Nvidia, inventory, &settings("", &root, dev_root))
            .unwrap_err()
            .to_string()
    };
    let error = fails(&two_gpus(), Path::new("/nonexistent"));
    assert!(
        error.contains("/dev/nvidiactl under /nonexistent"),
        "{error}"
    );
    assert!(error.contains("--dev-root"), "{error}");
    let mut other = two_gpus();
    other.gpus[1].minor = 9;
    let error = fails(&other, &root);
    assert!(error.contains("/dev/nvidia9"), "{error}");
    let error = fails(&inventory("999.1", two_gpus().gpus), &root);
    assert!(error.contains("no libcuda.so.999.1"), "{error}");
    fs::remove_file(root.join("usr/lib64/libnvidia-ml.so.580.95.05")).unwrap();
    let error = fails(&two_gpus(), &root);
    assert!(
        error.contains("no libnvidia-ml.so.1") && error.contains("libcuda.so.580"),
        "{error}"
    );
}
