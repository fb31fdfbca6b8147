//! Pure decisions of the limiter: memory snapshots and, later, the compute bucket.
