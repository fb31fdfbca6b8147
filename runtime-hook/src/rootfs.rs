//! Paths below a container's root file system.
//!
//! Owns every look at, and every change to, what lies below the root. It must never hand a path back to the system:
//! each one is resolved once by `openat2` with `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`, and only the descriptor is
//! used, because an image (or a neighbour that shares a volume) may hold links to the host and may change them while
//! we look. New files and folders are made only on the root's own mount (`RESOLVE_NO_XDEV`), so that a volume,
//! which may be the host's `/etc`, is never written to. Facts: the causes of CVE-2024-0132, CVE-2025-23359 and
//! CVE-2025-23267.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use thiserror::Error;

use crate::mounts;
use crate::undo::Undo;

/// How often a look-up is repeated when a rename elsewhere disturbed it.
const RETRIES: u32 = 16;
/// The most entries of one folder that are looked at.
const LIST_LIMIT: usize = 100_000;

/// What went wrong below the root.
#[derive(Debug, Error)]
pub enum RootfsError {
    /// The root itself cannot be opened.
    #[error("cannot open the container's root file system {}", path.display())]
    Root {
        /// The root on the host.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Errno,
    },
    /// A path cannot be resolved, read or changed.
    #[error("cannot {action} {} in the container", path.display())]
    Path {
        /// What was tried.
        action: &'static str,
        /// The path in the container.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Errno,
    },
    /// Something else stands where a file or folder must be.
    #[error("{} in the container is a {found}, expected a {expected}", path.display())]
    Kind {
        /// The path in the container.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A file or folder is larger than any honest one.
    #[error("{} in the container holds more than {limit} {unit}", path.display())]
    TooLarge {
        /// The path in the container.
        path: PathBuf,
        /// The most that is read.
        limit: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// A mount on this volume would be seen on the host.
    #[error(
        "{} in the container lies on a volume with shared mount propagation, where a mount would reach the host; mount the volume private or slave",
        path.display()
    )]
    Shared {
        /// The path in the container.
        path: PathBuf,
    },
    /// Something would have to be made on a volume.
    #[error("{} in the container lies on a volume, where nothing may be created", path.display())]
    Foreign {
        /// The path in the container.
        path: PathBuf,
    },
}

/// A container's root file system, by descriptor.
#[derive(Debug)]
pub struct Rootfs {
    root: OwnedFd,
}

/// A thing below the root, by descriptor (`O_PATH`).
#[derive(Debug)]
pub struct Node {
    /// The descriptor; good for `fstat`, as a folder to start from, and as a mount point.
    pub fd: OwnedFd,
    /// What it is.
    pub stat: Stat,
}

impl Node {
    fn new(fd: OwnedFd) -> Result<Self, Errno> {
        let stat = rustix::fs::fstat(&fd)?;
        Ok(Self { fd, stat })
    }

    /// The kind of thing.
    #[must_use]
    pub fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    /// The names in it that `keep` wants, in no order; none where it is no folder. `path` serves messages only.
    ///
    /// # Errors
    /// [`RootfsError::Path`], [`RootfsError::TooLarge`].
    pub fn list(
        &self,
        path: &Path,
        keep: impl Fn(&OsStr) -> bool,
    ) -> Result<Vec<OsString>, RootfsError> {
        if self.kind() != FileType::Directory {
            return Ok(Vec::new());
        }
        let fail = |e| failed("list", path, e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, ".", flags, Mode::empty()).map_err(fail)?;
        let mut names = Vec::new();
        for (count, entry) in Dir::new(fd).map_err(fail)?.enumerate() {
            let entry = entry.map_err(fail)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." && keep(name) {
                names.push(name.to_owned());
            }
            if count > LIST_LIMIT {
                let limit = u64::try_from(LIST_LIMIT).unwrap_or(u64::MAX);
                return Err(RootfsError::TooLarge {
                    path: path.to_owned(),
                    limit,
                    unit: "entries",
                });
            }
        }
        Ok(names)
    }

    /// Device and inode: equal for two names of one file.
    #[must_use]
    pub const fn identity(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }
}

