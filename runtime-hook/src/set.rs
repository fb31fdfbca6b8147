//! Changes what a running container was granted: `vgpu set`.
//!
//! Owns which grant is meant, whether the change fits, and the order of the two writes. A crash between them never
//! leaves a container allowed more than what is admitted for it: what grows is recorded before it is allowed, what
//! shrinks is forbidden before it is given away. Processes obey at their next charge. The change ends with the
//! container: a new start has the quota of its command line.

use std::path::Path;

use serde::Serialize;
use thiserror::Error;
use vgpu_core::hook_args::HookArgs;
use vgpu_core::quota::QuotaError;
use vgpu_core::{Bytes, DeviceUuid, ExitCode, ParseError, Percent, QosClass, Quota};
use vgpu_region::{LimitsWriter, RegionError};

use crate::admission::{self, AdmissionError};
use crate::grant::{DeviceKey, Grant, GrantedDevice, Here};
use crate::process::ProcessError;
use crate::store::{Locked, Store, StoreError};

/// Why nothing was changed.
#[derive(Debug, Error)]
pub enum SetError {
    /// The run directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// `/proc`.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The record holds something that is not a quota.
    #[error("the record of container {container_id} cannot be used")]
    Record {
        /// The container.
        container_id: String,
        /// Which value.
        #[source]
        source: ParseError,
    },
    /// It does not fit the GPU.
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    /// The quota contradicts itself.
    #[error(transparent)]
    Quota(#[from] QuotaError),
    /// The limits page.
    #[error("cannot change the limits of container {container_id}")]
    Pages {
        /// The container.
        container_id: String,
        /// Which page, and why.
        #[source]
        source: RegionError,
    },
    /// Nobody has that name.
    #[error("no running container {name} has a vGPU: there are {known}")]
    NoContainer {
        /// As it was named.
        name: String,
        /// Those there are.
        known: String,
    },
    /// Several have it.
    #[error("container {name} is one of {known}: give more of its id")]
    Ambiguous {
        /// As it was named.
        name: String,
        /// Those that match.
        known: String,
    },
    /// The container has several vGPUs, or none of that name.
    #[error("container {container_id} has {known}: name one of them with --device")]
    Device {
        /// The container.
        container_id: String,
        /// Its vGPUs.
        known: String,
    },
    /// It uses more than it would be allowed.
    #[error(
        "container {container_id} uses {used} on {gpu}, more than the {asked} that it would have: let it free some, or give --force"
    )]
    InUse {
        /// The container.
        container_id: String,
        /// The GPU.
        gpu: String,
        /// What it says it uses.
        used: String,
        /// All its vGPUs on that GPU together.
        asked: Bytes,
    },
}

