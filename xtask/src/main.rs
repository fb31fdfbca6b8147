//! Repository tasks: `cargo run -p xtask --features codegen -- codegen [--check]`.
//!
//! Owns what is generated from NVIDIA's headers and nothing else; building and testing are in the Makefile.

use clap::{Parser, Subcommand};

mod codegen;
mod docs;
mod entries;

#[derive(Parser)]
#[command(name = "xtask", about = "Tasks of the vgpu repository")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Regenerate the types and the table of entry points from the headers and the `.entries` files.
    Codegen(codegen::Codegen),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().task {
        Task::Codegen(task) => task.run(),
    }
}
