//! Everything that is wrong with a spec, stricter than the published JSON schema.
//!
//! The schema passes what engines refuse (it checks no unknown fields and, by a slip, no environment entry), and the
//! reference library stops at the first fault; here every fault is listed with its place, its value and what would be
//! right. Warnings are specs that engines accept and people regret.

use std::collections::BTreeSet;
use std::fmt;

use vgpu_core::name;

use super::types::{ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, Spec};
use super::{Engine, Version};

/// The moments that a hook may run at.
const HOOK_NAMES: [&str; 6] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
    "poststop",
];

/// Whether engines refuse the spec because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Engines refuse it, or crash.
    Error,
    /// Engines accept it.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Whether engines refuse the spec because of it.
    pub severity: Severity,
    /// The field, `devices[2].containerEdits.hooks[0].path`.
    pub place: String,
    /// The value and what would be right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        };
        write!(f, "{severity}{}: {}", self.place, self.message)
    }
}

/// Lists everything that is wrong with `spec`, in the order of the file; `engines` are those that must accept it.
#[must_use]
pub fn validate(spec: &Spec, engines: &[Engine]) -> Vec<Fault> {
    let mut report = Report::default();
    check_version(&mut report, spec, engines);
    if let Err(error) = name::parse_kind(&spec.kind) {
        report.error("kind", error);
    }
    check_annotations(&mut report, "annotations", &spec.annotations);
    if spec.devices.is_empty() {
        report.error("devices", "none: expected at least one device");
    }
    let mut names = BTreeSet::new();
    for (at, device) in spec.devices.iter().enumerate() {
        let place = format!("devices[{at}]");
        check_device(&mut report, &place, device);
        if !names.insert(&device.name) {
            let message = format!("{:?} again: expected each name once", device.name);
            report.error(&format!("{place}.name"), message);
        }
    }
    check_edits(&mut report, "containerEdits", &spec.container_edits);
    report.0
}

#[derive(Default)]
struct Report(Vec<Fault>);

impl Report {
    fn add(&mut self, severity: Severity, place: &str, message: impl ToString) {
        self.0.push(Fault {
            severity,
            place: place.to_owned(),
            message: message.to_string(),
        });
    }

    fn error(&mut self, place: &str, message: impl ToString) {
        self.add(Severity::Error, place, message);
    }

    fn warning(&mut self, place: &str, message: impl ToString) {
        self.add(Severity::Warning, place, message);
    }

    /// A path that must be absolute and without `..`.
    fn absolute(&mut self, place: &str, path: &str) {
        if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
            self.error(
                place,
                format!("{path:?}: expected an absolute path without '..'"),
            );
        } else if path.contains(char::is_control) {
            self.error(place, format!("{path:?}: expected no control characters"));
        }
    }

    fn env(&mut self, place: &str, env: &[String]) {
        let mut names = BTreeSet::new();
        for (at, entry) in env.iter().enumerate() {
            let place = format!("{place}[{at}]");
            match entry.split_once('=') {
                None | Some(("", _)) => {
                    self.error(&place, format!("{entry:?}: expected NAME=value"));
                }
                Some((name, _)) if !names.insert(name) => {
                    self.error(&place, format!("{name:?} again: expected each name once"));
                }
                Some(_) if entry.contains('\0') => {
                    self.error(&place, format!("{entry:?}: expected no NUL"));
                }
                Some(_) => {}
            }
        }
    }
}

fn check_version(report: &mut Report, spec: &Spec, engines: &[Engine]) {
    let place = "cdiVersion";
    let declared = match spec.cdi_version.parse::<Version>() {
        Ok(version) => version,
        Err(error) => return report.error(place, error),
    };
    let (needed, field) = Version::needed(spec);
    if declared < needed {
        report.error(
            place,
            format!("{declared}: expected {needed} or newer, because of {field}"),
        );
    }
    if declared > needed {
        let message =
            format!("{declared}: {needed} is enough for what is used, and older engines accept it");
        report.warning(place, message);
    }
    for engine in engines {
        let accepts = engine.accepts();
        if declared > accepts {
            let message = format!(
                "{declared}: {engine} accepts {accepts} at most; the spec needs {needed} ({field})"
            );
            report.error(place, message);
        }
    }
}

fn check_device(report: &mut Report, place: &str, device: &Device) {
    if let Err(error) = name::check_device(&device.name) {
        report.error(&format!("{place}.name"), error);
    }
    check_annotations(report, &format!("{place}.annotations"), &device.annotations);
    let edits = format!("{place}.containerEdits");
    if device.container_edits.is_empty() {
        let message = format!(
            "empty: expected device {:?} to change something",
            device.name
        );
        report.error(&edits, message);
    }
    check_edits(report, &edits, &device.container_edits);
}

fn check_annotations(
    report: &mut Report,
    place: &str,
    annotations: &std::collections::BTreeMap<String, String>,
) {
    for key in annotations.keys() {
        let (prefix, name) = match key.split_once('/') {
            Some((prefix, name)) => (Some(prefix), name),
            None => (None, key.as_str()),
        };
        let ends = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.ends_with(|c: char| c.is_ascii_alphanumeric())
        };
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let good = |text: &str, max| ends(text) && text.len() <= max && text.chars().all(inner);
        if !good(name, 63) || prefix.is_some_and(|prefix| !good(prefix, 253)) {
            let message = format!(
                "{key:?}: expected [prefix/]name of letters, digits, '-', '_', '.', at most 63 characters"
            );
            report.error(place, message);
        }
    }
}

