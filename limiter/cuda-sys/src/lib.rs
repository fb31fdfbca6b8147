//! Types and the table of entry points of the CUDA driver and NVML, generated from the headers.
