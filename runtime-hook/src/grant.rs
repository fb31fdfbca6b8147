//! The host's record of who has what: one file for each container.
//!
//! Owns the record's form and its meaning. A record is written by the hook and read by the hook, the command line and
//! the agent; no tenant ever sees or writes one. Reading and writing files is [`crate::store`]'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vgpu_core::hook_args::HookArgs;
use vgpu_core::{Bytes, DeviceUuid};
use vgpu_region::{DeviceLimits, Limits};

use crate::process;
use crate::state::Labels;

/// The form of the record that this build writes and reads.
pub const VERSION: u32 = 1;

/// Names one container of one engine: the same at every stage and for every device.
///
/// A hash, because ids and bundle paths are longer than a file name may be. It is no secret and not collision-proof
/// against someone who chooses both; whoever uses a record compares id and bundle too ([`Grant::is_of`]).
#[must_use]
pub fn key(container_id: &str, bundle: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    // FNV-1a, 128 bits. The zero byte keeps id and bundle apart; neither can hold one.
    let bytes = container_id
        .as_bytes()
        .iter()
        .chain(&[0])
        .chain(bundle.as_os_str().as_bytes());
    let hash = bytes.fold(
        0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128,
        |hash, byte| {
            (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        },
    );
    format!("{hash:032x}")
}

/// What one container holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// [`VERSION`].
    pub version: u32,
    /// The version of the hook that wrote it.
    pub hook_version: String,
    /// [`key`] of the two fields that follow.
    pub key: String,
    /// The engine's id.
    pub container_id: String,
    /// The bundle on the host.
    pub bundle: PathBuf,
    /// The boot during which it was given.
    pub boot_id: String,
    /// The container's init process, in [`Grant::pid_namespace`].
    pub pid: i32,
    /// When that process started. **Units:** clock ticks since boot.
    pub start_time: u64,
    /// Inode of the pid namespace that `pid` counts in: the engine's.
    pub pid_namespace: u64,
    /// What the container's manager calls it.
    #[serde(default)]
    pub labels: Labels,
    /// A device that is asked for again is the same one, two devices add up.
    pub devices: BTreeMap<DeviceKey, GrantedDevice>,
}

/// What tells one vGPU of a container from its others: the CDI device and the GPU, because one device may be slices of
/// several GPUs (`all`). In records and on command lines `name@uuid`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DeviceKey {
    /// The CDI device, `gpu0-quarter`.
    pub name: String,
    /// The GPU, as text.
    pub gpu_uuid: String,
}

impl From<&HookArgs> for DeviceKey {
    fn from(args: &HookArgs) -> Self {
        Self {
            name: args.device.clone(),
            gpu_uuid: args.gpu_uuid.to_string(),
        }
    }
}

impl From<DeviceKey> for String {
    fn from(key: DeviceKey) -> Self {
        key.to_string()
    }
}

impl TryFrom<String> for DeviceKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // Neither part can hold an `@`.
        match text.split_once('@') {
            Some((name, gpu_uuid)) => Ok(Self {
                name: name.to_owned(),
                gpu_uuid: gpu_uuid.to_owned(),
            }),
            None => Err(format!("device {text:?}, expected name@uuid")),
        }
    }
}

impl std::fmt::Display for DeviceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.gpu_uuid)
    }
}

/// One vGPU of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantedDevice {
    /// The GPU, as text.
    pub gpu_uuid: String,
    /// What the GPU has to divide.
    pub gpu_capacity_bytes: u64,
    /// The most VRAM it may hold.
    pub vram_limit_bytes: u64,
    /// The VRAM it is guaranteed; this is what admission counts.
    pub vram_request_bytes: u64,
    /// The largest share of the GPU's time.
    pub compute_limit_percent: u8,
    /// The guaranteed share.
    pub compute_request_percent: u8,
    /// The service class, as text.
    pub qos: String,
    /// What enforces it, as text.
    pub back_end: String,
    /// What a context is taken to hold.
    pub context_footprint_bytes: u64,
}

impl From<&HookArgs> for GrantedDevice {
    fn from(args: &HookArgs) -> Self {
        Self {
            gpu_uuid: args.gpu_uuid.to_string(),
            gpu_capacity_bytes: args.gpu_capacity.get(),
            vram_limit_bytes: args.quota.vram_limit.get(),
            vram_request_bytes: args.quota.vram_request.get(),
            compute_limit_percent: args.quota.compute_limit.get(),
            compute_request_percent: args.quota.compute_request.get(),
            qos: args.quota.qos.to_string(),
            back_end: args.backend.to_string(),
            context_footprint_bytes: args.context_footprint.get(),
        }
    }
}

