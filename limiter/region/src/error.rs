//! What can go wrong with a region's files. Each variant names the file and what was expected.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a region cannot be made, read or attached to.
#[derive(Debug)]
pub enum RegionError {
    /// The file is there already; a region's files are made once.
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A system call on the file failed.
    Io {
        /// What was being done, as a verb: "open", "map".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not a regular file, or has another size than the page.
    Shape {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The size of the page in bytes.
        expected: u64,
    },
    /// The page was written by another version of vgpu.
    Version {
        /// The file.
        path: PathBuf,
        /// The version word found.
        found: u64,
        /// The version word of this build.
        expected: u64,
    },
    /// The limits changed during every attempt to read them, or their writer died half-way.
    Unsettled {
        /// The file.
        path: PathBuf,
    },
    /// A field of the limits is out of its range.
    Field {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The largest value allowed.
        max: u64,
    },
    /// An update would remove or reorder devices that attached processes know by their index.
    DevicesMoved {
        /// The index at which the device differs.
        index: usize,
    },
    /// Every slot of the usage page is in use.
    NoSlot {
        /// How many there are.
        slots: usize,
    },
}

impl RegionError {
    pub(crate) fn io(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

impl fmt::Display for RegionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exists { path } => {
                write!(
                    f,
                    "{} exists already; a region's files are made once",
                    path.display()
                )
            }
            Self::Io { action, path, .. } => write!(f, "cannot {action} {}", path.display()),
            Self::Shape {
                path,
                bytes,
                expected,
            } => {
                write!(
                    f,
                    "{} has {bytes} bytes, not a page of {expected}",
                    path.display()
                )
            }
            Self::Version {
                path,
                found,
                expected,
            } => write!(
                f,
                "{} has version word {found:#x}, this build reads {expected:#x}",
                path.display()
            ),
            Self::Unsettled { path } => {
                write!(
                    f,
                    "{} is being written, or its writer died half-way",
                    path.display()
                )
            }
            Self::Field { field, value, max } => {
                write!(
                    f,
                    "limits field {field} is {value}, at most {max} is allowed"
                )
            }
            Self::DevicesMoved { index } => write!(
                f,
                "limits device {index} differs; an update may change values and append devices only"
            ),
            Self::NoSlot { slots } => {
                write!(f, "all {slots} process slots of the usage page are in use")
            }
        }
    }
}

impl std::error::Error for RegionError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Exists { .. }
            | Self::Shape { .. }
            | Self::Version { .. }
            | Self::Unsettled { .. }
            | Self::Field { .. }
            | Self::DevicesMoved { .. }
            | Self::NoSlot { .. } => None,
        }
    }
}
