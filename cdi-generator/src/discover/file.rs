//! Finds programs, firmware, configuration files and sockets.

use std::fs::{self, FileType};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::{Discover, Root};
use crate::spec::{ContainerEdits, Mount};

/// Data and code of the driver: the container reads and runs it, and changes nothing.
const READ_ONLY: [&str; 5] = ["ro", "nosuid", "nodev", "rbind", "rprivate"];
/// Sockets are written to, which a read-only mount allows, but clients of some also make files beside them.
const SOCKET: [&str; 5] = ["nosuid", "nodev", "rbind", "rprivate", "noexec"];

/// A read-only mount of the host's file `host` at `container`.
#[must_use]
pub fn read_only(host: &Path, container: &Path) -> Mount {
    mount(host, container, &READ_ONLY)
}

fn mount(host: &Path, container: &Path, options: &[&str]) -> Mount {
    Mount {
        host_path: host.display().to_string(),
        container_path: container.display().to_string(),
        kind: None,
        options: options.iter().map(|option| (*option).to_owned()).collect(),
    }
}

/// Files that have the same path in a container as below the root.
#[derive(Debug)]
pub struct Files<'a> {
    /// Where to look.
    pub root: &'a Root,
    /// Directories in the order of preference.
    pub directories: Vec<PathBuf>,
    /// Names below a directory; `*` in the last part is any text. The first directory that has one wins.
    pub names: Vec<&'a str>,
}

impl Files<'_> {
    /// The paths below the root that `name` stands for in `directory`, in order.
    fn matches(&self, directory: &Path, name: &str) -> Vec<PathBuf> {
        let pattern = directory.join(name);
        let (Some(parent), Some(last)) = (pattern.parent(), pattern.file_name()) else {
            return Vec::new();
        };
        let Some((before, after)) = last.to_str().and_then(|last| last.split_once('*')) else {
            return vec![pattern];
        };
        let entries = self
            .root
            .resolve_on_host(parent)
            .and_then(|path| fs::read_dir(path).ok());
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with(before) && name.ends_with(after))
            .collect();
        names.sort();
        names.into_iter().map(|name| parent.join(name)).collect()
    }
}

impl Discover for Files<'_> {
    fn discover(&self) -> ContainerEdits {
        let mut edits = ContainerEdits::default();
        for name in &self.names {
            let found = self.directories.iter().find_map(|directory| {
                let mounts: Vec<Mount> = self
                    .matches(directory, name)
                    .into_iter()
                    .filter_map(|path| {
                        let host = self.root.resolve_on_host(&path).filter(|h| h.is_file())?;
                        Some(read_only(&host, &path))
                    })
                    .collect();
                (!mounts.is_empty()).then_some(mounts)
            });
            edits.mounts.extend(found.unwrap_or_default());
        }
        edits
    }
}

/// Sockets of the driver's daemons, and directories of sockets.
#[derive(Debug)]
pub struct Sockets<'a> {
    /// Where to look.
    pub root: &'a Root,
    /// Each with its alternatives, of which the first that exists is taken.
    pub paths: Vec<&'a [&'a str]>,
}

impl Discover for Sockets<'_> {
    fn discover(&self) -> ContainerEdits {
        let usable = |kind: FileType| kind.is_socket() || kind.is_dir();
        let mounts = self.paths.iter().filter_map(|alternatives| {
            alternatives.iter().map(Path::new).find_map(|path| {
                let host = self.root.resolve_on_host(path)?;
                let kind = fs::symlink_metadata(&host).ok()?.file_type();
                usable(kind).then(|| mount(&host, path, &SOCKET))
            })
        });
        ContainerEdits {
            mounts: mounts.collect(),
            ..ContainerEdits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_first_directory_that_has_a_name_wins() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        for path in [
            "a/fw/g2.bin",
            "a/fw/g1.bin",
            "a/fw/other",
            "b/fw/g3.bin",
            "b/x",
        ] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let directories = vec!["/none".into(), "/a".into(), "/b".into()];
        let files = Files {
            root: &root,
            directories,
            names: vec!["fw/g*.bin", "x", "none"],
        };
        let paths: Vec<String> = files
            .discover()
            .mounts
            .into_iter()
            .map(|mount| mount.container_path)
            .collect();
        assert_eq!(paths, ["/a/fw/g1.bin", "/a/fw/g2.bin", "/b/x"]);
    }

    #[test]
    fn a_socket_is_a_socket() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        fs::create_dir_all(folder.path().join("run/mps")).unwrap();
        fs::write(folder.path().join("run/file"), "").unwrap();
        let _listener = UnixListener::bind(folder.path().join("run/socket")).unwrap();
        let paths: Vec<&[&str]> =
            vec![&["/run/none", "/run/socket"], &["/run/file"], &["/run/mps"]];
        let mounts = Sockets { root: &root, paths }.discover().mounts;
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].container_path, "/run/socket");
        assert!(!mounts[0].options.contains(&"ro".to_owned()));
        assert_eq!(mounts[1].container_path, "/run/mps");
    }
}
