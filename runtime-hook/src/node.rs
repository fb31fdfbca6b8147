//! The node's containers with their vGPUs and what they use: the records of the hook, read for people.
//!
//! Reads only. What a container says of its own use is a claim: it is read bounded and shown as such, and a page that
//! cannot be read costs its own line, never the list.

use std::path::Path;

use serde::Serialize;
use thiserror::Error;

use crate::grant::{Grant, Here, Liveness};
use crate::process::ProcessError;
use crate::store::{Store, StoreError};

/// Why the list cannot be made.
#[derive(Debug, Error)]
pub enum NodeError {
    /// The run directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `/proc`.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

/// One container's vGPUs on one GPU together, which is what its quota is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The engine's id.
    pub container_id: String,
    /// Kubernetes namespace and pod, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The name within the pod, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The CDI devices, `gpu0-quarter`.
    pub devices: Vec<String>,
    /// The GPU.
    pub gpu_uuid: String,
    /// The most VRAM it may hold. **Units:** bytes.
    pub vram_limit_bytes: u64,
    /// What its processes say they hold; nothing when their page cannot be read. **Units:** bytes.
    pub vram_used_bytes: Option<u64>,
    /// The largest share of the GPU's time. **Units:** percent.
    pub compute_limit_percent: u8,
    /// False until a throttle exists.
    pub compute_enforced: bool,
    /// Service class.
    pub qos: String,
    /// Processes that hold memory of this GPU, by their number in the container.
    pub pids: Vec<u32>,
    /// `running`, `ended` or `unknown`.
    pub state: &'static str,
    /// The container's init process on the host.
    pub init_pid: i32,
}

/// Every container with a vGPU, the ended ones that nobody has swept too.
///
/// # Errors
/// [`NodeError`] when the records cannot be read.
pub fn rows(run_dir: &Path) -> Result<Vec<Row>, NodeError> {
    let store = Store::new(run_dir);
    let here = Here::now()?;
    let grants = store.grants()?;
    Ok(grants
        .iter()
        .flat_map(|grant| grant_rows(&store, grant, &here))
        .collect())
}

fn grant_rows(store: &Store, grant: &Grant, here: &Here) -> Vec<Row> {
    let usage = vgpu_region::usage::read_summary(&store.region(&grant.key)).ok();
    let mut gpus: Vec<&str> = grant
        .devices
        .values()
        .map(|d| d.gpu_uuid.as_str())
        .collect();
    gpus.sort_unstable();
    gpus.dedup();
    let limits = grant.limits(&vgpu_region::Limits::default());
    let mut rows = Vec::new();
    for gpu in gpus {
        let Ok(uuid) = gpu.parse::<vgpu_core::DeviceUuid>() else {
            continue;
        };
        let Some(limit) = limits.devices.iter().find(|d| d.uuid == uuid.as_bytes()) else {
            continue;
        };
        let bytes = |p: &vgpu_region::ProcessUsage| p.bytes_of(&limit.uuid);
        let live = usage
            .as_ref()
            .map(|u| u.iter().filter(|p| p.live && bytes(p) > 0));
        rows.push(Row {
            container_id: grant.container_id.clone(),
            pod: pod(grant),
            container: grant.labels.container.clone(),
            devices: device_names(grant, gpu),
            gpu_uuid: gpu.to_owned(),
            vram_limit_bytes: limit.vram_limit,
            vram_used_bytes: live
                .clone()
                .map(|l| l.fold(0_u64, |sum, p| sum.saturating_add(bytes(p)))),
            compute_limit_percent: limit.compute_limit,
            compute_enforced: false,
            qos: vgpu_core::QosClass::from_u8(limit.qos)
                .unwrap_or_default()
                .to_string(),
            pids: live.map(|l| l.map(|p| p.pid).collect()).unwrap_or_default(),
            state: state(grant.liveness(here)),
            init_pid: grant.pid,
        });
    }
    rows
}

fn device_names(grant: &Grant, gpu: &str) -> Vec<String> {
    let here = grant.devices.keys().filter(|key| key.gpu_uuid == gpu);
    here.map(|key| key.name.clone()).collect()
}

fn pod(grant: &Grant) -> Option<String> {
    let name = grant.labels.pod_name.as_ref()?;
    let namespace = grant.labels.pod_namespace.as_deref().unwrap_or("default");
    Some(format!("{namespace}/{name}"))
}

const fn state(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "running",
        Liveness::OldBoot | Liveness::Ended => "ended",
        Liveness::Elsewhere => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::tests::{UUID, device, grant};
    use crate::store::Plan;

    #[test]
    fn a_container_is_one_row_for_each_gpu() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        assert_eq!(rows(&dir.path().join("absent")).unwrap(), []);
        store.prepare().unwrap();
        let lock = store.lock().unwrap();
        let mut grant = grant(
            "0123",
            &[("a", device(30 << 20, 25)), ("b", device(20 << 20, 25))],
        );
        grant.labels.pod_name = Some("p".into());
        let region = lock.make_container(&grant.key).unwrap();
        vgpu_region::create(&region, &grant.limits(&vgpu_region::Limits::default())).unwrap();
        let plan = Plan {
            container_id: "0123".into(),
            boot_id: String::new(),
            rootfs: "/".into(),
            library_path: vec![],
            libraries: vec![],
            devices: vec![],
            prepared: false,
        };
        lock.save(&grant, &plan).unwrap();
        let rows_now = || rows(dir.path()).unwrap();
        let rows = rows_now();
        assert_eq!(rows.len(), 1);
        assert_eq!(
            (rows[0].gpu_uuid.as_str(), rows[0].state),
            (UUID, "running")
        );
        assert_eq!(rows[0].devices, ["a", "b"]);
        assert_eq!(
            (rows[0].vram_limit_bytes, rows[0].vram_used_bytes),
            (50 << 20, Some(0))
        );
        assert_eq!(rows[0].pod.as_deref(), Some("default/p"));
        assert_eq!(rows[0].pids, [0; 0]);
        let ledger = vgpu_region::Ledger::attach(&region).unwrap();
        ledger.charge(0, 4096).unwrap();
        let rows = rows_now();
        assert_eq!(
            (rows[0].vram_used_bytes, &rows[0].pids[..]),
            (Some(4096), &[std::process::id()][..])
        );
    }
}
