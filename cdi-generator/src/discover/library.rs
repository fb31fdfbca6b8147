//! Finds shared libraries of a driver, with the names that programs open them by.
//!
//! A driver's library is one file, `libnvidia-nvvm.so.580.95.05`, and links beside it under its other names,
//! `libnvidia-nvvm.so.4`. The file is mounted under each of these names, so that nothing has to run in the container to
//! make them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Discover, Root, file, ld_cache};
use crate::spec::ContainerEdits;

/// Where distributions put libraries, in the order of preference.
#[cfg(target_arch = "aarch64")]
const DIRECTORIES: [&str; 8] = [
    "/usr/lib/aarch64-linux-gnu/nvidia/current",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/lib",
    "/lib",
];
#[cfg(not(target_arch = "aarch64"))]
const DIRECTORIES: [&str; 8] = [
    "/usr/lib/x86_64-linux-gnu/nvidia/current",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib64",
    "/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/local/nvidia/lib64",
    "/usr/lib",
    "/lib",
];

/// One library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Library {
    /// The file, a path below the root, without links.
    pub path: PathBuf,
    /// Every path that leads to it from the searched directories, its own among them, in order. Debian keeps the files
    /// in `nvidia/current` and links to them in the directory that the loader searches.
    pub places: Vec<PathBuf>,
}

impl Library {
    /// The version in its own name: `580.95.05` of `libcuda.so.580.95.05`.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        let (_, version) = self.path.file_name()?.to_str()?.split_once(".so.")?;
        Some(version)
    }
}

/// The libraries in a root's directories, each directory read once.
#[derive(Debug)]
pub struct LibraryDirectories {
    root: Root,
    /// The directory and its files by name; a name that is a link maps to what it leads to.
    directories: Vec<(PathBuf, BTreeMap<String, PathBuf>)>,
}

impl LibraryDirectories {
    /// The usual directories of `root`, and those in which its loader cache has a library that `interesting` names.
    #[must_use]
    pub fn scan(root: &Root, interesting: impl Fn(&str) -> bool) -> Self {
        let mut wanted: Vec<PathBuf> = DIRECTORIES.iter().map(PathBuf::from).collect();
        for entry in ld_cache::read(root) {
            if let Some(directory) = entry.path.parent()
                && interesting(&entry.name)
                && !wanted.iter().any(|known| known == directory)
            {
                wanted.push(directory.to_owned());
            }
        }
        let mut directories: Vec<(PathBuf, BTreeMap<String, PathBuf>)> = Vec::new();
        let mut seen = Vec::new();
        for directory in wanted {
            // /lib64 is often /usr/lib64 by another name.
            let Some(real) = root.resolve(&directory).filter(|real| !seen.contains(real)) else {
                continue;
            };
            let files = list(root, &directory, &interesting);
            seen.push(real);
            directories.push((directory, files));
        }
        Self {
            root: root.clone(),
            directories,
        }
    }

    /// The library `name` (`libcuda`): the one of `version` in the first directory that has it; without a version, the
    /// newest in the first directory that has any. A library of another driver version never stands in, because the
    /// driver's parts refuse each other across versions.
    #[must_use]
    pub fn find(&self, name: &str, version: Option<&str>) -> Option<Library> {
        let subdirectory = Path::new(name)
            .parent()
            .filter(|parent| *parent != Path::new(""));
        if let Some(subdirectory) = subdirectory {
            return self.find_below(subdirectory, name, version);
        }
        let prefix = format!("{name}.so.");
        let path = self
            .directories
            .iter()
            .find_map(|(_, files)| match version {
                Some(version) => files.get(&format!("{prefix}{version}")),
                None => newest(files, &prefix),
            })?;
        Some(Library {
            path: path.clone(),
            places: self.places(path, &prefix),
        })
    }

    /// The library that a program gets for `file_name`, `libnvidia-ml.so.1`: the link says which of several versions is
    /// in use.
    #[must_use]
    pub fn linked(&self, file_name: &str) -> Option<Library> {
        let (name, _) = file_name.split_once(".so")?;
        let path = self
            .directories
            .iter()
            .find_map(|(_, files)| files.get(file_name))?;
        let places = self.places(path, &format!("{name}.so."));
        Some(Library {
            path: path.clone(),
            places,
        })
    }

    /// Every path in the searched directories that leads to `path`; a bare `.so` is for compilers and left out.
    fn places(&self, path: &Path, prefix: &str) -> Vec<PathBuf> {
        let mut places = Vec::new();
        for (directory, files) in &self.directories {
            let names = files
                .iter()
                .filter(|(name, target)| target.as_path() == path && name.starts_with(prefix));
            places.extend(names.map(|(name, _)| directory.join(name)));
        }
        places
    }

    /// A library in a directory below the searched ones, `vdpau/libvdpau_nvidia`.
    fn find_below(
        &self,
        subdirectory: &Path,
        name: &str,
        version: Option<&str>,
    ) -> Option<Library> {
        let name = Path::new(name).file_name()?.to_str()?;
        let directories = self
            .directories
            .iter()
            .map(|(directory, _)| {
                let directory = directory.join(subdirectory);
                let files = list(&self.root, &directory, &|file| file.starts_with(name));
                (directory, files)
            })
            .collect();
        Self {
            root: self.root.clone(),
            directories,
        }
        .find(name, version)
    }

    /// The directories that were searched, for messages.
    pub fn searched(&self) -> impl Iterator<Item = &Path> {
        self.directories
            .iter()
            .map(|(directory, _)| directory.as_path())
    }
}

