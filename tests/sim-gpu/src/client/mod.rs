//! A process's connection to its simulated node: what the simulated libraries stand on.
//!
//! Owns the socket to the daemon, the mapped node page and this process's slot on it. Each simulated library has
//! its own copy of this code and so its own slot; the node adds them up by process id. It must never start a
//! thread or register a handler: it lives inside strangers' processes, and a driver does neither for them.
//!
//! All sizes are bytes, all times nanoseconds of [`page::now`]. `gpu` is always [`Device::index`].

mod current;
pub(crate) mod root;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use crate::config::{GpuConfig, NodeConfig};
use crate::page::{self, Guard, MapError, Memory, Page, PageError};
use crate::wire::{self, Message, Operation, SOCKET, Status, WIRE_VERSION};

/// What a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The CUDA library: holds memory, runs work.
    Cuda = 1,
    /// The NVML library.
    Nvml = 2,
    /// A tool that only looks.
    Viewer = 3,
}

/// Why a process has no node.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No daemon listens below the root.
    #[error("no simulated node at {}", path.display())]
    NoNode {
        /// The socket that was tried.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The daemon does not want this client.
    #[error("the node refused the connection: {0:?}")]
    Refused(Status),
    /// The connection broke, or its answer makes no sense.
    #[error("the connection to the node broke")]
    Broken(#[source] io::Error),
    /// The node page cannot be used.
    #[error(transparent)]
    Page(#[from] MapError),
}

/// One GPU that this process may use.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its number on the node page; NVML's index on the host.
    pub index: usize,
    /// What it is.
    pub gpu: GpuConfig,
}

/// A connection to a node.
#[derive(Debug)]
pub struct Node {
    root: PathBuf,
    config: NodeConfig,
    devices: Vec<Device>,
    page: Page,
    slot: u32,
    generation: u64,
    pid: u32,
    socket: Mutex<OwnedFd>,
    /// Whether a forked child must be told that this connection is its parent's.
    tracked: bool,
}

impl Node {
    /// This process's connection; made at the first call, and again in a forked child.
    ///
    /// # Errors
    /// [`ConnectError`]; the next call tries again.
    pub fn get(kind: Kind) -> Result<&'static Self, ConnectError> {
        current::get_or_connect(|| {
            let mut node = Self::connect(&root::find(), kind)?;
            node.tracked = true;
            Ok(node)
        })
    }

    /// A new connection to the node whose driver root is `root`.
    ///
    /// # Errors
    /// [`ConnectError`] when no node answers there.
    pub fn connect(root: &Path, kind: Kind) -> Result<Self, ConnectError> {
        let path = root.join(SOCKET);
        let socket = root::connect(&path).map_err(|source| ConnectError::NoNode {
            path: path.clone(),
            source,
        })?;
        let hello = Message {
            code: Operation::Hello as u32,
            words: [WIRE_VERSION, u64::from(kind as u32), 0],
        };
        let (answer, memfd) = ask(socket.as_fd(), hello, None).map_err(ConnectError::Broken)?;
        match Status::from_number(answer.code) {
            Status::Ok => {}
            refused @ (Status::Full | Status::Unknown | Status::Invalid) => {
                return Err(ConnectError::Refused(refused));
            }
        }
        let memfd = memfd.ok_or_else(|| ConnectError::Broken(io::ErrorKind::InvalidData.into()))?;
        let (page, config) = Page::open(memfd)?;
        let [slot, generation, pid] = answer.words;
        Ok(Self {
            devices: present(root, &config),
            root: root.to_owned(),
            config,
            page,
            slot: slot as u32,
            generation,
            pid: pid as u32,
            socket: Mutex::new(socket),
            tracked: false,
        })
    }

    /// The driver root that this node was found at.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The whole node, GPUs that this process may not use included.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// The GPUs whose device nodes open here, in NVML's order.
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// This client's slot on the page.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// This process's id as the daemon sees it: on the host, where the daemon runs there.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A descriptor of the connection, to ask the kernel who is at its other end.
    ///
    /// # Errors
    /// What the system said.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.socket
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .try_clone()
    }

    /// The shared page, for what has no method here.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// Whether this connection still is this process's: it is not in a forked child, nor after the daemon ended.
    pub fn is_alive(&self) -> bool {
        let same_process = !self.tracked || current::same_process();
        let generation = &self.page.slot(self.slot).generation;
        same_process && generation.load(Relaxed) == self.generation
    }

    /// Takes the page's lock, for several operations that belong together.
    ///
    /// # Errors
    /// [`PageError::Disconnected`] or [`PageError::Stuck`].
    pub fn lock(&self) -> Result<Guard<'_>, PageError> {
        if self.tracked && !current::same_process() {
            return Err(PageError::Disconnected);
        }
        let guard = self.page.lock(self.slot)?;
        // Looked at under the lock: the daemon changes it there, and a slot that is not ours must not be charged.
        let generation = self.page.slot(self.slot).generation.load(Relaxed);
        let ours = generation == self.generation;
        ours.then_some(guard).ok_or(PageError::Disconnected)
    }

    /// Takes `bytes` of memory on `gpu`.
    ///
    /// # Errors
    /// [`PageError::OutOfMemory`] when the GPU has less left.
    pub fn alloc(&self, gpu: usize, bytes: u64) -> Result<(), PageError> {
        self.lock()?.alloc(self.slot, gpu, bytes)
    }

    /// Gives `bytes` of memory on `gpu` back.
    ///
    /// # Errors
    /// [`PageError::Disconnected`]: then the daemon has freed them already.
    pub fn free(&self, gpu: usize, bytes: u64) -> Result<(), PageError> {
        self.lock()?.free(self.slot, gpu, bytes);
        Ok(())
    }

    /// A context on `gpu`: takes the node's context footprint, and shows this process in NVML's list.
    ///
    /// # Errors
    /// [`PageError::OutOfMemory`] when the GPU has less left.
    pub fn context_add(&self, gpu: usize) -> Result<(), PageError> {
        self.lock()?.context_add(self.slot, gpu)
    }

    /// A context on `gpu` is gone.
    ///
    /// # Errors
    /// [`PageError::Disconnected`]: then the daemon has freed it already.
    pub fn context_remove(&self, gpu: usize) -> Result<(), PageError> {
        self.lock()?.context_remove(self.slot, gpu);
        Ok(())
    }

    /// The memory of `gpu`, of all processes.
    ///
    /// # Errors
    /// [`PageError::Disconnected`] or [`PageError::Stuck`].
    pub fn memory(&self, gpu: usize) -> Result<Memory, PageError> {
        let (used, free) = self.lock()?.used_and_free(gpu);
        let GpuConfig { vram, reserved, .. } = self.config.gpus[gpu];
        Ok(Memory {
            total: vram,
            reserved,
            used,
            free,
        })
    }

    /// Puts `duration` nanoseconds of work behind this process's earlier work on `gpu`; returns the target that
    /// is reached when it is done.
    ///
    /// # Errors
    /// [`PageError::Disconnected`] or [`PageError::Stuck`].
    pub fn submit(&self, gpu: usize, duration: u64) -> Result<u64, PageError> {
        Ok(self.lock()?.submit(self.slot, gpu, duration, page::now()))
    }

    /// The target at the end of all work that this process has submitted to `gpu`.
    ///
    /// # Errors
    /// [`PageError::Disconnected`] or [`PageError::Stuck`].
    pub fn submitted(&self, gpu: usize) -> Result<u64, PageError> {
        self.submit(gpu, 0)
    }

    /// How far this process's work on `gpu` has come: targets up to this one have been reached.
    ///
    /// # Errors
    /// [`PageError::Disconnected`] or [`PageError::Stuck`].
    pub fn executed(&self, gpu: usize) -> Result<u64, PageError> {
        Ok(self.lock()?.executed(self.slot, gpu, page::now()))
    }

    /// When `target` was reached on `gpu`; `None` while it lies ahead.
    ///
    /// # Errors
    /// [`PageError::Disconnected`] or [`PageError::Stuck`].
    pub fn time_of(&self, gpu: usize, target: u64) -> Result<Option<u64>, PageError> {
        Ok(self
            .lock()?
            .time_of(self.slot, gpu, target, page::now())
            .ok())
    }

    /// Sleeps until `target` is reached on `gpu`, and returns when that was.
    ///
    /// # Errors
    /// [`PageError::Disconnected`] or [`PageError::Stuck`].
    pub fn wait(&self, gpu: usize, target: u64) -> Result<u64, PageError> {
        // Others may come and go meanwhile, so a long wait looks again now and then.
        const LONGEST_NAP: u64 = 5_000_000;
        const SHORTEST_NAP: u64 = 60_000;
        loop {
            let now = page::now();
            let ahead = match self.lock()?.time_of(self.slot, gpu, target, now) {
                Ok(reached) => return Ok(reached),
                Err(ahead) => ahead.saturating_sub(now),
            };
            if ahead < SHORTEST_NAP {
                thread::yield_now();
            } else {
                thread::sleep(Duration::from_nanos(
                    ahead.min(LONGEST_NAP) - SHORTEST_NAP / 2,
                ));
            }
        }
    }

    /// Hands a memfd to the node, for other processes to import until this one ends.
    ///
    /// # Errors
    /// What the system said when the connection is broken.
    pub fn export(&self, memfd: BorrowedFd<'_>) -> io::Result<u64> {
        let (answer, _) = self.request(Operation::Export, 0, Some(memfd))?;
        Ok(answer.words[0])
    }

    /// The memfd that some process on the node has exported under this number.
    ///
    /// # Errors
    /// `NotFound` when there is none, or no more.
    pub fn import(&self, number: u64) -> io::Result<OwnedFd> {
        let (_, memfd) = self.request(Operation::Import, number, None)?;
        memfd.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Takes back an export of this process.
    ///
    /// # Errors
    /// `NotFound` when this process has no such export.
    pub fn unexport(&self, number: u64) -> io::Result<()> {
        self.request(Operation::Unexport, number, None).map(drop)
    }

    fn request(
        &self,
        operation: Operation,
        number: u64,
        passed: Option<BorrowedFd<'_>>,
    ) -> io::Result<(Message, Option<OwnedFd>)> {
        if !self.is_alive() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let socket = self
            .socket
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let message = Message {
            code: operation as u32,
            words: [number, 0, 0],
        };
        let (answer, memfd) = ask(socket.as_fd(), message, passed)?;
        match Status::from_number(answer.code) {
            Status::Ok => Ok((answer, memfd)),
            Status::Unknown => Err(io::ErrorKind::NotFound.into()),
            Status::Full | Status::Invalid => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

/// One request and its answer.
fn ask(
    socket: BorrowedFd<'_>,
    message: Message,
    passed: Option<BorrowedFd<'_>>,
) -> io::Result<(Message, Option<OwnedFd>)> {
    wire::send(socket, message, passed)?;
    loop {
        match wire::receive(socket) {
            Ok(Some(answer)) => return Ok(answer),
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The GPUs of `config` whose nodes open below `root`.
///
/// A character device without a driver behind it answers ENXIO once the device rules have let the open through,
/// so that answer means present; a missing node or a denied open means absent, as for a real driver.
fn present(root: &Path, config: &NodeConfig) -> Vec<Device> {
    let opens = |minor: u32| {
        let path = root.join(format!("dev/nvidia{minor}"));
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path);
        opened.map_or_else(|error| error.raw_os_error() == Some(libc::ENXIO), |_| true)
    };
    let numbered = config.gpus.iter().cloned().enumerate();
    let devices = numbered.map(|(index, gpu)| Device { index, gpu });
    devices.filter(|device| opens(device.gpu.minor)).collect()
}
