//! Makers of GPUs. Everything that differs between them is behind [`Vendor`].
//!
//! To add one: a folder beside `nvidia` whose type implements [`Vendor`], an arm in [`from_name`], a driver root under
//! `tests/fixtures/rootfs`, a golden spec, and a page in `docs/vendors`. Nothing outside this module names a maker.

pub mod nvidia;

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;
use vgpu_core::ParseError;
use vgpu_core::config::Paths;

use crate::discover::Root;
use crate::inventory::{Gpu, Inventory};
use crate::spec::ContainerEdits;

/// A maker of GPUs: what there is, and what a container needs to use it.
pub trait Vendor: fmt::Debug {
    /// Its name, in lower case.
    fn name(&self) -> &'static str;

    /// The GPUs of this node, by index.
    ///
    /// # Errors
    /// [`VendorError`] ← no driver, a driver that lacks a part, or one that does not answer.
    fn inventory(&self, places: &Places) -> Result<Inventory, VendorError>;

    /// What every container with any of the GPUs needs: control nodes, the driver's files, the limiter in front of it.
    ///
    /// # Errors
    /// [`VendorError`] ← a file or node without which nothing works is not there.
    fn common_edits(
        &self,
        inventory: &Inventory,
        places: &Places,
        capabilities: &Capabilities,
    ) -> Result<ContainerEdits, VendorError>;

    /// What a container with this GPU needs beyond that.
    ///
    /// # Errors
    /// [`VendorError`] ← the GPU's node is not there.
    fn gpu_edits(
        &self,
        gpu: &Gpu,
        places: &Places,
        capabilities: &Capabilities,
    ) -> Result<ContainerEdits, VendorError>;
}

/// The vendor of a node that names none.
pub const DEFAULT: &str = "nvidia";

/// The vendor called `name`.
///
/// # Errors
/// [`ParseError`] ← no vendor has that name.
pub fn from_name(name: &str) -> Result<Box<dyn Vendor>, ParseError> {
    match name {
        "nvidia" => Ok(Box::new(nvidia::Nvidia)),
        _ => Err(ParseError::new("GPU vendor", name, 0, "nvidia")),
    }
}

/// Where things are on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The root of the driver's files.
    pub driver_root: Root,
    /// The root of the device nodes.
    pub dev_root: Root,
    /// The limiter's libraries.
    pub limiter_dir: PathBuf,
}

impl From<&Paths> for Places {
    fn from(paths: &Paths) -> Self {
        Self {
            driver_root: Root::new(&paths.driver_root),
            dev_root: Root::new(&paths.dev_root),
            limiter_dir: paths.limiter_dir.clone(),
        }
    }
}

/// A use of a GPU that needs files of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// CUDA and `OpenCL`.
    Compute,
    /// Looking at the GPU: NVML, `nvidia-smi`.
    Utility,
    /// `OpenGL`, EGL, Vulkan, `OptiX`.
    Graphics,
    /// Encoding and decoding.
    Video,
    /// X11 and mode setting.
    Display,
    /// The NGX libraries.
    Ngx,
}

impl Capability {
    /// Every capability.
    pub const ALL: [Self; 6] = [
        Self::Compute,
        Self::Utility,
        Self::Graphics,
        Self::Video,
        Self::Display,
        Self::Ngx,
    ];

    /// The name, as in `NVIDIA_DRIVER_CAPABILITIES`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Utility => "utility",
            Self::Graphics => "graphics",
            Self::Video => "video",
            Self::Display => "display",
            Self::Ngx => "ngx",
        }
    }
}

/// Which of the driver's files containers get. Compute and utility are always among them, because the limiter stands
/// in front of both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities(BTreeSet<Capability>);

impl Capabilities {
    /// Whether `capability` is wanted.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.0.contains(&capability)
    }

    /// The wanted capabilities, in order.
    pub fn iter(&self) -> impl Iterator<Item = Capability> {
        self.0.iter().copied()
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self(BTreeSet::from([Capability::Compute, Capability::Utility]))
    }
}