impl SetError {
    /// The exit code that says it.
    #[must_use]
    pub const fn exit_code(&self) -> ExitCode {
        match self {
            Self::NoContainer { .. }
            | Self::Ambiguous { .. }
            | Self::Device { .. }
            | Self::Quota(_) => ExitCode::Usage,
            Self::Admission(_) | Self::InUse { .. } => ExitCode::Refused,
            Self::Store(_) | Self::Process(_) | Self::Record { .. } | Self::Pages { .. } => {
                ExitCode::Failure
            }
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// An id, the beginning of one, or the name that Kubernetes has for the container or its pod.
    pub container: &'a str,
    /// The CDI device, where the container has several; `name@uuid` where it is slices of several GPUs.
    pub device: Option<&'a str>,
    /// The new VRAM limit.
    pub vram: Option<Bytes>,
    /// The new share of the GPU's time.
    pub compute: Option<Percent>,
    /// The new service class.
    pub qos: Option<QosClass>,
    /// Also below what the container uses.
    pub force: bool,
    /// What may be promised of a GPU.
    pub oversubscription_percent: u32,
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The engine's id.
    pub container_id: String,
    /// The CDI device.
    pub device: String,
    /// Its grant before.
    pub before: GrantedDevice,
    /// Its grant now.
    pub after: GrantedDevice,
}

/// Changes one vGPU of one container.
///
/// # Errors
/// [`SetError`]; the container has what it had then.
pub fn set(run_dir: &Path, request: &Request<'_>) -> Result<Changed, SetError> {
    let store = Store::new(run_dir);
    if store.grants()?.is_empty() {
        // No run directory is made, and no lock, where nothing is.
        return Err(find(&[], request.container)
            .err()
            .unwrap_or_else(|| nobody(request)));
    }
    let lock = store.lock()?;
    let held = lock.sweep(&Here::now()?)?.held;
    let old = find(&held, request.container)?;
    let (key, before) = device(old, request.device)?;
    let after = changed(old, before, request)?;
    admit(old, &key.name, &after, &held, request)?;
    let mut new = old.clone();
    new.devices.insert(key.clone(), after.clone());
    let page = Page::open(&store, old)?;
    if after.vram_limit_bytes < before.vram_limit_bytes {
        shrink(&lock, &page, old, &new, &after.gpu_uuid, request.force)?;
    } else {
        grow(&lock, &page, old, &new)?;
    }
    Ok(Changed {
        container_id: old.container_id.clone(),
        device: key.name.clone(),
        before: before.clone(),
        after,
    })
}

/// Recorded, then allowed.
fn grow(lock: &Locked<'_>, page: &Page, old: &Grant, new: &Grant) -> Result<(), SetError> {
    lock.replace(new)?;
    page.write(new).inspect_err(|_| {
        // More is recorded than allowed, which harms nobody; the page's failure is what has to be told.
        lock.replace(old).ok();
    })
}

/// Forbidden, then looked at what is held (nothing can be taken any more), then given away.
fn shrink(
    lock: &Locked<'_>,
    page: &Page,
    old: &Grant,
    new: &Grant,
    gpu: &str,
    force: bool,
) -> Result<(), SetError> {
    let check = || if force { Ok(()) } else { page.fits(new, gpu) };
    // Most refusals are found before anybody is disturbed.
    check()?;
    page.write(new)?;
    let done = check().and_then(|()| Ok(lock.replace(new)?));
    done.inspect_err(|_| {
        page.write(old).ok();
    })
}

/// A container's pages.
struct Page {
    region: std::path::PathBuf,
    writer: LimitsWriter,
    container_id: String,
}

impl Page {
    fn open(store: &Store, grant: &Grant) -> Result<Self, SetError> {
        let region = store.region(&grant.key);
        let container_id = grant.short_id();
        match LimitsWriter::open(&region) {
            Ok(writer) => Ok(Self {
                region,
                writer,
                container_id,
            }),
            Err(source) => Err(SetError::Pages {
                container_id,
                source,
            }),
        }
    }

    fn write(&self, grant: &Grant) -> Result<(), SetError> {
        let done = self.writer.edit(|page| *page = grant.limits(page));
        done.map_err(|source| SetError::Pages {
            container_id: self.container_id.clone(),
            source,
        })
    }

    /// Whether what the container says it uses is within the grant. A page that cannot be read says nothing.
    fn fits(&self, grant: &Grant, gpu: &str) -> Result<(), SetError> {
        let limits = grant.limits(&vgpu_region::Limits::default());
        let uuid = gpu.parse().map(|uuid: DeviceUuid| uuid.as_bytes());
        let limit = limits.devices.iter().find(|d| Ok(d.uuid) == uuid);
        let (Some(limit), Ok(uuid)) = (limit, &uuid) else {
            return Ok(());
        };
        let used = vgpu_region::usage::read_summary(&self.region)
            .ok()
            .map(|all| {
                let live = all.iter().filter(|p| p.live);
                live.fold(0_u64, |sum, p| sum.saturating_add(p.bytes_of(uuid)))
            });
        if used.is_some_and(|used| used <= limit.vram_limit) {
            return Ok(());
        }
        Err(SetError::InUse {
            container_id: self.container_id.clone(),
            gpu: gpu.to_owned(),
            used: used.map_or_else(|| "an unknown amount".to_owned(), |b| Bytes(b).to_string()),
            asked: Bytes(limit.vram_limit),
        })
    }
}

fn find<'a>(held: &'a [Grant], name: &str) -> Result<&'a Grant, SetError> {
    if let Some(exact) = held.iter().find(|g| g.container_id == name) {
        return Ok(exact);
    }
    let matches: Vec<&Grant> = held.iter().filter(|g| is_called(g, name)).collect();
    let list = |grants: &mut dyn Iterator<Item = &Grant>| {
        const SHOWN: usize = 8;
        let ids: Vec<String> = grants.take(SHOWN).map(Grant::short_id).collect();
        if ids.is_empty() {
            "none".to_owned()
        } else {
            ids.join(", ")
        }
    };
    let name = name.to_owned();
    match matches.as_slice() {
        [one] => Ok(one),
        [] => Err(SetError::NoContainer {
            name,
            known: list(&mut held.iter()),
        }),
        several => Err(SetError::Ambiguous {
            name,
            known: list(&mut several.iter().copied()),
        }),
    }
}

