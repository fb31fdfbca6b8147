//! What a hook decides, with the reason. `docs/failure-policy.md` lists every reason.

/// The outcome of asking whether a driver call may take memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<T> {
    /// The call may be made; what was charged for it.
    Allow(T),
    /// The call must not be made (fail-closed).
    Deny(Deny),
    /// The call is made without a charge (fail-open), because it cannot take memory.
    Bypass(Bypass),
}

/// Why a call must not reach the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deny {
    /// It would exceed the quota.
    OverQuota,
    /// The limits page has no entry for the GPU.
    NotGranted,
    /// The limits page, or the usage page, cannot be used.
    NoRegion,
}

/// Why a call is left to the driver alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bypass {
    /// There is no current context or no such device: the driver refuses the call by itself.
    NoDevice,
    /// There is nowhere to put the result: the driver refuses the call by itself.
    NoResult,
    /// Over quota, but more than the GPU has, or the quota is the whole GPU: the driver refuses the
    /// call by itself, perhaps for another reason, and what it gives nevertheless is given back.
    BeyondTheGpu,
    /// The limiter's own call, or a call that the driver makes from within one.
    Inside,
}

impl Deny {
    /// One line for the log.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::OverQuota => "over quota",
            Self::NotGranted => "the limits page has no entry for this GPU",
            Self::NoRegion => "no usable region",
        }
    }
}

impl Bypass {
    /// One line for the log.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoDevice => "no current context or no such device: left to the driver",
            Self::NoResult => "no place for the result: left to the driver",
            Self::BeyondTheGpu => "more than the GPU has: left to the driver",
            Self::Inside => "a call from within the limiter",
        }
    }
}
