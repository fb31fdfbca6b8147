//! The mapping behind a node page, and the only place that makes references into it.
//!
//! # Safety
//! A [`Page`] owns a shared mapping of exactly [`page_len`] bytes of a memfd that is sealed against shrinking, so
//! an offset below that length can always be read and written. Every type that is handed out is made of atomics,
//! for which all bit patterns are valid and concurrent change from other processes is allowed.

#![allow(unsafe_code, reason = "shared memory between processes")]

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Relaxed;

use crate::config::NodeConfig;
use crate::page::layout::{
    CONFIG_OFFSET, CONFIG_ROOM, DEVICES_OFFSET, DeviceWords, Header, MAGIC, SLOTS, ShareWords,
    SlotWords, VERSION, page_len, share_offset, slot_offset,
};

/// Why a page cannot be made or mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The system refused.
    #[error("cannot {step} the node page")]
    Io {
        /// What was being done.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The memory is not a node page of this version.
    #[error("not a node page: {what} is {found}, expected {expected}")]
    Foreign {
        /// The word that is off.
        what: &'static str,
        /// Its value.
        found: u64,
        /// What it has to be.
        expected: u64,
    },
    /// The description does not parse, or does not fit.
    #[error("the node page's description is broken: {0}")]
    Description(String),
}

fn io_error(step: &'static str) -> MapError {
    MapError::Io {
        step,
        source: io::Error::last_os_error(),
    }
}

/// A mapped node page.
#[derive(Debug)]
pub struct Page {
    base: NonNull<c_void>,
    devices: usize,
    file: File,
}

// SAFETY: the mapping stays where it is for the page's life and everything in it is atomic.
unsafe impl Send for Page {}
// SAFETY: as above; shared references only ever reach atomics.
unsafe impl Sync for Page {}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: `base` and the length are those of the mapping made in `map`, which nothing else unmaps.
        let _freed = unsafe { libc::munmap(self.base.as_ptr(), page_len(self.devices)) };
    }
}

impl Page {
    /// Makes the page of a new node.
    ///
    /// # Errors
    /// [`MapError`] when the system has no memory for it.
    pub fn create(config: &NodeConfig) -> Result<Self, MapError> {
        let file = new_memfd(page_len(config.gpus.len()))?;
        let text =
            serde_json::to_vec(config).map_err(|error| MapError::Description(error.to_string()))?;
        if text.len() > CONFIG_ROOM {
            return Err(MapError::Description(format!(
                "{} bytes of {CONFIG_ROOM}",
                text.len()
            )));
        }
        file.write_all_at(&text, CONFIG_OFFSET as u64)
            .map_err(|source| MapError::Io {
                step: "describe",
                source,
            })?;
        let page = Self::map(file, config.gpus.len())?;
        page.describe(config, text.len());
        Ok(page)
    }

    fn describe(&self, config: &NodeConfig, config_len: usize) {
        for (index, gpu) in config.gpus.iter().enumerate() {
            let words = self.device(index);
            words.capacity.store(gpu.usable(), Relaxed);
            words.footprint.store(config.context_footprint, Relaxed);
            words.persistence.store(1, Relaxed);
        }
        let header = self.header();
        header.magic.store(MAGIC, Relaxed);
        header.version.store(VERSION, Relaxed);
        header.devices.store(config.gpus.len() as u32, Relaxed);
        header.slots.store(SLOTS as u32, Relaxed);
        header.config_len.store(config_len as u64, Relaxed);
    }

    /// Maps a page that the daemon handed over, and reads the node's description from it.
    ///
    /// # Errors
    /// [`MapError`] when it is no node page of this version.
    ///
    /// # Panics
    /// Never: the words are read from a buffer that holds them.
    pub fn open(memfd: OwnedFd) -> Result<(Self, NodeConfig), MapError> {
        // Reads name their place: all clients share one file offset, since all have the daemon's descriptor.
        let file = File::from(memfd);
        let mut head = [0; size_of::<Header>()];
        let read_error = |source| MapError::Io {
            step: "read",
            source,
        };
        file.read_exact_at(&mut head, 0).map_err(read_error)?;
        let word = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        let devices = word(12) as usize;
        let length = file.metadata().map_err(read_error)?.len();
        let expect = |what, found: u64, expected: u64| {
            let same = found == expected;
            same.then_some(()).ok_or(MapError::Foreign {
                what,
                found,
                expected,
            })
        };
        expect(
            "the magic number",
            u64::from(word(4)) << 32 | u64::from(word(0)),
            MAGIC,
        )?;
        expect("the version", word(8).into(), VERSION.into())?;
        expect("the slot count", word(16).into(), SLOTS as u64)?;
        expect("the length", length, page_len(devices) as u64)?;
        let mut text = vec![0; (word(24) as usize).min(CONFIG_ROOM)];
        file.read_exact_at(&mut text, CONFIG_OFFSET as u64)
            .map_err(read_error)?;
        let config: NodeConfig = serde_json::from_slice(&text)
            .map_err(|error| MapError::Description(error.to_string()))?;
        expect(
            "the number of GPUs",
            config.gpus.len() as u64,
            devices as u64,
        )?;
        Ok((Self::map(file, devices)?, config))
    }

