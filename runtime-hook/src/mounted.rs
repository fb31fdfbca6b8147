//! The shared libraries that the engine mounts into a container: the driver's own, next to the limiter.
//!
//! Owns which of them the container's loader has to be told of. The spec mounts the driver's libraries at the host's
//! paths, and such a folder need not be one of the image's loader: `/usr/lib64` of a Fedora host means nothing to
//! Debian's. It must never put a library in front of one that the image has: any file that a user mounts is in the
//! list too. Facts: OCI runtime specification 1.2, `config.md`, "Mounts"; ld.so(8).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Component, Path};

use rustix::fs::FileType;
use serde::Deserialize;
use vgpu_core::paths::CONTAINER_LIMITER_DIR;

use crate::cache::{Cache, NATIVE_FLAGS};
use crate::library::{Library, default_folders};
use crate::rootfs::{Rootfs, RootfsError};

/// The most libraries that are taken; a driver has fewer than a hundred.
const LIBRARIES_LIMIT: usize = 512;
/// The most folders that they may lie in.
const FOLDERS_LIMIT: usize = 64;
/// The longest path, in bytes: with the other limits it keeps the plan and the loader's configuration small.
const PATH_LIMIT: usize = 512;

/// A mount as `config.json` has it.
#[derive(Debug, Default, Deserialize)]
pub struct RawMount {
    #[serde(default)]
    destination: String,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    options: Option<Vec<String>>,
}

impl RawMount {
    fn is_bind(&self) -> bool {
        let bind = |text: &str| text == "bind" || text == "rbind";
        let options = self.options.as_deref().unwrap_or_default();
        self.kind.as_deref().is_some_and(bind) || options.iter().any(|o| bind(o))
    }
}

/// The places of the bind-mounted shared libraries, each once, in the order of the mounts. Past the limits they are
/// left out: nothing but a look-up by name is lost.
#[must_use]
pub fn libraries(mounts: &[RawMount]) -> Vec<String> {
    let mut folders = BTreeSet::new();
    let mut out: Vec<String> = Vec::new();
    for mount in mounts.iter().filter(|m| m.is_bind()) {
        let path = mount.destination.as_str();
        let Some((folder, _)) = split(path).filter(|_| !out.iter().any(|p| p == path)) else {
            continue;
        };
        let fits = folders.contains(folder) || folders.len() < FOLDERS_LIMIT;
        if fits && out.len() < LIBRARIES_LIMIT {
            folders.insert(folder);
            out.push(path.to_owned());
        }
    }
    out
}

/// Folder and name of a library that the loader may be told of.
#[must_use]
pub fn split(path: &str) -> Option<(&str, &str)> {
    // What has a meaning in ld.so.conf (`#`, `=`, blanks) or ends a line never gets into it.
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-@~".contains(c);
    let whole = Path::new(path);
    let steps = |c: Component<'_>| matches!(c, Component::RootDir | Component::Normal(_));
    let straight = whole.components().all(steps) && !path.contains("/./") && !path.contains("//");
    let (folder, name) = path.rsplit_once('/')?;
    let ours = whole.starts_with(CONTAINER_LIMITER_DIR) || Library::of(OsStr::new(name)).is_some();
    let good = path.len() <= PATH_LIMIT && path.chars().all(plain) && straight && !ours;
    (good && !folder.is_empty() && is_library(name)).then_some((folder, name))
}

/// `libx.so`, `libx.so.1`, `libx.so.580.95.05`: the last kind is the SONAME of some of the driver's libraries.
fn is_library(name: &str) -> bool {
    let Some((stem, version)) = name.rsplit_once(".so") else {
        return false;
    };
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    let versioned = |rest: &str| rest.split('.').all(digits);
    !stem.is_empty() && (version.is_empty() || version.strip_prefix('.').is_some_and(versioned))
}

