//! The node's configuration, `/etc/vgpu/config.toml`.
//!
//! Two layers: `raw` is what the file may say (serde, unknown keys refused), [`Config`] is what the programs use, every
//! value checked. Nothing here reads the environment or looks at the machine.
//!
//! ```toml
//! oversubscription = 1.0          # how often the VRAM of a GPU may be promised in sum, 1.0 to 16.0
//! context_footprint = "512Mi"     # what a CUDA context is taken to hold until it is measured
//!
//! [profiles.quarter]              # a [profiles] table replaces the default profiles
//! vram = "25%"                    # or "4Gi"
//! compute = 25                    # percent; 100 when left out
//! qos = "medium"
//!
//! [gpus]
//! include = ["*"]                 # UUID, index, or a glob over the model's name
//! exclude = [3]
//!
//! [paths]
//! run_dir = "/run/vgpu"
//! ```

mod error;
mod gpus;
mod profile;
mod raw;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

pub use error::ConfigError;
pub use gpus::{GpuFilter, GpuSelector};
pub use profile::{Profile, ProfileError, VramSize};

use crate::{Bytes, paths};

/// The node's configuration, every value checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Named quotas, by name.
    pub profiles: BTreeMap<String, Profile>,
    /// Which GPUs are offered.
    pub gpus: GpuFilter,
    /// How much of a GPU's VRAM may be promised in sum. **Units:** percent, 100 to 1600.
    pub oversubscription_percent: u32,
    /// What a context is taken to hold until it is measured. **Units:** bytes.
    pub context_footprint: Bytes,
    /// Places on this host.
    pub paths: Paths,
}

/// Places on this host; all absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Grants and regions.
    pub run_dir: PathBuf,
    /// The limiter's libraries.
    pub limiter_dir: PathBuf,
    /// The OCI hook.
    pub hook: PathBuf,
    /// Root of the driver's files.
    pub driver_root: PathBuf,
    /// Root of the device nodes.
    pub dev_root: PathBuf,
    /// Where specs are written.
    pub cdi_spec_dir: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            run_dir: paths::RUN_DIR.into(),
            limiter_dir: paths::LIMITER_DIR.into(),
            hook: paths::HOOK.into(),
            driver_root: paths::DRIVER_ROOT.into(),
            dev_root: paths::DEV_ROOT.into(),
            cdi_spec_dir: paths::CDI_DYNAMIC.into(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            profiles: profile::defaults(),
            gpus: GpuFilter::default(),
            oversubscription_percent: 100,
            context_footprint: Bytes::mib(512),
            paths: Paths::default(),
        }
    }
}

impl Config {
    /// Reads and checks the file at `path`; the defaults where `path` is the default place and nothing is there.
    ///
    /// # Errors
    /// [`ConfigError`] ← the file cannot be read, is not TOML, or says something that cannot be.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error)
                if error.kind() == ErrorKind::NotFound && path == Path::new(paths::CONFIG) =>
            {
                Ok(Self::default())
            }
            Err(source) => Err(ConfigError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// Reads and checks `text`; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`] ← `text` is not TOML or says something that cannot be.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let raw: raw::Raw =
            toml::from_str(text).map_err(|error| ConfigError::syntax(path, text, &error))?;
        raw.check(path)
    }
}

#[cfg(test)]
mod tests;
