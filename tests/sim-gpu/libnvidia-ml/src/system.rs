//! The node as a whole: versions, error texts, handles of GPUs, process names.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fs;

use vgpu_cuda_sys::nvml::*;
use vgpu_cuda_sys::{In, Out};

use crate::answer::{
    Answer, Failure, INVALID, characters, expect_version, put, put_characters, put_text, text_of,
};
use crate::handle::{self, Gpu};

/// `nvmlErrorString`: the texts of NVIDIA's library.
pub(crate) fn error_text(code: nvmlReturn_t) -> *const c_char {
    let text: &CStr = match code {
        NVML_SUCCESS => c"Success",
        NVML_ERROR_UNINITIALIZED => c"Uninitialized",
        NVML_ERROR_INVALID_ARGUMENT => c"Invalid Argument",
        NVML_ERROR_NOT_SUPPORTED => c"Not Supported",
        NVML_ERROR_NO_PERMISSION => c"Insufficient Permissions",
        NVML_ERROR_ALREADY_INITIALIZED => c"Already Initialized",
        NVML_ERROR_NOT_FOUND => c"Not Found",
        NVML_ERROR_INSUFFICIENT_SIZE => c"Insufficient Size",
        NVML_ERROR_INSUFFICIENT_POWER => c"Insufficient External Power",
        NVML_ERROR_DRIVER_NOT_LOADED => c"Driver Not Loaded",
        NVML_ERROR_TIMEOUT => c"Timeout",
        NVML_ERROR_IRQ_ISSUE => c"Interrupt Request Issue",
        NVML_ERROR_LIBRARY_NOT_FOUND => c"NVML Shared Library Not Found",
        NVML_ERROR_FUNCTION_NOT_FOUND => c"Function Not Found",
        NVML_ERROR_CORRUPTED_INFOROM => c"Corrupted infoROM",
        NVML_ERROR_GPU_IS_LOST => c"GPU is lost",
        NVML_ERROR_RESET_REQUIRED => c"GPU requires restart",
        NVML_ERROR_OPERATING_SYSTEM => c"The operating system has blocked the request.",
        NVML_ERROR_LIB_RM_VERSION_MISMATCH => c"RM has detected an NVML/RM version mismatch.",
        NVML_ERROR_IN_USE => c"In use by another client",
        NVML_ERROR_MEMORY => c"Insufficient Memory",
        NVML_ERROR_NO_DATA => c"No data",
        NVML_ERROR_INSUFFICIENT_RESOURCES => c"Insufficient Resources",
        NVML_ERROR_FREQ_NOT_SUPPORTED => c"Frequency Not Supported",
        NVML_ERROR_ARGUMENT_VERSION_MISMATCH => c"The provided version is invalid/unsupported",
        NVML_ERROR_DEPRECATED => c"The requested functionality has been deprecated",
        NVML_ERROR_NOT_READY => c"The system is not ready for the request",
        NVML_ERROR_GPU_NOT_FOUND => c"No GPUs were found",
        NVML_ERROR_INVALID_STATE => c"Resource not in correct state to perform requested operation",
        _ => c"Unknown Error",
    };
    text.as_ptr()
}

pub(crate) fn driver_version(out: Out<c_char>, length: c_uint) -> Answer {
    put_text(out, length, &handle::node()?.config().driver_version)
}

/// The version of this library: CUDA's major version, then the driver's.
pub(crate) fn nvml_version(out: Out<c_char>, length: c_uint) -> Answer {
    let config = handle::node()?.config();
    let (major, driver) = (config.cuda_version / 1000, &config.driver_version);
    put_text(out, length, &format!("{major}.{driver}"))
}

pub(crate) fn cuda_version(out: Out<c_int>) -> Answer {
    put(out, handle::node()?.config().cuda_version as c_int)
}

pub(crate) fn driver_branch(out: Out<nvmlSystemDriverBranchInfo_t>, length: c_uint) -> Answer {
    let driver = &handle::node()?.config().driver_version;
    expect_version(out, 1)?;
    let branch = format!("r{}_00", driver.split('.').next().unwrap_or_default());
    if (length as usize) <= branch.len() {
        return Err(Failure(NVML_ERROR_INSUFFICIENT_SIZE));
    }
    let version = out.read().ok_or(INVALID)?.version;
    put(
        out,
        nvmlSystemDriverBranchInfo_t {
            version,
            branch: characters(&branch),
        },
    )
}

