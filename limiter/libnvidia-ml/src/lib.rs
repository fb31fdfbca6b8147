//! The limiter's libnvidia-ml.so.1.
