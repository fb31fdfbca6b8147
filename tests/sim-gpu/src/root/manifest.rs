//! The record of what was made below a root, and its removal.
//!
//! The record is written before each thing is made, so that a root whose `up` was killed half-way can be taken
//! down as well.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::root::{RootError, io_error};

/// Where the record lies, below the root.
const NAME: &str = ".sim-gpu-made";

/// What was made below one root, oldest first.
#[derive(Debug)]
pub struct Manifest {
    root: PathBuf,
    record: File,
}

impl Manifest {
    /// A new, empty record for `root`, which is created where it is missing.
    ///
    /// # Errors
    /// [`RootError`] when the root cannot be written.
    pub fn create(root: &Path) -> Result<Self, RootError> {
        let new_root = !root.exists();
        fs::create_dir_all(root).map_err(io_error("create", root))?;
        let path = root.join(NAME);
        let opened = OpenOptions::new().write(true).create_new(true).open(&path);
        let record = opened.map_err(|error| occupied_or("record", &path, error))?;
        let mut manifest = Self {
            root: root.to_owned(),
            record,
        };
        if new_root {
            manifest.note(root)?;
        }
        Ok(manifest)
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes `content` to `path` below the root, with permissions `mode`.
    ///
    /// # Errors
    /// [`RootError::Occupied`] when something is there.
    pub fn file(&mut self, path: &str, content: &[u8], mode: u32) -> Result<(), RootError> {
        let path = self.prepare(path)?;
        let mut options = OpenOptions::new();
        let opened = options.write(true).create_new(true).mode(mode).open(&path);
        opened
            .and_then(|mut file| file.write_all(content))
            .map_err(io_error("write", &path))
    }

    /// Copies the file `from` to `path` below the root.
    ///
    /// # Errors
    /// [`RootError::Occupied`] when something is there.
    pub fn copy(&mut self, from: &Path, path: &str) -> Result<(), RootError> {
        let path = self.prepare(path)?;
        fs::copy(from, &path)
            .map(drop)
            .map_err(io_error("write", &path))
    }

    /// Makes `path` below the root a link to `target`.
    ///
    /// # Errors
    /// [`RootError::Occupied`] when something is there.
    pub fn link(&mut self, path: &str, target: &str) -> Result<(), RootError> {
        let path = self.prepare(path)?;
        symlink(target, &path).map_err(io_error("link", &path))
    }

    /// Records `path` below the root and makes its directories; the caller makes the thing itself.
    ///
    /// # Errors
    /// [`RootError::Occupied`] when something is there.
    pub fn prepare(&mut self, path: &str) -> Result<PathBuf, RootError> {
        let path = self.root.join(path);
        if fs::symlink_metadata(&path).is_ok() {
            return Err(RootError::Occupied { path });
        }
        let missing: Vec<PathBuf> = path
            .ancestors()
            .skip(1)
            .take_while(|directory| !directory.exists())
            .map(Path::to_owned)
            .collect();
        for directory in missing.iter().rev() {
            self.note(directory)?;
            fs::create_dir(directory).map_err(io_error("create", directory))?;
        }
        self.note(&path)?;
        Ok(path)
    }

    fn note(&mut self, path: &Path) -> Result<(), RootError> {
        let line = format!("{}\n", path.display());
        self.record
            .write_all(line.as_bytes())
            .map_err(io_error("record", path))
    }

    /// Removes what the record of `root` names, newest first; returns how much that was, or `None` without a
    /// record. A directory that others have put something into stays.
    ///
    /// # Errors
    /// [`RootError`] for the first thing that could not be removed; the record stays for another try.
    pub fn remove_all(root: &Path) -> Result<Option<usize>, RootError> {
        let record = root.join(NAME);
        let text = match fs::read_to_string(&record) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("read", &record)(error)),
        };
        let made: Vec<&Path> = text.lines().map(Path::new).collect();
        let (own_root, below): (Vec<&Path>, Vec<&Path>) =
            made.iter().rev().partition(|&&path| path == root);
        for path in &below {
            remove(path)?;
        }
        fs::remove_file(&record).map_err(io_error("remove", &record))?;
        for path in own_root {
            remove(path)?;
        }
        Ok(Some(below.len()))
    }
}

fn occupied_or(step: &'static str, path: &Path, error: io::Error) -> RootError {
    if error.kind() == io::ErrorKind::AlreadyExists {
        return RootError::Occupied {
            path: path.to_owned(),
        };
    }
    io_error(step, path)(error)
}

fn remove(path: &Path) -> Result<(), RootError> {
    let is_directory = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let removed = if is_directory {
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(io_error("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_goes_and_what_was_there_stays() {
        let root = std::env::temp_dir().join(format!("sim-gpu-manifest-{}", std::process::id()));
        fs::create_dir_all(root.join("usr")).unwrap();
        fs::write(root.join("usr/mine"), "x").unwrap();
        let mut made = Manifest::create(&root).unwrap();
        made.file("usr/lib/a", b"a", 0o755).unwrap();
        made.link("usr/lib/b", "a").unwrap();
        let refused = made.file("usr/mine", b"", 0o644).unwrap_err().to_string();
        assert!(refused.contains("exists already"), "{refused}");
        assert!(Manifest::create(&root).is_err());
        assert_eq!(Manifest::remove_all(&root).unwrap(), Some(3));
        assert!(!root.join("usr/lib").exists());
        assert!(root.join("usr/mine").exists());
        assert_eq!(Manifest::remove_all(&root).unwrap(), None);
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn a_root_that_was_made_goes_too() {
        let root = std::env::temp_dir().join(format!("sim-gpu-root-{}", std::process::id()));
        let mut made = Manifest::create(&root).unwrap();
        made.file("a/b/c", b"", 0o644).unwrap();
        Manifest::remove_all(&root).unwrap();
        assert!(!root.exists());
    }
}