impl Rootfs {
    /// Opens the root file system at a host path that the runtime gave.
    ///
    /// # Errors
    /// [`RootfsError::Root`] when it is not a folder that can be opened.
    pub fn open(path: &Path) -> Result<Self, RootfsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|source| RootfsError::Root {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self { root })
    }

    /// Lets us write where the runtime has made the root read-only already, as crun does before its hooks.
    ///
    /// # Errors
    /// [`RootfsError::Path`].
    pub fn writable(&self) -> Result<Writable<'_>, RootfsError> {
        let fail = |source| failed("make writable", Path::new("/"), source);
        let sealed = mounts::unseal(self.root.as_fd()).map_err(fail)?;
        Ok(Writable {
            rootfs: self,
            sealed,
        })
    }

    /// Finds what a path leads to, links followed within the root; nothing there is `None`.
    ///
    /// # Errors
    /// [`RootfsError::Path`] for anything but absence.
    pub fn lookup(&self, path: &Path) -> Result<Option<Node>, RootfsError> {
        self.find(path, OFlags::PATH)
    }

    /// As [`Rootfs::lookup`], but the last component itself, also when it is a link.
    ///
    /// # Errors
    /// As [`Rootfs::lookup`].
    pub fn lookup_link(&self, path: &Path) -> Result<Option<Node>, RootfsError> {
        self.find(path, OFlags::PATH | OFlags::NOFOLLOW)
    }

    fn find(&self, path: &Path, flags: OFlags) -> Result<Option<Node>, RootfsError> {
        let opened = self.resolve(path, flags, ResolveFlags::empty());
        match opened.and_then(Node::new) {
            Ok(node) => Ok(Some(node)),
            // A loop of links, or one through /proc, leads nowhere that a program could open either.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(None),
            Err(source) => Err(failed("open", path, source)),
        }
    }

    /// The one place where a path below the root is given to the system.
    fn resolve(&self, path: &Path, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = relative(path);
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        let flags = flags | OFlags::CLOEXEC;
        for _ in 0..RETRIES {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
        Err(Errno::AGAIN)
    }

    /// Says whether a mount on `target` stays with this container. One on a shared volume would travel to every peer of
    /// that, the host's folder included. The root's own mount may be shared as well, when a volume is: what the engine
    /// mounts in there travels then too, and no further than to the host's view of this root.
    ///
    /// # Errors
    /// [`RootfsError::Shared`]; [`RootfsError::Path`] ← it cannot be told.
    pub fn check_target(&self, target: BorrowedFd<'_>, path: &Path) -> Result<(), RootfsError> {
        let fail = |source| failed("look at the mount of", path, source);
        let mount = mounts::id(target).map_err(fail)?;
        if mount == mounts::id(self.root.as_fd()).map_err(fail)? {
            return Ok(());
        }
        match mounts::is_shared(mount).map_err(fail)? {
            false => Ok(()),
            true => Err(RootfsError::Shared {
                path: path.to_owned(),
            }),
        }
    }

    /// Reads a whole regular file of at most `limit` bytes; nothing there is `None`.
    ///
    /// # Errors
    /// [`RootfsError::Kind`] ← not a regular file; [`RootfsError::TooLarge`]; [`RootfsError::Path`].
    pub fn read(&self, path: &Path, limit: u64) -> Result<Option<Vec<u8>>, RootfsError> {
        let Some(node) = self.lookup(path)? else {
            return Ok(None);
        };
        // A FIFO or a device must not even be opened: that alone can block or do something.
        if node.kind() != FileType::RegularFile {
            return Err(wrong_kind(path, node.kind(), "regular file"));
        }
        let too_large = || RootfsError::TooLarge {
            path: path.to_owned(),
            limit,
            unit: "bytes",
        };
        if u64::try_from(node.stat.st_size).unwrap_or(u64::MAX) > limit {
            return Err(too_large());
        }
        let text = read_fd(node.fd.as_fd(), limit).map_err(|e| failed("read", path, e))?;
        text.map(Some).ok_or_else(too_large)
    }

    /// The names in a folder that `keep` wants; none where there is no folder.
    ///
    /// # Errors
    /// [`RootfsError::Path`], [`RootfsError::TooLarge`].
    pub fn list(
        &self,
        path: &Path,
        keep: impl Fn(&OsStr) -> bool,
    ) -> Result<Vec<OsString>, RootfsError> {
        match self.lookup(path)? {
            Some(node) => node.list(path, keep),
            None => Ok(Vec::new()),
        }
    }

    /// An existing folder on the root's own mount, to create things in; nothing there is `None`.
    ///
    /// # Errors
    /// [`RootfsError::Foreign`] ← it lies on a volume; [`RootfsError::Kind`] ← no folder; [`RootfsError::Path`].
    pub fn own_folder(&self, path: &Path) -> Result<Option<OwnedFd>, RootfsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.resolve(path, flags, ResolveFlags::NO_XDEV) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::XDEV) => Err(RootfsError::Foreign {
                path: path.to_owned(),
            }),
            Err(Errno::NOTDIR) => Err(wrong_kind(path, FileType::Unknown, "folder")),
            Err(source) => Err(failed("open", path, source)),
        }
    }

    /// Finds a folder, making it and its parents as needed; `undo` learns what was made.
    ///
    /// # Errors
    /// As [`Rootfs::own_folder`], for the first part that is missing.
    pub fn make_folders(&self, path: &Path, undo: &mut Undo) -> Result<OwnedFd, RootfsError> {
        if let Some(node) = self.lookup(path)? {
            if node.kind() == FileType::Directory {
                return Ok(node.fd);
            }
            return Err(wrong_kind(path, node.kind(), "folder"));
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        self.make_folders(parent, undo)?;
        let parent_fd = self.own_folder(parent)?.ok_or_else(|| gone(parent))?;
        let name = path.file_name().ok_or_else(|| gone(path))?;
        let fail = |source| failed("create", path, source);
        rustix::fs::mkdirat(&parent_fd, name, Mode::from(0o755)).map_err(fail)?;
        undo.folder(&parent_fd, name).map_err(fail)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&parent_fd, name, flags, Mode::empty()).map_err(fail)
    }
}

