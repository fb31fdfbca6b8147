//! `vgpu cdi generate` for a node of eight simulated GPUs: the whole process, from start to exit.

use std::process::Stdio;
use std::time::Instant;

use anyhow::{Result, ensure};
use vgpu_tests::node::Node;

const RUNS: usize = 100;
const WARM_UP: usize = 3;

pub(crate) fn samples() -> Result<Vec<f64>> {
    let node = Node::described("count = 8\n");
    let mut samples = Vec::with_capacity(RUNS);
    for run in 0..RUNS + WARM_UP {
        let mut command = node.vgpu();
        command
            .args(["cdi", "generate", "--output", "-"])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let start = Instant::now();
        let status = command.status()?;
        let took = start.elapsed();
        ensure!(status.success(), "vgpu cdi generate ended with {status}");
        if run >= WARM_UP {
            samples.push(took.as_secs_f64() * 1e3);
        }
    }
    Ok(samples)
}
