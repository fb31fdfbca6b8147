//! Where a container's programs would find the driver's libraries.
//!
//! Owns the list of folders that the loader looks into (cache, default and configured folders, `LD_LIBRARY_PATH`,
//! CUDA's compatibility packages) and the names that are covered. Everything read here comes from the image, so every
//! count is bounded; a bound that is reached refuses the start, because a copy that is not covered is a way around.
//! Facts: ld.so(8), ldconfig(8), musl `ldso/dynlink.c`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use thiserror::Error;
use vgpu_core::paths::{LIBCUDA, LIBNVIDIA_ML};

use crate::cache::Cache;
use crate::rootfs::{Rootfs, RootfsError};

/// The most folders that are searched.
const FOLDERS_LIMIT: usize = 4096;
/// The most configuration files of the loader that are read.
const CONF_LIMIT: usize = 512;
/// The longest configuration file of the loader, in bytes.
const CONF_BYTES: u64 = 256 << 10;
/// How deep configuration files may include each other.
const CONF_DEPTH: usize = 8;

/// The multiarch folder of this machine. Source: Debian multiarch tuples.
#[cfg(target_arch = "aarch64")]
pub const TRIPLET: &str = "aarch64-linux-gnu";
/// The multiarch folder of this machine. Source: Debian multiarch tuples.
#[cfg(not(target_arch = "aarch64"))]
pub const TRIPLET: &str = "x86_64-linux-gnu";

/// musl's name of this machine.
#[cfg(target_arch = "aarch64")]
pub const MUSL_ARCH: &str = "aarch64";
/// musl's name of this machine.
#[cfg(not(target_arch = "aarch64"))]
pub const MUSL_ARCH: &str = "x86_64";

/// Why the folders cannot be told.
#[derive(Debug, Error)]
pub enum LibraryError {
    /// A path in the image.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The image names more than any honest one.
    #[error("the container's loader configuration names more than {limit} {what}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The most.
        limit: usize,
    },
}

/// One of the two libraries of the limiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Library {
    /// CUDA.
    Cuda,
    /// NVML.
    Nvml,
}

impl Library {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cuda, Self::Nvml];

    /// The file name in the limiter's folder, which is the SONAME too.
    #[must_use]
    pub const fn file(self) -> &'static str {
        match self {
            Self::Cuda => LIBCUDA,
            Self::Nvml => LIBNVIDIA_ML,
        }
    }

    /// The name without a version.
    #[must_use]
    pub const fn plain(self) -> &'static str {
        match self {
            Self::Cuda => "libcuda.so",
            Self::Nvml => "libnvidia-ml.so",
        }
    }

    /// The library that a file name belongs to: `libcuda.so`, `libcuda.so.1`, `libcuda.so.580.95.05`.
    #[must_use]
    pub fn of(name: &OsStr) -> Option<Self> {
        Self::ALL.into_iter().find(|library| {
            let rest = name.as_bytes().strip_prefix(library.plain().as_bytes());
            rest.is_some_and(|rest| {
                rest.is_empty()
                    || (rest.first() == Some(&b'.')
                        && rest.iter().all(|c| *c == b'.' || c.is_ascii_digit()))
            })
        })
    }
}

/// The folders to search, in no order that matters, each once.
#[derive(Debug, Default)]
pub struct Folders {
    all: BTreeSet<PathBuf>,
    conf_files: usize,
}

impl Folders {
    /// Collects every folder of a container.
    ///
    /// # Errors
    /// [`LibraryError`].
    pub fn collect(
        rootfs: &Rootfs,
        cache: &Cache<'_>,
        library_path: &[PathBuf],
    ) -> Result<BTreeSet<PathBuf>, LibraryError> {
        let mut folders = Self::default();
        for folder in default_folders().iter().chain(library_path) {
            folders.add(folder)?;
        }
        folders.conf(rootfs, Path::new("/etc/ld.so.conf"), 0)?;
        for folder in musl_folders(rootfs)? {
            folders.add(&folder)?;
        }
        for entry in &cache.entries {
            if Library::of(OsStr::from_bytes(&entry.name)).is_some() {
                let parent = Path::new(OsStr::from_bytes(&entry.path)).parent();
                folders.add(parent.unwrap_or(Path::new("/")))?;
            }
        }
        folders.compat(rootfs)?;
        Ok(folders.all)
    }

