//! What the limiter adds to `cuMemAlloc` + `cuMemFree`: the pair through it over the simulated driver, minus the pair
//! on the simulated driver itself, in one process, batch after batch.
//!
//! # Safety
//! The two libraries are loaded by path and by name and stay loaded until the process ends; the signatures are those
//! of `cuda.h`, and every pointer that is passed points to a local of the caller.
#![allow(
    unsafe_code,
    reason = "calls C functions of libraries loaded at run time"
)]

use std::ffi::{c_int, c_uint, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;
use std::{env, ptr};

use anyhow::{Context, Result, ensure};
use libloading::Library;
use vgpu_tests::node::Node;

/// Asks this program to measure inside `vgpu run`: the driver's path follows.
pub(crate) const INNER: &str = "_alloc";

const RUNS: usize = 300;
const BATCH: u32 = 1000;
const BYTES: usize = 1 << 20;

pub(crate) fn samples() -> Result<Vec<f64>> {
    let node = Node::up();
    let driver = driver(&node.root())?;
    let output = node
        .vgpu()
        .args(["run", "--vram", "8Gi", "--gpu", "0", "--"])
        .arg(env::current_exe()?)
        .arg(INNER)
        .arg(&driver)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(
        output.status.success(),
        "the measuring process ended with {}",
        output.status
    );
    serde_json::from_slice(&output.stdout).context("the measuring process printed no samples")
}

/// The simulated driver's library: `libcuda.so.<version>` below the driver root.
fn driver(root: &Path) -> Result<PathBuf> {
    let folder = root.join("usr/lib/x86_64-linux-gnu");
    fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.strip_prefix("libcuda.so.")
                .is_some_and(|version| version.contains('.'))
        })
        .with_context(|| format!("no libcuda.so.<version> in {}", folder.display()))
}

/// One library's pair of functions.
struct Pair {
    alloc: unsafe extern "C" fn(*mut u64, usize) -> c_int,
    free: unsafe extern "C" fn(u64) -> c_int,
}

impl Pair {
    fn of(library: &Library) -> Result<Self> {
        // SAFETY: `cuda.h` declares this signature for `cuMemAlloc_v2`.
        let alloc = unsafe { library.get(b"cuMemAlloc_v2\0") }?;
        // SAFETY: `cuda.h` declares this signature for `cuMemFree_v2`.
        let free = unsafe { library.get(b"cuMemFree_v2\0") }?;
        Ok(Self {
            alloc: *alloc,
            free: *free,
        })
    }

    /// Nanoseconds for one allocation and its release, over a batch.
    fn time(&self) -> Result<f64> {
        let start = Instant::now();
        for _ in 0..BATCH {
            let mut pointer = 0;
            // SAFETY: `pointer` outlives the call.
            let status = unsafe { (self.alloc)(&raw mut pointer, BYTES) };
            ensure!(status == 0, "cuMemAlloc answered {status}");
            // SAFETY: the address comes from the call above and is released once.
            let status = unsafe { (self.free)(pointer) };
            ensure!(status == 0, "cuMemFree answered {status}");
        }
        Ok(start.elapsed().as_nanos() as f64 / f64::from(BATCH))
    }
}

/// Runs under `vgpu run`, where the name leads to the limiter and the path to the driver behind it.
pub(crate) fn inner(arguments: &[String]) -> Result<()> {
    let driver = arguments.get(1).context("no path of the driver")?;
    // SAFETY: the limiter's initialisers are none; the simulated driver's set up its own state only.
    let limiter = unsafe { Library::new("libcuda.so.1") }.context("loading the limiter")?;
    // SAFETY: as above; it is the file that the limiter has loaded already.
    let driver = unsafe { Library::new(driver) }.context("loading the driver")?;
    make_context(&limiter)?;
    let (limited, bare) = (Pair::of(&limiter)?, Pair::of(&driver)?);
    let _warm = (limited.time()?, bare.time()?);
    let samples = (0..RUNS)
        .map(|_| Ok(limited.time()? - bare.time()?))
        .collect::<Result<Vec<f64>>>()?;
    println!("{}", serde_json::to_string(&samples)?);
    Ok(())
}

fn make_context(cuda: &Library) -> Result<()> {
    // SAFETY: `cuda.h` declares this signature for `cuInit`.
    let init = unsafe { cuda.get::<unsafe extern "C" fn(c_uint) -> c_int>(b"cuInit\0") }?;
    // SAFETY: takes no pointer.
    let status = unsafe { init(0) };
    ensure!(status == 0, "cuInit answered {status}");
    // SAFETY: `cuda.h` declares this signature for `cuDevicePrimaryCtxRetain`.
    let retain = unsafe {
        cuda.get::<unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int>(
            b"cuDevicePrimaryCtxRetain\0",
        )
    }?;
    let mut context = ptr::null_mut();
    // SAFETY: `context` outlives the call.
    let status = unsafe { retain(&raw mut context, 0) };
    ensure!(status == 0, "cuDevicePrimaryCtxRetain answered {status}");
    // SAFETY: `cuda.h` declares this signature for `cuCtxSetCurrent`.
    let set =
        unsafe { cuda.get::<unsafe extern "C" fn(*mut c_void) -> c_int>(b"cuCtxSetCurrent\0") }?;
    // SAFETY: the context was retained above and is never released.
    let status = unsafe { set(context) };
    ensure!(status == 0, "cuCtxSetCurrent answered {status}");
    Ok(())
}
