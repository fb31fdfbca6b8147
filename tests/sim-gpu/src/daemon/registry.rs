//! Who is connected, which slot each has, and what memory they have exported.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{Relaxed, Release};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::daemon::socket::Peer;
use crate::page::layout::SLOTS;
use crate::page::{DAEMON, Page, now};
use crate::wire::{self, Message, Operation, Status, WIRE_VERSION};

/// One connection.
#[derive(Debug)]
struct Connection {
    peer: Peer,
    /// Given out by the first message.
    slot: Option<u32>,
}

/// Memory that a client has exported.
#[derive(Debug)]
struct Export {
    owner: u64,
    memfd: OwnedFd,
}

/// All clients of the node.
#[derive(Debug)]
pub(super) struct Registry {
    page: Page,
    connections: HashMap<u64, Connection>,
    exports: HashMap<u64, Export>,
    next_connection: u64,
    next_export: u64,
}

/// An answer and the descriptor that goes with it.
type Answer = (Status, [u64; 3], Option<OwnedFd>);

impl Registry {
    pub(super) fn new(page: Page) -> Self {
        // Numbers from an earlier life of the node must not name something else now.
        let next_export = now() << 8;
        let (connections, exports) = (HashMap::new(), HashMap::new());
        Self {
            page,
            connections,
            exports,
            next_connection: 0,
            next_export,
        }
    }

    pub(super) fn add(&mut self, peer: Peer) -> u64 {
        self.next_connection += 1;
        self.connections
            .insert(self.next_connection, Connection { peer, slot: None });
        self.next_connection
    }

    pub(super) fn peer(&self, id: u64) -> Option<&Peer> {
        self.connections.get(&id).map(|connection| &connection.peer)
    }

    /// Answers one message of connection `id`; false when the connection is at its end.
    pub(super) fn serve_one(&mut self, id: u64) -> bool {
        let Some(connection) = self.connections.get(&id) else {
            return true; // removed by an earlier event of the same round
        };
        let (message, passed) = match wire::receive(connection.peer.socket.as_fd()) {
            Ok(Some(message)) => message,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return true,
            Ok(None) | Err(_) => return false,
        };
        let (status, words, memfd) = self.answer(id, message, passed);
        let answer = Message {
            code: status as u32,
            words,
        };
        let Some(connection) = self.connections.get(&id) else {
            return false;
        };
        wire::send(
            connection.peer.socket.as_fd(),
            answer,
            memfd.as_ref().map(OwnedFd::as_fd),
        )
        .is_ok()
    }

    fn answer(&mut self, id: u64, message: Message, passed: Option<OwnedFd>) -> Answer {
        let introduced = self
            .connections
            .get(&id)
            .is_some_and(|known| known.slot.is_some());
        let [first, second, _] = message.words;
        match Operation::from_number(message.code) {
            Some(Operation::Hello) if !introduced && first == WIRE_VERSION => {
                self.introduce(id, second as u32)
            }
            Some(Operation::Export) if introduced => self.export(id, passed),
            Some(Operation::Import) if introduced => {
                let export = self.exports.get(&first);
                let memfd = export.and_then(|export| export.memfd.try_clone().ok());
                let status = if memfd.is_some() {
                    Status::Ok
                } else {
                    Status::Unknown
                };
                (status, [first, 0, 0], memfd)
            }
            Some(Operation::Unexport) if introduced => {
                let own = self
                    .exports
                    .get(&first)
                    .is_some_and(|export| export.owner == id);
                if own {
                    self.exports.remove(&first);
                }
                (if own { Status::Ok } else { Status::Unknown }, [0; 3], None)
            }
            _ => (Status::Invalid, [0; 3], None),
        }
    }

    /// Gives connection `id` a slot.
    fn introduce(&mut self, id: u64, kind: u32) -> Answer {
        let free = (0..SLOTS as u32).find(|&slot| self.generation(slot).is_multiple_of(2));
        let (Some(slot), Some(connection)) = (free, self.connections.get_mut(&id)) else {
            return (Status::Full, [0; 3], None);
        };
        let Ok(memfd) = self.page.memfd().try_clone_to_owned() else {
            return (Status::Full, [0; 3], None);
        };
        connection.slot = Some(slot);
        let pid = connection.peer.pid;
        let words = self.page.slot(slot);
        words.pid.store(pid, Relaxed);
        words.kind.store(kind, Relaxed);
        words.since.store(now(), Relaxed);
        let generation = words.generation.load(Relaxed) + 1;
        words.generation.store(generation, Release);
        let numbers = [u64::from(slot), generation, u64::from(pid)];
        (Status::Ok, numbers, Some(memfd))
    }

    fn export(&mut self, owner: u64, passed: Option<OwnedFd>) -> Answer {
        let Some(memfd) = passed else {
            return (Status::Invalid, [0; 3], None);
        };
        self.next_export += 1;
        self.exports
            .insert(self.next_export, Export { owner, memfd });
        (Status::Ok, [self.next_export, 0, 0], None)
    }

    fn generation(&self, slot: u32) -> u64 {
        self.page.slot(slot).generation.load(Relaxed)
    }

    /// Connection `id` is over: what its client held is free again.
    pub(super) fn remove(&mut self, id: u64) {
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        self.exports.retain(|_, export| export.owner != id);
        let Some(slot) = connection.slot else {
            return;
        };
        // It may have died inside the lock; so may another one whose end has not been read yet.
        self.page.break_lock(slot);
        let locked = self.page.lock_or(DAEMON, |owner| {
            if self.is_dead(owner) {
                self.page.break_lock(owner);
            }
        });
        // A live owner that holds on for ten seconds is stopped, and must not stop the node.
        let guard = locked.unwrap_or_else(|_| self.page.seize_lock());
        guard.wipe(slot, now());
        self.page.slot(slot).generation.fetch_add(1, Release);
        guard.recompute();
    }

    /// Whether the client in `slot` has ended, whatever has been read of it.
    fn is_dead(&self, slot: u32) -> bool {
        let owner = self
            .connections
            .values()
            .find(|known| known.slot == Some(slot));
        let Some(Peer {
            socket, process, ..
        }) = owner.map(|known| &known.peer)
        else {
            return slot != DAEMON;
        };
        let mut watched = vec![PollFd::new(socket.as_fd(), PollFlags::POLLHUP)];
        watched.extend(
            process
                .as_ref()
                .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)),
        );
        poll(&mut watched, PollTimeout::ZERO).is_ok_and(|ended| ended > 0)
    }
}
