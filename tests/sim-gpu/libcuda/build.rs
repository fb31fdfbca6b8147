//! Gives the library the driver's SONAME, so that programs linked with `-lcuda` find it under that name.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    // As the real one: its own references to its exports are not taken over by a library in front of it.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    println!("cargo:rerun-if-changed=build.rs");
}
