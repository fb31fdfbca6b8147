//! CDI specs: plain data, the version that the data needs, strict checks, reading and writing.
//!
//! The parts never mix: [`types`] has no behaviour, [`version`] and [`mod@validate`] only look, [`mod@file`] only moves bytes.
//! **Source:** CDI `SPEC.md`, `specs-go/config.go` and `specs-go/version.go` of v1.1.0.

pub mod engine;
pub mod file;
pub mod types;
pub mod validate;
pub mod version;

pub use engine::Engine;
pub use file::{Format, ReadError, WriteError, Written};
pub use types::{ContainerEdits, Device, DeviceNode, Hook, IntelRdt, Mount, NetDevice, Spec};
pub use validate::{Fault, Severity, validate};
pub use version::Version;
