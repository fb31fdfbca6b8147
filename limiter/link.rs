// Shared by the build scripts of the two libraries (included, because a build script has no crate).

/// Where the driver is looked for: beside the library (`vgpu run`), then where the CDI spec mounts it.
const RUNPATH: &str = "$ORIGIN/driver:/usr/lib/vgpu/driver";

fn link(soname: &str, driver: &str) {
    println!("cargo::rerun-if-changed=../link.rs");
    println!("cargo::rerun-if-changed=build.rs");
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let stub = out.join(driver);
    if let Err(error) = make_stub(&out, &stub, driver) {
        println!("cargo::error=cannot make the stand-in for {driver}: {error}");
        return;
    }
    for argument in [
        format!("-Wl,-soname,{soname}"),
        "-Wl,--enable-new-dtags".to_owned(),
        // Our own references to our exports stay ours, whoever was loaded first.
        "-Wl,-Bsymbolic".to_owned(),
        // Whoever closes and opens us again finds the same session, not a second account.
        "-Wl,-z,nodelete".to_owned(),
        format!("-Wl,-rpath,{RUNPATH}"),
        "-Wl,--no-as-needed".to_owned(),
        format!("-L{}", out.display()),
        format!("-l:{driver}"),
        "-Wl,--as-needed".to_owned(),
    ] {
        println!("cargo::rustc-cdylib-link-arg={argument}");
    }
}

fn make_stub(out: &std::path::Path, stub: &std::path::Path, driver: &str) -> std::io::Result<()> {
    let source = out.join("empty.c");
    std::fs::write(&source, "")?;
    let status = std::process::Command::new("cc")
        .args(["-shared", "-nostdlib", "-o"])
        .arg(stub)
        .arg(format!("-Wl,-soname,{driver}"))
        .arg(&source)
        .status()?;
    if status.success() { Ok(()) } else { Err(std::io::Error::other(format!("cc: {status}"))) }
}
