//! The configuration file as people write it, right and wrong.

use super::*;
use crate::{Percent, QosClass};

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/vgpu/config.toml")).map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_is_the_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    let names: Vec<_> = config.profiles.keys().map(String::as_str).collect();
    assert_eq!(names, ["eighth", "full", "half", "quarter"]);
}

#[test]
fn the_example_of_the_module_is_valid() {
    let source = include_str!("mod.rs");
    let example: String = source
        .lines()
        .skip_while(|line| *line != "//! ```toml")
        .skip(1)
        .take_while(|line| *line != "//! ```")
        .map(|line| format!("{}\n", line.trim_start_matches("//!").trim_start()))
        .collect();
    let config = parse(&example).unwrap();
    assert_eq!(config.profiles.len(), 1);
    assert_eq!(config.gpus.exclude, [GpuSelector::Index(3)]);
}

#[test]
fn everything_can_be_said() {
    let config = parse(
        r#"
        oversubscription = 1.5
        context_footprint = "300Mi"
        [profiles.4gi-25]
        vram = "4Gi"
        vram_request = "2Gi"
        compute = 25
        compute_request = "10%"
        qos = "high"
        [profiles.bytes]
        vram = 1073741824
        [gpus]
        include = ["GPU-8f3a1c02-77de-4b1c-9a50-0123456789ab", "0", 1, "*H200*"]
        [paths]
        run_dir = "/tmp/run"
        limiter_dir = "/tmp/lib"
        hook = "/tmp/hook"
        driver_root = "/run/nvidia/driver"
        dev_root = "/tmp"
        cdi_spec_dir = "/tmp/cdi"
        "#,
    )
    .unwrap();
    assert_eq!(config.oversubscription_percent, 150);
    assert_eq!(config.context_footprint, Bytes::mib(300));
    let quota = config.profiles["4gi-25"].quota(Bytes::mib(8192)).unwrap();
    assert_eq!(quota.vram_limit, Bytes::mib(4096));
    assert_eq!(quota.vram_request, Bytes::mib(2048));
    assert_eq!(quota.compute_request, Percent::new(10).unwrap());
    assert_eq!(quota.qos, QosClass::High);
    assert_eq!(config.profiles["bytes"].compute, Percent::FULL);
    assert_eq!(config.gpus.include.len(), 4);
    assert_eq!(config.paths.cdi_spec_dir, Path::new("/tmp/cdi"));
}

/// A broken file, and what the message about it has to contain.
const FAULTS: &[(&str, &[&str])] = &[
    (
        "profile = 1",
        &["line 1 column 1", "`profile`", "`profiles`", "`paths`"],
    ),
    (
        "[profiles.a]\nvram = \"1Gi\"\ncpu = 3",
        &["line 3", "`cpu`", "`compute`"],
    ),
    ("[profiles.a]\ncompute = 3", &["vram"]),
    (
        "[profiles.a]\nvram = \"1Qi\"",
        &["profiles.a.vram", "\"1Qi\"", "a unit"],
    ),
    (
        "[profiles.a]\nvram = \"0%\"",
        &["profiles.a.vram", "above 0"],
    ),
    (
        "[profiles.a]\nvram = true",
        &["line 2", "a text in quotes or a whole number"],
    ),
    (
        "[profiles.\"a b\"]\nvram = \"1Gi\"",
        &["profiles.a b", "letters, digits"],
    ),
    (
        "[profiles.a]\nvram = \"1Gi\"\ncompute = 101",
        &["profiles.a.compute", "\"101\"", "0 to 100"],
    ),
    (
        "[profiles.a]\nvram = \"1Gi\"\ncompute = 5\ncompute_request = 6",
        &["profiles.a.compute_request", "at most 5%"],
    ),
    (
        "[profiles.a]\nvram = \"1Gi\"\nqos = \"best\"",
        &["profiles.a.qos", "critical"],
    ),
    (
        "oversubscription = 0.5",
        &["oversubscription", "0.5", "1.0 to 16.0"],
    ),
    (
        "oversubscription = nan",
        &["oversubscription", "1.0 to 16.0"],
    ),
    (
        "[gpus]\ninclude = [\"GPU-1\"]",
        &["gpus.include[0]", "8-4-4-4-12"],
    ),
    (
        "[paths]\nrun_dir = \"run\"",
        &["paths.run_dir", "\"run\"", "absolute"],
    ),
    ("[paths]\nrun_dir = \"/a/../b\"", &["paths.run_dir", "'..'"]),
    ("[profiles", &["line 1"]),
    ("é = [", &["line 1"]),
];

#[test]
fn every_fault_names_place_value_and_remedy_on_one_line() {
    for &(text, parts) in FAULTS {
        let error = parse(text).unwrap_err();
        assert!(error.contains("/etc/vgpu/config.toml"), "{error}");
        assert!(!error.contains('\n'), "{error}");
        for part in parts {
            assert!(error.contains(part), "{text:?}: no {part:?} in: {error}");
        }
    }
}

#[test]
fn only_the_default_place_may_be_empty() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("config.toml");
    let error = Config::load(&missing).unwrap_err().to_string();
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
    std::fs::write(&missing, "oversubscription = 2.0").unwrap();
    assert_eq!(
        Config::load(&missing).unwrap().oversubscription_percent,
        200
    );
}
