//! Makes the container's loader find the limiter by name.
//!
//! Writes `ld.so.conf.d/00-vgpu.conf` and the extended `ld.so.cache` into the container's own layer (a bind over the
//! cache would break `ldconfig` in there), and links in the default library folder for programs that look there or
//! name the file by its path. On a volume nothing is written. The cache comes last of all, because a rename over it
//! cannot be taken back.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::io::Errno;
use thiserror::Error;
use vgpu_core::paths::CONTAINER_LIMITER_DIR;

use crate::cache::{CACHE_LIMIT, Cache, CacheError};
use crate::library::{Library, default_folders, is_musl, musl_folders};
use crate::mounted::split;
use crate::rootfs::{Rootfs, RootfsError, create_file, failed, replace_file, write_all};
use crate::undo::Undo;

const CACHE_FILE: &str = "/etc/ld.so.cache";
const CONF_FOLDER: &str = "/etc/ld.so.conf.d";
const CONF_NAME: &str = "00-vgpu.conf";

/// Why the loader cannot be told.
#[derive(Debug, Error)]
pub enum LoaderError {
    /// A path in the image.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The new cache cannot be written.
    #[error("cannot extend {CACHE_FILE} in the container")]
    Cache(#[source] CacheError),
    /// Neither the cache nor a default folder is the container's own.
    #[error(
        "the container's loader cannot be told of {CONTAINER_LIMITER_DIR}: /etc and its library folders are volumes"
    )]
    NoPlace,
}

/// The bytes of the image's cache; none where there is none.
///
/// # Errors
/// [`RootfsError`] ← something that is not a regular file has its name, or it is larger than any cache.
pub fn read_cache(rootfs: &Rootfs) -> Result<Vec<u8>, RootfsError> {
    Ok(rootfs
        .read(Path::new(CACHE_FILE), CACHE_LIMIT)?
        .unwrap_or_default())
}

/// The image's cache; an empty one where the loader too would ignore what is there.
#[must_use]
pub fn parse_cache(bytes: &[u8]) -> Cache<'_> {
    Cache::parse(bytes).unwrap_or_else(|_| Cache::empty())
}

/// Makes the links and the configuration entry; `undo` learns of them.
///
/// # Errors
/// [`LoaderError::Rootfs`].
pub fn link(rootfs: &Rootfs, mounted: &[&str], undo: &mut Undo) -> Result<Linked, LoaderError> {
    let mut linked = Linked {
        folders: 0,
        warnings: Vec::new(),
    };
    for folder in link_folders(rootfs, undo)? {
        match link_in(rootfs, &folder, undo) {
            Ok(()) => linked.folders = linked.folders.saturating_add(1),
            Err(error @ RootfsError::Foreign { .. }) => linked.warnings.push(error.to_string()),
            Err(error) => return Err(error.into()),
        }
    }
    // Only a later ldconfig in the container reads it: nothing is lost without it today.
    if let Err(error) = write_conf(rootfs, mounted, undo) {
        linked.warnings.push(crate::error::line(&error));
    }
    Ok(linked)
}

/// What [`link`] did.
#[derive(Debug)]
pub struct Linked {
    /// Folders that have the links now.
    folders: usize,
    /// What was left out, each a line.
    pub warnings: Vec<String>,
}

