//! From what a node has to the spec that offers it.
//!
//! The same inventory, files and configuration give the same bytes: devices in the order of GPUs and of profile names,
//! nothing with a time or a random part. What all devices share is said once, at the level of the spec; what differs,
//! the GPU's node and the hooks with the quota, at the level of the device.

use std::collections::BTreeSet;

use thiserror::Error;
use vgpu_core::config::{Profile, ProfileError};
use vgpu_core::{Backend, Config, HookArgs, Quota, Stage, env, paths};

use crate::inventory::{Gpu, Inventory};
use crate::spec::{ContainerEdits, Device, Fault, Hook, Severity, Spec, Version, validate};
use crate::vendor::{Capabilities, Places, Vendor, VendorError};

/// How long a hook may take. **Units:** seconds.
const HOOK_TIMEOUT: i64 = 10;
/// The device that stands for every GPU.
const ALL: &str = "all";

/// By what devices are named; at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Naming {
    /// `gpu0`, for people.
    Index,
    /// `GPU-8f3a1c02-…`, which no change of hardware moves to another GPU.
    Uuid,
}

/// What to offer, and how.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Profiles, GPUs, places.
    pub config: Config,
    /// How devices are named.
    pub naming: BTreeSet<Naming>,
    /// Which of the driver's files containers get.
    pub capabilities: Capabilities,
}

impl Settings {
    /// The settings of a node with this configuration: named both ways, compute and utility.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            naming: BTreeSet::from([Naming::Index, Naming::Uuid]),
            capabilities: Capabilities::default(),
        }
    }
}

/// A node that cannot be offered.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// The driver or its files.
    #[error(transparent)]
    Vendor(#[from] VendorError),
    /// The configuration excludes every GPU.
    #[error(
        "the configuration offers none of the {count} GPUs ({found}): expected gpus.include to name one and gpus.exclude to leave it"
    )]
    NoneOffered {
        /// How many there are.
        count: usize,
        /// Which.
        found: String,
    },
    /// No GPU is large enough for a profile.
    #[error("{0}")]
    Profile(ProfileError),
    /// The spec would not be accepted, because of a path or a name from the machine or the configuration.
    #[error("the spec would be refused: {0}")]
    Invalid(Fault),
}

/// One name that a GPU is offered under, without its prefix, and what it grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The profile's name; nothing for the whole GPU.
    pub profile: Option<String>,
    /// What it grants.
    pub quota: Quota,
}

impl Offer {
    /// The CDI device name, with `gpu` as `gpu0` or as a UUID.
    #[must_use]
    pub fn device_name(&self, gpu: &str) -> String {
        match &self.profile {
            Some(profile) => format!("{gpu}-{profile}"),
            None => gpu.to_owned(),
        }
    }
}

/// What the configuration offers of `gpu`; a profile that is larger than the GPU is left out.
#[must_use]
pub fn offers(gpu: &Gpu, config: &Config) -> Vec<Offer> {
    let whole = Profile::whole();
    let named = config
        .profiles
        .iter()
        .map(|(name, profile)| (Some(name.clone()), profile));
    std::iter::once((None, &whole))
        .chain(named)
        .filter_map(
            |(profile, definition)| match definition.quota(gpu.capacity()) {
                Ok(quota) => Some(Offer { profile, quota }),
                Err(reason) => {
                    tracing::warn!(device = gpu.index, %reason, "profile left out");
                    None
                }
            },
        )
        .collect()
}

/// The GPUs of `inventory` that the configuration offers.
pub fn offered<'a>(inventory: &'a Inventory, config: &'a Config) -> impl Iterator<Item = &'a Gpu> {
    inventory
        .gpus
        .iter()
        .filter(|gpu| config.gpus.admits(gpu.index, gpu.uuid, &gpu.name))
}

