//! The temporary folder that stands in front of the driver.
//!
//! ```text
//! libcuda.so.1  libcuda.so  libnvidia-ml.so.1  libnvidia-ml.so     links to the limiter
//! driver/libcuda-driver.so.1  driver/libnvidia-ml-driver.so.1      links to the real driver, for the limiter alone
//! region/limits  region/usage  region/trace                        the quota and the account
//! ```
//! The limiter looks for the region beside the name that it was loaded by, so links are enough.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::TempDir;
use vgpu_cdi::discover::Root;
use vgpu_cdi::discover::library::LibraryDirectories;
use vgpu_core::config::Paths;
use vgpu_core::paths::{LIBCUDA, LIBCUDA_DRIVER, LIBNVIDIA_ML, LIBNVIDIA_ML_DRIVER};
use vgpu_region::Limits;

/// Memory-backed on every Linux; pages that change all the time should not go to a disk.
const SHARED_MEMORY: &str = "/dev/shm";

/// The folder; removed when dropped.
#[derive(Debug)]
pub(super) struct Folder {
    dir: TempDir,
    /// Where the driver's other libraries are, when the loader does not find them by itself.
    driver_dir: Option<PathBuf>,
}

impl Folder {
    /// Makes the folder whole, or not at all.
    pub(super) fn make(paths: &Paths, version: &str, limits: &Limits) -> anyhow::Result<Self> {
        let dir = temporary().context("cannot make a temporary folder")?;
        link_limiter(dir.path(), &paths.limiter_dir)?;
        let driver_dir = link_driver(dir.path(), &Root::new(&paths.driver_root), version)?;
        let region = dir.path().join("region");
        fs::create_dir(&region).with_context(|| format!("cannot create {}", region.display()))?;
        vgpu_region::create(&region, limits).context("cannot write the quota")?;
        Ok(Self { dir, driver_dir })
    }

    /// The value of `LD_LIBRARY_PATH` with this folder in front of what the caller has.
    pub(super) fn library_path(&self, before: Option<&std::ffi::OsStr>) -> std::ffi::OsString {
        let mut path = self.dir.path().as_os_str().to_owned();
        let driver = self.driver_dir.as_deref().map(Path::as_os_str);
        for more in [driver, before]
            .into_iter()
            .flatten()
            .filter(|more| !more.is_empty())
        {
            path.push(":");
            path.push(more);
        }
        path
    }

    /// Removes the folder; dropping it does the same and says nothing.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        let path = self.dir.path().to_owned();
        self.dir
            .close()
            .with_context(|| format!("cannot remove {}", path.display()))
    }
}

fn temporary() -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("vgpu-run.");
    builder
        .tempdir_in(SHARED_MEMORY)
        .or_else(|_| builder.tempdir())
}

fn link_limiter(dir: &Path, limiter_dir: &Path) -> anyhow::Result<()> {
    for (file, plain) in [(LIBCUDA, "libcuda.so"), (LIBNVIDIA_ML, "libnvidia-ml.so")] {
        let target = limiter_dir.join(file);
        ensure!(
            target.is_file(),
            "no limiter at {}: install vgpu, or name the folder of {LIBCUDA} and {LIBNVIDIA_ML} with --limiter-dir",
            target.display()
        );
        for name in [file, plain] {
            link(&target, &dir.join(name))?;
        }
    }
    Ok(())
}

/// Links the real libraries, and answers the folder of a driver that is not the host's own.
fn link_driver(dir: &Path, root: &Root, version: &str) -> anyhow::Result<Option<PathBuf>> {
    let names = ["libcuda", "libnvidia-ml"];
    let directories =
        LibraryDirectories::scan(root, |file| names.iter().any(|n| file.starts_with(n)));
    let driver = dir.join("driver");
    fs::create_dir(&driver).with_context(|| format!("cannot create {}", driver.display()))?;
    let mut driver_dir = None;
    for (name, link_name) in names.into_iter().zip([LIBCUDA_DRIVER, LIBNVIDIA_ML_DRIVER]) {
        let library = directories.find(name, Some(version)).with_context(|| {
            format!(
                "the driver {version} under {} has no {name}.so.{version}: install it, or name the driver's root with --driver-root",
                root.path().display()
            )
        })?;
        link(&root.host(&library.path), &driver.join(link_name))?;
        driver_dir = library.path.parent().map(|parent| root.host(parent));
    }
    Ok(driver_dir.filter(|_| !root.is_host()))
}

fn link(target: &Path, name: &Path) -> anyhow::Result<()> {
    symlink(target, name).with_context(|| format!("cannot create {}", name.display()))
}
