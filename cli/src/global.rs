//! The flags of every verb.

use std::path::PathBuf;

use clap::ValueEnum;
use clap::builder::FalseyValueParser;
use serde::Serialize;
use vgpu_core::{Config, env, paths};

use crate::output::{self, Table};

/// The flags of every verb.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Global {
    /// The node's configuration
    #[arg(long, global = true, value_name = "FILE", env = env::CONFIG, default_value = paths::CONFIG)]
    pub(crate) config: PathBuf,
    /// How messages on stderr are written
    #[arg(long, global = true, value_enum, value_name = "FORMAT", env = env::LOG_FORMAT, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Print data as JSON instead of a table
    #[arg(long, global = true, env = env::JSON, value_parser = FalseyValueParser::new())]
    pub(crate) json: bool,
}

/// How messages on stderr are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

impl Global {
    /// The node's configuration; the defaults where the default place is empty.
    pub(crate) fn load_config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(&self.config)?)
    }

    /// Prints `value` as JSON or, for people, what `table` makes of it.
    pub(crate) fn print<T: Serialize>(
        &self,
        value: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> anyhow::Result<()> {
        if self.json {
            return output::json(value);
        }
        output::write(&table(value).to_string())
    }
}
