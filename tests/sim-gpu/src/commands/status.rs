//! `sim-gpu status`: what a node has and who holds what.

use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, Result};
use serde::Serialize;
use sim_gpu::client::{Kind, Node};
use sim_gpu::page;

use crate::commands::{absolute, daemon_pid, say};

/// Window over which use is averaged.
const WINDOW_NS: u64 = 1_000_000_000;

#[derive(Debug, Serialize)]
struct Status {
    root: String,
    pid: i32,
    driver_version: String,
    cuda_version: u32,
    gpus: Vec<GpuStatus>,
    clients: Vec<ClientStatus>,
}

#[derive(Debug, Serialize)]
struct GpuStatus {
    index: usize,
    name: String,
    uuid: String,
    minor: u32,
    total_bytes: u64,
    reserved_bytes: u64,
    used_bytes: u64,
    free_bytes: u64,
    busy_percent: u64,
}

#[derive(Debug, Serialize)]
struct ClientStatus {
    slot: u32,
    pid: u32,
    kind: &'static str,
    gpus: Vec<HeldStatus>,
}

#[derive(Debug, Serialize)]
struct HeldStatus {
    index: usize,
    contexts: u64,
    bytes: u64,
}

/// Shows the node at `root`.
pub(crate) fn run(root: &Path, json: bool) -> Result<()> {
    let root = absolute(root)?;
    let node = Node::connect(&root, Kind::Viewer)
        .with_context(|| format!("no node is up at {}", root.display()))?;
    let status = Status {
        root: root.display().to_string(),
        pid: daemon_pid(&root).unwrap_or(0),
        driver_version: node.config().driver_version.clone(),
        cuda_version: node.config().cuda_version,
        gpus: gpus(&node)?,
        clients: clients(&node)?,
    };
    if json {
        say(&serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(())
}

fn gpus(node: &Node) -> Result<Vec<GpuStatus>> {
    let now = page::now();
    let numbered = node.config().gpus.iter().enumerate();
    numbered
        .map(|(index, gpu)| {
            let memory = node.memory(index)?;
            let guard = node.lock()?;
            guard.advance(index, now);
            let busy = guard.device_busy(index, now.saturating_sub(WINDOW_NS), now);
            Ok(GpuStatus {
                index,
                name: gpu.name.clone(),
                uuid: gpu.uuid.clone(),
                minor: gpu.minor,
                total_bytes: memory.total,
                reserved_bytes: memory.reserved,
                used_bytes: memory.used,
                free_bytes: memory.free,
                busy_percent: busy * 100 / WINDOW_NS,
            })
        })
        .collect()
}

fn clients(node: &Node) -> Result<Vec<ClientStatus>> {
    let guard = node.lock()?;
    let page = node.page();
    let others = page.live_slots().filter(|&slot| slot != node.slot());
    let clients = others.map(|slot| {
        let shares = (0..page.devices()).map(|index| (index, guard.process_share(slot, index)));
        let held = shares.filter(|(_, share)| share.contexts > 0 || share.bytes > 0);
        ClientStatus {
            slot,
            pid: page.slot(slot).pid.load(Relaxed),
            kind: kind_name(page.slot(slot).kind.load(Relaxed)),
            gpus: held
                .map(|(index, share)| HeldStatus {
                    index,
                    contexts: share.contexts,
                    bytes: share.bytes,
                })
                .collect(),
        }
    });
    Ok(clients.collect())
}

fn kind_name(kind: u32) -> &'static str {
    match kind {
        1 => "cuda",
        2 => "nvml",
        _ => "viewer",
    }
}

fn print(status: &Status) {
    say(&format!(
        "node at {} (pid {}): driver {}, CUDA {}.{}",
        status.root,
        status.pid,
        status.driver_version,
        status.cuda_version / 1000,
        status.cuda_version % 1000 / 10
    ));
    for gpu in &status.gpus {
        say(&format!(
            "GPU {}  {}  {}  used {} of {} MiB  busy {} %",
            gpu.index,
            gpu.name,
            gpu.uuid,
            gpu.used_bytes >> 20,
            gpu.total_bytes >> 20,
            gpu.busy_percent
        ));
    }
    for client in &status.clients {
        let held: Vec<String> = client
            .gpus
            .iter()
            .map(|held| {
                let mib = held.bytes >> 20;
                format!("GPU {}: {mib} MiB, {} contexts", held.index, held.contexts)
            })
            .collect();
        say(&format!(
            "pid {}  {}  {}",
            client.pid,
            client.kind,
            held.join("; ")
        ));
    }
}
