//! `vgpu run`: a plain process with a slice of a GPU; no engine, no root.
//!
//! Owns the command line and the order of steps: look at the GPU, make the folder that stands in front of the driver,
//! run the command in it, take the folder away. Outside a container the limiter is found by name only: a program that
//! opens the driver by its path, or throws `LD_LIBRARY_PATH` away, gets the whole GPU. Containers have no such way out.

mod child;
mod dialect;
mod folder;

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use vgpu_cdi::{Gpu, Inventory, vendor};
use vgpu_core::quota::QuotaError;
use vgpu_core::{Bytes, Config, DeviceUuid, ExitCode, ParseError, Percent, QosClass, Quota, env};
use vgpu_region::{DeviceLimits, Limits};

use crate::commands::places::DriverArgs;
use crate::global::Global;
use folder::Folder;

/// Flags of `vgpu run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The most VRAM it may hold, such as 4Gi; needed unless another limiter's variable says it
    #[arg(long, value_name = "SIZE", env = env::VRAM)]
    vram: Option<Bytes>,
    /// The largest share of the GPU's time; carried and shown, not enforced yet
    #[arg(long, value_name = "PERCENT", env = env::COMPUTE)]
    compute: Option<Percent>,
    /// The GPU, by index or UUID
    #[arg(long, value_name = "GPU", env = env::GPU, default_value = "0")]
    gpu: GpuName,
    #[command(flatten)]
    driver: DriverArgs,
    /// The limiter's libraries [default: from the configuration]
    #[arg(long, value_name = "DIR", env = env::LIMITER_DIR)]
    limiter_dir: Option<PathBuf>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    pub(crate) fn exec(self, global: &Global) -> anyhow::Result<ExitCode> {
        let mut config = self.driver.apply(global.load_config()?)?;
        if let Some(folder) = &self.limiter_dir {
            config.paths.limiter_dir = std::path::absolute(folder)?;
        }
        let inventory = vendor::from_name(vendor::DEFAULT)?.inventory(&(&config.paths).into())?;
        let gpu = self.gpu.find(&inventory)?;
        let (vram, compute) = self.quota(gpu)?;
        let limits = limits(vram, compute, gpu, &config)?;
        let folder = Folder::make(&config.paths, &inventory.driver_version, &limits)?;
        if let Some(share) = compute {
            let note = format!("vgpu: a compute share of {share} is noted, but not enforced yet\n");
            // The command runs all the same where nobody listens.
            io::stderr().write_all(note.as_bytes()).ok();
        }
        let status = child::run(&self.command, &folder, gpu.uuid)?;
        folder.remove()?;
        Ok(ExitCode::Child(status))
    }

    /// VRAM and compute, by the flags, else by other limiters' variables.
    fn quota(&self, gpu: &Gpu) -> Result<(Bytes, Option<Percent>), RunError> {
        let read = |name: &str| Some(std::env::var_os(name)?.to_string_lossy().into_owned());
        let asked = dialect::ask(&read, gpu, self.vram.is_none(), self.compute.is_none())
            .map_err(RunError::Dialect)?;
        let vram = self.vram.or(asked.vram).ok_or(RunError::NoVram)?;
        Ok((vram, self.compute.or(asked.compute)))
    }
}

/// The quota as the limits page has it.
fn limits(
    vram: Bytes,
    compute: Option<Percent>,
    gpu: &Gpu,
    config: &Config,
) -> Result<Limits, RunError> {
    let compute = compute.unwrap_or(Percent::FULL);
    let quota = Quota::new(vram, compute, QosClass::default());
    quota.check().map_err(RunError::Quota)?;
    if vram > gpu.capacity() {
        return Err(RunError::TooLarge {
            asked: vram,
            gpu: Box::new(gpu.clone()),
        });
    }
    let device = DeviceLimits {
        uuid: gpu.uuid.as_bytes(),
        capacity: gpu.capacity().get(),
        vram_limit: quota.vram_limit.get(),
        vram_request: quota.vram_request.get(),
        compute_limit: quota.compute_limit.get(),
        compute_request: quota.compute_request.get(),
        qos: quota.qos.as_u8(),
        context_footprint: config.context_footprint.get(),
        untracked: 0,
    };
    Ok(Limits {
        devices: vec![device],
        ..Limits::default()
    })
}

