//! `vgpu cdi generate`: find the GPUs and write the spec that offers them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vgpu_cdi::generate::{Naming, Settings, generate};
use vgpu_cdi::spec::{Format, Written, file};
use vgpu_cdi::{Capabilities, Vendor, vendor};
use vgpu_core::{Config, ExitCode, ParseError, env, paths};

use crate::commands::places::PlaceArgs;
use crate::global::Global;
use crate::output;

/// Flags of `vgpu cdi generate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Generate {
    /// Where to write: a file, or - for standard output [default: the spec directory of the configuration]
    #[arg(long, short, value_name = "FILE|-", env = env::OUTPUT)]
    output: Option<PathBuf>,
    /// json or yaml [default: what the output's name ends in, else json]
    #[arg(long, value_name = "FORMAT", env = env::FORMAT)]
    format: Option<Format>,
    /// How devices are named: index (gpu0), uuid (GPU-8f3a1c02-…); repeatable [default: both]
    #[arg(long, value_name = "HOW", env = env::DEVICE_NAME, value_delimiter = ',', value_parser = parse_naming)]
    device_name: Vec<Naming>,
    /// What containers may use besides compute and utility: graphics, video, display, ngx, all
    #[arg(long, value_name = "LIST", env = env::CAPABILITIES)]
    capabilities: Option<Capabilities>,
    /// Directory that the spec is written to where --output is not given
    #[arg(long, value_name = "DIR", env = env::CDI_SPEC_DIR)]
    cdi_spec_dir: Option<PathBuf>,
    #[command(flatten)]
    places: PlaceArgs,
}

fn parse_naming(text: &str) -> Result<Naming, ParseError> {
    match text {
        "index" => Ok(Naming::Index),
        "uuid" => Ok(Naming::Uuid),
        _ => Err(ParseError::new("device name", text, 0, "index or uuid")),
    }
}

impl Generate {
    pub(crate) fn exec(self, global: &Global) -> anyhow::Result<ExitCode> {
        let mut config = self.places.apply(global.load_config()?)?;
        if let Some(directory) = &self.cdi_spec_dir {
            directory.clone_into(&mut config.paths.cdi_spec_dir);
        }
        let (target, format) = self.target(&config)?;
        let settings = self.settings(config);
        let vendor = vendor::from_name(vendor::DEFAULT)?;
        let spec = generate_spec(vendor.as_ref(), &settings)?;
        let text = file::render(&spec, format)?;
        match target {
            None => output::write(&text)?,
            Some(path) => report(&path, file::write(&path, &text)?, spec.devices.len()),
        }
        warn_of_missing_parts(&settings.config);
        Ok(ExitCode::Success)
    }

    /// The file to write (nothing for standard output) and its format, which has to fit its name: engines pass by
    /// every other file, silently.
    fn target(&self, config: &Config) -> anyhow::Result<(Option<PathBuf>, Format)> {
        if self.output.as_deref() == Some(Path::new("-")) {
            return Ok((None, self.format.unwrap_or_default()));
        }
        let Some(path) = &self.output else {
            let format = self.format.unwrap_or_default();
            let name = format!("{}.{}", paths::CDI_SPEC_NAME, format.extension());
            return Ok((Some(config.paths.cdi_spec_dir.join(name)), format));
        };
        let shown = path.display();
        match (self.format, Format::of(path)) {
            (None, Some(format)) => Ok((Some(path.clone()), format)),
            (Some(wanted), Some(named)) if wanted == named => Ok((Some(path.clone()), wanted)),
            (Some(wanted), Some(_)) => anyhow::bail!(
                "output {shown}: expected a name that ends in .{} for --format {0}",
                wanted.extension()
            ),
            (_, None) => anyhow::bail!(
                "output {shown}: expected a name that ends in .json or .yaml; engines read no other file"
            ),
        }
    }

    fn settings(&self, config: Config) -> Settings {
        let mut settings = Settings::new(config);
        if !self.device_name.is_empty() {
            settings.naming = BTreeSet::from_iter(self.device_name.iter().copied());
        }
        if let Some(capabilities) = &self.capabilities {
            settings.capabilities = capabilities.clone();
        }
        settings
    }
}

fn generate_spec(vendor: &dyn Vendor, settings: &Settings) -> anyhow::Result<vgpu_cdi::spec::Spec> {
    let inventory = vendor.inventory(&(&settings.config.paths).into())?;
    Ok(generate(vendor, &inventory, settings)?)
}

/// A spec may be written before the package is there, but containers do not start until it is.
fn warn_of_missing_parts(config: &Config) {
    let limiter = [paths::LIBCUDA, paths::LIBNVIDIA_ML].map(|n| config.paths.limiter_dir.join(n));
    for path in limiter.iter().chain([&config.paths.hook]) {
        if !path.exists() {
            tracing::warn!(path = %path.display(), "not installed; containers with a vGPU will not start");
        }
    }
}

fn report(path: &Path, written: Written, devices: usize) {
    let path = path.display();
    match written {
        Written::Changed => tracing::info!(%path, devices, "spec written"),
        Written::Unchanged => tracing::info!(%path, devices, "spec unchanged"),
    }
}
