//! The shared-memory pages through which limiter, hook and agent talk, and the ledger on them.
