//! The devices that an engine would see: specs of several directories, with their precedence and conflicts.
//!
//! A later directory wins over an earlier one; two files of one directory that name the same device cancel each other,
//! and engines then know no such device. A broken file does not spoil the others. **Source:** CDI `pkg/cdi/cache.go`.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::spec::{self, Format, Severity, Spec};

/// What an engine would see.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// The devices, by name.
    pub devices: Vec<Listed>,
    /// What is wrong, one line each.
    pub problems: Vec<String>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its qualified name.
    pub name: String,
    /// The file that defines it.
    pub spec: PathBuf,
    /// The version that the file declares.
    pub cdi_version: String,
}

/// Reads the specs in `directories`, the least important first; a directory that does not exist is empty.
#[must_use]
pub fn list(directories: &[PathBuf]) -> Listing {
    let mut problems = Vec::new();
    let mut winners = BTreeMap::new();
    for directory in directories {
        let mut here: BTreeMap<String, Vec<Listed>> = BTreeMap::new();
        for path in files(directory, &mut problems) {
            for listed in devices(&path, &mut problems) {
                here.entry(listed.name.clone()).or_default().push(listed);
            }
        }
        for (name, mut same) in here {
            if same.len() > 1 {
                let files: Vec<String> = same
                    .iter()
                    .map(|listed| listed.spec.display().to_string())
                    .collect();
                problems.push(format!(
                    "{name} is defined by {}: expected one of them; engines use none",
                    files.join(" and ")
                ));
                winners.remove(&name);
            } else if let Some(listed) = same.pop() {
                winners.insert(name, listed);
            }
        }
    }
    Listing {
        devices: winners.into_values().collect(),
        problems,
    }
}

/// The spec files of a directory, in order.
fn files(directory: &Path, problems: &mut Vec<String>) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            problems.push(format!(
                "cannot read the spec directory {}: {error}",
                directory.display()
            ));
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| Format::of(path).is_some())
        .collect();
    paths.sort();
    paths
}

/// The devices of one file; none where it has an error, as engines do.
fn devices(path: &Path, problems: &mut Vec<String>) -> Vec<Listed> {
    let spec = match spec::file::read(path) {
        Ok(spec) => spec,
        Err(error) => {
            problems.push(one_line(&error));
            return Vec::new();
        }
    };
    let faults = spec::validate(&spec, &[]);
    if let Some(fault) = faults
        .iter()
        .find(|fault| fault.severity == Severity::Error)
    {
        problems.push(format!("{}: {fault}", path.display()));
        return Vec::new();
    }
    let Spec {
        cdi_version,
        kind,
        devices,
        ..
    } = spec;
    let listed = devices.into_iter().map(|device| Listed {
        name: format!("{kind}={}", device.name),
        spec: path.to_owned(),
        cdi_version: cdi_version.clone(),
    });
    listed.collect()
}

/// An error with its cause.
fn one_line(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(version: &str, names: &[&str]) -> String {
        let devices: Vec<String> = names
            .iter()
            .map(|name| format!(r#"{{"name":"{name}","containerEdits":{{"env":["A=b"]}}}}"#))
            .collect();
        format!(
            r#"{{"cdiVersion":"{version}","kind":"vendor.com/class","devices":[{}]}}"#,
            devices.join(",")
        )
    }

    #[test]
    fn precedence_conflicts_and_broken_files() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("low/a.json", &spec("0.3.0", &["one", "two"]));
        write("low/ignored.yml", "not read");
        write("high/b.json", &spec("0.3.0", &["one", "three"]));
        write("high/c.json", &spec("0.3.0", &["three"]));
        write("high/broken.json", "{");
        write("high/wrong.json", &spec("0.9.0", &["four"]));
        let directories = ["low", "high", "none"].map(|name| folder.path().join(name));
        let listing = list(&directories);
        let found: Vec<(&str, &str)> = listing
            .devices
            .iter()
            .map(|d| {
                (
                    d.name.as_str(),
                    d.spec.file_name().unwrap().to_str().unwrap(),
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("vendor.com/class=one", "b.json"),
                ("vendor.com/class=two", "a.json")
            ]
        );
        assert_eq!(listing.problems.len(), 3, "{:?}", listing.problems);
        assert!(
            listing
                .problems
                .iter()
                .any(|p| p.contains("three") && p.contains(" and "))
        );
        assert!(listing.problems.iter().any(|p| p.contains("broken.json")));
        assert!(listing.problems.iter().any(|p| p.contains("0.9.0")));
    }
}
