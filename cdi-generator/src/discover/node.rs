//! Finds device nodes.
//!
//! Neither type nor numbers are written into a spec: the engine looks at the node when a container starts, so a number
//! that changes when a module is loaded again (nvidia-uvm's does) cannot go stale.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use super::{Discover, Root};
use crate::spec::{ContainerEdits, DeviceNode};

/// Device nodes, where they exist.
#[derive(Debug)]
pub struct Nodes<'a> {
    /// The root that `/dev` is under.
    pub root: &'a Root,
    /// Paths below the root.
    pub paths: Vec<PathBuf>,
}

/// The node at `path` below `root`; nothing where there is none.
#[must_use]
pub fn find(root: &Root, path: &Path) -> Option<DeviceNode> {
    let host = root.resolve_on_host(path)?;
    let kind = fs::symlink_metadata(&host).ok()?.file_type();
    // A pipe stands for a device where nodes cannot be made; engines know the type too.
    if !(kind.is_char_device() || kind.is_fifo()) {
        return None;
    }
    let host_path = (host != path).then(|| host.display().to_string());
    Some(DeviceNode {
        path: path.display().to_string(),
        host_path,
        ..DeviceNode::default()
    })
}

impl Discover for Nodes<'_> {
    fn discover(&self) -> ContainerEdits {
        let device_nodes = self
            .paths
            .iter()
            .filter_map(|path| find(self.root, path))
            .collect();
        ContainerEdits {
            device_nodes,
            ..ContainerEdits::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_path_is_named_only_where_it_differs() {
        let node = find(&Root::new("/"), Path::new("/dev/null")).unwrap();
        assert_eq!(
            node,
            DeviceNode {
                path: "/dev/null".to_owned(),
                ..DeviceNode::default()
            }
        );
        let node = find(&Root::new("/dev"), Path::new("/null")).unwrap();
        assert_eq!(node.host_path.as_deref(), Some("/dev/null"));
    }

    #[test]
    fn a_plain_file_is_no_node() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("nvidia0"), "").unwrap();
        assert_eq!(find(&Root::new(folder.path()), Path::new("/nvidia0")), None);
        assert_eq!(find(&Root::new(folder.path()), Path::new("/nvidia1")), None);
    }
}
