//! The files of the run directory: lock, grants, regions.
//!
//! ```text
//! <run_dir>/lock                          flock; released by the kernel when its holder dies
//! <run_dir>/grants/<key>.json             a grant, replaced by rename
//! <run_dir>/containers/<key>/plan.json    what create-container needs
//! <run_dir>/containers/<key>/region/      mount point of the container's own tmpfs
//! ```
//! Owns the layout and every change to it; all changes are made under the lock. It must never follow a link in the
//! run directory, which only root may write to.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::error::line;
use crate::grant::{DeviceKey, Grant, Here, VERSION};
use crate::region;

/// How long a hook waits for its turn. The CDI spec gives a hook ten seconds.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(6);
/// The longest record that is read, in bytes.
const RECORD_LIMIT: u64 = 1 << 20;

/// What goes wrong with the run directory.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file or folder of it cannot be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else may write to it.
    #[error(
        "{} belongs to user {owner} with mode {mode:o}: expected user {expected} and no write permission for others",
        path.display()
    )]
    Insecure {
        /// The run directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permission bits.
        mode: u32,
        /// Who should own it.
        expected: u32,
    },
    /// Other hooks hold the lock.
    #[error("{} is still held by another hook after {} s", path.display(), waited.as_secs())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
    /// A record is not one.
    #[error("{} is no record of version {VERSION} ({why}); remove it once its container is gone", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// The run directory.
#[derive(Debug, Clone)]
pub struct Store {
    run_dir: PathBuf,
}

/// What create-container needs to know of its container, left there by create-runtime, which read it for both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The engine's id.
    pub container_id: String,
    /// The boot during which it was written.
    pub boot_id: String,
    /// The root file system on the host.
    pub rootfs: PathBuf,
    /// The directories of `LD_LIBRARY_PATH`.
    pub library_path: Vec<PathBuf>,
    /// The shared libraries that the engine mounts.
    #[serde(default)]
    pub libraries: Vec<String>,
    /// The vGPUs that were granted.
    pub devices: Vec<DeviceKey>,
    /// create-runtime did create-container's work as well.
    #[serde(default)]
    pub prepared: bool,
}

/// Proof that this process has its turn; dropping it ends the turn.
#[derive(Debug)]
pub struct Locked<'a> {
    store: &'a Store,
    _file: File,
}

