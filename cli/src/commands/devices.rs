//! `vgpu devices`: the GPUs of this node and the vGPUs they offer.

use serde::Serialize;
use vgpu_cdi::generate::{Offer, offers};
use vgpu_cdi::{Gpu, vendor};
use vgpu_core::{Bytes, Config, DeviceUuid, ExitCode, Percent, QosClass};

use crate::commands::places::DriverArgs;
use crate::global::Global;
use crate::output::Table;

/// Flags of `vgpu devices`.
#[derive(Debug, clap::Args)]
pub(crate) struct Devices {
    #[command(flatten)]
    driver: DriverArgs,
}

/// The node, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Node {
    driver_version: String,
    cuda_version: Option<String>,
    gpus: Vec<Row>,
}

/// One GPU.
#[derive(Debug, Serialize)]
struct Row {
    index: u32,
    uuid: DeviceUuid,
    name: String,
    vram_bytes: Bytes,
    reserved_bytes: Bytes,
    minor: u32,
    /// Whether the configuration offers it at all.
    offered: bool,
    vgpus: Vec<Vgpu>,
}

/// One vGPU that the GPU offers.
#[derive(Debug, Serialize)]
struct Vgpu {
    name: String,
    uuid_name: String,
    vram_limit_bytes: Bytes,
    compute_limit_percent: Percent,
    qos: QosClass,
}

impl Devices {
    pub(crate) fn exec(self, global: &Global) -> anyhow::Result<ExitCode> {
        let config = self.driver.apply(global.load_config()?)?;
        let inventory = vendor::from_name(vendor::DEFAULT)?.inventory(&(&config.paths).into())?;
        let node = Node {
            driver_version: inventory.driver_version,
            cuda_version: inventory.cuda_version,
            gpus: inventory
                .gpus
                .into_iter()
                .map(|gpu| row(gpu, &config))
                .collect(),
        };
        global.print(&node, table)?;
        Ok(ExitCode::Success)
    }
}

fn row(gpu: Gpu, config: &Config) -> Row {
    let offered = config.gpus.admits(gpu.index, gpu.uuid, &gpu.name);
    let offers = if offered {
        offers(&gpu, config)
    } else {
        Vec::new()
    };
    Row {
        index: gpu.index,
        uuid: gpu.uuid,
        vram_bytes: gpu.vram,
        reserved_bytes: gpu.reserved,
        minor: gpu.minor,
        offered,
        vgpus: offers.iter().map(|offer| vgpu(offer, &gpu)).collect(),
        name: gpu.name,
    }
}

fn vgpu(offer: &Offer, gpu: &Gpu) -> Vgpu {
    Vgpu {
        name: offer.device_name(&format!("gpu{}", gpu.index)),
        uuid_name: offer.device_name(&gpu.uuid.to_string()),
        vram_limit_bytes: offer.quota.vram_limit,
        compute_limit_percent: offer.quota.compute_limit,
        qos: offer.quota.qos,
    }
}

fn table(node: &Node) -> Table {
    let mut table = Table::new(&[
        ">GPU",
        "UUID",
        "NAME",
        ">VRAM",
        ">RESERVED",
        ">MINOR",
        "VGPUS",
    ]);
    for gpu in &node.gpus {
        let vgpus: Vec<String> = gpu
            .vgpus
            .iter()
            .map(|vgpu| format!("{} ({})", vgpu.name, vgpu.vram_limit_bytes))
            .collect();
        table.row([
            gpu.index.to_string(),
            gpu.uuid.to_string(),
            gpu.name.clone(),
            gpu.vram_bytes.to_string(),
            gpu.reserved_bytes.to_string(),
            gpu.minor.to_string(),
            if gpu.offered {
                vgpus.join(" ")
            } else {
                "excluded by the configuration".to_owned()
            },
        ]);
    }
    table
}
