//! The messages between a client and its node's daemon.
//!
//! The socket is `SOCK_SEQPACKET`: one message is one packet of [`MESSAGE_LEN`] bytes, with at most one descriptor
//! beside it. A client asks, the daemon answers each request once, in order. The first request is
//! [`Operation::Hello`]; its answer carries the node page.
//!
//! # Safety
//! The two functions that talk to the kernel build their `msghdr` from locals that live through the call.

#![allow(
    unsafe_code,
    reason = "descriptors travel in control messages, which std cannot send"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Length of every message.
pub const MESSAGE_LEN: usize = 32;
/// Version of the messages; the daemon refuses another one.
pub const WIRE_VERSION: u64 = 1;
/// Where the daemon listens, below the driver root: the place of a socket that generators mount into containers.
pub const SOCKET: &str = "run/nvidia-persistenced/socket";

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Operation {
    /// A slot. `words[0]` = [`WIRE_VERSION`], `words[1]` = kind; answer: slot, generation, pid; the page.
    Hello = 1,
    /// Keep the memfd that comes along; answer: its number.
    Export = 2,
    /// The memfd with number `words[0]`.
    Import = 3,
    /// Drop the memfd with number `words[0]`, which the asker exported.
    Unexport = 4,
}

impl Operation {
    /// The operation with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Hello, Self::Export, Self::Import, Self::Unexport]
            .into_iter()
            .find(|&operation| operation as u32 == number)
    }
}

/// How the daemon answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// All slots are taken.
    Full = 1,
    /// No such number, or not the asker's.
    Unknown = 2,
    /// The request makes no sense, or speaks another version.
    Invalid = 3,
}

impl Status {
    /// The status with this number; anything foreign is invalid.
    pub fn from_number(number: u32) -> Self {
        [Self::Ok, Self::Full, Self::Unknown]
            .into_iter()
            .find(|&status| status as u32 == number)
            .unwrap_or(Self::Invalid)
    }
}

/// One message without its descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// [`Operation`] in a request, [`Status`] in an answer.
    pub code: u32,
    /// Its numbers.
    pub words: [u64; 3],
}

impl Message {
    fn to_bytes(self) -> [u8; MESSAGE_LEN] {
        let mut bytes = [0; MESSAGE_LEN];
        bytes[..4].copy_from_slice(&self.code.to_ne_bytes());
        for (chunk, word) in bytes[8..].chunks_exact_mut(8).zip(self.words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; MESSAGE_LEN]) -> Self {
        let word = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let code = u32::from_ne_bytes(bytes[..4].try_into().expect("4 bytes"));
        Self {
            code,
            words: [word(8), word(16), word(24)],
        }
    }
}

/// Room for one descriptor in a control message, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

/// Sends one message, with a descriptor beside it where one is given.
///
/// # Errors
/// What the system said; `WriteZero` never happens on this kind of socket.
pub fn send(
    socket: BorrowedFd<'_>,
    message: Message,
    passed: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut bytes = message.to_bytes();
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: MESSAGE_LEN,
    };
    let mut control = Control([0; 64]);
    let mut header = empty_header();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if let Some(passed) = passed {
        attach(&mut header, &mut control, passed);
    }
    // SAFETY: every pointer in `header` is to a local of the length given beside it.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_NOSIGNAL) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Receives one message; `None` when the other side is gone.
///
/// # Errors
/// What the system said, or `InvalidData` for a packet of another length.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
    let mut bytes = [0_u8; MESSAGE_LEN];
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: MESSAGE_LEN,
    };
    let mut control = Control([0; 64]);
    let mut header = empty_header();
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    let flags = libc::MSG_CMSG_CLOEXEC;
    // SAFETY: every pointer in `header` is to a local of the length given beside it.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    let passed = detach(&header);
    match got as usize {
        0 => Ok(None),
        MESSAGE_LEN => Ok(Some((Message::from_bytes(&bytes), passed))),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn empty_header() -> libc::msghdr {
    // SAFETY: msghdr is a C structure for which all zeroes is the empty value.
    unsafe { std::mem::zeroed() }
}

/// Puts `passed` into `control` and that into `header`.
fn attach(header: &mut libc::msghdr, control: &mut Control, passed: BorrowedFd<'_>) {
    const FD: u32 = size_of::<libc::c_int>() as u32;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: pure arithmetic.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(FD) } as _;
    // SAFETY: the header's control buffer is the aligned one above, larger than one descriptor needs.
    let first = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: `first` points into that buffer, which is aligned for a cmsghdr and lives on.
    let first = unsafe { &mut *first };
    first.cmsg_level = libc::SOL_SOCKET;
    first.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: pure arithmetic.
    first.cmsg_len = unsafe { libc::CMSG_LEN(FD) } as _;
    // SAFETY: the data follows the header that was just filled in.
    let data = unsafe { libc::CMSG_DATA(first) }.cast::<libc::c_int>();
    // SAFETY: CMSG_SPACE above left room for one descriptor there.
    unsafe { data.write_unaligned(passed.as_raw_fd()) };
}

/// The descriptor that came with a message. The buffer has room for a few: extra ones are closed.
fn detach(header: &libc::msghdr) -> Option<OwnedFd> {
    let mut passed = None;
    // SAFETY: the kernel has filled the header's control buffer and set its length.
    let mut control = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !control.is_null() {
        // SAFETY: a non-null result points to a whole cmsghdr inside the buffer, which is aligned for it.
        let found = unsafe { &*control };
        let (level, kind, length) = (found.cmsg_level, found.cmsg_type, found.cmsg_len as usize);
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: pure arithmetic.
            let head = unsafe { libc::CMSG_LEN(0) } as usize;
            // SAFETY: the data follows the cmsghdr, inside the buffer.
            let data = unsafe { libc::CMSG_DATA(control) }.cast::<libc::c_int>();
            for index in 0..length.saturating_sub(head) / size_of::<libc::c_int>() {
                // SAFETY: the message's length says that descriptor `index` is there.
                let place = unsafe { data.add(index) };
                // SAFETY: as above.
                let fd = unsafe { place.read_unaligned() };
                // SAFETY: the kernel has just put this descriptor into our table for us alone.
                let owned = unsafe { OwnedFd::from_raw_fd(fd) };
                passed.get_or_insert(owned);
            }
        }
        // SAFETY: both pointers are the kernel's; the result is null at the end.
        control = unsafe { libc::CMSG_NXTHDR(header, control) };
    }
    passed
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_message_and_its_descriptor_arrive() {
        let (left, right) = UnixDatagram::pair().unwrap();
        let message = Message {
            code: 7,
            words: [1, 2, u64::MAX],
        };
        let zero = File::open("/dev/zero").unwrap();
        send(left.as_fd(), message, Some(zero.as_fd())).unwrap();
        let (got, passed) = receive(right.as_fd()).unwrap().unwrap();
        assert_eq!(got, message);
        let mut byte = [1];
        File::from(passed.unwrap()).read_exact(&mut byte).unwrap();
        assert_eq!(byte, [0]);
    }

    #[test]
    fn a_packet_of_another_length_is_an_error() {
        let (left, right) = UnixDatagram::pair().unwrap();
        left.send(b"short").unwrap();
        assert_eq!(
            receive(right.as_fd()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
