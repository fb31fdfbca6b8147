//! What the configuration file may say, before any value is checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Config, ConfigError, GpuFilter, GpuSelector, Paths, Profile, VramSize, profile};
use crate::{Bytes, ParseError, Percent, QosClass};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Raw {
    oversubscription: Option<f64>,
    context_footprint: Option<Size>,
    profiles: Option<BTreeMap<String, RawProfile>>,
    gpus: RawGpus,
    paths: RawPaths,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    vram: Size,
    vram_request: Option<Size>,
    compute: Option<Share>,
    compute_request: Option<Share>,
    qos: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawGpus {
    include: Option<Vec<Size>>,
    exclude: Option<Vec<Size>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawPaths {
    run_dir: Option<PathBuf>,
    limiter_dir: Option<PathBuf>,
    hook: Option<PathBuf>,
    driver_root: Option<PathBuf>,
    dev_root: Option<PathBuf>,
    cdi_spec_dir: Option<PathBuf>,
}

/// A text, or a whole number without quotes.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text in quotes or a whole number")]
enum Size {
    Number(u64),
    Text(String),
}

type Share = Size;

impl Size {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

/// Turns a complaint about a value into one about its key in its file.
struct Keys<'a> {
    path: &'a Path,
}

impl Keys<'_> {
    fn fail(&self, key: &str, message: impl ToString) -> ConfigError {
        ConfigError::Value {
            path: self.path.to_owned(),
            key: key.to_owned(),
            message: message.to_string(),
        }
    }

    fn parse<T: std::str::FromStr<Err = ParseError>>(
        &self,
        key: &str,
        value: &Size,
    ) -> Result<T, ConfigError> {
        value
            .text()
            .parse()
            .map_err(|error: ParseError| self.fail(key, error))
    }

    fn optional<T: std::str::FromStr<Err = ParseError>>(
        &self,
        key: &str,
        value: Option<&Size>,
    ) -> Result<Option<T>, ConfigError> {
        value.map(|value| self.parse(key, value)).transpose()
    }
}

impl Raw {
    pub(super) fn check(self, path: &Path) -> Result<Config, ConfigError> {
        let keys = Keys { path };
        let defaults = Config::default();
        let profiles = match &self.profiles {
            Some(profiles) => check_profiles(&keys, profiles)?,
            None => defaults.profiles,
        };
        let context_footprint = keys
            .optional::<Bytes>("context_footprint", self.context_footprint.as_ref())?
            .unwrap_or(defaults.context_footprint);
        Ok(Config {
            profiles,
            gpus: check_gpus(&keys, &self.gpus, defaults.gpus)?,
            oversubscription_percent: check_ratio(&keys, self.oversubscription)?,
            context_footprint,
            paths: check_paths(&keys, self.paths, defaults.paths)?,
        })
    }
}

fn check_profiles(
    keys: &Keys<'_>,
    raw: &BTreeMap<String, RawProfile>,
) -> Result<BTreeMap<String, Profile>, ConfigError> {
    let mut profiles = BTreeMap::new();
    for (name, raw) in raw {
        let place = format!("profiles.{name}");
        profile::check_name(name).map_err(|error| keys.fail(&place, error))?;
        profiles.insert(name.clone(), check_profile(keys, &place, name, raw)?);
    }
    Ok(profiles)
}

fn check_profile(
    keys: &Keys<'_>,
    place: &str,
    name: &str,
    raw: &RawProfile,
) -> Result<Profile, ConfigError> {
    let key = |last: &str| format!("{place}.{last}");
    let vram: VramSize = keys.parse(&key("vram"), &raw.vram)?;
    if matches!(vram, VramSize::Share(0) | VramSize::Size(Bytes::ZERO)) {
        return Err(keys.fail(
            &key("vram"),
            "no VRAM at all: expected a share or size above 0",
        ));
    }
    let compute = keys.optional(&key("compute"), raw.compute.as_ref())?;
    let compute: Percent = compute.unwrap_or(Percent::FULL);
    let compute_request = keys.optional(&key("compute_request"), raw.compute_request.as_ref())?;
    if compute_request.is_some_and(|request: Percent| request > compute) {
        let message = format!("more than compute: expected at most {compute}");
        return Err(keys.fail(&key("compute_request"), message));
    }
    let qos: Option<QosClass> = match &raw.qos {
        Some(text) => Some(
            text.parse()
                .map_err(|e: ParseError| keys.fail(&key("qos"), e))?,
        ),
        None => None,
    };
    Ok(Profile {
        name: name.to_owned(),
        vram,
        vram_request: keys.optional(&key("vram_request"), raw.vram_request.as_ref())?,
        compute,
        compute_request,
        qos: qos.unwrap_or_default(),
    })
}

fn check_gpus(
    keys: &Keys<'_>,
    raw: &RawGpus,
    defaults: GpuFilter,
) -> Result<GpuFilter, ConfigError> {
    let list = |key: &str, raw: &Option<Vec<Size>>| {
        let Some(raw) = raw else { return Ok(None) };
        let selectors = raw.iter().enumerate().map(|(at, entry)| {
            GpuSelector::parse(&entry.text())
                .map_err(|error| keys.fail(&format!("gpus.{key}[{at}]"), error))
        });
        selectors.collect::<Result<Vec<_>, _>>().map(Some)
    };
    Ok(GpuFilter {
        include: list("include", &raw.include)?.unwrap_or(defaults.include),
        exclude: list("exclude", &raw.exclude)?.unwrap_or(defaults.exclude),
    })
}

/// The ratio as whole percents.
fn check_ratio(keys: &Keys<'_>, ratio: Option<f64>) -> Result<u32, ConfigError> {
    let ratio = ratio.unwrap_or(1.0);
    if !(1.0..=16.0).contains(&ratio) {
        let message = format!("{ratio}: expected a ratio from 1.0 to 16.0");
        return Err(keys.fail("oversubscription", message));
    }
    // In range by the check above: between 100 and 1600.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the ratio is between 1 and 16"
    )]
    Ok((ratio * 100.0).round() as u32)
}

fn check_paths(keys: &Keys<'_>, raw: RawPaths, defaults: Paths) -> Result<Paths, ConfigError> {
    let absolute = |key: &str, path: Option<PathBuf>, default: PathBuf| match path {
        None => Ok(default),
        Some(path) if path.is_absolute() && path.components().all(|c| c.as_os_str() != "..") => {
            Ok(path)
        }
        Some(path) => {
            let message = format!("{path:?}: expected an absolute path without '..'");
            Err(keys.fail(&format!("paths.{key}"), message))
        }
    };
    Ok(Paths {
        run_dir: absolute("run_dir", raw.run_dir, defaults.run_dir)?,
        limiter_dir: absolute("limiter_dir", raw.limiter_dir, defaults.limiter_dir)?,
        hook: absolute("hook", raw.hook, defaults.hook)?,
        driver_root: absolute("driver_root", raw.driver_root, defaults.driver_root)?,
        dev_root: absolute("dev_root", raw.dev_root, defaults.dev_root)?,
        cdi_spec_dir: absolute("cdi_spec_dir", raw.cdi_spec_dir, defaults.cdi_spec_dir)?,
    })
}
