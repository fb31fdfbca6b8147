//! Spec files: read strictly, written whole or not at all.
//!
//! A file is written under another name in the same directory and renamed, so that an engine which looks at any moment
//! sees the old file or the new one. It is left alone when its content would not change, because engines that watch
//! the directory read every file again on each change.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;
use vgpu_core::ParseError;

use super::Spec;

/// Engines of other users have to read specs.
const MODE: u32 = 0o644;
/// No spec is larger; a hostile file shall not fill the memory.
const MAX_BYTES: u64 = 16 << 20;

/// How a spec is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// What every engine reads, and the default.
    #[default]
    Json,
    /// For people.
    Yaml,
}

impl Format {
    /// The format that engines take a file for; only `.json` and `.yaml` count as specs.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "json" => Some(Self::Json),
            "yaml" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// The file name extension.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Yaml => "yaml",
        }
    }
}

impl FromStr for Format {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        match input {
            "json" => Ok(Self::Json),
            "yaml" => Ok(Self::Yaml),
            _ => Err(ParseError::new("format", input, 0, "json or yaml")),
        }
    }
}

/// A file that cannot be read as a spec.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its name says nothing of its format, so engines pass it by.
    #[error("{}: expected a name that ends in .json or .yaml; engines read no other file", path.display())]
    Extension {
        /// The file.
        path: PathBuf,
    },
    /// It is larger than any spec.
    #[error("{}: {bytes} bytes: expected at most {MAX_BYTES}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not a spec: broken syntax, an unknown field, a value of another type.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, on one line.
        message: String,
    },
}

/// A spec that cannot be written.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The directory does not exist and cannot be made.
    #[error("cannot create the spec directory {}: {cause}; create it, or name another with --output", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not; part of the message.
        cause: io::Error,
    },
    /// The file cannot be written; nothing was left behind.
    #[error("cannot write {}: {cause}; write to a directory that you may write, or to - with --output", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not; part of the message.
        cause: io::Error,
    },
    /// The spec has no form in YAML.
    #[error("cannot write the spec as YAML: {message}")]
    Yaml {
        /// What the emitter says.
        message: String,
    },
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is new or has new content.
    Changed,
    /// It had this content already.
    Unchanged,
}

/// Reads the spec in `path`; that its values make sense is for [`super::validate()`] to say.
///
/// # Errors
/// [`ReadError`] ← unreadable, too large, neither `.json` nor `.yaml`, or not a spec.
pub fn read(path: &Path) -> Result<Spec, ReadError> {
    let format = Format::of(path).ok_or_else(|| ReadError::Extension {
        path: path.to_owned(),
    })?;
    let io = |source| ReadError::Io {
        path: path.to_owned(),
        source,
    };
    let bytes = fs::metadata(path).map_err(io)?.len();
    if bytes > MAX_BYTES {
        return Err(ReadError::Size {
            path: path.to_owned(),
            bytes,
        });
    }
    let text = fs::read_to_string(path).map_err(io)?;
    parse(&text, format).map_err(|message| ReadError::Syntax {
        path: path.to_owned(),
        message,
    })
}

