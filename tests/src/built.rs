//! Where `tests/dist.sh` put the files that the suites run. Must never build anything itself.

use std::path::{Path, PathBuf};

/// The checkout.
#[must_use]
pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ lies in the checkout")
}

/// The folder of `tests/dist.sh`: `VGPU_DIST`, else `target/dist`.
#[must_use]
pub fn dist() -> PathBuf {
    std::env::var_os("VGPU_DIST").map_or_else(|| project().join("target/dist"), PathBuf::from)
}

/// A built file by its place in the dist layout, such as `bin/vgpu`.
#[must_use]
pub fn file(place: &str) -> PathBuf {
    let path = dist().join(place);
    assert!(
        path.exists(),
        "no {}: run `make dist` first",
        path.display()
    );
    path
}

/// The Python of `tests/setup.sh`, which has the unmodified clients.
#[must_use]
pub fn python() -> PathBuf {
    let venv = std::env::var_os("VGPU_VENV")
        .map_or_else(|| project().join("target/tools/venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(
        python.exists(),
        "no {}: run `make setup` first",
        python.display()
    );
    python
}

/// The folder of NVIDIA's own `libcuda.so.1` and `libnvidia-ml.so.1`, which load without a GPU; fetched from Debian
/// when they are not there yet. Nothing where that needs root and this is not root, which fails when `CI=true`.
#[must_use]
pub fn real_driver() -> Option<PathBuf> {
    let mut fetch = std::process::Command::new(project().join("tests/engines/engines.sh"));
    let outcome = crate::Outcome::of(fetch.arg("driver"));
    if outcome.code == 0 {
        return Some(PathBuf::from(outcome.stdout.trim()));
    }
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "CI=true, and no driver of NVIDIA's: {}",
        outcome.stderr
    );
    eprintln!("SKIPPED: no driver of NVIDIA's: {}", outcome.stderr);
    None
}
