//! The flags that move the places of the configuration, so that a whole node fits in a temporary directory.

use std::path::PathBuf;

use anyhow::Context;
use vgpu_core::{Config, env};

/// Where the driver and its devices are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DriverArgs {
    /// Root of the driver's files [default: from the configuration]
    #[arg(long, value_name = "DIR", env = env::DRIVER_ROOT)]
    pub(crate) driver_root: Option<PathBuf>,
    /// Root of the device nodes [default: from the configuration]
    #[arg(long, value_name = "DIR", env = env::DEV_ROOT)]
    pub(crate) dev_root: Option<PathBuf>,
}

/// Where everything is that a spec names.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    driver: DriverArgs,
    /// Where the hook keeps grants and regions [default: from the configuration]
    #[arg(long, value_name = "DIR", env = env::RUN_DIR)]
    run_dir: Option<PathBuf>,
    /// The limiter's libraries [default: from the configuration]
    #[arg(long, value_name = "DIR", env = env::LIMITER_DIR)]
    limiter_dir: Option<PathBuf>,
    /// The OCI hook [default: from the configuration]
    #[arg(long, value_name = "FILE", env = env::HOOK_PATH)]
    hook: Option<PathBuf>,
}

impl DriverArgs {
    /// The configuration with these places.
    pub(crate) fn apply(&self, mut config: Config) -> anyhow::Result<Config> {
        replace(&mut config.paths.driver_root, self.driver_root.as_ref())?;
        replace(&mut config.paths.dev_root, self.dev_root.as_ref())?;
        Ok(config)
    }
}

impl PlaceArgs {
    /// The configuration with these places.
    pub(crate) fn apply(&self, config: Config) -> anyhow::Result<Config> {
        let mut config = self.driver.apply(config)?;
        replace(&mut config.paths.run_dir, self.run_dir.as_ref())?;
        replace(&mut config.paths.limiter_dir, self.limiter_dir.as_ref())?;
        replace(&mut config.paths.hook, self.hook.as_ref())?;
        Ok(config)
    }
}

/// Puts the flag's path, made absolute (specs carry no others), in the place of the configuration's.
fn replace(path: &mut PathBuf, flag: Option<&PathBuf>) -> anyhow::Result<()> {
    if let Some(flag) = flag {
        *path = std::path::absolute(flag)
            .with_context(|| format!("cannot make {flag:?} an absolute path"))?;
    }
    Ok(())
}
