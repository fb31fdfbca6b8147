//! Gives the library its name, the driver behind it, and where to look for that.
//!
//! The driver is a dependency by the name `libcuda-driver.so.1`, which no machine has under that
//! name: the CDI spec mounts it. For the linker an empty library with that SONAME stands in.

include!("../link.rs");

fn main() {
    link("libcuda.so.1", "libcuda-driver.so.1");
}