/// The spec that offers the node.
///
/// # Errors
/// [`GenerateError`] ← a file or node is missing, the configuration offers no GPU or asks of every GPU more than it
/// has, or a path makes the spec invalid.
pub fn generate(
    vendor: &dyn Vendor,
    inventory: &Inventory,
    settings: &Settings,
) -> Result<Spec, GenerateError> {
    let config = &settings.config;
    let places = Places::from(&config.paths);
    let gpus: Vec<&Gpu> = offered(inventory, config).collect();
    check_offered(inventory, &gpus, config)?;
    let container_edits = vendor.common_edits(inventory, &places, &settings.capabilities)?;
    let mut devices = Vec::new();
    let mut everything = ContainerEdits::default();
    for gpu in gpus {
        let node = vendor.gpu_edits(gpu, &places, &settings.capabilities)?;
        for offer in offers(gpu, config) {
            for prefix in prefixes(gpu, &settings.naming) {
                devices.push(device(
                    offer.device_name(&prefix),
                    gpu,
                    &offer.quota,
                    &node,
                    config,
                ));
            }
            if offer.profile.is_none() {
                let all = device(ALL.to_owned(), gpu, &offer.quota, &node, config);
                everything.append(all.container_edits);
            }
        }
    }
    devices.push(Device {
        name: ALL.to_owned(),
        container_edits: everything,
        ..Device::default()
    });
    let mut spec = Spec {
        kind: paths::CDI_KIND.to_owned(),
        devices,
        container_edits,
        ..Spec::default()
    };
    spec.cdi_version = Version::needed(&spec).0.to_string();
    match validate(&spec, &[])
        .into_iter()
        .find(|fault| fault.severity == Severity::Error)
    {
        Some(fault) => Err(GenerateError::Invalid(fault)),
        None => Ok(spec),
    }
}

fn check_offered(
    inventory: &Inventory,
    gpus: &[&Gpu],
    config: &Config,
) -> Result<(), GenerateError> {
    let Some(largest) = gpus.iter().max_by_key(|gpu| gpu.capacity()) else {
        let found = inventory
            .gpus
            .iter()
            .map(|gpu| format!("{} {}", gpu.index, gpu.name));
        let found = found.collect::<Vec<_>>().join(", ");
        return Err(GenerateError::NoneOffered {
            count: inventory.gpus.len(),
            found,
        });
    };
    // A profile for the node's large GPUs is left out on its small ones; one that fits nowhere is a mistake.
    for profile in config.profiles.values() {
        profile
            .quota(largest.capacity())
            .map_err(GenerateError::Profile)?;
    }
    Ok(())
}

fn prefixes(gpu: &Gpu, naming: &BTreeSet<Naming>) -> Vec<String> {
    let name = |naming: &Naming| match naming {
        Naming::Index => format!("gpu{}", gpu.index),
        Naming::Uuid => gpu.uuid.to_string(),
    };
    naming.iter().map(name).collect()
}