fn is_called(grant: &Grant, name: &str) -> bool {
    let labels = &grant.labels;
    let pod = labels.pod_name.as_deref();
    let namespace = labels.pod_namespace.as_deref().unwrap_or("default");
    let whole = name.split_once('/');
    !name.is_empty()
        && (grant.container_id.starts_with(name)
            || labels.container.as_deref() == Some(name)
            || pod == Some(name)
            || whole.is_some_and(|(first, last)| first == namespace && pod == Some(last)))
}

fn nobody(request: &Request<'_>) -> SetError {
    SetError::NoContainer {
        name: request.container.to_owned(),
        known: "none".to_owned(),
    }
}

fn device<'a>(
    grant: &'a Grant,
    name: Option<&str>,
) -> Result<(&'a DeviceKey, &'a GrantedDevice), SetError> {
    let means = |key: &DeviceKey| name.is_none_or(|n| n == key.name || n == key.to_string());
    let mut fits = grant.devices.iter().filter(|(key, _)| means(key));
    match (fits.next(), fits.next()) {
        (Some(one), None) => Ok(one),
        _ => {
            let known: Vec<String> = grant.devices.keys().map(|key| title(grant, key)).collect();
            Err(SetError::Device {
                container_id: grant.short_id(),
                known: known.join(", "),
            })
        }
    }
}

/// The name, with the GPU where the container has the device of several.
fn title(grant: &Grant, key: &DeviceKey) -> String {
    if grant.devices.keys().filter(|k| k.name == key.name).count() > 1 {
        return key.to_string();
    }
    key.name.clone()
}

/// The device with the new values. A guaranteed part that was all of it stays all of it; any other stays what it was,
/// as far as the new limit allows.
fn changed(
    grant: &Grant,
    before: &GrantedDevice,
    request: &Request<'_>,
) -> Result<GrantedDevice, SetError> {
    let mut after = before.clone();
    if let Some(vram) = request.vram {
        let whole = before.vram_request_bytes == before.vram_limit_bytes;
        after.vram_limit_bytes = vram.get();
        after.vram_request_bytes = if whole {
            vram.get()
        } else {
            before.vram_request_bytes.min(vram.get())
        };
    }
    if let Some(compute) = request.compute {
        let whole = before.compute_request_percent == before.compute_limit_percent;
        after.compute_limit_percent = compute.get();
        after.compute_request_percent = if whole {
            compute.get()
        } else {
            before.compute_request_percent.min(compute.get())
        };
    }
    if let Some(qos) = request.qos {
        after.qos = qos.to_string();
    }
    quota(grant, &after)?.check()?;
    Ok(after)
}

fn record(grant: &Grant) -> impl Fn(ParseError) -> SetError {
    let container_id = grant.short_id();
    move |source| SetError::Record {
        container_id: container_id.clone(),
        source,
    }
}

fn quota(grant: &Grant, device: &GrantedDevice) -> Result<Quota, SetError> {
    let percent = |value: u8| Percent::try_from(value).map_err(record(grant));
    Ok(Quota {
        vram_limit: Bytes(device.vram_limit_bytes),
        vram_request: Bytes(device.vram_request_bytes),
        compute_limit: percent(device.compute_limit_percent)?,
        compute_request: percent(device.compute_request_percent)?,
        qos: device.qos.parse().map_err(record(grant))?,
    })
}