/// Writes the extended cache, with the limiter and the `mounted` libraries in it. Nothing may fail after this.
///
/// # Errors
/// [`LoaderError`].
pub fn write_cache<'a>(
    rootfs: &Rootfs,
    mut cache: Cache<'a>,
    mounted: &[&'a str],
    linked: &mut Linked,
    undo: &mut Undo,
) -> Result<(), LoaderError> {
    if is_musl(rootfs)? && cache.entries.is_empty() {
        return Ok(());
    }
    if !extend(&mut cache, mounted) {
        return Ok(());
    }
    let etc = Path::new("/etc");
    let written = rootfs
        .make_folders(etc, undo)
        .and_then(|_| rootfs.own_folder(etc))
        .and_then(|folder| folder.ok_or_else(|| failed("open", etc, Errno::NOENT)));
    match written {
        Ok(folder) => {
            let bytes = cache.encode().map_err(LoaderError::Cache)?;
            replace_file(folder.as_fd(), OsStr::new("ld.so.cache"), &bytes)
                .map_err(|e| failed("replace", Path::new(CACHE_FILE), e))?;
            Ok(())
        }
        Err(RootfsError::Foreign { .. }) if linked.folders == 0 => Err(LoaderError::NoPlace),
        Err(error @ RootfsError::Foreign { .. }) => {
            linked.warnings.push(error.to_string());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Puts the limiter first under each of its names, and adds the mounted libraries; answers whether that changed
/// anything.
fn extend<'a>(cache: &mut Cache<'a>, mounted: &[&'a str]) -> bool {
    let names: [(&[u8], &[u8]); 4] = [
        (b"libcuda.so.1", b"/usr/lib/vgpu/libcuda.so.1"),
        (b"libcuda.so", b"/usr/lib/vgpu/libcuda.so.1"),
        (b"libnvidia-ml.so.1", b"/usr/lib/vgpu/libnvidia-ml.so.1"),
        (b"libnvidia-ml.so", b"/usr/lib/vgpu/libnvidia-ml.so.1"),
    ];
    let more = mounted
        .iter()
        .filter_map(|path| Some((split(path)?.1.as_bytes(), path.as_bytes())));
    names
        .into_iter()
        .chain(more)
        .fold(false, |changed, (name, path)| {
            cache.put_first(name, path) | changed
        })
}

/// Where the links go: the first default folder of glibc's that is there, and musl's where the image has musl.
fn link_folders(rootfs: &Rootfs, undo: &mut Undo) -> Result<Vec<PathBuf>, LoaderError> {
    let mut out = Vec::new();
    for folder in default_folders() {
        let there = rootfs
            .lookup(&folder)?
            .is_some_and(|n| n.kind() == FileType::Directory);
        if there {
            out.push(folder);
            break;
        }
    }
    let musl = if is_musl(rootfs)? {
        musl_folders(rootfs)?
    } else {
        Vec::new()
    };
    for folder in musl {
        let there = rootfs
            .lookup(&folder)?
            .is_some_and(|n| n.kind() == FileType::Directory);
        if there && !out.contains(&folder) {
            out.push(folder);
            break;
        }
    }
    if out.is_empty() {
        let folder = PathBuf::from("/usr/lib");
        rootfs.make_folders(&folder, undo)?;
        out.push(folder);
    }
    Ok(out)
}

fn link_in(rootfs: &Rootfs, folder: &Path, undo: &mut Undo) -> Result<(), RootfsError> {
    for library in Library::ALL {
        let target = format!("{CONTAINER_LIMITER_DIR}/{}", library.file());
        for name in [library.file(), library.plain()] {
            link_one(rootfs, folder, name, &target, undo)?;
        }
    }
    Ok(())
}

/// Makes one link where nothing has the name. A link that leads nowhere is as good as nothing.
fn link_one(
    rootfs: &Rootfs,
    folder: &Path,
    name: &str,
    target: &str,
    undo: &mut Undo,
) -> Result<(), RootfsError> {
    let path = folder.join(name);
    if rootfs.lookup(&path)?.is_some() {
        return Ok(());
    }
    let own = rootfs
        .own_folder(folder)?
        .ok_or_else(|| failed("open", folder, Errno::NOENT))?;
    let fail = |source| failed("create", &path, source);
    match rustix::fs::symlinkat(target, &own, name) {
        Ok(()) => undo.file(&own, OsStr::new(name)).map_err(fail),
        Err(Errno::EXIST) => replace_dangling(rootfs, &path, &own, target).map_err(fail),
        Err(error) => Err(fail(error)),
    }
}

fn replace_dangling(
    rootfs: &Rootfs,
    path: &Path,
    own: &rustix::fd::OwnedFd,
    target: &str,
) -> Result<(), Errno> {
    let is_link = matches!(rootfs.lookup_link(path), Ok(Some(n)) if n.kind() == FileType::Symlink);
    if !is_link {
        return Err(Errno::EXIST);
    }
    let name = path.file_name().unwrap_or_default();
    let temporary = ".vgpu-link";
    match rustix::fs::unlinkat(own, temporary, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    rustix::fs::symlinkat(target, own, temporary)?;
    rustix::fs::renameat(own, temporary, own, name)
}

/// The folders of these libraries, each once.
pub fn folders_of<'a>(mounted: &[&'a str]) -> impl Iterator<Item = &'a str> {
    let folders: BTreeSet<&str> = mounted
        .iter()
        .filter_map(|path| Some(split(path)?.0))
        .collect();
    folders.into_iter()
}

fn write_conf(rootfs: &Rootfs, mounted: &[&str], undo: &mut Undo) -> Result<(), RootfsError> {
    let folder = Path::new(CONF_FOLDER);
    if rootfs.lookup(Path::new("/etc"))?.is_none() {
        return Ok(());
    }
    rootfs.make_folders(folder, undo)?;
    let own = rootfs
        .own_folder(folder)?
        .ok_or_else(|| failed("open", folder, Errno::NOENT))?;
    let path = folder.join(CONF_NAME);
    let fail = |source| failed("create", &path, source);
    match create_file(own.as_fd(), OsStr::new(CONF_NAME)) {
        Ok(file) => {
            undo.file(&own, OsStr::new(CONF_NAME)).map_err(fail)?;
            // The limiter's first: ldconfig takes the first folder that has a name.
            let lines = std::iter::once(CONTAINER_LIMITER_DIR).chain(folders_of(mounted));
            let text: String = lines.flat_map(|line| [line, "\n"]).collect();
            write_all(file.as_fd(), text.as_bytes()).map_err(fail)
        }
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(fail(error)),
    }
}
