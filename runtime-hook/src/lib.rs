//! The OCI hook: admission, region, binds, loader, release.