impl GrantedDevice {
    /// The page's form of this device; nothing when the record's UUID or class is not one.
    #[must_use]
    pub fn limits(&self) -> Option<DeviceLimits> {
        let uuid: DeviceUuid = self.gpu_uuid.parse().ok()?;
        let qos: vgpu_core::QosClass = self.qos.parse().ok()?;
        Some(DeviceLimits {
            uuid: uuid.as_bytes(),
            capacity: self.gpu_capacity_bytes,
            vram_limit: self.vram_limit_bytes,
            vram_request: self.vram_request_bytes,
            compute_limit: self.compute_limit_percent.min(100),
            compute_request: self.compute_request_percent.min(100),
            qos: qos.as_u8(),
            context_footprint: self.context_footprint_bytes,
            untracked: 0,
        })
    }
}

/// Whether the container of a grant still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Liveness {
    /// Its init process runs.
    Alive,
    /// It was given before the last boot.
    OldBoot,
    /// Its init process is gone.
    Ended,
    /// It counts processes in another pid namespace, so it cannot be told from here.
    Elsewhere,
}

impl Liveness {
    /// Whether the grant still counts. One that cannot be judged does: promising memory twice is the worse mistake.
    #[must_use]
    pub const fn holds(self) -> bool {
        matches!(self, Self::Alive | Self::Elsewhere)
    }
}

/// Where and when we are, to judge grants by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Here {
    /// This boot.
    pub boot_id: String,
    /// Our pid namespace.
    pub pid_namespace: u64,
}

impl Here {
    /// Asks the system.
    ///
    /// # Errors
    /// [`process::ProcessError`] where `/proc` is not there.
    pub fn now() -> Result<Self, process::ProcessError> {
        Ok(Self {
            boot_id: process::boot_id()?,
            pid_namespace: process::pid_namespace()?,
        })
    }
}

impl Grant {
    /// Whether it belongs to this container of this engine.
    #[must_use]
    pub fn is_of(&self, container_id: &str, bundle: &Path) -> bool {
        self.container_id == container_id && self.bundle == bundle
    }

    /// Whether its container still runs.
    #[must_use]
    pub fn liveness(&self, here: &Here) -> Liveness {
        if self.boot_id != here.boot_id {
            return Liveness::OldBoot;
        }
        if self.pid_namespace != here.pid_namespace {
            return Liveness::Elsewhere;
        }
        match process::stat(self.pid) {
            Ok(Some(stat)) if stat.start_time == self.start_time && !stat.ended => Liveness::Alive,
            Ok(_) => Liveness::Ended,
            // Not ours to look at, and therefore there.
            Err(_) => Liveness::Alive,
        }
    }

    /// The guaranteed VRAM on one GPU, all its vGPUs there together.
    #[must_use]
    pub fn requested_on(&self, gpu_uuid: &str) -> Bytes {
        let there = self.devices.values().filter(|d| d.gpu_uuid == gpu_uuid);
        Bytes(there.fold(0, |sum, d| sum.saturating_add(d.vram_request_bytes)))
    }

    /// The limits page for this grant: vGPUs on one GPU add up, in the order in which `known` has the GPUs, because
    /// processes know them by their place.
    #[must_use]
    pub fn limits(&self, known: &Limits) -> Limits {
        let mut out = Limits::default();
        let zero = |d: &DeviceLimits| DeviceLimits {
            uuid: d.uuid,
            ..DeviceLimits::default()
        };
        out.devices = known.devices.iter().map(zero).collect();
        for device in self.devices.values().filter_map(GrantedDevice::limits) {
            match out.devices.iter_mut().find(|d| d.uuid == device.uuid) {
                Some(sum) => add(sum, &device),
                None => out.devices.push(device),
            }
        }
        for (device, before) in out.devices.iter_mut().zip(&known.devices) {
            device.untracked = before.untracked;
        }
        out
    }

    /// Twelve characters of the id, as engines show it.
    #[must_use]
    pub fn short_id(&self) -> String {
        self.container_id.chars().take(12).collect()
    }
}

