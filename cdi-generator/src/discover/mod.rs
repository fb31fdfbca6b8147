//! Finds files under a driver's root and says where they go in a container.
//!
//! Small finders, each for one kind of file; a vendor puts them together. A finder reads directories and never writes,
//! answers nothing for what is not there, and answers in the same order every time.

pub mod file;
pub mod ld_cache;
pub mod library;
pub mod node;
pub mod root;

use std::collections::BTreeSet;

use crate::spec::ContainerEdits;

pub use file::{Files, Sockets};
pub use library::{Libraries, Library};
pub use node::Nodes;
pub use root::Root;

/// Looks for one kind of thing.
pub trait Discover {
    /// The edits that bring what is there into a container; empty where nothing is.
    fn discover(&self) -> ContainerEdits;
}

/// Everything that `finders` find, in their order; a container path that two of them claim belongs to the first.
#[must_use]
pub fn all(finders: &[&dyn Discover]) -> ContainerEdits {
    let mut edits = ContainerEdits::default();
    for finder in finders {
        edits.append(finder.discover());
    }
    let mut mounted = BTreeSet::new();
    edits
        .mounts
        .retain(|mount| mounted.insert(mount.container_path.clone()));
    let mut nodes = BTreeSet::new();
    edits
        .device_nodes
        .retain(|node| nodes.insert(node.path.clone()));
    edits
}