/// A device that grants `quota` on `gpu`, whose node is in `node`.
fn device(
    name: String,
    gpu: &Gpu,
    quota: &Quota,
    node: &ContainerEdits,
    config: &Config,
) -> Device {
    let args = HookArgs {
        gpu_uuid: gpu.uuid,
        gpu_capacity: gpu.capacity(),
        quota: *quota,
        backend: Backend::Limiter,
        device: name.clone(),
        oversubscription_percent: config.oversubscription_percent,
        context_footprint: config.context_footprint,
        run_dir: config.paths.run_dir.display().to_string(),
        limiter_dir: config.paths.limiter_dir.display().to_string(),
    };
    let hooks = Stage::ALL.into_iter().map(|stage| Hook {
        hook_name: stage.oci_name().to_owned(),
        path: config.paths.hook.display().to_string(),
        args: args.to_args(stage),
        env: vec![format!("{}=1", env::HOOK)],
        timeout: Some(HOOK_TIMEOUT),
    });
    let mut container_edits = node.clone();
    container_edits.hooks.extend(hooks);
    Device {
        name,
        container_edits,
        ..Device::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use vgpu_core::Bytes;

    /// A vendor whose files are always there.
    #[derive(Debug)]
    struct Fake;

    impl Vendor for Fake {
        fn name(&self) -> &'static str {
            "fake"
        }

        fn inventory(&self, _: &Places) -> Result<Inventory, VendorError> {
            Ok(node())
        }

        fn common_edits(
            &self,
            _: &Inventory,
            _: &Places,
            _: &Capabilities,
        ) -> Result<ContainerEdits, VendorError> {
            Ok(ContainerEdits {
                env: vec!["A=b".to_owned()],
                ..ContainerEdits::default()
            })
        }

        fn gpu_edits(
            &self,
            gpu: &Gpu,
            _: &Places,
            _: &Capabilities,
        ) -> Result<ContainerEdits, VendorError> {
            let path = format!("/dev/fake{}", gpu.minor);
            let node = crate::spec::DeviceNode {
                path,
                ..Default::default()
            };
            Ok(ContainerEdits {
                device_nodes: vec![node],
                ..ContainerEdits::default()
            })
        }
    }

    fn gpu(index: u32, vram: u64) -> Gpu {
        Gpu {
            index,
            uuid: vgpu_core::DeviceUuid::from_bytes([u8::try_from(index).unwrap(); 16]),
            name: "Fake".to_owned(),
            vram: Bytes::mib(vram),
            reserved: Bytes::mib(100),
            minor: 7_u32.saturating_sub(index),
            pci_bus_id: None,
            dri_nodes: Vec::new(),
        }
    }

    fn node() -> Inventory {
        let gpus = vec![gpu(0, 4196), gpu(1, 8292)];
        Inventory {
            driver_version: "1.2".to_owned(),
            cuda_version: None,
            gpus,
        }
    }

    fn settings(config: &str) -> Settings {
        Settings::new(Config::parse(config, Path::new("config.toml")).unwrap())
    }

    fn names(spec: &Spec) -> Vec<&str> {
        spec.devices
            .iter()
            .map(|device| device.name.as_str())
            .collect()
    }

    #[test]
    fn devices_are_named_both_ways_and_in_order() {
        let settings = settings("[profiles.quarter]\nvram = \"25%\"");
        let spec = generate(&Fake, &node(), &settings).unwrap();
        let uuids = node()
            .gpus
            .iter()
            .map(|gpu| gpu.uuid.to_string())
            .collect::<Vec<_>>();
        let quarters = uuids
            .iter()
            .map(|uuid| format!("{uuid}-quarter"))
            .collect::<Vec<_>>();
        assert_eq!(
            names(&spec),
            [
                "gpu0",
                &uuids[0],
                "gpu0-quarter",
                &quarters[0],
                "gpu1",
                &uuids[1],
                "gpu1-quarter",
                &quarters[1],
                "all"
            ]
        );
        assert_eq!(spec.cdi_version, "0.3.0");
        assert_eq!(spec, generate(&Fake, &node(), &settings).unwrap());
    }

    #[test]
    fn the_hooks_carry_the_quota_of_their_gpu() {
        let spec = generate(&Fake, &node(), &Settings::new(Config::default())).unwrap();
        let quarter = spec
            .devices
            .iter()
            .find(|d| d.name == "gpu1-quarter")
            .unwrap();
        let edits = &quarter.container_edits;
        assert_eq!(edits.device_nodes[0].path, "/dev/fake6");
        assert_eq!(edits.hooks.len(), 3);
        let (stage, args) = HookArgs::parse(&edits.hooks[1].args).unwrap();
        assert_eq!(stage, Stage::CreateContainer);
        assert_eq!(args.quota.vram_limit, Bytes::mib(2048));
        assert_eq!(args.gpu_capacity, Bytes::mib(8192));
        assert_eq!(args.device, "gpu1-quarter");
        let all = spec.devices.last().unwrap();
        assert_eq!(all.container_edits.hooks.len(), 6);
        assert_eq!(all.container_edits.device_nodes.len(), 2);
    }

    #[test]
    fn a_profile_is_left_out_where_it_does_not_fit_and_refused_where_it_never_does() {
        let large = settings("[profiles.large]\nvram = \"6Gi\"");
        let spec = generate(&Fake, &node(), &large).unwrap();
        let large: Vec<&str> = names(&spec)
            .into_iter()
            .filter(|name| name.ends_with("-large"))
            .collect();
        assert_eq!(large.len(), 2);
        assert_eq!(large[0], "gpu1-large");
        let huge = settings("[profiles.huge]\nvram = \"9Gi\"");
        let error = generate(&Fake, &node(), &huge).unwrap_err().to_string();
        assert!(
            error.contains("huge") && error.contains("8589934592"),
            "{error}"
        );
    }

    #[test]
    fn excluded_gpus_are_not_offered() {
        let one = settings("[gpus]\nexclude = [0]");
        let spec = generate(&Fake, &node(), &one).unwrap();
        assert!(names(&spec).iter().all(|name| !name.starts_with("gpu0")));
        assert_eq!(
            spec.devices
                .last()
                .unwrap()
                .container_edits
                .device_nodes
                .len(),
            1
        );
        let none = settings("[gpus]\ninclude = [\"Other*\"]");
        let error = generate(&Fake, &node(), &none).unwrap_err().to_string();
        assert!(
            error.contains("0 Fake, 1 Fake") && error.contains("gpus.include"),
            "{error}"
        );
    }
}
