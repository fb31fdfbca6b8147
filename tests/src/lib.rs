//! Black-box suites: spawn the binaries, load the libraries, run real engines.