fn check_edits(report: &mut Report, place: &str, edits: &ContainerEdits) {
    report.env(&format!("{place}.env"), &edits.env);
    check_nodes(report, &format!("{place}.deviceNodes"), &edits.device_nodes);
    check_mounts(report, &format!("{place}.mounts"), &edits.mounts);
    for (at, hook) in edits.hooks.iter().enumerate() {
        check_hook(report, &format!("{place}.hooks[{at}]"), hook);
    }
    let mut names = BTreeSet::new();
    for (at, net) in edits.net_devices.iter().enumerate() {
        let place = format!("{place}.netDevices[{at}]");
        for (key, name) in [
            ("hostInterfaceName", &net.host_interface_name),
            ("name", &net.name),
        ] {
            if name.is_empty() {
                report.error(
                    &format!("{place}.{key}"),
                    "empty: expected an interface name",
                );
            } else if !names.insert((key, name)) {
                let message = format!("{name:?} again: expected each name once");
                report.error(&format!("{place}.{key}"), message);
            }
        }
    }
    if let Some(rdt) = &edits.intel_rdt {
        check_rdt(report, &format!("{place}.intelRdt"), rdt);
    }
    for (at, gid) in edits.additional_gids.iter().enumerate() {
        if *gid == 0 {
            let message = "0: expected another group; engines ignore this one";
            report.warning(&format!("{place}.additionalGids[{at}]"), message);
        }
    }
}

fn check_nodes(report: &mut Report, place: &str, nodes: &[DeviceNode]) {
    let mut paths = BTreeSet::new();
    for (at, node) in nodes.iter().enumerate() {
        let place = format!("{place}[{at}]");
        report.absolute(&format!("{place}.path"), &node.path);
        if !paths.insert(&node.path) {
            let message = format!("{:?} again: expected each path once", node.path);
            report.error(&format!("{place}.path"), message);
        }
        if let Some(path) = &node.host_path {
            report.absolute(&format!("{place}.hostPath"), path);
        }
        if let Some(kind) = node
            .kind
            .as_deref()
            .filter(|k| !matches!(*k, "b" | "c" | "u" | "p"))
        {
            report.error(
                &format!("{place}.type"),
                format!("{kind:?}: expected b, c, u or p"),
            );
        }
        if let Some(permissions) = &node.permissions
            && permissions != "none"
            && !permissions.chars().all(|c| "rwm".contains(c))
        {
            let message = format!("{permissions:?}: expected letters of rwm, or none");
            report.error(&format!("{place}.permissions"), message);
        }
        if node.major.is_some() || node.minor.is_some() {
            let message = "fixed: they change when a module is loaded again; the engine finds them";
            report.warning(&format!("{place}.major"), message);
        }
    }
}

fn check_mounts(report: &mut Report, place: &str, mounts: &[Mount]) {
    let mut targets = BTreeSet::new();
    for (at, mount) in mounts.iter().enumerate() {
        let place = format!("{place}[{at}]");
        // A file system without a source, such as tmpfs, names itself there.
        if mount
            .kind
            .as_deref()
            .is_none_or(|kind| matches!(kind, "bind" | "rbind"))
        {
            report.absolute(&format!("{place}.hostPath"), &mount.host_path);
        } else if mount.host_path.is_empty() {
            report.error(&format!("{place}.hostPath"), "empty: expected a source");
        }
        report.absolute(&format!("{place}.containerPath"), &mount.container_path);
        if !targets.insert(&mount.container_path) {
            let message = format!("{:?} again: expected each path once", mount.container_path);
            report.error(&format!("{place}.containerPath"), message);
        }
        for (at, option) in mount.options.iter().enumerate() {
            if option.is_empty() {
                report.error(
                    &format!("{place}.options[{at}]"),
                    "empty: expected an option",
                );
            }
        }
    }
}

fn check_hook(report: &mut Report, place: &str, hook: &Hook) {
    if !HOOK_NAMES.contains(&hook.hook_name.as_str()) {
        let message = format!(
            "{:?}: expected one of {}",
            hook.hook_name,
            HOOK_NAMES.join(", ")
        );
        report.error(&format!("{place}.hookName"), message);
    }
    report.absolute(&format!("{place}.path"), &hook.path);
    report.env(&format!("{place}.env"), &hook.env);
    if hook.env.is_empty() {
        let message = "empty: expected an entry; without one, runc before 1.3 gives the hook the container's environment (CVE-2025-23266)";
        report.warning(&format!("{place}.env"), message);
    }
    match hook.timeout {
        Some(timeout) if timeout <= 0 => {
            let message = format!("{timeout}: expected more than 0 seconds");
            report.error(&format!("{place}.timeout"), message);
        }
        Some(_) => {}
        None => {
            let message = "absent: expected seconds; a hook that hangs would hang the container";
            report.warning(&format!("{place}.timeout"), message);
        }
    }
}

fn check_rdt(report: &mut Report, place: &str, rdt: &IntelRdt) {
    let Some(clos) = &rdt.clos_id else { return };
    let too_long = clos.len() >= 4096;
    if too_long || matches!(clos.as_str(), "" | "." | "..") || clos.contains(['/', '\n']) {
        let message = "expected a directory name of at most 4095 characters";
        report.error(&format!("{place}.closID"), message);
    }
}

#[cfg(test)]
mod tests;
