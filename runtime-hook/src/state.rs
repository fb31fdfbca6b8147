//! The OCI state on standard input and the parts of `config.json` that the hook needs.
//!
//! Reads leniently, because runtimes differ: runc has no `root`, crun has one (relative with containerd), the
//! process id is 0 or 1 once the hook is in the container's namespaces, and `status` has values outside the
//! specification. It must never look at a path below the container's root file system, and it reads no more than
//! [`STATE_LIMIT`] and [`CONFIG_LIMIT`] bytes. Source: OCI runtime specification 1.2, `runtime.md`, "State".

use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::mounted::{self, RawMount};

/// The longest OCI state that is read, in bytes.
pub const STATE_LIMIT: u64 = 1 << 20;
/// The longest `config.json` that is read, in bytes.
pub const CONFIG_LIMIT: u64 = 16 << 20;
/// The longest container id, in bytes. Engines use 64 hexadecimal digits; pods put names in front.
const ID_LIMIT: usize = 1024;
/// The longest label value that is kept, in bytes; Kubernetes' own limit for names is 253.
const LABEL_LIMIT: usize = 256;

/// What is wrong with the state or with `config.json`.
#[derive(Debug, Error)]
pub enum StateError {
    /// Standard input could not be read.
    #[error("cannot read the OCI state from standard input")]
    Read(#[source] std::io::Error),
    /// A document is longer than anything a runtime writes.
    #[error("{what} is longer than {limit} bytes")]
    TooLarge {
        /// Which document.
        what: String,
        /// The longest that is read.
        limit: u64,
    },
    /// A document is not JSON, or is cut short.
    #[error("{what} is not valid JSON at line {line} column {column}")]
    Json {
        /// Which document.
        what: String,
        /// One-based line.
        line: usize,
        /// One-based column.
        column: usize,
    },
    /// A key that every runtime writes is absent.
    #[error("{what} has no '{key}', which must be {expected}")]
    Missing {
        /// Which document.
        what: String,
        /// The absent key.
        key: &'static str,
        /// What it should have held.
        expected: &'static str,
    },
    /// A key holds something that cannot be used.
    #[error("{what} has '{key}' = '{value}', which must be {expected}")]
    Bad {
        /// Which document.
        what: String,
        /// The key.
        key: &'static str,
        /// The value found, shortened.
        value: String,
        /// What it should have held.
        expected: &'static str,
    },
    /// `config.json` could not be read.
    #[error("cannot read {}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// Names that the container's manager gave it. They describe a container; they never decide anything, because with
/// podman and docker the person who starts the container may set any annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Kubernetes pod UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Kubernetes pod name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,
    /// Kubernetes namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,
    /// Container name within the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

impl Labels {
    /// True when the manager named nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.pod_uid.is_none()
            && self.pod_name.is_none()
            && self.pod_namespace.is_none()
            && self.container.is_none()
    }

    /// Takes containerd's keys, else CRI-O's: both engines write them after anything a pod may set.
    fn from_annotations(map: &Map<String, Value>) -> Self {
        let get = |key: &str| map.get(key).and_then(Value::as_str).map(label);
        let containerd = Self {
            pod_uid: get("io.kubernetes.cri.sandbox-uid"),
            pod_name: get("io.kubernetes.cri.sandbox-name"),
            pod_namespace: get("io.kubernetes.cri.sandbox-namespace"),
            container: get("io.kubernetes.cri.container-name"),
        };
        if !containerd.is_empty() {
            return containerd;
        }
        Self {
            pod_uid: get("io.kubernetes.pod.uid"),
            pod_name: get("io.kubernetes.pod.name"),
            pod_namespace: get("io.kubernetes.pod.namespace"),
            container: get("io.kubernetes.container.name"),
        }
    }
}

/// One container's state as the runtime gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The engine's id of the container.
    pub id: String,
    /// The bundle directory, absolute.
    pub bundle: PathBuf,
    /// The init process, as the runtime sees it; 0 or 1 where the runtime knows no better.
    pub pid: i32,
    /// The root file system where the runtime names it (crun), as it stands: it may be relative to the bundle.
    pub root: Option<PathBuf>,
    /// What the container's manager calls it.
    pub labels: Labels,
}

impl State {
    /// Reads the state from `input`, which is standard input.
    ///
    /// # Errors
    /// [`StateError`] when the input cannot be read, is too long, is not JSON, or lacks `id` or `bundle`.
    pub fn read(input: impl Read) -> Result<Self, StateError> {
        let mut text = Vec::new();
        input
            .take(STATE_LIMIT.saturating_add(1))
            .read_to_end(&mut text)
            .map_err(StateError::Read)?;
        Self::parse(&text)
    }

