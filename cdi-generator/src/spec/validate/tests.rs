//! One row a rule.

use super::*;
use crate::spec::types::NetDevice;

fn good() -> Spec {
    let mut edits = ContainerEdits {
        env: vec!["A=b".to_owned()],
        ..ContainerEdits::default()
    };
    edits.device_nodes.push(DeviceNode {
        path: "/dev/null".to_owned(),
        ..DeviceNode::default()
    });
    edits.mounts.push(Mount {
        host_path: "/a".to_owned(),
        container_path: "/b".to_owned(),
        options: vec!["ro".to_owned()],
        ..Mount::default()
    });
    edits.hooks.push(Hook {
        hook_name: "createContainer".to_owned(),
        path: "/bin/hook".to_owned(),
        env: vec!["X=1".to_owned()],
        timeout: Some(1),
        ..Hook::default()
    });
    Spec {
        cdi_version: "0.3.0".to_owned(),
        kind: "vendor.com/class".to_owned(),
        devices: vec![Device {
            name: "a".to_owned(),
            container_edits: edits,
            ..Device::default()
        }],
        ..Spec::default()
    }
}

type Break = fn(&mut Spec);

fn edits(spec: &mut Spec) -> &mut ContainerEdits {
    &mut spec.devices[0].container_edits
}

const ERRORS: &[(Break, &str, &str)] = &[
    (
        |s| s.cdi_version = "0.9".to_owned(),
        "cdiVersion",
        "1.0.0, 1.1.0",
    ),
    (
        |s| s.cdi_version = "v0.5.0".to_owned(),
        "cdiVersion",
        "one of 0.1.0",
    ),
    (
        |s| s.devices[0].name = "0".to_owned(),
        "cdiVersion",
        "0.5.0 or newer",
    ),
    (
        |s| s.kind = "v/class".to_owned(),
        "kind",
        "crashes container engines",
    ),
    (
        |s| s.kind = "vendor.com/c".to_owned(),
        "kind",
        "crashes container engines",
    ),
    (|s| s.kind = "vendor".to_owned(), "kind", "vendor/class"),
    (|s| s.devices.clear(), "devices", "at least one"),
    (
        |s| s.devices[0].name = "a b".to_owned(),
        "devices[0].name",
        "letters, digits",
    ),
    (
        |s| s.devices.push(s.devices[0].clone()),
        "devices[1].name",
        "each name once",
    ),
    (
        |s| *edits(s) = ContainerEdits::default(),
        "devices[0].containerEdits",
        "change something",
    ),
    (
        |s| edits(s).env[0] = "A".to_owned(),
        "devices[0].containerEdits.env[0]",
        "NAME=value",
    ),
    (
        |s| edits(s).env[0] = "=a".to_owned(),
        "devices[0].containerEdits.env[0]",
        "NAME=value",
    ),
    (
        |s| edits(s).env.push("A=c".to_owned()),
        "devices[0].containerEdits.env[1]",
        "once",
    ),
    (
        |s| s.container_edits.env.push("A".to_owned()),
        "containerEdits.env[0]",
        "NAME=value",
    ),
    (
        |s| edits(s).device_nodes[0].path = "null".to_owned(),
        "deviceNodes[0].path",
        "absolute",
    ),
    (
        |s| {
            let node = edits(s).device_nodes[0].clone();
            edits(s).device_nodes.push(node);
        },
        "deviceNodes[1].path",
        "once",
    ),
    (
        |s| edits(s).device_nodes[0].kind = Some("x".to_owned()),
        "deviceNodes[0].type",
        "b, c, u",
    ),
    (
        |s| edits(s).device_nodes[0].permissions = Some("rx".to_owned()),
        "deviceNodes[0].permissions",
        "rwm",
    ),
    (
        |s| edits(s).mounts[0].host_path = String::new(),
        "mounts[0].hostPath",
        "absolute",
    ),
    (
        |s| edits(s).mounts[0].container_path = "/a/../b".to_owned(),
        "containerPath",
        "'..'",
    ),
    (
        |s| {
            let mount = edits(s).mounts[0].clone();
            edits(s).mounts.push(mount);
        },
        "mounts[1].containerPath",
        "once",
    ),
    (
        |s| edits(s).mounts[0].options.push(String::new()),
        "mounts[0].options[1]",
        "an option",
    ),
    (
        |s| edits(s).hooks[0].hook_name = "start".to_owned(),
        "hooks[0].hookName",
        "poststop",
    ),
    (
        |s| edits(s).hooks[0].path = "hook".to_owned(),
        "hooks[0].path",
        "absolute",
    ),
    (
        |s| edits(s).hooks[0].env[0] = "X".to_owned(),
        "hooks[0].env[0]",
        "NAME=value",
    ),
    (
        |s| edits(s).hooks[0].timeout = Some(0),
        "hooks[0].timeout",
        "more than 0",
    ),
    (
        |s| {
            s.cdi_version = "0.6.0".to_owned();
            s.annotations.insert("a b".to_owned(), String::new());
        },
        "annotations",
        "[prefix/]name",
    ),
    (
        |s| {
            s.cdi_version = "1.1.0".to_owned();
            edits(s).net_devices = vec![NetDevice::default()];
        },
        "netDevices[0].name",
        "interface name",
    ),
    (
        |s| {
            s.cdi_version = "0.7.0".to_owned();
            edits(s).intel_rdt = Some(IntelRdt {
                clos_id: Some("..".to_owned()),
                ..IntelRdt::default()
            });
        },
        "intelRdt.closID",
        "directory name",
    ),
];

#[test]
fn a_good_spec_has_no_fault() {
    assert_eq!(validate(&good(), &[]), []);
}

#[test]
fn every_fault_is_found_at_its_place() {
    for (break_it, place, expected) in ERRORS {
        let mut spec = good();
        break_it(&mut spec);
        let faults = validate(&spec, &[]);
        let found = faults.iter().any(|fault| {
            fault.severity == Severity::Error
                && fault.place.contains(place)
                && fault.message.contains(expected)
        });
        assert!(found, "{place} {expected}: {faults:?}");
    }
}

#[test]
fn warnings_are_not_errors() {
    let warned: &[(Break, &str)] = &[
        (|s| s.cdi_version = "1.1.0".to_owned(), "0.3.0 is enough"),
        (|s| edits(s).hooks[0].env.clear(), "CVE-2025-23266"),
        (|s| edits(s).hooks[0].timeout = None, "hang"),
        (|s| edits(s).device_nodes[0].major = Some(195), "module"),
    ];
    for (break_it, expected) in warned {
        let mut spec = good();
        break_it(&mut spec);
        let faults = validate(&spec, &[]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert_eq!(faults[0].severity, Severity::Warning);
        assert!(faults[0].to_string().contains(expected), "{}", faults[0]);
    }
}

#[test]
fn an_engine_that_is_too_old_is_named() {
    let mut spec = good();
    "0.6.0".clone_into(&mut spec.cdi_version);
    spec.annotations.insert("a".to_owned(), "b".to_owned());
    let podman = "podman@4.3".parse().unwrap();
    let faults = validate(&spec, &[podman, "docker@25".parse().unwrap()]);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(
        faults[0].to_string(),
        "cdiVersion: 0.6.0: podman@4.3 accepts 0.5.0 at most; the spec needs 0.6.0 (annotations)"
    );
}
