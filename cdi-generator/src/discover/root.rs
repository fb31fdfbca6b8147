//! A directory that stands for `/`: the host's own root, a driver container's, or a test's.
//!
//! Links below it are followed as a process with that root would follow them: an absolute target starts at the root
//! again, and `..` never leaves it. So a driver root cannot make the generator mount files from outside of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;

/// A directory that stands for `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The directory `path` as a root.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether this is the host's own root.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.0 == Path::new("/")
    }

    /// Where `inside`, a path below this root, is on the host; links are not followed.
    #[must_use]
    pub fn host(&self, inside: &Path) -> PathBuf {
        self.0.join(inside.strip_prefix("/").unwrap_or(inside))
    }

    /// `inside` without links, as a path below this root; nothing where it does not exist.
    #[must_use]
    pub fn resolve(&self, inside: &Path) -> Option<PathBuf> {
        let mut rest: Vec<OsString> = parts(inside);
        let mut done = PathBuf::from("/");
        let mut links = 0_usize;
        while let Some(part) = rest.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let next = done.join(&part);
            let kind = fs::symlink_metadata(self.host(&next)).ok()?.file_type();
            if !kind.is_symlink() {
                done = next;
                continue;
            }
            links = links.saturating_add(1);
            if links > MAX_LINKS {
                return None;
            }
            let target = fs::read_link(self.host(&next)).ok()?;
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            rest.extend(parts(&target));
        }
        Some(done)
    }

    /// Where `inside` is on the host after every link; nothing where it does not exist.
    #[must_use]
    pub fn resolve_on_host(&self, inside: &Path) -> Option<PathBuf> {
        self.resolve(inside).map(|path| self.host(&path))
    }
}

/// The parts of a path, the last first, so that they can be popped.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        fs::create_dir_all(folder.path().join("usr/lib")).unwrap();
        fs::write(folder.path().join("usr/lib/a.so.1.2"), "").unwrap();
        let link = |target: &str, name: &str| symlink(target, folder.path().join(name)).unwrap();
        link("usr/lib", "lib");
        link("a.so.1.2", "usr/lib/a.so.1");
        link("/lib/a.so.1", "usr/lib/a.so");
        link("/etc/hostname", "outside");
        link("../../../../../usr", "up");
        link("loop", "loop");
        (folder, root)
    }

    #[test]
    fn links_stay_below_the_root() {
        let (_folder, root) = tree();
        let resolve = |path: &str| root.resolve(Path::new(path));
        assert_eq!(resolve("/lib/a.so"), Some("/usr/lib/a.so.1.2".into()));
        assert_eq!(
            resolve("/up/lib/../lib/a.so.1"),
            Some("/usr/lib/a.so.1.2".into())
        );
        assert_eq!(resolve("/outside"), None);
        assert_eq!(resolve("/loop"), None);
        assert_eq!(resolve("/nothing"), None);
        assert_eq!(resolve("/.."), Some("/".into()));
    }

    #[test]
    fn the_host_path_is_below_the_root() {
        let root = Root::new("/run/nvidia/driver");
        assert_eq!(
            root.host(Path::new("/dev/x")),
            Path::new("/run/nvidia/driver/dev/x")
        );
        assert_eq!(
            Root::new("/").host(Path::new("/dev/x")),
            Path::new("/dev/x")
        );
    }
}