/// The file with the highest version among those whose name begins with `prefix`.
fn newest<'a>(files: &'a BTreeMap<String, PathBuf>, prefix: &str) -> Option<&'a PathBuf> {
    let named = files.iter().filter(|(name, _)| name.starts_with(prefix));
    named
        .map(|(_, path)| path)
        .max_by_key(|path| version_key(path))
}

/// The libraries in `directory` that `interesting` names, each with the file it leads to.
fn list(
    root: &Root,
    directory: &Path,
    interesting: &impl Fn(&str) -> bool,
) -> BTreeMap<String, PathBuf> {
    let Some(entries) = root
        .resolve_on_host(directory)
        .and_then(|path| fs::read_dir(path).ok())
    else {
        return BTreeMap::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| name.contains(".so") && interesting(name))
        .filter_map(|name| {
            let path = root.resolve(&directory.join(&name))?;
            root.host(&path).is_file().then_some((name, path))
        })
        .collect()
}

/// Numbers of a version, for comparing `9.1` with `10.0`.
fn version_key(path: &Path) -> Vec<u64> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let version = name.split_once(".so.").map_or("", |(_, version)| version);
    version
        .split('.')
        .map(|part| part.parse().unwrap_or_default())
        .collect()
}

/// Mounts libraries under every name they have.
#[derive(Debug)]
pub struct Libraries<'a> {
    /// Where to look.
    pub directories: &'a LibraryDirectories,
    /// The driver's version.
    pub version: &'a str,
    /// Libraries of the driver's version, without `.so`; a directory may stand before the name.
    pub names: Vec<&'a str>,
    /// Libraries with versions of their own.
    pub unversioned: Vec<&'a str>,
}

impl Discover for Libraries<'_> {
    fn discover(&self) -> ContainerEdits {
        let mut edits = ContainerEdits::default();
        let versioned = self.names.iter().map(|name| (name, Some(self.version)));
        for (name, version) in versioned.chain(self.unversioned.iter().map(|name| (name, None))) {
            let Some(library) = self.directories.find(name, version) else {
                tracing::debug!(library = name, "not there");
                continue;
            };
            let host = self.directories.root.host(&library.path);
            let places = library.places.iter();
            edits
                .mounts
                .extend(places.map(|place| file::read_only(&host, place)));
        }
        edits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path().join("usr/lib64");
        fs::create_dir_all(lib.join("vdpau")).unwrap();
        symlink("usr/lib64", folder.path().join("lib64")).unwrap();
        for file in [
            "libcuda.so.580.1",
            "libcuda.so.470.9",
            "libegl.so.1.1.9",
            "libegl.so.1.1.10",
        ] {
            fs::write(lib.join(file), "").unwrap();
        }
        fs::write(lib.join("vdpau/libv.so.580.1"), "").unwrap();
        symlink("libcuda.so.580.1", lib.join("libcuda.so.1")).unwrap();
        symlink("libcuda.so.1", lib.join("libcuda.so")).unwrap();
        symlink("nowhere", lib.join("libgone.so.1")).unwrap();
        let root = Root::new(folder.path());
        (folder, root)
    }

    #[test]
    fn finds_the_version_and_its_places() {
        let (_folder, root) = tree();
        let directories = LibraryDirectories::scan(&root, |_| true);
        let cuda = directories.find("libcuda", Some("580.1")).unwrap();
        assert_eq!(cuda.path, Path::new("/usr/lib64/libcuda.so.580.1"));
        assert_eq!(
            places(&cuda),
            ["/usr/lib64/libcuda.so.1", "/usr/lib64/libcuda.so.580.1"]
        );
        assert_eq!(cuda.version(), Some("580.1"));
        let older = directories.find("libcuda", Some("470.9")).unwrap();
        assert_eq!(places(&older), ["/usr/lib64/libcuda.so.470.9"]);
        assert_eq!(directories.find("libgone", None), None);
    }

    fn places(library: &Library) -> Vec<&str> {
        library
            .places
            .iter()
            .map(|place| place.to_str().unwrap())
            .collect()
    }

    #[test]
    fn the_newest_where_no_version_is_asked_for() {
        let (_folder, root) = tree();
        let directories = LibraryDirectories::scan(&root, |_| true);
        assert_eq!(directories.find("libegl", Some("580.1")), None);
        let egl = directories.find("libegl", None).unwrap();
        assert_eq!(places(&egl), ["/usr/lib64/libegl.so.1.1.10"]);
        assert_eq!(
            directories.find("libcuda", None).unwrap().version(),
            Some("580.1")
        );
    }

    #[test]
    fn the_link_says_which_version_is_in_use() {
        let (folder, root) = tree();
        fs::write(folder.path().join("usr/lib64/libcuda.so.590.1"), "").unwrap();
        let directories = LibraryDirectories::scan(&root, |_| true);
        assert_eq!(
            directories.find("libcuda", None).unwrap().version(),
            Some("590.1")
        );
        assert_eq!(
            directories.linked("libcuda.so.1").unwrap().version(),
            Some("580.1")
        );
        assert_eq!(directories.linked("libgone.so.1"), None);
    }

    #[test]
    fn subdirectories_and_aliases() {
        let (_folder, root) = tree();
        let directories = LibraryDirectories::scan(&root, |_| true);
        assert_eq!(
            directories.searched().collect::<Vec<_>>(),
            [Path::new("/usr/lib64")]
        );
        let libraries = Libraries {
            directories: &directories,
            version: "580.1",
            names: vec!["vdpau/libv", "libnone"],
            unversioned: vec!["libegl"],
        };
        let mounts = libraries.discover().mounts;
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].container_path, "/usr/lib64/vdpau/libv.so.580.1");
    }
}
