//! The simulated driver's NVML library.