/// The hook's own question, with the new quota.
fn admit(
    grant: &Grant,
    name: &str,
    after: &GrantedDevice,
    held: &[Grant],
    request: &Request<'_>,
) -> Result<(), SetError> {
    let args = HookArgs {
        gpu_uuid: after.gpu_uuid.parse().map_err(record(grant))?,
        gpu_capacity: Bytes(after.gpu_capacity_bytes),
        quota: quota(grant, after)?,
        backend: after.back_end.parse().map_err(record(grant))?,
        device: name.to_owned(),
        oversubscription_percent: request.oversubscription_percent,
        context_footprint: Bytes(after.context_footprint_bytes),
        run_dir: String::new(),
        limiter_dir: String::new(),
    };
    Ok(admission::admit(&args, held, &grant.key)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::tests::{device as granted, grant};

    fn ask(container: &str) -> Request<'_> {
        Request {
            container,
            device: None,
            vram: None,
            compute: None,
            qos: None,
            force: false,
            oversubscription_percent: 100,
        }
    }

    #[test]
    fn a_container_is_found_by_id_prefix_and_pod() {
        let mut pod = grant("abd0", &[]);
        pod.labels.pod_name = Some("train-1".into());
        pod.labels.pod_namespace = Some("ml".into());
        pod.labels.container = Some("main".into());
        let held = [grant("abc", &[]), grant("abc0", &[]), pod];
        let id = |name| find(&held, name).map(|g| g.container_id.as_str());
        assert_eq!(id("abc").unwrap(), "abc", "a whole id is no prefix");
        for name in ["abd", "train-1", "ml/train-1", "main"] {
            assert_eq!(id(name).unwrap(), "abd0", "{name}");
        }
        let text = |name| id(name).unwrap_err().to_string();
        assert_eq!(
            text("ab"),
            "container ab is one of abc, abc0, abd0: give more of its id"
        );
        for name in ["", "x", "other/train-1"] {
            assert!(text(name).ends_with("there are abc, abc0, abd0"), "{name}");
        }
        assert!(find(&[], "x").unwrap_err().to_string().ends_with("none"));
    }

    #[test]
    fn a_device_of_two_gpus_is_named_with_its_gpu() {
        let mut second = granted(50, 60);
        second.gpu_uuid = "GPU-00000000-0000-0000-0000-000000000002".into();
        let devices = [
            ("all", granted(50, 60)),
            ("all", second),
            ("b", granted(1, 1)),
        ];
        let grant = grant("c", &devices);
        let gpu = |name| device(&grant, Some(name)).map(|(key, _)| key.gpu_uuid.as_str());
        let first = crate::grant::tests::UUID;
        let whole = format!("all@{first}");
        assert_eq!(gpu(&whole).unwrap(), first);
        assert_eq!(gpu("b").unwrap(), first);
        let text = gpu("all").unwrap_err().to_string();
        assert!(
            text.contains(&format!("has all@{first}, all@GPU-")),
            "{text}"
        );
        assert!(text.contains(", b: name one"), "{text}");
    }

    #[test]
    fn the_guaranteed_part_follows_where_it_was_all() {
        let grant = grant("c", &[]);
        let whole = granted(50, 60);
        let request = |vram, compute| Request {
            vram: Some(Bytes(vram)),
            compute: Percent::new(compute),
            ..ask("c")
        };
        let new = changed(&grant, &whole, &request(70, 80)).unwrap();
        assert_eq!(
            (new.vram_request_bytes, new.compute_request_percent),
            (70, 80)
        );
        let part = GrantedDevice {
            vram_request_bytes: 30,
            compute_request_percent: 20,
            ..whole.clone()
        };
        let new = changed(&grant, &part, &request(70, 80)).unwrap();
        assert_eq!(
            (new.vram_request_bytes, new.compute_request_percent),
            (30, 20)
        );
        let new = changed(&grant, &part, &request(10, 10)).unwrap();
        assert_eq!(
            (new.vram_request_bytes, new.compute_request_percent),
            (10, 10)
        );
        assert_eq!(changed(&grant, &part, &ask("c")).unwrap(), part);
        assert!(changed(&grant, &whole, &request(0, 1)).is_err());
    }

    /// What stands on the disk when a write fails is what stands there when it never comes.
    #[test]
    fn the_second_write_that_fails_leaves_no_more_allowed_than_recorded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        store.prepare().unwrap();
        let lock = store.lock().unwrap();
        let old = grant("c", &[("a", granted(50 << 20, 60))]);
        let new = grant("c", &[("a", granted(20 << 20, 60))]);
        let region = lock.make_container(&old.key).unwrap();
        vgpu_region::create(&region, &old.limits(&vgpu_region::Limits::default())).unwrap();
        lock.replace(&old).unwrap();
        let page = Page::open(&store, &old).unwrap();
        let gpu = crate::grant::tests::UUID.to_owned();
        let limit = || vgpu_region::read_limits(&region).unwrap().devices[0].vram_limit >> 20;

        // Nothing can be recorded: what was forbidden for the moment is allowed again.
        let grants = dir.path().join("grants");
        std::fs::rename(&grants, dir.path().join("away")).unwrap();
        shrink(&lock, &page, &old, &new, &gpu, false).unwrap_err();
        assert_eq!(limit(), 50);
        grow(
            &lock,
            &page,
            &old,
            &grant("c", &[("a", granted(90 << 20, 60))]),
        )
        .unwrap_err();
        assert_eq!(limit(), 50, "nothing is allowed that is not recorded");
        std::fs::rename(dir.path().join("away"), &grants).unwrap();

        let ledger = vgpu_region::Ledger::attach(&region).unwrap();
        ledger.charge(0, 30 << 20).unwrap();
        let error = shrink(&lock, &page, &old, &new, &gpu, false).unwrap_err();
        assert_eq!(error.exit_code(), ExitCode::Refused);
        assert_eq!((limit(), store.grants().unwrap()), (50, vec![old.clone()]));
        shrink(&lock, &page, &old, &new, &gpu, true).unwrap();
        assert_eq!((limit(), store.grants().unwrap()), (20, vec![new]));
    }
}