pub(crate) fn count(out: Out<c_uint>) -> Answer {
    put(out, handle::gpus()?.len() as c_uint)
}

/// The count of something that this node has none of.
pub(crate) fn none(out: Out<c_uint>) -> Answer {
    handle::node()?;
    put(out, 0)
}

pub(crate) fn by_index(index: c_uint, out: Out<nvmlDevice_t>) -> Answer {
    let gpus = handle::gpus()?;
    let gpu = gpus.get(index as usize).ok_or(INVALID)?;
    put(out, handle::handle_of(gpu))
}

pub(crate) fn by_uuid(uuid: In<c_char>, out: Out<nvmlDevice_t>) -> Answer {
    handle::node()?;
    let uuid = text_of(uuid)?;
    handle::find(out, |gpu| gpu.config.uuid.eq_ignore_ascii_case(&uuid))
}

/// By a UUID in text or binary form.
pub(crate) fn by_uuid_value(uuid: In<nvmlUUID_t>, out: Out<nvmlDevice_t>) -> Answer {
    handle::node()?;
    let uuid = uuid.read().ok_or(INVALID)?;
    if uuid.version != crate::answer::version::<nvmlUUID_t>(1) {
        return Err(Failure(NVML_ERROR_ARGUMENT_VERSION_MISMATCH));
    }
    let bytes = uuid_value_bytes(&uuid);
    match uuid.type_ {
        NVML_UUID_TYPE_ASCII => {
            let end = bytes.iter().position(|&byte| byte == 0).ok_or(INVALID)?;
            let text = String::from_utf8_lossy(&bytes[..end]).into_owned();
            handle::find(out, |gpu| gpu.config.uuid.eq_ignore_ascii_case(&text))
        }
        NVML_UUID_TYPE_BINARY => handle::find(out, |gpu| gpu.config.uuid_bytes() == bytes[..16]),
        _ => Err(INVALID),
    }
}

/// The bytes of the union, whichever member the caller has set.
#[allow(unsafe_code, reason = "reading a C union")]
fn uuid_value_bytes(uuid: &nvmlUUID_t) -> [u8; NVML_DEVICE_UUID_ASCII_LEN as usize] {
    // SAFETY: the text member covers the whole union and every bit pattern is a valid character array.
    unsafe { uuid.value.str_ }.map(|character| character as u8)
}

pub(crate) fn by_serial(serial: In<c_char>, out: Out<nvmlDevice_t>) -> Answer {
    handle::node()?;
    let serial = text_of(serial)?;
    handle::find(out, |gpu| gpu.config.serial == serial)
}

/// By a PCI address, with four or eight digits of domain or none, and with or without the function.
pub(crate) fn by_bus_id(bus_id: In<c_char>, out: Out<nvmlDevice_t>) -> Answer {
    handle::node()?;
    let address = pci_address(&text_of(bus_id)?).ok_or(INVALID)?;
    let own = |gpu: &Gpu| {
        (
            gpu.config.pci_domain,
            gpu.config.pci_bus,
            gpu.config.pci_device,
        )
    };
    handle::find(out, |gpu| own(gpu) == address)
}

fn pci_address(text: &str) -> Option<(u32, u32, u32)> {
    let text = text
        .split_once('.')
        .map_or(text, |(address, _function)| address);
    let mut parts = text
        .rsplit(':')
        .map(|part| u32::from_str_radix(part, 16).ok());
    let (device, bus) = (parts.next()??, parts.next()??);
    let domain = parts.next().unwrap_or(Some(0))?;
    Some((domain, bus, device))
}

/// The program of a process, where this process may see it; cut to the room that there is.
pub(crate) fn process_name(pid: c_uint, out: Out<c_char>, length: c_uint) -> Answer {
    handle::node()?;
    if length == 0 {
        return Err(INVALID);
    }
    let command = fs::read(format!("/proc/{pid}/cmdline"));
    let command = command.map_err(|_| Failure(NVML_ERROR_NOT_FOUND))?;
    let name = command.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = &name[..name.len().min(length as usize - 1)];
    put_characters(out, &String::from_utf8_lossy(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_come_in_several_lengths() {
        for text in ["00000000:1B:00.0", "0000:1b:00.0", "1B:00", "0:1b:0"] {
            assert_eq!(pci_address(text), Some((0, 0x1B, 0)), "{text}");
        }
        assert_eq!(pci_address("GPU-1"), None);
        assert_eq!(pci_address(""), None);
    }
}
