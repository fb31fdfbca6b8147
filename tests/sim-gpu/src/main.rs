//! sim-gpu: brings a simulated NVIDIA node up and down.

fn main() {}