impl Store {
    /// The run directory at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            run_dir: path.to_owned(),
        }
    }

    /// The folder of one container.
    #[must_use]
    pub fn container(&self, key: &str) -> PathBuf {
        self.run_dir.join("containers").join(key)
    }

    /// The mount point of one container's region.
    #[must_use]
    pub fn region(&self, key: &str) -> PathBuf {
        self.container(key).join("region")
    }

    /// Whether there is anything of a container.
    #[must_use]
    pub fn knows_container(&self, key: &str) -> bool {
        self.grant_file(key).exists() || self.container(key).exists()
    }

    fn grants_dir(&self) -> PathBuf {
        self.run_dir.join("grants")
    }

    fn grant_file(&self, key: &str) -> PathBuf {
        self.grants_dir().join(format!("{key}.json"))
    }

    /// Makes the run directory where it is missing, and checks that nobody else may write to it.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Insecure`].
    pub fn prepare(&self) -> Result<(), StoreError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io {
                action: "create",
                path,
                source,
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.run_dir)
            .map_err(fail(&self.run_dir))?;
        self.check_owner()?;
        // Nobody but root: a neighbour that could guess a key could otherwise write to a container's usage page.
        for path in [self.grants_dir(), self.run_dir.join("containers")] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(fail(&path))?;
        }
        Ok(())
    }

    fn check_owner(&self) -> Result<(), StoreError> {
        let path = self.run_dir.clone();
        let data = std::fs::symlink_metadata(&path).map_err(|source| StoreError::Io {
            action: "look at",
            path: path.clone(),
            source,
        })?;
        let expected = rustix::process::geteuid().as_raw();
        if data.is_dir() && data.uid() == expected && data.mode() & 0o022 == 0 {
            return Ok(());
        }
        Err(StoreError::Insecure {
            path,
            owner: data.uid(),
            mode: data.mode() & 0o7777,
            expected,
        })
    }

    /// Waits for this process's turn.
    ///
    /// # Errors
    /// [`StoreError::Locked`] after [`LOCK_TIMEOUT`]; [`StoreError::Io`].
    pub fn lock(&self) -> Result<Locked<'_>, StoreError> {
        self.lock_within(LOCK_TIMEOUT)
    }

    fn lock_within(&self, timeout: Duration) -> Result<Locked<'_>, StoreError> {
        let path = self.run_dir.join("lock");
        let nofollow = i32::from_ne_bytes(rustix::fs::OFlags::NOFOLLOW.bits().to_ne_bytes());
        let open = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(nofollow)
            .open(&path);
        let fail = |source| StoreError::Io {
            action: "lock",
            path: path.clone(),
            source,
        };
        let file = open.map_err(fail)?;
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    return Ok(Locked {
                        store: self,
                        _file: file,
                    });
                }
                Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(error) => return Err(fail(error.into())),
            }
            let waited = start.elapsed();
            if waited >= timeout {
                return Err(StoreError::Locked { path, waited });
            }
            std::thread::sleep(pause);
            pause = pause.saturating_mul(2).min(Duration::from_millis(10));
        }
    }

    /// Every grant, the dead ones too; nothing where there is no run directory.
    ///
    /// # Errors
    /// [`StoreError::Record`] ← a record that cannot be understood: it may hold anything, so no sum is right without
    /// it; [`StoreError::Io`].
    pub fn grants(&self) -> Result<Vec<Grant>, StoreError> {
        let folder = self.grants_dir();
        let mut grants = Vec::new();
        for name in names(&folder)? {
            if name.ends_with(".json") && !name.starts_with('.') {
                grants.extend(read_record::<Grant>(&folder.join(name))?);
            }
        }
        grants.sort_by(|a, b| a.container_id.cmp(&b.container_id));
        match grants.iter().find(|g| g.version != VERSION) {
            None => Ok(grants),
            Some(other) => Err(StoreError::Record {
                path: self.grant_file(&other.key),
                why: format!("version {}", other.version),
            }),
        }
    }

    /// The grant of one container; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when it is there and cannot be read.
    pub fn grant(&self, key: &str) -> Result<Option<Grant>, StoreError> {
        read_record(&self.grant_file(key))
    }

    /// The plan of one container; `None` when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when it is there and cannot be read.
    pub fn plan(&self, key: &str) -> Result<Option<Plan>, StoreError> {
        read_record(&self.container(key).join("plan.json"))
    }
}