fn add(sum: &mut DeviceLimits, more: &DeviceLimits) {
    sum.capacity = sum.capacity.max(more.capacity);
    sum.vram_limit = sum.vram_limit.saturating_add(more.vram_limit);
    sum.vram_request = sum.vram_request.saturating_add(more.vram_request);
    sum.compute_limit = sum
        .compute_limit
        .saturating_add(more.compute_limit)
        .min(100);
    sum.compute_request = sum
        .compute_request
        .saturating_add(more.compute_request)
        .min(100);
    sum.qos = sum.qos.max(more.qos);
    sum.context_footprint = sum.context_footprint.max(more.context_footprint);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const UUID: &str = "GPU-00000000-0000-0000-0000-000000000001";

    pub(crate) fn device(vram: u64, compute: u8) -> GrantedDevice {
        GrantedDevice {
            gpu_uuid: UUID.into(),
            gpu_capacity_bytes: 100,
            vram_limit_bytes: vram,
            vram_request_bytes: vram,
            compute_limit_percent: compute,
            compute_request_percent: compute,
            qos: "medium".into(),
            back_end: "limiter".into(),
            context_footprint_bytes: 1,
        }
    }

    pub(crate) fn grant(id: &str, devices: &[(&str, GrantedDevice)]) -> Grant {
        let here = Here::now().unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        Grant {
            version: VERSION,
            hook_version: "test".into(),
            key: key(id, Path::new("/b")),
            container_id: id.into(),
            bundle: "/b".into(),
            boot_id: here.boot_id,
            pid,
            start_time: process::stat(pid).unwrap().unwrap().start_time,
            pid_namespace: here.pid_namespace,
            labels: Labels::default(),
            devices: devices
                .iter()
                .map(|(name, d)| (device_key(name, &d.gpu_uuid), d.clone()))
                .collect(),
        }
    }

    pub(crate) fn device_key(name: &str, gpu_uuid: &str) -> DeviceKey {
        DeviceKey {
            name: name.into(),
            gpu_uuid: gpu_uuid.into(),
        }
    }

    #[test]
    fn one_device_of_two_gpus_is_two_vgpus() {
        let mut second = device(40, 60);
        second.gpu_uuid = "GPU-00000000-0000-0000-0000-000000000002".into();
        let grant = grant("c", &[("all", device(30, 60)), ("all", second.clone())]);
        assert_eq!(grant.requested_on(UUID), Bytes(30));
        assert_eq!(grant.requested_on(&second.gpu_uuid), Bytes(40));
        let limits = grant.limits(&Limits::default());
        let vram: Vec<u64> = limits.devices.iter().map(|d| d.vram_limit).collect();
        assert_eq!(vram, [30, 40]);
        let text = serde_json::to_string(&grant).unwrap();
        assert!(text.contains(&format!("\"all@{UUID}\":")), "{text}");
        assert_eq!(serde_json::from_str::<Grant>(&text).unwrap(), grant);
        let old = text.replace(&format!("all@{UUID}"), "all");
        let error = serde_json::from_str::<Grant>(&old).unwrap_err().to_string();
        assert!(error.contains("expected name@uuid"), "{error}");
    }

    #[test]
    fn the_key_keeps_id_and_bundle_apart() {
        assert_eq!(key("a", Path::new("/b")), key("a", Path::new("/b")));
        assert_ne!(key("a", Path::new("/b")), key("a/", Path::new("b")));
        assert_eq!(key("", Path::new("")).len(), 32);
    }

    #[test]
    fn vgpus_of_one_gpu_add_up_and_keep_their_places() {
        let grant = grant("c", &[("a", device(30, 60)), ("b", device(20, 60))]);
        assert_eq!(grant.requested_on(UUID), Bytes(50));
        assert_eq!(grant.requested_on("GPU-other"), Bytes(0));
        let limits = grant.limits(&Limits::default());
        assert_eq!(limits.devices.len(), 1);
        assert_eq!(
            (
                limits.devices[0].vram_limit,
                limits.devices[0].compute_limit
            ),
            (50, 100)
        );

        let other = DeviceLimits {
            uuid: [9; 16],
            untracked: 7,
            ..DeviceLimits::default()
        };
        let known = Limits {
            devices: vec![other],
            ..Limits::default()
        };
        let limits = grant.limits(&known);
        assert_eq!(
            (limits.devices[0].uuid, limits.devices[0].untracked),
            ([9; 16], 7)
        );
        assert_eq!(limits.devices[1].vram_limit, 50);
    }

    #[test]
    fn boot_process_and_start_time_decide() {
        let here = Here::now().unwrap();
        let alive = grant("c", &[]);
        assert_eq!(alive.liveness(&here), Liveness::Alive);
        let other = Grant {
            start_time: alive.start_time + 1,
            ..alive.clone()
        };
        assert_eq!(other.liveness(&here), Liveness::Ended);
        let other = Grant {
            pid: i32::MAX,
            ..alive.clone()
        };
        assert_eq!(other.liveness(&here), Liveness::Ended);
        let other = Grant {
            boot_id: "before".into(),
            ..alive.clone()
        };
        assert_eq!(other.liveness(&here), Liveness::OldBoot);
        let other = Grant {
            pid_namespace: 1,
            ..alive
        };
        assert!(other.liveness(&here).holds());
    }
}