/// Those of `libraries` that are there and that the image's loader has no other file for.
///
/// # Errors
/// [`RootfsError`].
pub fn missing<'a>(
    rootfs: &Rootfs,
    cache: &Cache<'_>,
    libraries: &'a [String],
) -> Result<Vec<&'a str>, RootfsError> {
    let known: BTreeSet<&[u8]> = cache
        .entries
        .iter()
        .filter(|e| e.flags == NATIVE_FLAGS)
        .map(|e| &*e.name)
        .collect();
    let mut seen = BTreeSet::new();
    let mut out = Vec::new();
    for path in libraries {
        // The list went through a file.
        let Some((_, name)) = split(path).filter(|(_, name)| !known.contains(name.as_bytes()))
        else {
            continue;
        };
        let Some(node) = rootfs.lookup(Path::new(path))? else {
            continue;
        };
        let file = node.kind() == FileType::RegularFile;
        if file && !is_elsewhere(rootfs, name, node.identity())? && seen.insert(name) {
            out.push(path.as_str());
        }
    }
    Ok(out)
}

/// Whether a default folder has another file of this name, which programs of the image get today.
fn is_elsewhere(rootfs: &Rootfs, name: &str, own: (u64, u64)) -> Result<bool, RootfsError> {
    for folder in default_folders() {
        let node = rootfs.lookup(&folder.join(name))?;
        if node.is_some_and(|n| n.identity() != own) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(destination: &str) -> RawMount {
        RawMount {
            destination: destination.to_owned(),
            kind: Some("bind".to_owned()),
            options: None,
        }
    }

    #[test]
    fn bound_libraries_are_taken_and_nothing_else() {
        let mounts: Vec<RawMount> = serde_json::from_str(
            r#"[{"destination":"/usr/lib64/libnvidia-x.so.1","source":"/a","options":["ro","rbind"]},
                {"destination":"/usr/lib64/libnvidia-y.so.580.95.05","type":"bind","source":"/a"},
                {"destination":"/usr/lib64/libnvidia-y.so.580.95.05","type":"bind","source":"/b"},
                {"destination":"/usr/lib64/libcuda.so.1","type":"bind"},
                {"destination":"/usr/lib/vgpu/driver/libcuda-driver.so.1","type":"bind"},
                {"destination":"/tmp/libz.so","type":"tmpfs","options":["nosuid"]},
                {"destination":"/usr/bin/nvidia-smi","type":"bind"},{"type":"bind"}]"#,
        )
        .unwrap();
        let expected = [
            "/usr/lib64/libnvidia-x.so.1",
            "/usr/lib64/libnvidia-y.so.580.95.05",
        ];
        assert_eq!(libraries(&mounts), expected);
    }

    #[test]
    fn odd_names_are_left_out() {
        for path in [
            "libx.so",
            "/libx.so",
            "/a/../libx.so",
            "/a/./libx.so",
            "/a//libx.so",
            "/a/libx.so.1a",
            "/a/libx.so.",
            "/a/libx.so..1",
            "/a/.so",
            "/a b/libx.so",
            "/a#/libx.so",
            "/a=libc6/libx.so",
            "/a\n/b/libx.so",
            "/ä/libx.so",
            "/a/libx.sock",
        ] {
            assert_eq!(split(path), None, "{path}");
        }
        assert_eq!(split("/a/libx.so"), Some(("/a", "libx.so")));
        assert_eq!(
            split("/a/ld.so.d/libx.so.2"),
            Some(("/a/ld.so.d", "libx.so.2"))
        );
        let long = format!("/{}/libx.so", "a".repeat(PATH_LIMIT));
        assert_eq!(split(&long), None);
    }

    #[test]
    fn counts_are_bounded() {
        let many: Vec<_> = (0..2000)
            .map(|i| bind(&format!("/a/libx.so.{i}")))
            .collect();
        assert_eq!(libraries(&many).len(), LIBRARIES_LIMIT);
        let wide: Vec<_> = (0..2000).map(|i| bind(&format!("/a{i}/libx.so"))).collect();
        assert_eq!(libraries(&wide).len(), FOLDERS_LIMIT);
    }
}
