//! The OCI hook binary.

fn main() {}