impl FromStr for Capabilities {
    type Err = ParseError;

    /// Names with commas between them; `all` is all of them.
    fn from_str(input: &str) -> Result<Self, ParseError> {
        let mut capabilities = Self::default();
        let mut at = 0_usize;
        for word in input.split(',') {
            let known = Capability::ALL
                .into_iter()
                .find(|known| known.as_str() == word);
            match (known, word) {
                (Some(capability), _) => {
                    capabilities.0.insert(capability);
                }
                (None, "all") => capabilities.0.extend(Capability::ALL),
                (None, _) => {
                    let expected = "compute, utility, graphics, video, display, ngx or all, with commas between";
                    return Err(ParseError::new("capabilities", input, at, expected));
                }
            }
            at = at.saturating_add(word.len()).saturating_add(1);
        }
        Ok(capabilities)
    }
}

/// Why there is no inventory or no edits.
#[derive(Debug, Error)]
pub enum VendorError {
    /// Nothing of a driver is there.
    #[error(
        "no NVIDIA driver under {root}: found neither libnvidia-ml.so.1 nor libcuda.so.1 {searched}; install the driver, or name its root with --driver-root"
    )]
    NoDriver {
        /// The driver root.
        root: String,
        /// Where that was.
        searched: String,
    },
    /// The driver cannot be asked.
    #[error(
        "the driver under {root} has {found} but no libnvidia-ml.so.1: install the driver's NVML library (libnvidia-ml1 or nvidia-driver-cuda-libs)"
    )]
    NoNvml {
        /// The driver root.
        root: String,
        /// The library that is there.
        found: String,
    },
    /// The driver cannot compute.
    #[error(
        "the driver {version} under {root} has no libcuda.so.{version}: install the driver's CUDA library of that version (libcuda1 or nvidia-driver-cuda-libs)"
    )]
    NoLibrary {
        /// The driver root.
        root: String,
        /// The driver's version.
        version: String,
    },
    /// The kernel's part of the driver is not running.
    #[error(
        "the NVIDIA kernel driver is not running, says {library}: load it with modprobe nvidia, and see dmesg if that fails"
    )]
    NotLoaded {
        /// The library that was asked.
        library: String,
    },
    /// The driver does not answer.
    #[error("cannot {action} with {library}: {cause}")]
    Nvml {
        /// What was tried.
        action: &'static str,
        /// The library that was asked.
        library: String,
        /// What it said; part of the message.
        cause: Box<nvml_wrapper::error::NvmlError>,
    },
    /// The driver runs and there is nothing to drive.
    #[error("the driver {version} knows no usable GPU: see nvidia-smi -L and dmesg")]
    NoGpu {
        /// The driver's version.
        version: String,
    },
    /// A device node is not there.
    #[error(
        "no device node {path} under {root}: create the nodes with nvidia-modprobe -c0 -u, or name their root with --dev-root"
    )]
    NoNode {
        /// The dev root.
        root: String,
        /// The node, below the root.
        path: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_add_to_compute_and_utility() {
        let parse = |text: &str| text.parse::<Capabilities>();
        assert_eq!(parse("compute"), Ok(Capabilities::default()));
        let graphics = parse("graphics,utility").unwrap();
        assert!(graphics.has(Capability::Compute) && graphics.has(Capability::Graphics));
        assert!(!graphics.has(Capability::Video));
        assert_eq!(parse("all").unwrap().iter().count(), Capability::ALL.len());
        for (bad, at) in [("", 0), ("graphics,", 9), ("compute,gfx", 8), ("a ll", 0)] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.position, at, "{error}");
            assert!(error.to_string().contains("graphics, video"), "{error}");
        }
    }

    #[test]
    fn vendors_by_name() {
        assert_eq!(from_name("nvidia").unwrap().name(), "nvidia");
        assert!(
            from_name("3dfx")
                .unwrap_err()
                .to_string()
                .contains("expected nvidia")
        );
    }
}