impl Locked<'_> {
    /// Writes a grant and its plan.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the earlier record stands then.
    pub fn save(&self, grant: &Grant, plan: &Plan) -> Result<(), StoreError> {
        let folder = self.store.container(&grant.key);
        write_record(&folder.join("plan.json"), plan)?;
        write_record(&self.store.grant_file(&grant.key), grant)
    }

    /// Writes a changed grant.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the earlier record stands then.
    pub fn replace(&self, grant: &Grant) -> Result<(), StoreError> {
        write_record(&self.store.grant_file(&grant.key), grant)
    }

    /// Makes the folder of a container with the mount point in it.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn make_container(&self, key: &str) -> Result<PathBuf, StoreError> {
        let path = self.store.region(key);
        let made = DirBuilder::new().recursive(true).mode(0o711).create(&path);
        made.map_err(|source| StoreError::Io {
            action: "create",
            path: path.clone(),
            source,
        })?;
        Ok(path)
    }

    /// Takes away everything of one container: mount, folder, and at the very end the record, so that a killed
    /// release is found and repeated. What is gone already is fine.
    ///
    /// # Errors
    /// [`StoreError::Io`] for the first thing that could not be removed.
    pub fn release(&self, key: &str) -> Result<(), StoreError> {
        let folder = self.store.container(key);
        let region = self.store.region(key);
        region::unmount(&region).map_err(|e| StoreError::Io {
            action: "unmount",
            path: region.clone(),
            source: e.into(),
        })?;
        remove(&folder.join("plan.json"), |p| std::fs::remove_file(p))?;
        remove(&folder.join(".plan.json.tmp"), |p| std::fs::remove_file(p))?;
        // Never recursive: what is mounted elsewhere and unreachable here is not ours to delete.
        remove(&region, |p| std::fs::remove_dir(p))?;
        remove(&folder, |p| std::fs::remove_dir(p))?;
        remove(&self.store.grant_file(key), |p| std::fs::remove_file(p))
    }

    /// Removes the records of a container that will not start, from within its namespaces, where its mount on the host
    /// cannot be reached: the next [`Locked::sweep`] takes that.
    pub fn forget(&self, key: &str) {
        for path in [
            self.store.container(key).join("plan.json"),
            self.store.grant_file(key),
        ] {
            // In a user namespace this is not ours to do; a dead container counts for nothing in any case.
            std::fs::remove_file(path).ok();
        }
    }

    /// Releases every container that is gone, and what killed hooks left behind. What cannot be removed there counts
    /// for nothing, so it is a warning and stops no other container.
    ///
    /// # Errors
    /// As [`Store::grants`].
    pub fn sweep(&self, here: &Here) -> Result<Swept, StoreError> {
        let (held, gone): (Vec<Grant>, Vec<Grant>) = self
            .store
            .grants()?
            .into_iter()
            .partition(|grant| grant.liveness(here).holds());
        let mut keys: BTreeSet<String> = gone.into_iter().map(|grant| grant.key).collect();
        let grants = self.store.grants_dir();
        let mut warnings = Vec::new();
        let mut note = |done: Result<(), StoreError>| warnings.extend(done.err().map(|e| line(&e)));
        for name in names(&grants)?.iter().filter(|name| name.starts_with('.')) {
            note(remove(&grants.join(name), |p| std::fs::remove_file(p)));
        }
        match names(&self.store.run_dir.join("containers")) {
            Ok(names) => keys.extend(names),
            Err(error) => note(Err(error)),
        }
        for key in keys
            .iter()
            .filter(|key| held.iter().all(|g| g.key != **key))
        {
            note(self.release(key));
        }
        Ok(Swept { held, warnings })
    }
}

/// What a sweep found.
#[derive(Debug)]
pub struct Swept {
    /// The grants that hold.
    pub held: Vec<Grant>,
    /// What is left of containers that are gone, each a line.
    pub warnings: Vec<String>,
}

fn names(folder: &Path) -> Result<Vec<String>, StoreError> {
    let fail = |source| StoreError::Io {
        action: "list",
        path: folder.to_owned(),
        source,
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(fail)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.map_err(fail)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

fn read_record<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<Option<T>, StoreError> {
    let fail = |source| StoreError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(fail)?,
    };
    let mut text = Vec::new();
    file.take(RECORD_LIMIT)
        .read_to_end(&mut text)
        .map_err(fail)?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| StoreError::Record {
            path: path.to_owned(),
            why: error.to_string(),
        })
}

