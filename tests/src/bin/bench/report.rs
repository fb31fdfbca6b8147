//! Median and 99th percentile of samples, as a table and as `target/bench.json`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use vgpu_tests::built;

/// One measurement's outcome; field names are those of the file.
#[derive(Serialize)]
pub(crate) struct Measured {
    name: &'static str,
    unit: &'static str,
    median: f64,
    p99: f64,
    runs: usize,
    #[serde(skip)]
    target: f64,
}

impl Measured {
    pub(crate) fn new(
        name: &'static str,
        unit: &'static str,
        target: f64,
        mut samples: Vec<f64>,
    ) -> Result<Self> {
        samples.sort_by(f64::total_cmp);
        Ok(Self {
            name,
            unit,
            median: percentile(&samples, 50).context("no samples")?,
            p99: percentile(&samples, 99).context("no samples")?,
            runs: samples.len(),
            target,
        })
    }
}

/// The smallest sample that `percent` of all samples do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map(|v| (v * 1000.0).round() / 1000.0)
}

pub(crate) fn print(measured: &[Measured]) {
    println!(
        "{:<28} {:>10} {:>10} {:>10} {:>6}  UNIT",
        "NAME", "MEDIAN", "P99", "TARGET", "RUNS"
    );
    for m in measured {
        println!(
            "{:<28} {:>10.3} {:>10.3} {:>10.0} {:>6}  {}",
            m.name, m.median, m.p99, m.target, m.runs, m.unit
        );
    }
}

/// A run of one measurement leaves the others' last numbers in the file.
pub(crate) fn write(measured: &[Measured]) -> Result<()> {
    let path = built::project().join("target/bench.json");
    let mut all = last(&path);
    for m in measured {
        all.retain(|old| old.get("name").and_then(|n| n.as_str()) != Some(m.name));
        all.push(serde_json::to_value(m)?);
    }
    let text = serde_json::to_string_pretty(&all)? + "\n";
    fs::create_dir_all(built::project().join("target"))?;
    fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    println!("written to {}", path.display());
    Ok(())
}

fn last(path: &Path) -> Vec<serde_json::Value> {
    fs::read_to_string(path)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&samples, 50), Some(50.0));
        assert_eq!(percentile(&samples, 99), Some(99.0));
        assert_eq!(percentile(&[7.0], 99), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }
}
