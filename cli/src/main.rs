//! vgpu: the one command people type.
//!
//! Owns the command line, the log and the exit code; every verb lives in its own file under `commands`. A failure is
//! one line on stderr, `vgpu: what: cause`, in lower case; data goes to stdout and nothing else does.

mod commands;
mod global;
mod output;

use std::io::{self, Write};
use std::process;

use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

use commands::Command;
use global::{Global, LogFormat};
use vgpu_core::{ExitCode, env};

/// Fractions of a GPU for containers.
#[derive(Debug, Parser)]
#[command(name = "vgpu", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

fn main() -> process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return wrong_command_line(&error).into(),
    };
    let format = cli.global.log_format;
    start_log(format);
    let code = match cli.command.exec(&cli.global) {
        Ok(code) => code,
        Err(error) if output::is_closed_pipe(&error) => ExitCode::Success,
        Err(error) => {
            report(format, &format!("{error:#}"));
            commands::exit_code(&error)
        }
    };
    code.into()
}

/// Help and version as they are; anything else as one line, like every other failure.
fn wrong_command_line(error: &clap::Error) -> ExitCode {
    let kind = error.kind();
    if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // A reader that went away does not want the help.
        error.print().ok();
        return ExitCode::Success;
    }
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.print().ok();
        return ExitCode::Usage;
    }
    let text = error.render().to_string();
    let reason: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let reason = reason.join(" ");
    report(
        LogFormat::Text,
        reason.strip_prefix("error: ").unwrap_or(&reason),
    );
    ExitCode::Usage
}

/// The log goes to stderr and says warnings and worse unless `VGPU_LOG` asks for more.
fn start_log(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::WARN.into())
        .with_env_var(env::LOG)
        .from_env_lossy();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => log
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .init(),
        LogFormat::Json => log.json().init(),
    }
}

/// One line on stderr; nothing more can be done when even that fails.
fn report(format: LogFormat, message: &str) {
    let message = message.replace(['\n', '\r'], " ");
    let line = match format {
        LogFormat::Text => format!("vgpu: {message}"),
        LogFormat::Json => serde_json::json!({"level": "ERROR", "message": message}).to_string(),
    };
    writeln!(io::stderr(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        fn check(command: &clap::Command) {
            let automatic = ["help", "version"];
            for arg in command
                .get_opts()
                .filter(|a| !automatic.contains(&a.get_id().as_str()))
            {
                let name = arg
                    .get_env()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                assert!(
                    name.starts_with("VGPU_"),
                    "{} {}",
                    command.get_name(),
                    arg.get_id()
                );
            }
            command.get_subcommands().for_each(check);
        }
        let mut command = Cli::command();
        command.build();
        check(&command);
    }
}
