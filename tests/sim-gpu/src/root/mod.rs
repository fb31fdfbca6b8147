//! The driver root on disk: what a generator, an engine and an application find of a simulated node.
//!
//! Owns every path below the root and the record of what was made there, so that taking a node down removes
//! exactly that. It must never replace or remove a file that it did not make: a root may be `/`.
//!
//! The file list follows what the 580 driver's installer puts on a Debian machine and what NVIDIA's CDI generator
//! looks for; contents are placeholders except for the two simulated libraries.

mod elf;
mod files;
mod manifest;
mod nodes;

use std::io;
use std::path::{Path, PathBuf};

pub use manifest::Manifest;

use crate::config::NodeConfig;

/// Directory of the libraries below a driver root, as Debian has it.
#[cfg(target_arch = "x86_64")]
pub const LIB_DIR: &str = "usr/lib/x86_64-linux-gnu";
/// Directory of the libraries below a driver root, as Debian has it.
#[cfg(target_arch = "aarch64")]
pub const LIB_DIR: &str = "usr/lib/aarch64-linux-gnu";

/// The daemon's process id, below the root.
pub const PID_FILE: &str = "run/sim-gpu.pid";
/// What the daemon says when it ends, below the root.
pub const LOG_FILE: &str = "run/sim-gpu.log";
/// The node's description, kept for the daemon and for whoever looks.
pub const CONFIG_FILE: &str = "run/sim-gpu.json";

/// Why a driver root cannot be laid out or removed.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The system refused.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Something is there that this node did not put there.
    #[error("{} exists already and is not the simulated node's: choose another root", path.display())]
    Occupied {
        /// What is there.
        path: PathBuf,
    },
    /// A simulated library has not been built.
    #[error(
        "no {name} in {searched}: build it with `cargo build -p {package}`, or name its directory with --lib-dir"
    )]
    NoLibrary {
        /// Its file name.
        name: &'static str,
        /// Its package.
        package: &'static str,
        /// The directories that were looked at.
        searched: String,
    },
}

pub(crate) fn io_error(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RootError {
    let path = path.to_owned();
    move |source| RootError::Io { step, path, source }
}

/// Where the two simulated libraries were built.
#[derive(Debug, Clone)]
pub struct Libraries {
    /// The CUDA library.
    pub cuda: PathBuf,
    /// The NVML library.
    pub nvml: PathBuf,
}

impl Libraries {
    /// The libraries in the first of `directories` that has each.
    ///
    /// # Errors
    /// [`RootError::NoLibrary`] naming the one that is nowhere.
    pub fn find(directories: &[PathBuf]) -> Result<Self, RootError> {
        let find = |name: &'static str, package: &'static str| {
            let paths = directories.iter().map(|directory| directory.join(name));
            paths
                .into_iter()
                .find(|path| path.is_file())
                .ok_or_else(|| {
                    let searched: Vec<String> = directories
                        .iter()
                        .map(|path| path.display().to_string())
                        .collect();
                    RootError::NoLibrary {
                        name,
                        package,
                        searched: searched.join(", "),
                    }
                })
        };
        Ok(Self {
            cuda: find("libsim_cuda.so", "sim-libcuda")?,
            nvml: find("libsim_nvidia_ml.so", "sim-libnvidia-ml")?,
        })
    }
}

/// Lays out the driver root of `config`, recording in `made` what it makes.
///
/// # Errors
/// [`RootError`]; what was made until then is in `made`.
pub fn lay_out(
    made: &mut Manifest,
    config: &NodeConfig,
    libraries: &Libraries,
) -> Result<(), RootError> {
    files::libraries(made, config, libraries)?;
    files::programs(made)?;
    files::data(made, config)?;
    nodes::make(made, config)
}
