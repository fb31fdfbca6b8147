//! sim-gpu: brings a simulated NVIDIA node up and down.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "test support: an overflow here is a bug that should stop the test at once"
)]

mod commands;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Brings a simulated NVIDIA node up and down.
#[derive(Debug, Parser)]
#[command(name = "sim-gpu", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lay out a driver root and start its node.
    Up {
        #[command(flatten)]
        root: Root,
        /// The node's description (TOML); two H200 without it.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where the two simulated libraries were built.
        #[arg(long, value_name = "DIR")]
        lib_dir: Option<PathBuf>,
    },
    /// End the node and remove everything that was made for it.
    Down {
        #[command(flatten)]
        root: Root,
    },
    /// Show GPUs, clients and what they hold.
    Status {
        #[command(flatten)]
        root: Root,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Run the node in the foreground (what `up` starts).
    #[command(hide = true)]
    Serve {
        #[command(flatten)]
        root: Root,
    },
}

#[derive(Debug, Args)]
struct Root {
    /// The driver root.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Up {
            root,
            config,
            lib_dir,
        } => commands::up::run(&root.root, config.as_deref(), lib_dir),
        Verb::Down { root } => commands::down::run(&root.root),
        Verb::Status { root, json } => commands::status::run(&root.root, json),
        Verb::Serve { root } => commands::serve::run(&root.root),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            commands::complain(&error);
            ExitCode::FAILURE
        }
    }
}