    fn map(file: File, devices: usize) -> Result<Self, MapError> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let (length, fd) = (page_len(devices), file.as_raw_fd());
        // SAFETY: a new shared mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                access,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io_error("map"));
        }
        let base = NonNull::new(base).ok_or_else(|| io_error("map"))?;
        Ok(Self {
            base,
            devices,
            file,
        })
    }

    /// The memfd, to hand to another process.
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// GPUs on the page.
    pub fn devices(&self) -> usize {
        self.devices
    }

    pub(super) fn header(&self) -> &Header {
        self.at(0)
    }

    /// The words of GPU `index`.
    ///
    /// # Panics
    /// When the page has no such GPU.
    pub fn device(&self, index: usize) -> &DeviceWords {
        assert!(index < self.devices, "GPU {index} of {}", self.devices);
        self.at(DEVICES_OFFSET + index * size_of::<DeviceWords>())
    }

    /// The words of client slot `index`.
    ///
    /// # Panics
    /// When the page has no such slot.
    pub fn slot(&self, index: u32) -> &SlotWords {
        let index = index as usize;
        assert!(index < SLOTS, "slot {index} of {SLOTS}");
        self.at(slot_offset(self.devices, index))
    }

    /// What slot `slot` has on GPU `device`.
    ///
    /// # Panics
    /// When the page has no such slot or GPU.
    pub fn share(&self, slot: u32, device: usize) -> &ShareWords {
        let slot = slot as usize;
        assert!(
            slot < SLOTS && device < self.devices,
            "slot {slot}, GPU {device}"
        );
        self.at(share_offset(self.devices, slot, device))
    }

    /// A reference to the words at `offset`. `T` must consist of atomics; all callers are above.
    fn at<T>(&self, offset: usize) -> &T {
        assert!(
            offset + size_of::<T>() <= page_len(self.devices),
            "offset {offset}"
        );
        // SAFETY: the offset is inside the mapping (just checked).
        let pointer = unsafe { self.base.byte_add(offset) }.cast::<T>();
        assert!(pointer.is_aligned(), "offset {offset}");
        // SAFETY: in bounds and aligned (checked above), alive as long as `self`, and made of atomics.
        unsafe { pointer.as_ref() }
    }
}

/// A memfd of `length` zero bytes that can never shrink under a mapping.
fn new_memfd(length: usize) -> Result<File, MapError> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // The bare system call: glibc has a function for it since 2.27 only, and these libraries run in older images.
    // SAFETY: the name is a NUL-terminated literal; the call touches no other memory.
    let fd = unsafe { libc::syscall(libc::SYS_memfd_create, c"sim-gpu-node".as_ptr(), flags) };
    if fd < 0 {
        return Err(io_error("create"));
    }
    // SAFETY: `fd` was just returned by the kernel and belongs to nobody else.
    let file = unsafe { File::from_raw_fd(fd as i32) };
    file.set_len(length as u64).map_err(|source| MapError::Io {
        step: "size",
        source,
    })?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    // SAFETY: F_ADD_SEALS takes an integer; no memory is involved.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io_error("seal"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_describes_its_node_to_whoever_maps_it() {
        let config = NodeConfig::default();
        let page = Page::create(&config).unwrap();
        let (other, read) = Page::open(page.memfd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(read, config);
        page.share(SLOTS as u32 - 1, 1).held.store(7, Relaxed);
        assert_eq!(other.share(SLOTS as u32 - 1, 1).held.load(Relaxed), 7);
    }

    #[test]
    fn foreign_memory_is_refused() {
        let file = new_memfd(page_len(1)).unwrap();
        let error = Page::open(file.into()).unwrap_err().to_string();
        assert!(error.contains("magic"), "{error}");
    }
}
