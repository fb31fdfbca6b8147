//! The one error of a hook call, and how it becomes one line.

use thiserror::Error;
use vgpu_core::ExitCode;
use vgpu_core::hook_args::ArgsError;

use crate::admission::AdmissionError;
use crate::library::LibraryError;
use crate::loader::LoaderError;
use crate::mounts::MountError;
use crate::namespace::NamespaceError;
use crate::process::ProcessError;
use crate::region::HostRegionError;
use crate::rootfs::RootfsError;
use crate::state::StateError;
use crate::store::StoreError;

/// Why a hook call failed. The container does not start then.
#[derive(Debug, Error)]
pub enum HookError {
    /// The command line.
    #[error(transparent)]
    Args(#[from] ArgsError),
    /// The OCI state or `config.json`.
    #[error(transparent)]
    State(#[from] StateError),
    /// The run directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The GPU is full.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// `/proc`.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The region on the host.
    #[error(transparent)]
    Region(#[from] HostRegionError),
    /// The container's namespaces.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A path in the container.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// A bind mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The search for driver libraries.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The loader's cache.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// The hook runs without power over the host.
    #[error(
        "this engine runs without root on the host ({why}), so its hooks cannot hold a GPU's books; start the container with a rootful engine"
    )]
    Rootless {
        /// What was found.
        why: &'static str,
    },
    /// The runtime named no process, or one that is gone.
    #[error(
        "container {container_id} has no init process {pid}: expected the one that the runtime just made"
    )]
    NoProcess {
        /// The engine's id.
        container_id: String,
        /// What the state says.
        pid: i32,
    },
    /// Another living container has the same id and bundle.
    #[error("container {container_id} already runs as process {pid} from the same bundle")]
    Running {
        /// The engine's id.
        container_id: String,
        /// The living one's init process.
        pid: i32,
    },
    /// Another container's record has the same key.
    #[error(
        "the record of container {other} has the key of container {container_id}; give one of them another id"
    )]
    Collision {
        /// The engine's id.
        container_id: String,
        /// The other's id.
        other: String,
    },
    /// create-container without create-runtime before it.
    #[error(
        "container {container_id} has no grant for {device}: create-runtime did not run for it"
    )]
    NoGrant {
        /// The engine's id.
        container_id: String,
        /// The CDI device.
        device: String,
    },
    /// Something failed, and something else stayed behind.
    #[error("{error}; left behind: {leftover}")]
    Leftover {
        /// What failed first.
        error: Box<HookError>,
        /// What could not be taken back.
        leftover: String,
    },
}

impl HookError {
    /// The exit code that says it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Args(_) => ExitCode::Usage,
            Self::Admission(_) => ExitCode::Refused,
            Self::Leftover { error, .. } => error.exit_code(),
            Self::State(_)
            | Self::Store(_)
            | Self::Process(_)
            | Self::Region(_)
            | Self::Namespace(_)
            | Self::Rootfs(_)
            | Self::Mount(_)
            | Self::Library(_)
            | Self::Loader(_)
            | Self::Rootless { .. }
            | Self::NoProcess { .. }
            | Self::Running { .. }
            | Self::Collision { .. }
            | Self::NoGrant { .. } => ExitCode::Failure,
        }
    }
}

/// The whole chain of causes as one line: nothing that an id, a path or an image holds can start a second one.
#[must_use]
pub fn line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