/// Temporary file, rename. A reboot empties the run directory, so nothing is flushed to a disk.
fn write_record(path: &Path, record: &impl Serialize) -> Result<(), StoreError> {
    let fail = |source| StoreError::Io {
        action: "write",
        path: path.to_owned(),
        source,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    remove(&temporary, |p| std::fs::remove_file(p))?;
    let text = serde_json::to_vec(record).map_err(|error| fail(error.into()))?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(fail)?;
    file.write_all(&text).map_err(fail)?;
    std::fs::rename(&temporary, path).map_err(fail)
}

fn remove(path: &Path, how: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), StoreError> {
    match how(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Io {
            action: "remove",
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::tests::{UUID, device, device_key, grant};

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(&dir.path().join("run"));
        store.prepare().unwrap();
        (dir, store)
    }

    fn plan() -> Plan {
        Plan {
            container_id: "c".into(),
            boot_id: "b".into(),
            rootfs: "/r".into(),
            library_path: vec!["/x".into()],
            libraries: vec![],
            devices: vec![device_key("d", UUID)],
            prepared: false,
        }
    }

    #[test]
    fn a_grant_is_kept_and_released() {
        let (_dir, store) = store();
        let lock = store.lock().unwrap();
        let grant = grant("c", &[("d", device(1, 2))]);
        lock.make_container(&grant.key).unwrap();
        lock.save(&grant, &plan()).unwrap();
        lock.save(&grant, &plan()).unwrap();
        assert_eq!(store.grants().unwrap(), std::slice::from_ref(&grant));
        assert_eq!(store.plan(&grant.key).unwrap(), Some(plan()));
        lock.release(&grant.key).unwrap();
        lock.release(&grant.key).unwrap();
        assert!(store.grants().unwrap().is_empty());
        assert!(!store.container(&grant.key).exists());
    }

    #[test]
    fn a_sweep_drops_the_dead_and_what_is_nobodys() {
        let (_dir, store) = store();
        let lock = store.lock().unwrap();
        let alive = grant("alive", &[]);
        let dead = Grant {
            pid: i32::MAX,
            ..grant("dead", &[])
        };
        for g in [&alive, &dead] {
            lock.make_container(&g.key).unwrap();
            lock.save(g, &plan()).unwrap();
        }
        lock.make_container("half-made").unwrap();
        let held = lock.sweep(&Here::now().unwrap()).unwrap().held;
        assert_eq!(held, std::slice::from_ref(&alive));
        assert_eq!(
            names(&store.run_dir.join("containers")).unwrap(),
            [alive.key]
        );
    }

    #[test]
    fn what_cannot_be_swept_is_told_and_stops_nobody() {
        let (_dir, store) = store();
        let lock = store.lock().unwrap();
        let alive = grant("alive", &[]);
        let dead = Grant {
            pid: i32::MAX,
            ..grant("dead", &[])
        };
        for g in [&alive, &dead] {
            lock.make_container(&g.key).unwrap();
            lock.save(g, &plan()).unwrap();
        }
        let containers = store.run_dir.join("containers");
        std::fs::write(containers.join("stray"), "").unwrap();
        std::fs::write(store.region(&dead.key).join("file"), "").unwrap();
        std::fs::create_dir(store.grants_dir().join(".folder")).unwrap();
        lock.make_container("half-made").unwrap();
        let swept = lock.sweep(&Here::now().unwrap()).unwrap();
        assert_eq!(swept.held, std::slice::from_ref(&alive));
        let text = swept.warnings.join("\n");
        assert_eq!(swept.warnings.len(), 3, "{text}");
        for name in ["stray", &dead.key, ".folder"] {
            assert!(text.contains(name), "{text}");
        }
        assert!(!store.container("half-made").exists());
        // A record that cannot be read may be anybody's.
        std::fs::write(store.grant_file("broken"), "{").unwrap();
        assert!(lock.sweep(&Here::now().unwrap()).is_err());
    }

    #[test]
    fn the_lock_is_exclusive_and_ends_with_its_holder() {
        let (_dir, store) = store();
        let first = store.lock().unwrap();
        let error = store.lock_within(Duration::from_millis(20)).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("lock is still held by another hook"),
            "{error}"
        );
        drop(first);
        store.lock_within(Duration::from_millis(20)).unwrap();
    }

    #[test]
    fn a_run_directory_that_others_may_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, store) = store();
        std::fs::set_permissions(&store.run_dir, PermissionsExt::from_mode(0o777)).unwrap();
        let error = store.prepare().unwrap_err().to_string();
        assert!(error.contains("with mode 777"), "{error}");
    }

    #[test]
    fn a_broken_record_is_named() {
        let (_dir, store) = store();
        std::fs::write(store.grant_file("x"), "{\"version\":9}").unwrap();
        let error = store.grants().unwrap_err().to_string();
        assert!(
            error.contains("x.json is no record of version 1 ("),
            "{error}"
        );
    }
}
