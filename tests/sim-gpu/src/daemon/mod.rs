//! The simulated node itself: one process, one thread, one epoll loop.
//!
//! Owns the node page, the listening socket and everything that outlives a single client: slots, exported memory.
//! It must never wait for a client: its sockets do not block, and a client that does not read its answers is
//! dropped. A client is gone when its connection ends or its process does (a forked child may keep the parent's
//! connection open, so both are watched); then what it held is freed, as a driver frees a dead process's memory.

mod registry;
mod socket;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::config::NodeConfig;
use crate::daemon::registry::Registry;
use crate::page::{MapError, Page};
use crate::wire;

/// Why a daemon does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The system refused a step.
    #[error("cannot {step}")]
    System {
        /// What was being done.
        step: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The node page cannot be made.
    #[error(transparent)]
    Page(#[from] MapError),
}

fn system<T: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(T) -> DaemonError {
    let step = step.into();
    move |source| DaemonError::System {
        step,
        source: source.into(),
    }
}

/// What an epoll event is about: the listener, or one of the two descriptors of a connection.
const LISTENER: u64 = u64::MAX;

/// Runs the node of `config` below `root` until the process is killed.
///
/// # Errors
/// [`DaemonError`] when it cannot start; once it runs, only when epoll itself fails.
pub fn serve(root: &Path, config: &NodeConfig) -> Result<(), DaemonError> {
    raise_descriptor_limit();
    let page = Page::create(config)?;
    let listener = socket::listen(&root.join(wire::SOCKET))?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(system("make an epoll"))?;
    epoll
        .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))
        .map_err(system("watch the socket"))?;
    let mut registry = Registry::new(page);
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(system("wait for clients")(error)),
        };
        for event in &events[..count] {
            handle(&epoll, &listener, &mut registry, *event);
        }
    }
}

fn handle(epoll: &Epoll, listener: &OwnedFd, registry: &mut Registry, event: EpollEvent) {
    if event.data() == LISTENER {
        // An error is that of one client, gone before it was let in, or a lack of descriptors that passes.
        if let Ok(Some(peer)) = socket::accept(listener.as_fd()) {
            let id = registry.add(peer);
            if watch(epoll, registry, id).is_err() {
                registry.remove(id);
            }
        }
        return;
    }
    let id = event.data() >> 1;
    let process_ended = event.data() & 1 == 1;
    let readable = event.events().contains(EpollFlags::EPOLLIN);
    if process_ended || !readable || !registry.serve_one(id) {
        // Closing the descriptors takes them out of the epoll set.
        registry.remove(id);
    }
}

/// Puts both descriptors of connection `id` into the epoll set.
fn watch(epoll: &Epoll, registry: &Registry, id: u64) -> nix::Result<()> {
    let Some(peer) = registry.peer(id) else {
        return Ok(());
    };
    let wanted = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
    epoll.add(&peer.socket, EpollEvent::new(wanted, id << 1))?;
    if let Some(process) = &peer.process {
        epoll.add(process, EpollEvent::new(EpollFlags::EPOLLIN, id << 1 | 1))?;
    }
    Ok(())
}

/// Two descriptors a client and one an export: the usual soft limit of 1024 is soon reached.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // With the old limit the node still works, for fewer clients.
        let _kept = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