/// While it lives, the root may be written to; dropped, the root is again as the runtime left it.
#[derive(Debug)]
pub struct Writable<'a> {
    rootfs: &'a Rootfs,
    sealed: bool,
}

impl Writable<'_> {
    /// Makes the root read-only again if it was.
    ///
    /// # Errors
    /// [`RootfsError::Path`]; a container must not start with more rights than it was given.
    pub fn restore(mut self) -> Result<(), RootfsError> {
        let fail = |source| failed("make read-only", Path::new("/"), source);
        if std::mem::take(&mut self.sealed) {
            mounts::seal(self.rootfs.root.as_fd()).map_err(fail)?;
        }
        Ok(())
    }
}

impl Drop for Writable<'_> {
    fn drop(&mut self) {
        if self.sealed {
            // The hook fails already, and the container with it.
            mounts::seal(self.rootfs.root.as_fd()).ok();
        }
    }
}

/// Reads a descriptor that was opened with `O_PATH`, through this process's own descriptor table.
/// Longer than `limit` is `None`.
///
/// # Errors
/// What the system said.
pub fn read_fd(fd: BorrowedFd<'_>, limit: u64) -> Result<Option<Vec<u8>>, Errno> {
    use std::io::Read;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(own_path(fd), flags, Mode::empty())?);
    let mut text = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut text);
    read.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
    Ok((length <= limit).then_some(text))
}

/// A path that means exactly this descriptor, for the calls that take no descriptor. `/proc` is the host's: the hook
/// runs before the container's root is entered.
pub fn own_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Creates a regular file that was not there, in a folder held by descriptor.
///
/// # Errors
/// `EEXIST` when anything of that name is there, a link included.
pub fn create_file(folder: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(folder, name, flags, Mode::from(0o644))?;
    rustix::fs::fchmod(&fd, Mode::from(0o644))?;
    Ok(fd)
}

/// Writes a file whole or not at all: a temporary name beside it, then a rename over whatever link or file has the
/// name. A temporary file that an earlier, killed hook left is replaced.
///
/// # Errors
/// What the system said; the temporary file is gone then.
pub fn replace_file(folder: BorrowedFd<'_>, name: &OsStr, content: &[u8]) -> Result<(), Errno> {
    let mut temporary = OsString::from(".vgpu-");
    temporary.push(name);
    let fd = match create_file(folder, &temporary) {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(folder, &temporary, AtFlags::empty())?;
            create_file(folder, &temporary)
        }
        other => other,
    }?;
    let written = write_all(fd.as_fd(), content)
        .and_then(|()| rustix::fs::renameat(folder, &temporary, folder, name));
    if written.is_err() {
        // The write's own error is the one to report.
        rustix::fs::unlinkat(folder, &temporary, AtFlags::empty()).ok();
    }
    written
}

