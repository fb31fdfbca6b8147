//! Device nodes of a driver root: character devices where the system allows them, FIFOs where not.
//!
//! A character device with NVIDIA's numbers and no driver behind it answers ENXIO once it may be opened, which is
//! how a device cgroup's verdict can be seen without hardware. A FIFO opens without blocking when opened for
//! reading and writing, and lets everything but that test work without privilege.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;

use crate::config::NodeConfig;
use crate::root::{Manifest, RootError, io_error};

/// Major number of the GPUs and of the control devices.
const NVIDIA: u64 = 195;
/// Major number of the unified-memory devices; the kernel gives them one at run time, often this.
const UVM: u64 = 235;
/// Major number of the capability devices, likewise.
const CAPS: u64 = 236;

pub(super) fn make(made: &mut Manifest, config: &NodeConfig) -> Result<(), RootError> {
    let fixed = [
        ("dev/nvidiactl", NVIDIA, 255),
        ("dev/nvidia-modeset", NVIDIA, 254),
        ("dev/nvidia-uvm", UVM, 0),
        ("dev/nvidia-uvm-tools", UVM, 1),
        ("dev/nvidia-caps/nvidia-cap1", CAPS, 1),
        ("dev/nvidia-caps/nvidia-cap2", CAPS, 2),
    ];
    for (path, major, minor) in fixed {
        node(made, path, major, minor)?;
    }
    for gpu in &config.gpus {
        node(
            made,
            &format!("dev/nvidia{}", gpu.minor),
            NVIDIA,
            gpu.minor.into(),
        )?;
    }
    Ok(())
}

fn node(made: &mut Manifest, path: &str, major: u64, minor: u64) -> Result<(), RootError> {
    let path = made.prepare(path)?;
    let kind = SFlag::S_IFCHR;
    let usable = mknod(&path, kind, Mode::empty(), makedev(major, minor)).is_ok() && opens(&path);
    if !usable {
        // Not permitted, or on a file system mounted without device nodes.
        fs::remove_file(&path)
            .or_else(ignore_missing)
            .map_err(io_error("replace", &path))?;
        mkfifo(&path, Mode::empty())
            .map_err(|error| io_error("make a FIFO at", &path)(error.into()))?;
    }
    // Set apart from the making, which the umask would cut.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(&path, mode).map_err(io_error("open to everybody", &path))
}

fn opens(path: &Path) -> bool {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    opened.map_or_else(|error| error.raw_os_error() == Some(libc::ENXIO), |_| true)
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}
