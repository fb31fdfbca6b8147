//! What the simulated node has: driver, CUDA version and GPUs, read from a TOML file.
//!
//! Owns the file's grammar and every default. It must never look at the machine: the same file gives the same
//! node everywhere, so that tests can compare what they see with what they wrote. The default node follows what
//! an H200 SXM says of itself (`nvidia-smi -q`, CUDA device attributes).
//!
//! ```toml
//! driver_version = "580.95.05"
//! cuda_version = "13.0"
//! context_footprint_mib = 512
//! count = 2                 # GPUs; more entries in [[gpus]] raise it
//!
//! [gpu]                     # what every GPU is, unless its own entry says otherwise
//! name = "NVIDIA H200"
//! vram_mib = 143771
//!
//! [[gpus]]                  # GPU 0
//! uuid = "GPU-11111111-2222-3333-4444-555555555555"
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Bytes in one MiB, the unit of every size in the file.
pub const MIB: u64 = 1 << 20;

/// Most GPUs that one node may have.
pub const MAX_GPUS: usize = 64;

/// Why a node description is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The text is not the TOML that is expected; the message names line and key.
    #[error("{0}")]
    Syntax(String),
    /// A key holds a value that no node can have.
    #[error("{key} = {value:?}: expected {expected}")]
    Value {
        /// The key, with the GPU it belongs to.
        key: String,
        /// The value found.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// One simulated node, with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Driver version, as in `libcuda.so.<version>`.
    pub driver_version: String,
    /// CUDA version of the driver in `cuDriverGetVersion`'s form: 13000 is 13.0.
    pub cuda_version: u32,
    /// Bytes of VRAM that a process's context takes.
    pub context_footprint: u64,
    /// The GPUs, by NVML index.
    pub gpus: Vec<GpuConfig>,
}

/// One simulated GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuConfig {
    /// Product name.
    pub name: String,
    /// UUID text, `GPU-` and 36 characters.
    pub uuid: String,
    /// Board serial number.
    pub serial: String,
    /// Minor number: the GPU's node is `/dev/nvidia<minor>`.
    pub minor: u32,
    /// PCI domain.
    pub pci_domain: u32,
    /// PCI bus.
    pub pci_bus: u32,
    /// PCI device on its bus.
    pub pci_device: u32,
    /// PCI device and vendor id as NVML gives them: device in the high half, 0x10DE in the low one.
    pub pci_device_id: u32,
    /// PCI subsystem id, in the same form.
    pub pci_subsystem_id: u32,
    /// Bytes of VRAM on the card.
    pub vram: u64,
    /// Bytes of it that the driver keeps for itself.
    pub reserved: u64,
    /// Streaming multiprocessors.
    pub sm_count: u32,
    /// Compute capability: major, minor.
    pub compute_capability: (u32, u32),
    /// Highest SM clock in MHz.
    pub sm_clock_mhz: u32,
    /// Highest memory clock in MHz.
    pub memory_clock_mhz: u32,
    /// Memory bus width in bits.
    pub memory_bus_bits: u32,
    /// L2 cache in bytes.
    pub l2_bytes: u32,
    /// Power limit in milliwatts.
    pub power_limit_mw: u32,
}

impl GpuConfig {
    /// The UUID's 16 bytes.
    pub fn uuid_bytes(&self) -> [u8; 16] {
        parse_uuid(&self.uuid).unwrap_or_default()
    }

    /// The bus id as NVML and CUDA print it, `00000000:1B:00.0`.
    pub fn pci_bus_id(&self) -> String {
        format!(
            "{:08X}:{:02X}:{:02X}.0",
            self.pci_domain, self.pci_bus, self.pci_device
        )
    }

    /// Bytes that applications can have: VRAM less the driver's reserve.
    pub fn usable(&self) -> u64 {
        self.vram - self.reserved
    }
}