/// A GPU as the command line names it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum GpuName {
    Index(u32),
    Uuid(DeviceUuid),
}

impl std::str::FromStr for GpuName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Ok(index) = text.parse() {
            return Ok(Self::Index(index));
        }
        match text.parse() {
            Ok(uuid) => Ok(Self::Uuid(uuid)),
            Err(_) => Err(ParseError::new(
                "GPU",
                text,
                0,
                "an index such as 0, or a UUID such as GPU-8f3a1c02-77de-4b1c-9a50-0123456789ab",
            )),
        }
    }
}

impl GpuName {
    fn find<'a>(&self, inventory: &'a Inventory) -> Result<&'a Gpu, RunError> {
        let found = inventory.gpus.iter().find(|gpu| match self {
            Self::Index(index) => gpu.index == *index,
            Self::Uuid(uuid) => gpu.uuid == *uuid,
        });
        found.ok_or_else(|| {
            let name = |gpu: &Gpu| format!("{} ({})", gpu.index, gpu.uuid);
            let known: Vec<String> = inventory.gpus.iter().map(name).collect();
            RunError::NoGpu {
                name: self.to_string(),
                known: known.join(", "),
            }
        })
    }
}

impl fmt::Display for GpuName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Uuid(uuid) => write!(f, "{uuid}"),
        }
    }
}

/// A request that this node cannot serve.
#[derive(Debug)]
pub(crate) enum RunError {
    /// There is no such GPU.
    NoGpu {
        /// As it was named.
        name: String,
        /// The GPUs there are.
        known: String,
    },
    /// The quota is larger than the GPU.
    TooLarge {
        /// The VRAM asked for.
        asked: Bytes,
        /// The GPU.
        gpu: Box<Gpu>,
    },
    /// The quota cannot be.
    Quota(QuotaError),
    /// Neither flag nor variable says how much VRAM.
    NoVram,
    /// Other limiters' variables cannot be followed.
    Dialect(dialect::DialectError),
}

impl RunError {
    /// The exit code that says it.
    pub(crate) const fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoGpu { .. } | Self::Quota(_) | Self::NoVram | Self::Dialect(_) => {
                ExitCode::Usage
            }
            Self::TooLarge { .. } => ExitCode::Refused,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGpu { name, known } => write!(f, "no GPU {name}: this node has {known}"),
            Self::Quota(error) => write!(f, "{error}"),
            Self::Dialect(error) => write!(f, "{error}"),
            Self::NoVram => write!(
                f,
                "no limit of VRAM: give --vram <SIZE>, or set {}, {} or {}",
                env::VRAM,
                env::HAMI_MEMORY_LIMIT,
                env::TENSOR_FUSION_MEMORY_LIMIT
            ),
            Self::TooLarge { asked, gpu } => {
                let there = gpu.capacity();
                write!(
                    f,
                    "a VRAM limit of {asked} is more than GPU {} ({}) has: expected at most {there} ({} bytes asked, {} there)",
                    gpu.index,
                    gpu.uuid,
                    asked.get(),
                    there.get()
                )
            }
        }
    }
}

impl std::error::Error for RunError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_is_an_index_or_a_uuid() {
        assert_eq!("1".parse(), Ok(GpuName::Index(1)));
        let uuid = "GPU-8f3a1c02-77de-4b1c-9a50-0123456789ab";
        assert_eq!(uuid.parse::<GpuName>().unwrap().to_string(), uuid);
        let error = "one".parse::<GpuName>().unwrap_err().to_string();
        assert!(
            error.contains("one") && error.contains("an index such as 0"),
            "{error}"
        );
    }
}