/// Reads a spec from `text`; the error is one line.
fn parse(text: &str, format: Format) -> Result<Spec, String> {
    // The YAML parser adds a drawing of the place below its first line, and advice for programmers behind it.
    let one_line = |message: String| {
        let first = message.lines().map(str::trim).find(|line| !line.is_empty());
        let first = first.unwrap_or_default().trim_start_matches("error: ");
        first
            .split(", set DuplicateKeyPolicy")
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    match format {
        Format::Json => serde_json::from_str(text).map_err(|error| one_line(error.to_string())),
        Format::Yaml => serde_saphyr::from_str(text).map_err(|error| one_line(error.to_string())),
    }
}

/// The text of a spec file.
///
/// # Errors
/// [`WriteError::Yaml`] ← the emitter refuses; JSON never fails.
pub fn render(spec: &Spec, format: Format) -> Result<String, WriteError> {
    match format {
        Format::Json => {
            let mut text = serde_json::to_string_pretty(spec).unwrap_or_default();
            text.push('\n');
            Ok(text)
        }
        Format::Yaml => serde_saphyr::to_string(spec).map_err(|error| WriteError::Yaml {
            message: error.to_string(),
        }),
    }
}

/// Puts `text` at `path` whole, mode 0644, making its directory where it is missing.
///
/// # Errors
/// [`WriteError`] ← the directory cannot be made, or the file cannot be written or renamed; then nothing is left
/// behind and an older file is untouched.
pub fn write(path: &Path, text: &str) -> Result<Written, WriteError> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(Written::Unchanged);
    }
    let file = |cause| WriteError::File {
        path: path.to_owned(),
        cause,
    };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory).map_err(|cause| WriteError::Directory {
        path: directory.to_owned(),
        cause,
    })?;
    // No engine takes the temporary file for a spec: its name ends in neither .json nor .yaml.
    let mut temporary = tempfile::Builder::new()
        .prefix(".vgpu-")
        .suffix(".tmp")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(directory)
        // Without the temporary name, which says nothing to anybody.
        .map_err(|error| file(error.kind().into()))?;
    temporary.write_all(text.as_bytes()).map_err(file)?;
    // The permissions above pass through the umask.
    temporary
        .as_file()
        .set_permissions(Permissions::from_mode(MODE))
        .map_err(file)?;
    temporary.as_file().sync_all().map_err(file)?;
    temporary.persist(path).map_err(|error| file(error.error))?;
    Ok(Written::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::types::{Device, DeviceNode};

    fn sample() -> Spec {
        let mut device = Device {
            name: "0".to_owned(),
            ..Device::default()
        };
        device.container_edits.env = vec!["A=yes".to_owned(), "B=: #'\"\n".to_owned()];
        device.container_edits.device_nodes = vec![DeviceNode {
            path: "/dev/null".to_owned(),
            ..DeviceNode::default()
        }];
        Spec {
            cdi_version: "0.5.0".to_owned(),
            kind: "vendor.com/class".to_owned(),
            devices: vec![device],
            ..Spec::default()
        }
    }

    #[test]
    fn both_formats_round_trip() {
        for format in [Format::Json, Format::Yaml] {
            let text = render(&sample(), format).unwrap();
            assert!(text.ends_with('\n'), "{text}");
            assert_eq!(parse(&text, format).unwrap(), sample(), "{text}");
        }
    }

    #[test]
    fn a_version_stays_text_in_yaml() {
        let text = render(&sample(), Format::Yaml).unwrap();
        assert!(
            text.contains("name: \"0\"") || text.contains("name: '0'"),
            "{text}"
        );
    }

    #[test]
    fn unknown_and_repeated_fields_are_refused_on_one_line() {
        for (text, format, expected) in [
            (
                "{\"cdiVersion\":\"0.5.0\",\"kind\":\"a/b\",\"extra\":1}",
                Format::Json,
                "extra",
            ),
            (
                "{\"cdiVersion\":\"0.5.0\",\"cdiVersion\":\"0.5.0\"}",
                Format::Json,
                "cdiVersion",
            ),
            (
                "cdiVersion: \"0.5.0\"\nkind: a/b\nextra: 1\n",
                Format::Yaml,
                "extra",
            ),
            ("cdiVersion: a\ncdiVersion: b\n", Format::Yaml, "cdiVersion"),
            ("{", Format::Json, "line 1"),
            ("a: [", Format::Yaml, "line"),
        ] {
            let error = parse(text, format).unwrap_err();
            assert!(
                error.contains(expected) && !error.contains('\n'),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn a_file_is_written_whole_once_and_readable_by_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/spec.json");
        assert_eq!(write(&path, "one").unwrap(), Written::Changed);
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(write(&path, "one").unwrap(), Written::Unchanged);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), before);
        assert_eq!(write(&path, "two").unwrap(), Written::Changed);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            MODE
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_names_the_place_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        let error = write(&folder.path().join("file/spec.json"), "x")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("file") && error.contains("--output"),
            "{error}"
        );
        let taken = folder.path().join("spec.json");
        fs::create_dir(&taken).unwrap();
        let error = write(&taken, "x").unwrap_err().to_string();
        assert!(error.contains(taken.to_str().unwrap()), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_the_two_extensions_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spec.yml");
        fs::write(&path, "").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains(".yaml"));
    }
}