    /// Parses the state.
    ///
    /// # Errors
    /// As [`State::read`].
    pub fn parse(text: &[u8]) -> Result<Self, StateError> {
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > STATE_LIMIT {
            return Err(StateError::TooLarge {
                what: WHAT.into(),
                limit: STATE_LIMIT,
            });
        }
        let value: Value = serde_json::from_slice(text).map_err(|error| json(WHAT, &error))?;
        let Value::Object(map) = value else {
            return Err(bad("", &value, "an object with 'id' and 'bundle'"));
        };
        let labels = map
            .get("annotations")
            .and_then(Value::as_object)
            .map(Labels::from_annotations)
            .unwrap_or_default();
        Ok(Self {
            id: id(&map)?,
            bundle: bundle(&map)?,
            pid: pid(&map),
            root: map
                .get("root")
                .and_then(Value::as_str)
                .filter(|r| usable(r))
                .map(PathBuf::from),
            labels,
        })
    }

    /// The root file system and the loader path of the container, from the state and `config.json`.
    ///
    /// # Errors
    /// [`StateError`] when `config.json` is absent, too long, not JSON, or names no root.
    pub fn container(&self) -> Result<Container, StateError> {
        let config = Config::read(&self.bundle.join("config.json"))?;
        let root = self
            .root
            .clone()
            .or(config.root)
            .ok_or_else(|| StateError::Missing {
                what: format!("{}/config.json", self.bundle.display()),
                key: "root.path",
                expected: "the container's root file system",
            })?;
        Ok(Container {
            rootfs: self.bundle.join(root),
            library_path: config.library_path,
            libraries: config.libraries,
        })
    }
}

/// What of a container the hook needs beyond its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// The root file system on the host, absolute.
    pub rootfs: PathBuf,
    /// The directories of `LD_LIBRARY_PATH` that the image or the user set; absolute ones only.
    pub library_path: Vec<PathBuf>,
    /// The shared libraries that are mounted into it, by [`mounted::libraries`].
    pub libraries: Vec<String>,
}

/// The parts of `config.json` that are used.
#[derive(Debug, Default, PartialEq, Eq)]
struct Config {
    root: Option<PathBuf>,
    library_path: Vec<PathBuf>,
    libraries: Vec<String>,
}

impl Config {
    fn read(path: &Path) -> Result<Self, StateError> {
        let fail = |source| StateError::Config {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(fail)?;
        let mut text = Vec::new();
        file.take(CONFIG_LIMIT.saturating_add(1))
            .read_to_end(&mut text)
            .map_err(fail)?;
        Self::parse(&path.display().to_string(), &text)
    }

    fn parse(what: &str, text: &[u8]) -> Result<Self, StateError> {
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > CONFIG_LIMIT {
            return Err(StateError::TooLarge {
                what: what.into(),
                limit: CONFIG_LIMIT,
            });
        }
        let raw: RawConfig = serde_json::from_slice(text).map_err(|error| json(what, &error))?;
        let root = raw
            .root
            .and_then(|r| r.path)
            .filter(|p| usable(p))
            .map(PathBuf::from);
        let env = raw.process.and_then(|p| p.env).unwrap_or_default();
        Ok(Self {
            root,
            library_path: library_path(&env),
            libraries: mounted::libraries(&raw.mounts.unwrap_or_default()),
        })
    }
}

#[derive(Deserialize)]
struct RawConfig {
    root: Option<RawRoot>,
    process: Option<RawProcess>,
    mounts: Option<Vec<RawMount>>,
}

#[derive(Deserialize)]
struct RawRoot {
    path: Option<String>,
}

#[derive(Deserialize)]
struct RawProcess {
    env: Option<Vec<String>>,
}

const WHAT: &str = "the OCI state";

/// The absolute directories of the last `LD_LIBRARY_PATH`, which is the one that the program sees.
fn library_path(env: &[String]) -> Vec<PathBuf> {
    let value = env
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("LD_LIBRARY_PATH="));
    value
        .unwrap_or_default()
        .split([':', ';'])
        .filter(|dir| dir.starts_with('/') && usable(dir))
        .map(PathBuf::from)
        .collect()
}

fn id(map: &Map<String, Value>) -> Result<String, StateError> {
    let expected = "a text of 1 to 1024 bytes without control characters";
    let value = map.get("id").ok_or_else(|| missing("id", expected))?;
    match value.as_str() {
        Some(id) if !id.is_empty() && id.len() <= ID_LIMIT && !id.chars().any(char::is_control) => {
            Ok(id.to_owned())
        }
        _ => Err(bad("id", value, expected)),
    }
}

