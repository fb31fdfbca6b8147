//! What is wrong with a configuration file: always one line, with file, place and what would be right.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A configuration that cannot be used.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not TOML, has an unknown key, or a value of another type.
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 where it is not known.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What is wrong, on one line; for an unknown key, the allowed ones too.
        message: String,
    },
    /// A value that cannot be.
    Value {
        /// The file.
        path: PathBuf,
        /// The key, dotted from the top of the file.
        key: String,
        /// What is wrong with it and what is allowed.
        message: String,
    },
}

impl ConfigError {
    /// The parser's complaint as one line with line and column.
    pub(super) fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let before = error.span().and_then(|span| text.get(..span.start));
        let (line, column) = before.map_or((0, 0), |before| {
            let line = before.matches('\n').count().saturating_add(1);
            let last = before.rsplit('\n').next().unwrap_or_default();
            (line, last.chars().count().saturating_add(1))
        });
        let message = error.message().lines().collect::<Vec<_>>().join("; ");
        Self::Syntax {
            path: path.to_owned(),
            line,
            column,
            message,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => {
                write!(
                    f,
                    "cannot read the configuration {}: {source}",
                    path.display()
                )
            }
            Self::Syntax {
                path,
                line,
                column,
                message,
            } => {
                write!(f, "configuration {}", path.display())?;
                if *line > 0 {
                    write!(f, " line {line} column {column}")?;
                }
                write!(f, ": {message}")
            }
            Self::Value { path, key, message } => {
                write!(f, "configuration {} key {key}: {message}", path.display())
            }
        }
    }
}

// No `source`: the message above already says what the cause says.
impl std::error::Error for ConfigError {}
