//! Versions of the CDI format, and the lowest one that a spec needs.
//!
//! A spec declares the lowest version that its fields need and never a newer one, because an engine refuses every
//! version that it does not know. **Source:** CDI `specs-go/version.go` of v1.1.0.

use std::fmt;
use std::str::FromStr;

use vgpu_core::ParseError;

use super::types::{ContainerEdits, Spec};

/// A released version of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u8, u8, u8);

impl Version {
    /// The earliest with any meaning.
    pub const V0_3: Self = Self(0, 3, 0);
    /// Mount types.
    pub const V0_4: Self = Self(0, 4, 0);
    /// Host paths of device nodes; device names that begin with a digit.
    pub const V0_5: Self = Self(0, 5, 0);
    /// Annotations; dots in the class.
    pub const V0_6: Self = Self(0, 6, 0);
    /// Intel RDT; additional groups.
    pub const V0_7: Self = Self(0, 7, 0);
    /// No new field.
    pub const V0_8: Self = Self(0, 8, 0);
    /// No new field.
    pub const V1_0: Self = Self(1, 0, 0);
    /// Network devices; more of Intel RDT.
    pub const V1_1: Self = Self(1, 1, 0);

    /// Every released version, oldest first.
    pub const ALL: [Self; 10] = [
        Self(0, 1, 0),
        Self(0, 2, 0),
        Self::V0_3,
        Self::V0_4,
        Self::V0_5,
        Self::V0_6,
        Self::V0_7,
        Self::V0_8,
        Self::V1_0,
        Self::V1_1,
    ];

    /// The lowest version that may declare `spec`, and the field that asks for it.
    #[must_use]
    pub fn needed(spec: &Spec) -> (Self, &'static str) {
        for (version, field, is_needed) in NEEDS {
            if is_needed(spec) {
                return (*version, field);
            }
        }
        (Self::V0_3, "nothing newer")
    }
}

type Need = (Version, &'static str, fn(&Spec) -> bool);

/// What asks for which version, newest first: the first that applies is the lowest version that fits.
const NEEDS: &[Need] = &[
    (Version::V1_1, "netDevices", |s| {
        any(s, |e| !e.net_devices.is_empty())
    }),
    (Version::V1_1, "intelRdt.schemata", |s| {
        rdt(s, |r| !r.schemata.is_empty())
    }),
    (Version::V1_1, "intelRdt.enableMonitoring", |s| {
        rdt(s, |r| r.enable_monitoring.is_some())
    }),
    (Version::V0_7, "intelRdt", |s| {
        any(s, |e| e.intel_rdt.is_some())
    }),
    (Version::V0_7, "additionalGids", |s| {
        any(s, |e| !e.additional_gids.is_empty())
    }),
    (Version::V0_6, "annotations", |s| {
        !s.annotations.is_empty() || s.devices.iter().any(|d| !d.annotations.is_empty())
    }),
    (Version::V0_6, "a dot in the class", |s| {
        s.kind
            .split_once('/')
            .is_some_and(|(_, class)| class.contains('.'))
    }),
    (Version::V0_5, "deviceNodes.hostPath", |s| {
        any(s, |e| e.device_nodes.iter().any(|n| n.host_path.is_some()))
    }),
    (
        Version::V0_5,
        "a device name that begins with a digit",
        |s| {
            s.devices
                .iter()
                .any(|d| d.name.starts_with(|c: char| c.is_ascii_digit()))
        },
    ),
    (Version::V0_4, "mounts.type", |s| {
        any(s, |e| e.mounts.iter().any(|m| m.kind.is_some()))
    }),
];

/// Whether `test` holds for the spec's own edits or those of any device.
fn any(spec: &Spec, test: impl Fn(&ContainerEdits) -> bool) -> bool {
    test(&spec.container_edits) || spec.devices.iter().any(|d| test(&d.container_edits))
}

fn rdt(spec: &Spec, test: impl Fn(&super::types::IntelRdt) -> bool) -> bool {
    any(spec, |edits| edits.intel_rdt.as_ref().is_some_and(&test))
}

impl FromStr for Version {
    type Err = ParseError;

    fn from_str(input: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|version| version.to_string() == input)
            .ok_or_else(|| {
                let known: Vec<String> = Self::ALL.iter().map(ToString::to_string).collect();
                ParseError::new(
                    "CDI version",
                    input,
                    0,
                    format!("one of {}", known.join(", ")),
                )
            })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}.{}", self.0, self.1, self.2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::types::{Device, DeviceNode, IntelRdt, Mount, NetDevice};

    fn with(edits: ContainerEdits) -> Spec {
        Spec {
            kind: "vendor.com/class".to_owned(),
            devices: vec![Device {
                name: "a".to_owned(),
                container_edits: edits,
                ..Device::default()
            }],
            ..Spec::default()
        }
    }

    #[test]
    fn every_version_round_trips() {
        for version in Version::ALL {
            assert_eq!(version.to_string().parse(), Ok(version));
        }
        let error = "0.9.0".parse::<Version>().unwrap_err().to_string();
        assert!(error.contains("0.8.0, 1.0.0, 1.1.0"), "{error}");
        assert!(Version::ALL.is_sorted());
    }

    fn needs(version: Version, change: impl FnOnce(&mut ContainerEdits)) {
        let mut edits = ContainerEdits::default();
        change(&mut edits);
        assert_eq!(
            Version::needed(&with(edits.clone())).0,
            version,
            "{edits:?}"
        );
        let global = Spec {
            container_edits: edits,
            ..Spec::default()
        };
        assert_eq!(
            Version::needed(&global).0,
            version,
            "at the level of the spec"
        );
    }

    #[test]
    fn each_field_asks_for_its_version() {
        needs(Version::V0_3, |_| {});
        let mount = Mount {
            kind: Some("bind".to_owned()),
            ..Mount::default()
        };
        needs(Version::V0_4, |e| e.mounts = vec![mount]);
        let node = DeviceNode {
            host_path: Some("/x".to_owned()),
            ..DeviceNode::default()
        };
        needs(Version::V0_5, |e| e.device_nodes = vec![node]);
        needs(Version::V0_7, |e| e.intel_rdt = Some(IntelRdt::default()));
        needs(Version::V0_7, |e| e.additional_gids = vec![5]);
        let monitored = IntelRdt {
            enable_monitoring: Some(false),
            ..IntelRdt::default()
        };
        needs(Version::V1_1, |e| e.intel_rdt = Some(monitored));
        let schemata = IntelRdt {
            schemata: vec!["x".to_owned()],
            ..IntelRdt::default()
        };
        needs(Version::V1_1, |e| e.intel_rdt = Some(schemata));
        needs(Version::V1_1, |e| {
            e.net_devices = vec![NetDevice::default()]
        });
    }

    #[test]
    fn names_and_annotations_ask_too() {
        let mut spec = with(ContainerEdits::default());
        "0".clone_into(&mut spec.devices[0].name);
        assert_eq!(Version::needed(&spec).0, Version::V0_5);
        "vendor.com/a.b".clone_into(&mut spec.kind);
        assert_eq!(Version::needed(&spec).0, Version::V0_6);
        let mut spec = with(ContainerEdits::default());
        spec.devices[0]
            .annotations
            .insert("a".to_owned(), "b".to_owned());
        assert_eq!(Version::needed(&spec), (Version::V0_6, "annotations"));
    }
}
