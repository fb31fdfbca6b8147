//! A simulated NVIDIA node: daemon, node page, driver root.
