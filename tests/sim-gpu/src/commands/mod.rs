//! One file a verb, and what they share.

pub(crate) mod down;
pub(crate) mod serve;
pub(crate) mod status;
pub(crate) mod up;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use sim_gpu::client::{Kind, Node};

/// Writes a line to standard output; a closed pipe is the reader's choice and no error.
pub(crate) fn say(line: &str) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// Writes an error and its causes to standard error, on one line.
pub(crate) fn complain(error: &anyhow::Error) {
    let text = format!("sim-gpu: {error:#}").replace('\n', " ");
    let _closed = writeln!(std::io::stderr(), "{text}");
}

/// `root` as an absolute path without links, so that the record of what was made means the same later.
pub(crate) fn absolute(root: &Path) -> Result<PathBuf> {
    match root.canonicalize() {
        Ok(path) => Ok(path),
        Err(_) => std::path::absolute(root)
            .with_context(|| format!("cannot tell where {} is", root.display())),
    }
}

/// The process that listens on the node's socket below `root`, if one does.
pub(crate) fn daemon_pid(root: &Path) -> Option<i32> {
    let node = Node::connect(root, Kind::Viewer).ok()?;
    getsockopt(&node.socket().ok()?, PeerCredentials)
        .ok()
        .map(|peer| peer.pid())
}
