//! `make bench`: measures what has a target, prints a table and writes `target/bench.json`.
//!
//! Owns the list of measurements and how they are reported; each file beside this one owns one measurement. Nothing
//! here fails because a number is high: targets stand beside the numbers, and tests never look at them.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::arithmetic_side_effects,
    clippy::cast_precision_loss,
    reason = "a measuring program: it prints, and computes with times"
)]

mod alloc;
mod generate;
mod hook;
mod report;

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use report::Measured;

/// One number with a target.
struct Measurement {
    name: &'static str,
    unit: &'static str,
    target: f64,
    samples: fn() -> Result<Vec<f64>>,
}

const MEASUREMENTS: [Measurement; 3] = [
    Measurement {
        name: "hook_create_container_ms",
        unit: "ms",
        target: 3.0,
        samples: hook::samples,
    },
    Measurement {
        name: "cdi_generate_8gpu_ms",
        unit: "ms",
        target: 50.0,
        samples: generate::samples,
    },
    Measurement {
        name: "alloc_free_added_ns",
        unit: "ns",
        target: 1000.0,
        samples: alloc::samples,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.first().map(String::as_str) {
        // The halves of a measurement that need a process of their own.
        Some(hook::INNER) => hook::inner(),
        Some(alloc::INNER) => alloc::inner(&arguments),
        _ => measure(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(only: &[String]) -> Result<()> {
    let known: Vec<&str> = MEASUREMENTS.iter().map(|m| m.name).collect();
    for name in only {
        ensure!(
            known.contains(&name.as_str()),
            "no measurement {name:?}; there are: {}",
            known.join(", ")
        );
    }
    let mut measured = Vec::new();
    for one in &MEASUREMENTS {
        if only.is_empty() || only.iter().any(|name| name == one.name) {
            eprintln!("bench: measuring {}", one.name);
            let samples = (one.samples)().with_context(|| format!("measuring {}", one.name))?;
            measured.push(Measured::new(one.name, one.unit, one.target, samples)?);
        }
    }
    report::print(&measured);
    report::write(&measured)
}
