//! `sim-gpu up`: lays out a driver root and starts its daemon.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use sim_gpu::client::{Kind, Node};
use sim_gpu::config::{ConfigError, NodeConfig};
use sim_gpu::root::{self, CONFIG_FILE, LIB_DIR, LOG_FILE, Libraries, Manifest, PID_FILE};
use sim_gpu::wire::SOCKET;

use crate::commands::{absolute, daemon_pid, down, say};

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Brings the node described by `config` up at `root`, or leaves nothing behind.
pub(crate) fn run(root: &Path, config: Option<&Path>, lib_dir: Option<PathBuf>) -> Result<()> {
    let config = NodeConfig::load(config).map_err(|error| match &error {
        ConfigError::Read { .. } => anyhow!(error),
        ConfigError::Syntax(_) | ConfigError::Value { .. } => {
            let file = config
                .unwrap_or(Path::new("the default"))
                .display()
                .to_string();
            anyhow!(error).context(format!("node description {file}"))
        }
    })?;
    let libraries = Libraries::find(&library_directories(lib_dir)?)?;
    let root = absolute(root)?;
    if let Some(pid) = daemon_pid(&root) {
        bail!(
            "a node is up at {root} already (pid {pid}): sim-gpu down --root {root} ends it",
            root = root.display()
        );
    }
    // What an earlier node left that was killed.
    down::take_down(&root)?;
    let pid = bring_up(&root, &config, &libraries).inspect_err(|_| {
        // The first error is the one to tell; what cannot be removed now `down` will name.
        let _leftovers = down::take_down(&root);
    })?;
    say(&format!(
        "simulated node at {} (pid {pid}): driver {}, {} GPUs",
        root.display(),
        config.driver_version,
        config.gpus.len()
    ));
    for (index, gpu) in config.gpus.iter().enumerate() {
        let mib = gpu.vram >> 20;
        say(&format!(
            "  GPU {index}: {} {} {mib} MiB, /dev/nvidia{}",
            gpu.name, gpu.uuid, gpu.minor
        ));
    }
    say(&format!("  libraries: {}", root.join(LIB_DIR).display()));
    say(&format!("  socket: {}", root.join(SOCKET).display()));
    Ok(())
}

/// Where to look for the simulated libraries: the directory named, else around this program.
fn library_directories(named: Option<PathBuf>) -> Result<Vec<PathBuf>> {
    if let Some(named) = named {
        return Ok(vec![named]);
    }
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let own = program.parent().unwrap_or(Path::new("/"));
    Ok(vec![own.join("../lib"), own.to_owned()])
}

fn bring_up(root: &Path, config: &NodeConfig, libraries: &Libraries) -> Result<u32> {
    let mut made = Manifest::create(root)?;
    root::lay_out(&mut made, config, libraries)?;
    made.file(CONFIG_FILE, &serde_json::to_vec_pretty(config)?, 0o644)?;
    made.file(LOG_FILE, b"", 0o644)?;
    // Recorded here, made by the daemon.
    made.prepare(SOCKET)?;
    let mut daemon = start(root)?;
    made.file(PID_FILE, format!("{}\n", daemon.id()).as_bytes(), 0o644)
        .inspect_err(|_| {
            let _already_gone = daemon.kill();
        })?;
    wait_until_ready(root, &mut daemon)?;
    Ok(daemon.id())
}

fn start(root: &Path) -> Result<Child> {
    let log = File::options()
        .append(true)
        .open(root.join(LOG_FILE))
        .with_context(|| format!("cannot write {}", root.join(LOG_FILE).display()))?;
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    Command::new(&program)
        .args(["serve", "--root"])
        .arg(root)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

fn wait_until_ready(root: &Path, daemon: &mut Child) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let refused = match Node::connect(root, Kind::Viewer) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        if daemon
            .try_wait()
            .context("cannot watch the daemon")?
            .is_some()
        {
            let log = fs::read_to_string(root.join(LOG_FILE)).unwrap_or_default();
            let reason = log.trim().trim_start_matches("sim-gpu: ").to_owned();
            return Err(anyhow!("{reason}").context("the daemon ended at once"));
        }
        if Instant::now() > deadline {
            let _already_gone = daemon.kill();
            return Err(anyhow!(refused).context("the daemon does not answer"));
        }
        thread::sleep(Duration::from_millis(5));
    }
}
