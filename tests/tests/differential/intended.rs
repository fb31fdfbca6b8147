//! The differences that are intended. Steps that lead to one are left out of the streams; nothing else may differ.
//! `docs/testing.md` lists them for readers, with the test that each has instead.

/// A step of the client that is left out.
pub(crate) struct Intended {
    /// The function of `client.py`.
    pub(crate) step: &'static str,
    /// What differs after it, and why it should; who reads a failure may want to see it.
    pub(crate) reason: &'static str,
}

/// All of them.
pub(crate) const LEFT_OUT: [Intended; 1] = [Intended {
    step: "primary_reset",
    reason: "the footprint of a primary context stays charged from a reset to the last release: others in the process still \
             retain it, and it may come back by itself",
}];

/// The steps, with commas, and those that the caller's environment adds.
pub(crate) fn without() -> String {
    let more = std::env::var("VGPU_WITHOUT").unwrap_or_default();
    let mut steps = vec![more];
    steps.extend(LEFT_OUT.iter().map(|intended| intended.step.to_owned()));
    steps.join(",")
}
