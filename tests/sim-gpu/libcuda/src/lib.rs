//! The simulated driver's CUDA library.
