//! Finds GPUs and driver files and writes CDI specs.