/// Writes all of `content`.
///
/// # Errors
/// What the system said.
pub fn write_all(fd: BorrowedFd<'_>, mut content: &[u8]) -> Result<(), Errno> {
    while !content.is_empty() {
        match rustix::io::write(fd, content) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => content = content.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The path as `openat2` wants it below a root: relative, and never empty.
fn relative(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.components().all(|c| c == Component::CurDir) {
        Path::new(".")
    } else {
        path
    }
}

/// The error of a path that something failed on.
#[must_use]
pub fn failed(action: &'static str, path: &Path, source: Errno) -> RootfsError {
    RootfsError::Path {
        action,
        path: path.to_owned(),
        source,
    }
}

fn gone(path: &Path) -> RootfsError {
    failed("open", path, Errno::NOENT)
}

fn wrong_kind(path: &Path, found: FileType, expected: &'static str) -> RootfsError {
    RootfsError::Kind {
        path: path.to_owned(),
        found: kind_name(found),
        expected,
    }
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "regular file",
        FileType::Directory => "folder",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "thing of another kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn world() -> (tempfile::TempDir, Rootfs) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        std::fs::create_dir_all(dir.path().join("host")).unwrap();
        std::fs::write(dir.path().join("host/secret"), "secret").unwrap();
        let rootfs = Rootfs::open(&dir.path().join("root")).unwrap();
        (dir, rootfs)
    }

    #[test]
    fn links_stay_within_the_root() {
        let (dir, rootfs) = world();
        let root = dir.path().join("root");
        symlink(dir.path().join("host/secret"), root.join("abs")).unwrap();
        symlink("../host/secret", root.join("rel")).unwrap();
        symlink("/proc/self/root/etc", root.join("magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        for name in ["/abs", "/rel", "/magic/passwd", "/loop", "/../host/secret"] {
            assert!(rootfs.lookup(Path::new(name)).unwrap().is_none(), "{name}");
            assert!(
                rootfs.read(Path::new(name), 10).unwrap().is_none(),
                "{name}"
            );
        }
        symlink("/etc", root.join("inside")).unwrap();
        std::fs::write(root.join("etc/file"), "text").unwrap();
        assert_eq!(
            rootfs.read(Path::new("/inside/file"), 10).unwrap().unwrap(),
            b"text"
        );
    }

    #[test]
    fn files_of_other_kinds_and_sizes_are_refused() {
        let (dir, rootfs) = world();
        let root = dir.path().join("root");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("fifo"),
            FileType::Fifo,
            Mode::from(0o644),
            0,
        )
        .unwrap();
        let error = rootfs.read(Path::new("/fifo"), 10).unwrap_err().to_string();
        assert_eq!(
            error,
            "/fifo in the container is a fifo, expected a regular file"
        );
        let error = rootfs.read(Path::new("/etc"), 10).unwrap_err().to_string();
        assert_eq!(
            error,
            "/etc in the container is a folder, expected a regular file"
        );
        std::fs::write(root.join("big"), "12345678901").unwrap();
        let error = rootfs.read(Path::new("/big"), 10).unwrap_err().to_string();
        assert_eq!(error, "/big in the container holds more than 10 bytes");
    }

    #[test]
    fn folders_are_made_and_unmade() {
        let (dir, rootfs) = world();
        let root = dir.path().join("root");
        let mut undo = Undo::new();
        rootfs
            .make_folders(Path::new("/usr/lib/vgpu/region"), &mut undo)
            .unwrap();
        assert!(root.join("usr/lib/vgpu/region").is_dir());
        drop(undo);
        assert!(!root.join("usr").exists());
        assert!(root.join("etc").exists());

        symlink("/nowhere", root.join("usr")).unwrap();
        let mut undo = Undo::new();
        let error = rootfs
            .make_folders(Path::new("/usr/lib"), &mut undo)
            .unwrap_err();
        assert_eq!(error.to_string(), "cannot create /usr in the container");
        symlink(dir.path().join("host"), root.join("lib")).unwrap();
        rootfs
            .make_folders(Path::new("/lib/x"), &mut undo)
            .unwrap_err();
        assert_eq!(
            std::fs::read_dir(dir.path().join("host")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_file_is_replaced_and_a_link_is_not_followed() {
        let (dir, rootfs) = world();
        let root = dir.path().join("root");
        symlink(dir.path().join("host/secret"), root.join("etc/file")).unwrap();
        symlink(dir.path().join("host/secret"), root.join("etc/.vgpu-file")).unwrap();
        let etc = rootfs.own_folder(Path::new("/etc")).unwrap().unwrap();
        replace_file(etc.as_fd(), OsStr::new("file"), b"new").unwrap();
        assert_eq!(
            std::fs::read(dir.path().join("host/secret")).unwrap(),
            b"secret"
        );
        assert_eq!(std::fs::read(root.join("etc/file")).unwrap(), b"new");
        assert!(!root.join("etc/.vgpu-file").exists());
    }
}