impl NodeConfig {
    /// Reads `path`; the default node where none is given.
    ///
    /// # Errors
    /// [`ConfigError`] when the file cannot be read or describes no node.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else {
            return Self::parse("");
        };
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Parses the text of a node description.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that is wrong.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: NodeFile =
            toml::from_str(text).map_err(|error| ConfigError::Syntax(one_line(text, &error)))?;
        file.resolve()
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeFile::default()
            .resolve()
            .expect("the defaults describe a node")
    }
}

/// A TOML error on one line, with the line number and the key's line quoted.
fn one_line(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', " ");
    let Some(span) = error.span() else {
        return message;
    };
    let start = span.start.min(text.len());
    let number = text[..start].matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    format!("line {number}, `{line}`: {message}")
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    driver_version: Option<String>,
    cuda_version: Option<String>,
    context_footprint_mib: Option<u64>,
    count: Option<usize>,
    #[serde(default)]
    gpu: GpuFile,
    #[serde(default)]
    gpus: Vec<GpuFile>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct GpuFile {
    name: Option<String>,
    uuid: Option<String>,
    serial: Option<String>,
    minor: Option<u32>,
    pci_bus_id: Option<String>,
    pci_device_id: Option<u32>,
    pci_subsystem_id: Option<u32>,
    vram_mib: Option<u64>,
    reserved_mib: Option<u64>,
    sm_count: Option<u32>,
    compute_capability: Option<String>,
    sm_clock_mhz: Option<u32>,
    memory_clock_mhz: Option<u32>,
    memory_bus_bits: Option<u32>,
    l2_mib: Option<u32>,
    power_limit_w: Option<u32>,
}

impl NodeFile {
    fn resolve(self) -> Result<NodeConfig, ConfigError> {
        let driver_version = self
            .driver_version
            .unwrap_or_else(|| "580.95.05".to_owned());
        check_driver_version(&driver_version)?;
        let cuda = self.cuda_version.unwrap_or_else(|| "13.0".to_owned());
        let (major, minor) = parse_version("cuda_version", &cuda)?;
        let count = self
            .count
            .unwrap_or(if self.gpus.is_empty() { 2 } else { 0 });
        let count = count.max(self.gpus.len());
        if count > MAX_GPUS {
            return Err(value("count", count, "at most 64 GPUs"));
        }
        let own = |index: usize| self.gpus.get(index).cloned().unwrap_or_default();
        let gpus: Vec<GpuConfig> = (0..count)
            .map(|index| own(index).over(self.gpu.clone()).resolve(index))
            .collect::<Result<_, _>>()?;
        check_distinct(&gpus)?;
        Ok(NodeConfig {
            driver_version,
            cuda_version: major * 1000 + minor * 10,
            context_footprint: self.context_footprint_mib.unwrap_or(512) * MIB,
            gpus,
        })
    }
}

impl GpuFile {
    /// This entry, with what it leaves out taken from `base`.
    fn over(self, base: Self) -> Self {
        Self {
            name: self.name.or(base.name),
            uuid: self.uuid.or(base.uuid),
            serial: self.serial.or(base.serial),
            minor: self.minor.or(base.minor),
            pci_bus_id: self.pci_bus_id.or(base.pci_bus_id),
            pci_device_id: self.pci_device_id.or(base.pci_device_id),
            pci_subsystem_id: self.pci_subsystem_id.or(base.pci_subsystem_id),
            vram_mib: self.vram_mib.or(base.vram_mib),
            reserved_mib: self.reserved_mib.or(base.reserved_mib),
            sm_count: self.sm_count.or(base.sm_count),
            compute_capability: self.compute_capability.or(base.compute_capability),
            sm_clock_mhz: self.sm_clock_mhz.or(base.sm_clock_mhz),
            memory_clock_mhz: self.memory_clock_mhz.or(base.memory_clock_mhz),
            memory_bus_bits: self.memory_bus_bits.or(base.memory_bus_bits),
            l2_mib: self.l2_mib.or(base.l2_mib),
            power_limit_w: self.power_limit_w.or(base.power_limit_w),
        }
    }

    fn resolve(self, index: usize) -> Result<GpuConfig, ConfigError> {
        let key = |name: &str| format!("gpus[{index}].{name}");
        let uuid = self.uuid.unwrap_or_else(|| default_uuid(index));
        parse_uuid(&uuid).ok_or_else(|| {
            value(
                &key("uuid"),
                &uuid,
                "GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx in hexadecimal",
            )
        })?;
        let pci = self.pci_bus_id.unwrap_or_else(|| default_bus_id(index));
        let (pci_domain, pci_bus, pci_device) = parse_bus_id(&pci).ok_or_else(|| {
            value(
                &key("pci_bus_id"),
                &pci,
                "domain:bus:device.0 in hexadecimal",
            )
        })?;
        let name = self.name.unwrap_or_else(|| "NVIDIA H200".to_owned());
        if name.is_empty() || name.len() > 95 {
            return Err(value(&key("name"), &name, "1 to 95 bytes"));
        }
        let vram_mib = self.vram_mib.unwrap_or(143_771);
        let reserved_mib = self
            .reserved_mib
            .unwrap_or_else(|| vram_mib.min(600 * 4) / 4);
        if vram_mib == 0 || vram_mib > 1 << 24 {
            return Err(value(&key("vram_mib"), vram_mib, "1 to 16777216 MiB"));
        }
        if reserved_mib >= vram_mib {
            return Err(value(
                &key("reserved_mib"),
                reserved_mib,
                "less than vram_mib",
            ));
        }
        let capability = self.compute_capability.unwrap_or_else(|| "9.0".to_owned());
        Ok(GpuConfig {
            name,
            uuid,
            serial: self.serial.unwrap_or_else(|| format!("16515240{index:05}")),
            minor: self.minor.unwrap_or(index as u32),
            pci_domain,
            pci_bus,
            pci_device,
            pci_device_id: self.pci_device_id.unwrap_or(0x2335_10DE),
            pci_subsystem_id: self.pci_subsystem_id.unwrap_or(0x18BE_10DE),
            vram: vram_mib * MIB,
            reserved: reserved_mib * MIB,
            sm_count: self.sm_count.unwrap_or(132),
            compute_capability: parse_version(&key("compute_capability"), &capability)?,
            sm_clock_mhz: self.sm_clock_mhz.unwrap_or(1980),
            memory_clock_mhz: self.memory_clock_mhz.unwrap_or(3201),
            memory_bus_bits: self.memory_bus_bits.unwrap_or(6144),
            l2_bytes: self.l2_mib.unwrap_or(60) << 20,
            power_limit_mw: self.power_limit_w.unwrap_or(700) * 1000,
        })
    }
}

fn value(key: &str, found: impl ToString, expected: &'static str) -> ConfigError {
    ConfigError::Value {
        key: key.to_owned(),
        value: found.to_string(),
        expected,
    }
}

/// A driver version becomes part of file names, so it must look like one.
fn check_driver_version(text: &str) -> Result<(), ConfigError> {
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let parts = text.split('.').count();
    if (2..=3).contains(&parts) && text.split('.').all(numeric) {
        return Ok(());
    }
    Err(value(
        "driver_version",
        text,
        "two or three numbers with dots, as in 580.95.05",
    ))
}

fn parse_version(key: &str, text: &str) -> Result<(u32, u32), ConfigError> {
    let parsed = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .filter(|&(major, minor): &(u32, u32)| (1..100).contains(&major) && minor < 10);
    parsed.ok_or_else(|| value(key, text, "major.minor, as in 13.0"))
}

/// Two GPUs with one UUID, minor or PCI address would be one device to every tool.
fn check_distinct(gpus: &[GpuConfig]) -> Result<(), ConfigError> {
    for (index, gpu) in gpus.iter().enumerate() {
        let earlier = &gpus[..index];
        let key = |name: &str| format!("gpus[{index}].{name}");
        let expected = "a value that no other GPU has";
        if earlier.iter().any(|other| other.uuid == gpu.uuid) {
            return Err(value(&key("uuid"), &gpu.uuid, expected));
        }
        if earlier.iter().any(|other| other.minor == gpu.minor) {
            return Err(value(&key("minor"), gpu.minor, expected));
        }
        if earlier
            .iter()
            .any(|other| other.pci_bus_id() == gpu.pci_bus_id())
        {
            return Err(value(&key("pci_bus_id"), gpu.pci_bus_id(), expected));
        }
    }
    Ok(())
}

/// The same UUID for the same index on every machine, yet one that looks like a UUID.
fn default_uuid(index: usize) -> String {
    let mut state = 0x5EED_0F9A_11B0_u64.wrapping_add(index as u64);
    let mut next = || {
        // splitmix64: any good mixer would do; this one needs three lines.
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    };
    let (a, b) = (next(), next());
    format!(
        "GPU-{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        a >> 32,
        (a >> 16) & 0xFFFF,
        a & 0xFFFF,
        b >> 48,
        b & 0xFFFF_FFFF_FFFF
    )
}

fn default_bus_id(index: usize) -> String {
    // An HGX board's first four bus numbers, then on in steps of one.
    const HGX: [u32; 8] = [0x1B, 0x43, 0x52, 0x61, 0x9D, 0xC3, 0xD1, 0xDF];
    let (domain, bus) = match HGX.get(index) {
        Some(&bus) => (0, bus),
        None => (1, index as u32),
    };
    format!("{domain:08X}:{bus:02X}:00.0")
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let hex = text.strip_prefix("GPU-")?;
    let lengths: Vec<usize> = hex.split('-').map(str::len).collect();
    if lengths != [8, 4, 4, 4, 12] {
        return None;
    }
    let digits: Vec<u8> = hex.bytes().filter(|&b| b != b'-').collect();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(bytes)
}

fn parse_bus_id(text: &str) -> Option<(u32, u32, u32)> {
    let text = text.strip_suffix(".0")?;
    let mut parts = text
        .split(':')
        .map(|part| u32::from_str_radix(part, 16).ok());
    let (domain, bus, device) = (parts.next()??, parts.next()??, parts.next()??);
    let fits = bus <= 0xFF && device <= 0x1F && parts.next().is_none();
    fits.then_some((domain, bus, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_node_is_two_h200() {
        let node = NodeConfig::default();
        assert_eq!(node.cuda_version, 13000);
        assert_eq!(node.gpus.len(), 2);
        assert_eq!(node.gpus[0].vram, 143_771 * MIB);
        assert_eq!(node.gpus[0].reserved, 600 * MIB);
        assert_ne!(node.gpus[0].uuid, node.gpus[1].uuid);
        assert_eq!(node.gpus[0].pci_bus_id(), "00000000:1B:00.0");
    }

    #[test]
    fn an_entry_overrides_the_common_table() {
        let text = "count = 3\n[gpu]\nvram_mib = 100\n[[gpus]]\nname = \"A\"\nminor = 7\n";
        let node = NodeConfig::parse(text).unwrap();
        assert_eq!(node.gpus.len(), 3);
        assert_eq!((node.gpus[0].name.as_str(), node.gpus[0].minor), ("A", 7));
        assert_eq!(node.gpus[2].vram, 100 * MIB);
        assert_eq!(node.gpus[2].reserved, 25 * MIB);
    }

    #[test]
    fn errors_name_the_key() {
        let error = |text: &str| NodeConfig::parse(text).unwrap_err().to_string();
        assert!(error("vram = 3").contains("vram"), "{}", error("vram = 3"));
        assert!(error("[[gpus]]\nuuid = \"x\"").starts_with("gpus[0].uuid = \"x\""));
        assert!(error("driver_version = \"../x\"").starts_with("driver_version"));
        assert!(error("cuda_version = \"13\"").starts_with("cuda_version"));
        assert!(error("[gpu]\nminor = 0").starts_with("gpus[1].minor"));
        assert!(error("[gpu]\nvram_mib = \"x\"").starts_with("line 2, `vram_mib"));
        assert!(error("count = 65").starts_with("count"));
    }

    #[test]
    fn the_page_form_reads_back() {
        let node = NodeConfig::default();
        let text = serde_json::to_string(&node).unwrap();
        assert_eq!(serde_json::from_str::<NodeConfig>(&text).unwrap(), node);
    }
}
