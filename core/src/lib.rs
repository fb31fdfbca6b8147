//! The vocabulary of vgpu and the node's configuration.