    fn add(&mut self, folder: &Path) -> Result<(), LibraryError> {
        if folder.is_absolute() && folder.as_os_str().len() < 4096 {
            self.all.insert(folder.to_owned());
        }
        if self.all.len() > FOLDERS_LIMIT {
            return Err(LibraryError::TooMany {
                what: "folders",
                limit: FOLDERS_LIMIT,
            });
        }
        Ok(())
    }

    /// One configuration file of glibc's loader. One that is not a regular file is what ldconfig ignores too.
    fn conf(&mut self, rootfs: &Rootfs, file: &Path, depth: usize) -> Result<(), LibraryError> {
        self.conf_files = self.conf_files.saturating_add(1);
        if self.conf_files > CONF_LIMIT || depth > CONF_DEPTH {
            return Err(LibraryError::TooMany {
                what: "configuration files",
                limit: CONF_LIMIT,
            });
        }
        let text = match rootfs.read(file, CONF_BYTES) {
            Ok(text) => text.unwrap_or_default(),
            Err(RootfsError::Kind { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for line in String::from_utf8_lossy(&text).lines() {
            match conf_line(line) {
                Line::Folder(folder) => self.add(folder)?,
                Line::Include(patterns) => {
                    for pattern in patterns {
                        for file in glob(rootfs, file, pattern)? {
                            self.conf(rootfs, &file, depth.saturating_add(1))?;
                        }
                    }
                }
                Line::Nothing => {}
            }
        }
        Ok(())
    }

    /// `/usr/local/cuda*/compat`: forward-compatibility packages carry a whole libcuda.
    fn compat(&mut self, rootfs: &Rootfs) -> Result<(), LibraryError> {
        let base = Path::new("/usr/local");
        for name in rootfs.list(base, |name| name.as_bytes().starts_with(b"cuda"))? {
            self.add(&base.join(name).join("compat"))?;
        }
        Ok(())
    }
}

/// The folder in which the image's own loader finds libraries without any configuration, best first.
#[must_use]
pub fn default_folders() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for base in ["/usr/lib", "/lib", "/usr/local/lib"] {
        out.push(Path::new(base).join(TRIPLET));
    }
    for base in [
        "/usr/lib64",
        "/lib64",
        "/usr/lib",
        "/lib",
        "/usr/local/lib",
        "/usr/local/lib64",
    ] {
        out.push(PathBuf::from(base));
    }
    // What NVIDIA's own device plugin and images put into LD_LIBRARY_PATH of every process, at run time too.
    for base in ["/usr/local/nvidia/lib", "/usr/local/nvidia/lib64"] {
        out.push(PathBuf::from(base));
    }
    out
}

/// Whether the image has musl's loader.
///
/// # Errors
/// [`RootfsError`].
pub fn is_musl(rootfs: &Rootfs) -> Result<bool, RootfsError> {
    let loader = format!("/lib/ld-musl-{MUSL_ARCH}.so.1");
    Ok(rootfs.lookup(Path::new(&loader))?.is_some())
}

/// The folders that musl's loader is configured for; none where it is not there or has its defaults.
///
/// # Errors
/// [`RootfsError`].
pub fn musl_folders(rootfs: &Rootfs) -> Result<Vec<PathBuf>, RootfsError> {
    let file = format!("/etc/ld-musl-{MUSL_ARCH}.path");
    let text = match rootfs.read(Path::new(&file), CONF_BYTES) {
        Ok(text) => text.unwrap_or_default(),
        Err(RootfsError::Kind { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&text).into_owned();
    let folders = text.split([':', '\n']).filter(|f| f.starts_with('/'));
    Ok(folders.map(PathBuf::from).collect())
}

enum Line<'a> {
    Nothing,
    Folder(&'a Path),
    Include(std::str::SplitAsciiWhitespace<'a>),
}

fn conf_line(line: &str) -> Line<'_> {
    let line = line.split('#').next().unwrap_or_default().trim();
    if let Some(rest) = line.strip_prefix("include")
        && rest.starts_with([' ', '\t'])
    {
        return Line::Include(rest.split_ascii_whitespace());
    }
    // "folder=TYPE" is an old spelling that ldconfig still reads.
    let folder = line
        .split_once('=')
        .map_or(line, |(folder, _)| folder)
        .trim_end();
    if folder.starts_with('/') {
        Line::Folder(Path::new(folder))
    } else {
        Line::Nothing
    }
}

/// The files that an include pattern means; wildcards in the file name only, as every distribution has them.
fn glob(rootfs: &Rootfs, from: &Path, pattern: &str) -> Result<Vec<PathBuf>, RootfsError> {
    let pattern = from.parent().unwrap_or(Path::new("/")).join(pattern);
    let (Some(folder), Some(name)) = (pattern.parent(), pattern.file_name()) else {
        return Ok(Vec::new());
    };
    if !name.as_bytes().iter().any(|c| b"*?[".contains(c)) {
        return Ok(vec![pattern]);
    }
    // A class of characters is taken for any character: more files are read then, never fewer.
    let simple = simplify(name.as_bytes());
    let names = rootfs.list(folder, |name| matches(&simple, name.as_bytes()))?;
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

fn simplify(pattern: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = pattern.iter();
    while let Some(c) = rest.next() {
        if *c == b'[' {
            rest.by_ref().find(|c| **c == b']');
            out.push(b'?');
        } else {
            out.push(*c);
        }
    }
    out
}

/// Matches `*` and `?`, in time proportional to the product of the lengths.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut reach: Vec<bool> = vec![true];
    reach.resize(name.len().saturating_add(1), false);
    for c in pattern {
        let mut next = vec![false; reach.len()];
        let mut any = false;
        for (i, slot) in next.iter_mut().enumerate() {
            any |= reach.get(i).copied().unwrap_or(false);
            let before = i.checked_sub(1);
            let from = before.and_then(|j| reach.get(j)).copied().unwrap_or(false);
            let here = before.and_then(|j| name.get(j));
            *slot = match c {
                b'*' => any,
                b'?' => from,
                _ => from && here == Some(c),
            };
        }
        reach = next;
    }
    reach.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_driver_are_known() {
        for name in ["libcuda.so", "libcuda.so.1", "libcuda.so.580.95.05"] {
            assert_eq!(Library::of(OsStr::new(name)), Some(Library::Cuda), "{name}");
        }
        assert_eq!(
            Library::of(OsStr::new("libnvidia-ml.so.1")),
            Some(Library::Nvml)
        );
        for name in [
            "libcudart.so.12",
            "libcuda.so.1.bak",
            "libcuda-driver.so.1",
            "libcuda.so1",
        ] {
            assert_eq!(Library::of(OsStr::new(name)), None, "{name}");
        }
    }

    #[test]
    fn wildcards_match() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf~", false),
            ("a?c*", "abcd", true),
            ("a?c*", "ac", false),
            ("*", "", true),
            ("", "a", false),
            ("[ab]x", "bx", true),
        ] {
            let simple = simplify(pattern.as_bytes());
            assert_eq!(
                matches(&simple, name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
    }

    fn image(files: &[(&str, &str)]) -> (tempfile::TempDir, Rootfs) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let rootfs = Rootfs::open(dir.path()).unwrap();
        (dir, rootfs)
    }

    #[test]
    fn folders_come_from_everywhere() {
        let (_dir, rootfs) = image(&[
            (
                "etc/ld.so.conf",
                "include /etc/ld.so.conf.d/*.conf # x\n/opt/a=libc6\nhwcap 0 x",
            ),
            ("etc/ld.so.conf.d/x.conf", "/opt/b\n"),
            ("etc/ld.so.conf.d/y.txt", "/opt/no\n"),
            (&format!("etc/ld-musl-{MUSL_ARCH}.path"), "/m/a:/m/b\n/m/c"),
            ("usr/local/cuda-13.0/compat/libcuda.so.1", ""),
        ]);
        let mut cache = Cache::empty();
        cache.put_first(b"libcuda.so.1", b"/opt/cached/libcuda.so.1");
        cache.put_first(b"libz.so.1", b"/opt/other/libz.so.1");
        let found = Folders::collect(&rootfs, &cache, &["/opt/env".into()]).unwrap();
        for folder in [
            "/opt/a",
            "/opt/b",
            "/opt/cached",
            "/opt/env",
            "/m/c",
            "/usr/local/cuda-13.0/compat",
        ] {
            assert!(
                found.contains(Path::new(folder)),
                "{folder} is not in {found:?}"
            );
        }
        for folder in ["/opt/no", "/opt/other"] {
            assert!(!found.contains(Path::new(folder)), "{folder}");
        }
    }

    #[test]
    fn a_configuration_that_includes_itself_is_refused() {
        let (_dir, rootfs) = image(&[("etc/ld.so.conf", "include ld.so.conf\n")]);
        let error = Folders::collect(&rootfs, &Cache::empty(), &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("more than 512 configuration files"),
            "{error}"
        );
    }
}
