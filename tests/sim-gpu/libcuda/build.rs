//! Gives the library the driver's SONAME, so that programs linked with `-lcuda` find it under that name.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    println!("cargo:rerun-if-changed=build.rs");
}