fn bundle(map: &Map<String, Value>) -> Result<PathBuf, StateError> {
    let expected = "an absolute path";
    let value = map
        .get("bundle")
        .ok_or_else(|| missing("bundle", expected))?;
    match value.as_str() {
        Some(path) if path.starts_with('/') && usable(path) => Ok(PathBuf::from(path)),
        _ => Err(bad("bundle", value, expected)),
    }
}

fn pid(map: &Map<String, Value>) -> i32 {
    let number = map.get("pid").and_then(Value::as_i64).unwrap_or(0);
    i32::try_from(number).unwrap_or(0).max(0)
}

/// A path that the system can be given and that a log line can show.
fn usable(path: &str) -> bool {
    !path.is_empty() && path.len() < 4096 && !path.chars().any(char::is_control)
}

fn label(value: &str) -> String {
    let clean: String = value.chars().filter(|c| !c.is_control()).collect();
    shorten(&clean, LABEL_LIMIT)
}

fn shorten(text: &str, limit: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len().saturating_add(c.len_utf8()) > limit {
            break;
        }
        out.push(c);
    }
    out
}

fn missing(key: &'static str, expected: &'static str) -> StateError {
    StateError::Missing {
        what: WHAT.into(),
        key,
        expected,
    }
}

fn bad(key: &'static str, value: &Value, expected: &'static str) -> StateError {
    let value = shorten(&value.to_string(), 80);
    StateError::Bad {
        what: WHAT.into(),
        key,
        value,
        expected,
    }
}

fn json(what: &str, error: &serde_json::Error) -> StateError {
    StateError::Json {
        what: what.into(),
        line: error.line(),
        column: error.column(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn runc_and_crun_states_parse() {
        let runc = br#"{"ociVersion":"1.0.2-dev","id":"abc","status":"creating","pid":4242,
            "bundle":"/run/b","annotations":{"io.kubernetes.cri.sandbox-uid":"u-1",
            "io.kubernetes.cri.sandbox-name":"p","io.kubernetes.pod.name":"fake"}}"#;
        let state = State::parse(runc).unwrap();
        assert_eq!(
            (state.id.as_str(), state.pid, state.root),
            ("abc", 4242, None)
        );
        assert_eq!(state.labels.pod_name.as_deref(), Some("p"));
        let crun = br#"{"ociVersion":"1.0","id":"abc","pid":0,"root":"rootfs","bundle":"/run/b",
            "status":"starting","annotations":null}"#;
        let state = State::parse(crun).unwrap();
        assert_eq!(state.root.as_deref(), Some(Path::new("rootfs")));
        assert!(state.labels.is_empty());
    }

    #[test]
    fn bad_states_say_what_is_wrong() {
        let text = |t: &[u8]| State::parse(t).unwrap_err().to_string();
        assert_eq!(
            text(br#"{"id":"a"}"#),
            "the OCI state has no 'bundle', which must be an absolute path"
        );
        assert!(text(br#"{"id":"a","bundle":"b"}"#).contains("'bundle' = '\"b\"'"));
        assert!(text(br#"{"id":"a\nb","bundle":"/b"}"#).contains("control characters"));
        assert!(text(br#"{"id":"a","bun"#).contains("line 1 column 14"));
        assert!(text(b"").contains("not valid JSON"));
        assert!(text(b"[1]").contains("an object"));
        let long = vec![b' '; usize::try_from(STATE_LIMIT).unwrap() + 1];
        assert!(text(&long).contains("longer than 1048576 bytes"));
        let deep = "[".repeat(100_000);
        assert!(text(deep.as_bytes()).contains("not valid JSON"));
    }

    #[test]
    fn config_gives_root_and_loader_path() {
        let text = br#"{"ociVersion":"1.0.2","root":{"path":"rootfs","readonly":true},"process":
            {"env":["A=1","LD_LIBRARY_PATH=/x","LD_LIBRARY_PATH=/a:rel:/b"],"user":{"uid":0}}}"#;
        let config = Config::parse("config.json", text).unwrap();
        assert_eq!(config.root.as_deref(), Some(Path::new("rootfs")));
        assert_eq!(
            config.library_path,
            [PathBuf::from("/a"), PathBuf::from("/b")]
        );
        assert_eq!(
            Config::parse("config.json", b"{}").unwrap(),
            Config::default()
        );
        let error = Config::parse("/b/config.json", b"{")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("/b/config.json is not valid JSON at line 1"),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            drop(State::parse(&bytes));
            drop(Config::parse("c", &bytes));
        }

        #[test]
        fn any_values_are_an_answer(id in ".*", bundle in ".*", pid in any::<i64>()) {
            let text = serde_json::json!({"id": id, "bundle": bundle, "pid": pid}).to_string();
            if let Ok(state) = State::parse(text.as_bytes()) {
                prop_assert!(state.bundle.is_absolute());
                prop_assert!(state.pid >= 0);
            }
        }
    }
}
