//! A CDI spec as data, field by field, without behaviour.
//!
//! Unknown fields are refused on reading, because every engine refuses them; absent fields are left out on writing.
//! **Source:** CDI `specs-go/config.go` of v1.1.0.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Leaves a list out of the file when it is empty.
fn is_empty<T>(list: &[T]) -> bool {
    list.is_empty()
}

/// One spec file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// The version of the format, `0.5.0`.
    pub cdi_version: String,
    /// Vendor and class, `tensor-fusion.ai/vgpu`.
    pub kind: String,
    /// Free-form notes. **Since:** 0.6.0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The devices; at least one.
    #[serde(default)]
    pub devices: Vec<Device>,
    /// Edits of every container that gets any device of this spec, made once.
    #[serde(default, skip_serializing_if = "ContainerEdits::is_empty")]
    pub container_edits: ContainerEdits,
}

/// One device of a spec.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Device {
    /// The name after `=`. **Since:** a digit first 0.5.0.
    pub name: String,
    /// Free-form notes. **Since:** 0.6.0.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Edits of every container that gets this device; not empty.
    #[serde(default)]
    pub container_edits: ContainerEdits,
}

/// What is changed in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerEdits {
    /// Environment variables, `NAME=value`.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub env: Vec<String>,
    /// Device nodes.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub device_nodes: Vec<DeviceNode>,
    /// Network devices moved into the container. **Since:** 1.1.0.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub net_devices: Vec<NetDevice>,
    /// Mounts.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub mounts: Vec<Mount>,
    /// OCI hooks; appended by engines, never deduplicated.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub hooks: Vec<Hook>,
    /// Cache and bandwidth allocation. **Since:** 0.7.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// Supplementary groups of the first process. **Since:** 0.7.0.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub additional_gids: Vec<u32>,
}

impl ContainerEdits {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds the edits of `more` behind these.
    pub fn append(&mut self, more: Self) {
        self.env.extend(more.env);
        self.device_nodes.extend(more.device_nodes);
        self.net_devices.extend(more.net_devices);
        self.mounts.extend(more.mounts);
        self.hooks.extend(more.hooks);
        self.additional_gids.extend(more.additional_gids);
        self.intel_rdt = more.intel_rdt.or(self.intel_rdt.take());
    }
}

/// A device node.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceNode {
    /// Where it is in the container.
    pub path: String,
    /// Where it is on the host, if elsewhere. **Since:** 0.5.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_path: Option<String>,
    /// `b`, `c`, `u` or `p`; the engine looks where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<String>,
    /// The major number; the engine looks where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<i64>,
    /// The minor number; the engine looks where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minor: Option<i64>,
    /// Its mode in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// What the device cgroup allows: letters of `rwm`, or `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<String>,
    /// Its owner in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its group in the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A network device. **Since:** 1.1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NetDevice {
    /// Its name on the host.
    pub host_interface_name: String,
    /// Its name in the container.
    pub name: String,
}

/// A mount.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mount {
    /// What is mounted.
    pub host_path: String,
    /// Where.
    pub container_path: String,
    /// The file system's type. **Since:** 0.4.0.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    pub kind: Option<String>,
    /// Mount options.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub options: Vec<String>,
}

/// An OCI hook.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// When it runs, `createContainer`.
    pub hook_name: String,
    /// The program, in the runtime's namespaces.
    pub path: String,
    /// Its arguments, its own name first.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub args: Vec<String>,
    /// Its environment.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub env: Vec<String>,
    /// How long it may take. **Units:** seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// Cache and bandwidth allocation. **Since:** 0.7.0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IntelRdt {
    /// The class of service.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "closID")]
    pub clos_id: Option<String>,
    /// The L3 cache schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l3_cache_schema: Option<String>,
    /// The memory bandwidth schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_bw_schema: Option<String>,
    /// Whole schemata. **Since:** 1.1.0.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub schemata: Vec<String>,
    /// Monitoring group. **Since:** 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_monitoring: Option<bool>,
    /// Cache monitoring. **Since:** 0.7.0, dropped in 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "enableCMT")]
    pub enable_cmt: Option<bool>,
    /// Bandwidth monitoring. **Since:** 0.7.0, dropped in 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "enableMBM")]
    pub enable_mbm: Option<bool>,
}
