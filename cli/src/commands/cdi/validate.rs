//! `vgpu cdi validate`: check spec files.

use std::path::PathBuf;

use serde::Serialize;
use vgpu_cdi::spec::{Engine, Fault, Severity, file, validate};
use vgpu_core::{ExitCode, env};

use crate::global::Global;
use crate::output;

/// Flags of `vgpu cdi validate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Validate {
    /// Spec files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// An engine that has to accept them, such as podman@4.3, docker@25, containerd@1.7, crio@1.28; repeatable
    #[arg(long = "for", value_name = "ENGINE@RELEASE", env = env::VALIDATE_FOR, value_delimiter = ',')]
    engines: Vec<Engine>,
}

/// What was found in one file.
#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    valid: bool,
    /// Why the file could not be read as a spec at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cdi_version: Option<String>,
    devices: usize,
    faults: Vec<Fault>,
}

impl Validate {
    pub(crate) fn exec(self, global: &Global) -> anyhow::Result<ExitCode> {
        let reports: Vec<Report> = self
            .files
            .iter()
            .map(|path| check(path, &self.engines))
            .collect();
        if global.json {
            output::json(&reports)?;
        } else {
            output::write(&reports.iter().map(Report::lines).collect::<String>())?;
        }
        let valid = reports.iter().all(|report| report.valid);
        Ok(if valid {
            ExitCode::Success
        } else {
            ExitCode::Invalid
        })
    }
}

fn check(path: &std::path::Path, engines: &[Engine]) -> Report {
    let file = path.to_owned();
    match file::read(path) {
        Err(error) => Report {
            file,
            valid: false,
            unreadable: Some(format!("{:#}", anyhow::Error::from(error))),
            cdi_version: None,
            devices: 0,
            faults: Vec::new(),
        },
        Ok(spec) => {
            let faults = validate(&spec, engines);
            Report {
                file,
                valid: faults
                    .iter()
                    .all(|fault| fault.severity == Severity::Warning),
                unreadable: None,
                devices: spec.devices.len(),
                cdi_version: Some(spec.cdi_version),
                faults,
            }
        }
    }
}

impl Report {
    /// One line a fault, and one that says the file is good.
    fn lines(&self) -> String {
        let file = self.file.display();
        if let Some(reason) = &self.unreadable {
            // The reason begins with the file already.
            return format!("{reason}\n");
        }
        let mut text: String = self
            .faults
            .iter()
            .map(|fault| format!("{file}: {fault}\n"))
            .collect();
        if self.valid {
            let version = self.cdi_version.as_deref().unwrap_or_default();
            let devices = match self.devices {
                1 => "1 device".to_owned(),
                count => format!("{count} devices"),
            };
            text.push_str(&format!("{file}: valid, CDI {version}, {devices}\n"));
        }
        text
    }
}
